"""Metaflow starts a Python process for each step, so the step's body is the step."""

import os

from metaflow import FlowSpec, step


class Chain(FlowSpec):
    def count(self, name):
        self.value = getattr(self, "value", 0) + 1
        with open(os.environ["TRACE"], "a") as trace:
            trace.write(name + "\n")

    @step
    def start(self):
        self.count("start")
        self.next(self.b)

    @step
    def b(self):
        self.count("b")
        self.next(self.c)

    @step
    def c(self):
        self.count("c")
        self.next(self.d)

    @step
    def d(self):
        self.count("d")
        self.next(self.end)

    @step
    def end(self):
        self.count("end")


if __name__ == "__main__":
    Chain()
