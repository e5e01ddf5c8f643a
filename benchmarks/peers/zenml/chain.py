"""ZenML's local orchestrator runs steps in its own process; each starts the step's process."""

import os
import subprocess

from zenml import pipeline, step


@step(enable_cache=True)
def one(i: int, source: str) -> str:
    target = os.path.abspath(f"{i}.txt")
    subprocess.run([os.environ["STEP_PYTHON"], "-c", os.environ["STEP"], source, target], check=True)
    return target


@pipeline(enable_cache=True)
def chain() -> None:
    source = "-"
    for i in range(1, 6):
        source = one(i, source)


if __name__ == "__main__":
    chain()
