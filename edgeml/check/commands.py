"""Whether the commands in a workflow's shell lines exist: verbs and options of ours, make targets, modules, scripts."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

from edgeml.errors import nearest

if TYPE_CHECKING:
    import argparse

_VARIABLE = re.compile(r"\$\{\{.*?\}\}|\$\{[^}]*\}|\$\w+")
_TARGET = re.compile(r"^([A-Za-z0-9_.-]+)\s*:(?!=)", re.MULTILINE)
_SEPARATORS = frozenset({"&&", "||", ";", "|", "&", "then", "do", "else", "if", "!", "time", "exec", "sudo"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def problems(line: str, root: str) -> Iterator[str]:
    """What is wrong with the commands of a shell line that starts in the folder `root`; nothing where it is unclear."""
    try:
        words = list(shlex.shlex(_VARIABLE.sub("VARIABLE", line), posix=True, punctuation_chars=True))
    except ValueError:  # a quote that goes on in the next line
        return
    for command in _commands(words):
        name = os.path.basename(command[0])
        if name == "edgeml":
            yield from _verb(command[1:])
        elif name == "make":
            yield from _targets(command[1:], root)
        elif re.fullmatch(r"python[\d.]*", name):
            yield from _python(command[1:], root)


def _commands(words: list[str]) -> Iterator[list[str]]:
    """The simple commands of a line, without the assignments before them."""
    command: list[str] = []
    for word in [*words, ";"]:
        if word in _SEPARATORS or not word.strip(";&|()<>"):
            if command:
                yield command
            command = []
        elif command or not _ASSIGNMENT.match(word):
            command.append(word)


def _verb(words: list[str]) -> Iterator[str]:
    from edgeml import cli

    if not words or words[0].startswith("-") or words[0] == "VARIABLE":
        return
    verb = words[0]
    if verb not in cli.VERBS:
        near = nearest(verb, cli.VERBS)
        yield f"edgeml has no verb '{verb}'" + (f"; did you mean '{near}'?" if near else "")
        return
    parser = cli.parser_of(verb, import_module(f"edgeml.commands.{verb}"))
    yield from _options(f"edgeml {verb}", parser, words[1:])


def _options(called: str, parser: argparse.ArgumentParser, words: list[str]) -> Iterator[str]:
    import argparse

    actions = parser._actions
    known = {option for action in actions for option in action.option_strings}
    below = next((action for action in actions if isinstance(action, argparse._SubParsersAction)), None)
    for number, word in enumerate(words):
        if below is not None and not word.startswith("-"):
            inner = below.choices.get(word)
            if inner is not None:
                yield from _options(f"{called} {word}", inner, words[number + 1 :])
            elif word != "VARIABLE":
                yield f"`{called}` has no '{word}'; it has: {', '.join(below.choices)}"
            return
        option = word.partition("=")[0]
        if option.startswith("--") and option != "--" and option not in known:
            near = nearest(option, known)
            yield f"`{called}` has no option {option}" + (f"; did you mean {near}?" if near else "")


def _targets(words: list[str], root: str) -> Iterator[str]:
    file = os.path.join(root, "Makefile")
    if any(word.startswith("-") for word in words) or not os.path.isfile(file):
        return
    with open(file, encoding="utf-8", errors="replace") as stream:
        targets = set(_TARGET.findall(stream.read()))
    for word in words:
        if "=" not in word and word != "VARIABLE" and word not in targets:
            near = nearest(word, targets)
            yield f"the Makefile has no target '{word}'" + (f"; did you mean '{near}'?" if near else "")


def _python(words: list[str], root: str) -> Iterator[str]:
    """A module or script of this repository that is not there; others may well be installed."""
    while words and words[0].startswith("-") and words[0] not in ("-m", "-c", "-"):
        words = words[1:]
    if words[:1] == ["-m"] and len(words) > 1:
        parts = words[1].split(".")
        folder = os.path.join(root, *parts)
        ours = os.path.isdir(os.path.join(root, parts[0]))
        if ours and not (os.path.isfile(folder + ".py") or os.path.isdir(folder)):
            yield f"there is no module {words[1]} in this repository; check its path"
        return
    script = words[0] if words and words[0].endswith(".py") and "VARIABLE" not in words[0] else ""
    if script and not os.path.isfile(os.path.join(root, script)):
        yield f"there is no script {script} in this repository; check its path"
