"""What a command tells the steps after it in a GitHub workflow."""

from __future__ import annotations

import os

OUTPUT = "GITHUB_OUTPUT"


def tell(**values: str) -> None:
    """Set outputs of the workflow step that this command is; nothing elsewhere. Raises ValueError for several lines."""
    path = os.environ.get(OUTPUT)
    if not path:
        return
    lines = [f"{name}={value}\n" for name, value in values.items()]
    if any(line.count("\n") > 1 or "\r" in line for line in lines):
        raise ValueError("an output of a workflow step is one line")  # more lines would set other outputs
    with open(path, "a", encoding="utf-8") as stream:
        stream.writelines(lines)
