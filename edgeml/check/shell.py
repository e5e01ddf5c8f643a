"""A step's command as the shell will split it: simple commands of words, in which placeholders stay whole.

What would need a shell to understand (loops, conditions, here-documents, groups) is not understood: `split` then
gives nothing, so that nothing is said of such a command.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

from edgeml.pipeline.expressions import Binding, references

_PLACEHOLDER = re.compile(r"\$\{\{[^{}]*\}\}")
_VARIABLE = re.compile(r"\$(\{[^}]{0,200}\}|\w+|[?@*#!$-])")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_PYTHON = re.compile(r"(.*/)?python(\d(\.\d+)?)?$")
_KEYWORDS = frozenset(
    [
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "for",
        "while",
        "until",
        "do",
        "done",
        "case",
        "esac",
        "function",
        "select",
        "[[",
        "!",
        "{",
        "}",
        "eval",
    ]
)


class Word(NamedTuple):
    """One word: its literal text and placeholders. `many` where the shell may make any number of words of it.

    `bare`: a placeholder stands outside quotes. `dynamic`: the shell adds to it. `group`: the placeholders of the
    `$[[ … ]]` that it lies in.
    """

    parts: tuple[str | Binding, ...]
    start: int
    end: int
    many: bool = False
    dynamic: bool = False
    bare: bool = False
    group: tuple[Binding, ...] = ()

    @property
    def text(self) -> str | None:
        """The word as it will arrive, None where that is not known."""
        if self.dynamic or not all(isinstance(part, str) for part in self.parts):
            return None
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def head(self) -> str:
        """The literal text that it begins with."""
        first = self.parts[0] if self.parts else ""
        return first if isinstance(first, str) else ""

    @property
    def binding(self) -> Binding | None:
        """The placeholder that is all of it."""
        only = self.parts[0] if len(self.parts) == 1 and not self.dynamic else None
        return only if isinstance(only, Binding) else None


class Invocation(NamedTuple):
    """A Python script or module that a command starts, and what it is given.

    `adds`: a launcher between may add arguments. `sure`: nothing before it can have brought the file.
    """

    script: Word
    module: bool
    words: tuple[Word, ...]
    folder: str
    adds: bool
    sure: bool


class _Lexer:
    """One pass over a command; `commands` is None once something is met that only a shell understands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.commands: list[list[Word]] | None = [[]]
        self.begin()
        self.group: tuple[Binding, ...] = ()
        self.grouped = False
        self.drop = False

    def begin(self) -> None:
        self.parts: list[str | Binding] = []
        self.start = -1
        self.many = self.dynamic = self.bare = False

    def add(self, part: str | Binding) -> None:
        if self.start < 0:
            self.start = self.at
        self.parts.append(part)

    def end_word(self) -> None:
        if self.start >= 0 and self.commands is not None:
            if not self.drop:
                parts = tuple(_joined(self.parts)) or ("",)
                word = Word(parts, self.start, self.at, self.many, self.dynamic, self.bare, self.group)
                self.commands[-1].append(word)
            self.drop = False
        self.begin()

    def end_command(self) -> None:
        self.end_word()
        if self.commands is not None:
            self.commands.append([])

    def run(self) -> list[list[Word]] | None:
        text = self.text
        while self.at < len(text) and self.commands is not None:
            letter = text[self.at]
            placeholder = _PLACEHOLDER.match(text, self.at)
            if placeholder:
                self.add_placeholder(placeholder[0], quoted=False)
                self.at = placeholder.end()
            elif text.startswith("$[[", self.at):
                self.end_word()
                end = text.find("]]", self.at)
                if end < 0 or self.grouped:
                    self.commands = None
                    break
                self.group, self.grouped = tuple(references(text[self.at : end])), True
                self.at += 3
            elif self.grouped and text.startswith("]]", self.at):
                self.end_word()
                self.group, self.grouped = (), False
                self.at += 2
            elif text.startswith("&>", self.at) or letter in "<>":
                self.redirection()
            elif letter in " \t\r":
                self.end_word()
                self.at += 1
            elif letter in "\n;&|":
                self.end_command()
                self.at += 1
            elif letter == "#" and self.start < 0:
                end = text.find("\n", self.at)
                self.at = len(text) if end < 0 else end
            elif letter in "()":
                self.commands = None
            else:
                self.letter(letter)
        self.end_word()
        return self.commands

    def add_placeholder(self, text: str, *, quoted: bool) -> None:
        for binding in references(text):
            self.add(binding)
        self.bare = self.bare or not quoted

    def redirection(self) -> None:
        text = self.text
        if text.startswith(("<<", "<(", ">("), self.at):
            self.commands = None
            return
        if self.parts and all(isinstance(part, str) and part.isdigit() for part in self.parts):
            self.begin()  # the number of what is redirected
        self.end_word()
        while self.at < len(text) and text[self.at] in "<>&|":
            self.at += 1
        self.drop = True

    def letter(self, letter: str) -> None:
        text = self.text
        if letter == "\\":
            if not text.startswith("\\\n", self.at):
                self.add(text[self.at + 1 : self.at + 2])
            self.at += 2
        elif letter == "'":
            end = text.find("'", self.at + 1)
            if end < 0:
                self.commands = None
                return
            self.add("")
            self.quoted(text[self.at + 1 : end])
            self.at = end + 1
        elif letter == '"':
            self.double()
        elif letter == "`" or text.startswith("$(", self.at):
            self.substitution(quoted=False)
        elif letter == "$" and (variable := _VARIABLE.match(text, self.at)):
            self.add("")
            self.dynamic = self.many = True
            self.at = variable.end()
        else:
            if letter in "*?[{" or (letter == "~" and self.start < 0):
                self.dynamic = self.many = True
            self.add(letter)
            self.at += 1

    def quoted(self, inside: str) -> None:
        end = 0
        for match in _PLACEHOLDER.finditer(inside):
            self.add(inside[end : match.start()])
            self.add_placeholder(match[0], quoted=True)
            end = match.end()
        self.add(inside[end:])

    def double(self) -> None:
        text = self.text
        self.add("")
        self.at += 1
        while self.at < len(text) and text[self.at] != '"' and self.commands is not None:
            placeholder = _PLACEHOLDER.match(text, self.at)
            if placeholder:
                self.add_placeholder(placeholder[0], quoted=True)
                self.at = placeholder.end()
            elif text[self.at] == "\\" and text[self.at + 1 : self.at + 2] in '$`"\\\n':
                self.add(text[self.at + 1 : self.at + 2].strip("\n"))
                self.at += 2
            elif text[self.at] == "`" or text.startswith("$(", self.at):
                self.substitution(quoted=True)
            elif variable := _VARIABLE.match(text, self.at):
                self.dynamic = True
                self.at = variable.end()
            else:
                self.add(text[self.at])
                self.at += 1
        if self.at >= len(text):
            self.commands = None
        self.at += 1

    def substitution(self, *, quoted: bool) -> None:
        """Past `$( … )` or backquotes."""
        text = self.text
        self.add("")
        self.dynamic = True
        self.many = self.many or not quoted
        if text[self.at] == "`":
            end = text.find("`", self.at + 1)
            self.at = len(text) if end < 0 else end + 1
            return
        depth = 0
        while self.at < len(text):
            depth += {"(": 1, ")": -1}.get(text[self.at], 0)
            self.at += 1
            if depth == 0 and text[self.at - 1] == ")":
                return


def _joined(parts: list[str | Binding]) -> Iterator[str | Binding]:
    """The parts of a word with its letters put together."""
    letters: list[str] = []
    for part in parts:
        if isinstance(part, str):
            letters.append(part)
            continue
        if text := "".join(letters):
            yield text
        letters = []
        yield part
    if text := "".join(letters):
        yield text


def split(command: str) -> list[list[Word]]:
    """The simple commands of a shell line; none where it is not understood."""
    commands = _Lexer(command).run() or []
    commands = [words for words in commands if words]
    if any(words[0].text in _KEYWORDS for words in commands):
        return []
    return commands


_HARMLESS = frozenset(
    [
        "echo",
        "printf",
        "ls",
        "pwd",
        "env",
        "export",
        "set",
        "sleep",
        "nvidia-smi",
        "pip",
        "pip3",
        "which",
        "true",
        "date",
        "id",
        "whoami",
    ]
)
_BEFORE = frozenset(["time", "nohup", "exec", "command", "env"])
_THROUGH = frozenset(
    [
        "mpirun",
        "mpiexec",
        "horovodrun",
        "xvfb-run",
        "uv",
        "poetry",
        "pipenv",
        "conda",
        "micromamba",
        "srun",
        "numactl",
        "nice",
    ]
)
_LAUNCHERS = frozenset(["torchrun", "accelerate", "deepspeed"])
_MODULES = frozenset(
    ["torch.distributed.launch", "torch.distributed.run", "accelerate.commands.launch", "deepspeed.launcher.runner"]
)
_WITH_VALUE = frozenset(("-W", "-X"))


def invocations(command: str) -> Iterator[Invocation]:
    """The Python scripts and modules that a command starts, as far as it is understood."""
    folder, sure = "", True
    for words in split(command):
        while words and (_ASSIGNMENT.match(words[0].head) or words[0].text in _BEFORE):
            words = words[1:]
        name = words[0].text if words else None
        if name is None:
            sure = sure and not words
        elif name == "cd":
            target = words[1].text if len(words) == 2 else None
            if target is None or target.startswith(("/", "~")):
                return
            folder = posixpath.normpath(posixpath.join(folder, target))
        else:
            found = _started(words, folder, sure)
            if found is not None:
                yield found
            elif posixpath.basename(name) not in _HARMLESS and not _is_pip(words):
                sure = False


def _is_pip(words: list[Word]) -> bool:
    return len(words) > 2 and words[1].text == "-m" and words[2].text == "pip"


def _started(words: list[Word], folder: str, sure: bool) -> Invocation | None:
    name = posixpath.basename(words[0].text or "")
    if name in _LAUNCHERS:
        return _launched(words[1:], folder, sure)
    if name in _THROUGH:
        inner = next((n for n, word in enumerate(words) if word.text and _PYTHON.match(word.text)), 0)
        if not inner:
            return _launched(words[1:], folder, sure) if words[1:] and words[1].text == "run" else None
        words = words[inner:]
    if words[0].text is None or not _PYTHON.match(words[0].text):
        return None
    at = 1
    while at < len(words) and words[at].head.startswith("-"):
        flag = words[at].text
        if flag is None or flag == "-" or "c" in flag:
            return None
        if flag in _WITH_VALUE:
            at += 1
        elif flag.startswith("-") and flag.endswith("m") and not flag.startswith("--"):
            return _module(words[at + 1 :], folder, sure)
        at += 1
    if at >= len(words):
        return None
    return Invocation(words[at], False, tuple(words[at + 1 :]), folder, False, sure)


def _module(words: list[Word], folder: str, sure: bool) -> Invocation | None:
    if not words or words[0].text == "pip":
        return None
    if words[0].text in _MODULES:
        return _launched(words[1:], folder, sure)
    return Invocation(words[0], True, tuple(words[1:]), folder, False, sure)


def _launched(words: list[Word], folder: str, sure: bool) -> Invocation | None:
    for at, word in enumerate(words):
        if word.text in ("-m", "--module"):
            return None
        if word.text is not None and word.text.endswith(".py"):
            return Invocation(word, False, tuple(words[at + 1 :]), folder, True, sure)
    return None
