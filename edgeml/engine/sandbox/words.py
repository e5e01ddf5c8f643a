"""What may be shown of what a private step printed: its author's own words, and never a value.

The texts in a step's code are public, they lie in Git. A line is shown if it is one of them: a literal, or a template
(an f-string, `.format`, `%`, the arguments of `print`) with something in its gaps. In a gap a number is shown as `#`; a
single word that stands in the code or is a key of the step's YAML files (the name of a column, never a value) is shown
as it is; a text that is itself one of the author's is shown by the same rule; anything else is shown as `…`. A
traceback shows files, line numbers, the author's own source lines and the type of the exception. All other lines are
withheld and counted. What a script could say with intent is which of its own texts it prints, some bits a line.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

HIDDEN, NUMBER = "…", "#"
LINES = 200
_LOOKED_AT = 400  # lines at the end of a log
_WIDTH = 500
_NAMED = 4  # words in the gaps of one line that are shown
_DEPTH = 2  # texts within texts
_IS_NUMBER = re.compile(r"[-+]?\d[\d.,:]*(?:[eE][-+]?\d+)?%?|[-+]?(?:nan|inf)")
_IS_WORD = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)
_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GAPS = re.compile(r"\{[^{}]*\}|%(?:\(\w+\))?[-+ #0]*\d*(?:\.\d+)?[a-zA-Z]")
_QUOTED = re.compile(r"\"([^\"\n]*)\"|'([^'\n]*)'")
_SHELL_GAPS = re.compile(r"\$\{\{[^}]*\}\}|\$\{[^}]*\}|\$\w+|\$\([^)]*\)")
_FRAME = re.compile(r'  File "([^"]+)", line (\d{1,6})(?:, in (\S+))?')
_RAISED = re.compile(r"((?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*)(?:: (.*))?", re.ASCII)
_BETWEEN = (
    "Traceback (most recent call last):",
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)
# What Python and the shell say themselves, where it helps: their texts, the author's gaps.
_COMMON = (
    *("could not convert string to float: {}", "list index out of range", "string index out of range"),
    *("division by zero", "No module named '{}'", "[Errno {}] No such file or directory: {}"),
    *("[Errno {}] Permission denied: {}", "[Errno {}] Read-only file system: {}", "[Errno {}] Network is unreachable"),
    *("[Errno {}] Address family not supported by protocol", "[Errno {}] Temporary failure in name resolution"),
    *("[Errno {}] Operation not permitted", "[Errno {}] No space left on device", "Unable to allocate {} for {}"),
    *("bash: line {}: {}: command not found", "bash: line {}: {}: No such file or directory", "Killed"),
    *("Segmentation fault", "python: can't open file '{}': [Errno {}] No such file or directory"),
)

Template = tuple[str, ...]  # the pieces of a text with gaps between them


class Words(NamedTuple):
    """What a step's author wrote: texts (those among them with a word), single words, lines of the files by name."""

    templates: tuple[Template, ...]
    spoken: tuple[Template, ...]
    names: frozenset[str]
    files: Mapping[str, list[str]]


def of(files: Mapping[str, str], command: str = "", keys: Iterable[str] = ()) -> Words:
    """The words of code files (paths by name), of a shell command and of names from elsewhere."""
    texts: dict[str, list[str]] = {}
    templates: set[Template] = {tuple(text.split("{}")) for text in _COMMON}
    names = {*keys, *_WORDS.findall(command)}
    for name, path in files.items():
        if not name.endswith((".py", ".sh")):
            continue
        try:
            with open(path, encoding="utf-8") as stream:
                code = stream.read(1 << 20)
        except (OSError, UnicodeDecodeError):
            continue
        texts[name] = code.splitlines()
        found = list(_python(code) if name.endswith(".py") else _shell(code))
        templates.update(line for template in found for line in _lines(template))
        names.update(word for template in found for piece in template for word in _WORDS.findall(piece))
        names.update(_imported(code) if name.endswith(".py") else ())
    templates.update(line for template in _shell(command) for line in _lines(template))
    ordered = sorted(templates, key=_weight, reverse=True)
    return Words(tuple(ordered), tuple(filter(_speaks, ordered)), frozenset(names), texts)


def keys_of(path: str) -> Iterator[str]:
    """The keys of a YAML file, at any depth: names that its author chose, without any of the values."""
    from edgeml.pipeline.source import PipelineError, read

    try:
        if os.path.getsize(path) > 1 << 20:
            return
        waiting: list[object] = [read(path)]
    except (OSError, PipelineError):
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (key for key in value if isinstance(key, str) and _IS_WORD.fullmatch(key))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def filtered(lines: Iterable[str], words: Words) -> tuple[list[str], int]:
    """The lines as they may be shown, and the number of those that are withheld."""
    shown: list[str] = []
    every = list(lines)
    withheld = max(0, len(every) - _LOOKED_AT)
    frame: tuple[str, int] | None = None  # the own file and line that the next line may quote
    last, in_traceback = "", False
    for line in every[-_LOOKED_AT:]:
        line = line.rstrip()
        if line in _BETWEEN:
            shown.append(line)
            in_traceback = True
        elif in_traceback and (found := _FRAME.fullmatch(line)):
            last, frame = found[1], None
            shown.append(_frame(found, words))
            if (own := _own(last, words)) is not None:
                frame = own, int(found[2])
        elif in_traceback and line.startswith("    "):
            quoted = words.files[frame[0]] if frame is not None else []
            if frame is not None and frame[1] <= len(quoted) and quoted[frame[1] - 1].strip() == line.strip():
                shown.append(line)
            frame = None
        elif in_traceback and line and (raised := _RAISED.fullmatch(line)):
            in_traceback = False
            shown.append(_raised(raised, last, words))
        elif line.strip():
            text = _render(line[:_WIDTH].strip(), words, 0)
            if text is None:
                withheld += 1
            else:
                shown.append(line[: len(line) - len(line.lstrip())][:8] + text)
    return shown[-LINES:], withheld + max(0, len(shown) - LINES)


def _render(text: str, words: Words, depth: int) -> str | None:
    """A text by the template that shows most of it; None where there is none."""
    best: str | None = None
    for template in words.templates if depth == 0 else words.spoken:
        if best is not None and _weight(template) < len(best.replace(HIDDEN, "")):
            break  # templates come by the length of their own text
        gaps = _fill(text, template)
        if gaps is None:
            continue
        shown = [_gap(gap, words, depth) for gap in gaps]
        named = [i for i, (gap, made) in enumerate(zip(gaps, shown, strict=True)) if made == gap != ""]
        for i in named[_NAMED:]:
            shown[i] = HIDDEN
        if not _speaks(template) and (HIDDEN in shown or not named):
            continue
        made = template[0] + "".join(gap + piece for gap, piece in zip(shown, template[1:], strict=True))
        if best is None or len(made.replace(HIDDEN, "")) > len(best.replace(HIDDEN, "")):
            best = made
    return best


def _gap(gap: str, words: Words, depth: int) -> str:
    text = gap.strip()
    if not text:
        return gap[:1]
    if _IS_NUMBER.fullmatch(text):
        return NUMBER
    if _IS_WORD.fullmatch(text) and text in words.names:
        return text
    return (_render(text, words, depth + 1) if depth < _DEPTH else None) or HIDDEN


def _fill(text: str, template: Template) -> list[str] | None:
    """What stands in the gaps of a template, each piece at the first place where it fits; None where it does not."""
    first, last = template[0], template[-1]
    if len(template) == 1:
        return [] if text == first else None
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return None
    gaps, at, end = [], len(first), len(text) - len(last)
    for piece in template[1:-1]:
        found = text.find(piece, at, end)
        if found < 0:
            return None
        gaps.append(text[at:found])
        at = found + len(piece)
    return [*gaps, text[at:end]]


def _speaks(template: Template) -> bool:
    return any(len(piece.strip()) > 1 and _WORDS.search(piece) for piece in template)


def _weight(template: Template) -> int:
    return sum(map(len, template))


def _own(path: str, words: Words) -> str | None:
    """The name of the author's file that a traceback means."""
    return next((name for name in words.files if path == name or path.endswith("/work/" + name)), None)


def _frame(found: re.Match[str], words: Words) -> str:
    path, line, function = found.groups()
    own = _own(path, words)
    if own is not None and int(line) <= len(words.files[own]):
        known = function and any(f"def {function}(" in text for text in words.files[own])
        within = f", in {function}" if known or function == "<module>" else ""
        return f'  File "{own}", line {line}{within}'
    library = (
        path.rpartition("site-packages/")[2] if "site-packages/" in path else re.sub(r".*/lib/python3\.\d+/", "", path)
    )
    if library != path and os.path.isfile(path):
        return f'  File "{library}", line {line}'
    return f'  File "{HIDDEN}"'


def _raised(found: re.Match[str], last: str, words: Words) -> str:
    kind, message = found.groups()
    shown = kind if _is_exception(kind, last, words) else HIDDEN
    if message is None:
        return shown
    return f"{shown}: {_render(message[:_WIDTH].strip(), words, 0) or HIDDEN}"


def _is_exception(kind: str, last: str, words: Words) -> bool:
    """Whether an exception's type is one that somebody wrote down: Python, the author, or the library it comes from."""
    name = kind.rpartition(".")[2]
    found = getattr(builtins, kind, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        return True
    if any(f"class {name}" in line for text in words.files.values() for line in text):
        return True
    before, installed, _ = last.rpartition("site-packages/")
    if not installed:
        return False
    module = kind.rpartition(".")[0].replace(".", "/")
    places = (last, *(f"{before}{installed}{module}{end}" for end in (".py", "/__init__.py")))
    return any(re.search(rf"\b{name}\b", _text(place)) for place in places)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""


def _lines(template: Template) -> Iterator[Template]:
    """A template of several lines as one for each, without the blanks around them."""
    line: list[str] = [""]
    for i, piece in enumerate(template):
        first, *rest = piece.split("\n")
        line = [*line, first] if i else [first]
        for text in rest:
            yield _stripped(line)
            line = [text]
    yield _stripped(line)


def _stripped(line: list[str]) -> Template:
    return (*[line[0].lstrip(), *line[1:]][:-1], line[-1].rstrip()) if len(line) > 1 else (line[0].strip(),)


def _shell(code: str) -> Iterator[Template]:
    for double, single in _QUOTED.findall(code):
        yield tuple(_SHELL_GAPS.split(double)) if double else (single,)


def _python(code: str) -> Iterator[Template]:
    """The texts of a Python file; those that only document it are none that it could print."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield (node.value,)
            if _GAPS.search(node.value):
                yield tuple(_GAPS.split(node.value))
        elif isinstance(node, ast.JoinedStr):
            yield _pieces(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield _printed(node.args)


def _printed(arguments: list[ast.expr]) -> Template:
    pieces = [""]
    for i, argument in enumerate(arguments):
        own = _pieces(argument)
        pieces[-1] += (" " if i else "") + own[0]
        pieces += own[1:]
    return tuple(pieces)


def _pieces(node: ast.expr) -> Template:
    """The texts of an expression between its gaps; all of it is one gap where it is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return (node.value,)
    if not isinstance(node, ast.JoinedStr):
        return ("", "")
    pieces = [""]
    for part in node.values:
        if isinstance(part, ast.Constant):
            pieces[-1] += str(part.value)
        else:
            pieces.append("")
    return tuple(pieces)


def _imported(code: str) -> Iterator[str]:
    for found in re.findall(r"^\s*(?:import|from)\s+([\w.]+)", code, re.MULTILINE):
        yield found
        yield found.partition(".")[0]
