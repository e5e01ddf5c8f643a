"""What a Python script takes on its command line, read from its source alone.

read(entry, files, parsed)   the Interface of a script
Interface                    its options, and whether the reading is complete

argparse is followed as the program would run: modules of the code folder are entered, functions called with what
they are given, loops over literals unrolled. click and typer are read from decorators and signatures. What cannot be
followed leaves `complete` false, and then nothing may be concluded from what an option list lacks.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgeml.check.python import Module

MANY = 1 << 30


class Option(NamedTuple):
    """An option by its flags, or a positional argument, which has none.

    `type` is str, int, float or bool, and empty where it cannot be told; it takes `fewest` to `most` values.
    """

    name: str
    flags: tuple[str, ...] = ()
    type: str = "str"
    required: bool = False
    choices: tuple[str, ...] = ()
    fewest: int = 1
    most: int = 1
    commands: tuple[tuple[str, Interface], ...] = ()


class Interface(NamedTuple):
    """`lenient`: unknown flags are let through. `prefixes`: a flag may be abbreviated."""

    options: tuple[Option, ...] = ()
    complete: bool = False
    lenient: bool = False
    prefixes: bool = False

    def flag(self, text: str) -> Option | None:
        """The option that a flag names, also by a prefix that no other has."""
        near: dict[int, Option] = {}
        for option in self.options:
            if text in option.flags:
                return option
            if self.prefixes and text.startswith("--") and any(flag.startswith(text) for flag in option.flags):
                near[id(option)] = option
        return next(iter(near.values())) if len(near) == 1 else None


class Files(NamedTuple):
    """The files of a working directory by relative path, and how one of them is parsed."""

    paths: Mapping[str, str]
    parse: Callable[[str], Module]

    def module(self, name: str, roots: tuple[str, ...]) -> str:
        """The relative path of a module by its dotted name, empty where it is none of these files."""
        for root in roots:
            base = posixpath.normpath(posixpath.join(root, name.replace(".", "/")))
            for path in (f"{base}.py", f"{base}/__init__.py"):
                if path in self.paths:
                    return path
        return ""


def read(entry: str, files: Files, roots: tuple[str, ...], function: str = "") -> Interface:
    """The interface of the script at a relative path; `roots` are where it imports from.

    `function` is what is called of a script that is imported instead of run, as Azure ML's parallel jobs do.
    """
    from edgeml.check import decorated, parsers

    module = files.parse(files.paths[entry])
    try:
        if module.tree is not None and ("click" in module.text or "typer" in module.text):
            found = decorated.read(module.tree)
            if found is not None:
                return found
        return parsers.read(entry, files, roots, function)
    except RecursionError:
        return Interface()
