"""Luigi runs tasks in its own process; each starts the step's process."""

import os
import subprocess

import luigi


class Step(luigi.Task):
    i = luigi.IntParameter()

    def requires(self):
        return Step(self.i - 1) if self.i > 1 else []

    def output(self):
        return luigi.LocalTarget(f"{self.i}.txt")

    def run(self):
        source = f"{self.i - 1}.txt" if self.i > 1 else "-"
        command = [os.environ["STEP_PYTHON"], "-c", os.environ["STEP"], source, f"{self.i}.txt"]
        subprocess.run(command, check=True)
