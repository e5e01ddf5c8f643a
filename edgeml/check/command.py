"""The rules over commands: every port is passed, and what is passed is what the script takes."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from itertools import islice

from edgeml.check import arguments, script
from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import ERROR, WARNING, Finding, Place, Rule, found
from edgeml.check.listing import Listing
from edgeml.check.python import shared_arguments
from edgeml.check.shell import Invocation, Word, invocations, split
from edgeml.check.units import Port, Unit, units, used
from edgeml.errors import nearest
from edgeml.pipeline.expressions import Binding

_HEAD = "type: command\nname: train\nversion: 1\n"
_TAIL = "code: src\nenvironment: azureml:e:1\n"
_SCRIPT = (
    "# --- src/train.py\nimport argparse\n\nparser = argparse.ArgumentParser()\n"
    'parser.add_argument("--rate", type=float, required=True)\nparser.add_argument("--loud", action="store_true")\n'
    "print(parser.parse_args())\n"
)


def _example(name: str, command: str, inputs: str = "rate: {type: number}", text: str = _SCRIPT) -> str:
    return f"# --- {name}.yml\n{_HEAD}inputs:\n  {inputs}\n{_TAIL}command: {command}\n{text}"


_RATE = "python train.py --rate ${{inputs.rate}}"
_GOOD = _example("good", _RATE)
IDLE = Rule(
    "port-not-passed",
    WARNING,
    "Every declared input and output is passed to the command",
    "What is declared and not passed has no effect, although the pipeline that sets it looks as if it had. One that is "
    "read by its AZURE_ML_INPUT_ or AZURE_ML_OUTPUT_ variable counts as passed.",
    f"{_HEAD}inputs: {{rate: {{type: number}}}}\nenvironment: azureml:e:1\ncommand: echo trained\n",
    f"{_HEAD}inputs: {{rate: {{type: number}}}}\nenvironment: azureml:e:1\ncommand: echo ${{{{inputs.rate}}}}\n",
)
SCRIPT = Rule(
    "script-missing",
    ERROR,
    "The script or module that a command starts is in the code folder",
    "It was moved or renamed, or an ignore file keeps it out; the step fails once its machine and image are ready.",
    _example("bad", "python trian.py --rate ${{inputs.rate}}"),
    _GOOD,
)
UNREADABLE = Rule(
    "script-unreadable",
    ERROR,
    "The script that a command starts is Python",
    "The step ends with a syntax error before its first line.",
    _example("bad", _RATE, text="# --- src/train.py\ndef train(:\n"),
    _GOOD,
)
ARGUMENT = Rule(
    "unknown-argument",
    ERROR,
    "Every argument of a command is one that the script takes",
    "The script's parser refuses it when the step starts, and prints its usage instead of training.",
    _example("bad", f"{_RATE} --epochs 3"),
    _GOOD,
)
REQUIRED = Rule(
    "missing-argument",
    ERROR,
    "Every argument that the script requires is passed",
    "The script's parser refuses to start without it.",
    _example("bad", "python train.py --loud", "# none"),
    _GOOD,
)
VALUE = Rule(
    "argument-value",
    ERROR,
    "Arguments are given values of the type, the choices and the number that the script takes",
    "Azure ML passes text: a number declared `boolean` arrives as True, a `number` of 10 as 10.0, which is no int.",
    _example("bad", _RATE, "rate: {type: boolean}"),
    _GOOD,
)
BOOLEAN = Rule(
    "boolean-argument",
    WARNING,
    "A boolean is not read by type=bool",
    "Azure ML passes False as text, and bool() of any text that is not empty is True.",
    _example("bad", _RATE, "rate: {type: boolean}", _SCRIPT.replace("type=float", "type=bool")),
    _GOOD,
)
SHARED = Rule(
    "arguments-of-main",
    WARNING,
    'Functions do not read arguments that only `if __name__ == "__main__"` sets',
    "Such a function fails wherever it is imported, so it can be neither tested nor used again: pass what it needs.",
    _example(
        "bad",
        _RATE,
        text="# --- src/train.py\nimport argparse\n\n\ndef train():\n    print(args.rate)\n\n\n"
        'if __name__ == "__main__":\n    parser = argparse.ArgumentParser()\n    parser.add_argument("--rate")\n'
        "    args = parser.parse_args()\n    train()\n",
    ),
    _example(
        "good",
        _RATE,
        text="# --- src/train.py\nimport argparse\n\n\ndef train(rate):\n    print(rate)\n\n\n"
        'if __name__ == "__main__":\n    parser = argparse.ArgumentParser()\n    parser.add_argument("--rate")\n'
        "    args = parser.parse_args()\n    train(args.rate)\n",
    ),
)
RULES = (IDLE, SCRIPT, UNREADABLE, ARGUMENT, REQUIRED, VALUE, BOOLEAN, SHARED)

_BY_KIND = {
    arguments.UNKNOWN: ARGUMENT,
    arguments.MISSING: REQUIRED,
    arguments.VALUE: VALUE,
    arguments.BOOLEAN: BOOLEAN,
}
_MOST = 100  # scripts of a command, and problems of a script, that are looked at
_VARIABLE = {"inputs": "AZURE_ML_INPUT", "outputs": "AZURE_ML_OUTPUT"}


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings of every component, job and node with a command in a document."""
    for unit in units(document):
        listing = _listing(unit, context)
        yield from _idle(unit, listing)
        if listing is not None:
            for invocation in islice(_invocations(unit), _MOST):
                yield from _script(unit, invocation, listing, context)


def _listing(unit: Unit, context: Context) -> Listing | None:
    """The files that the command starts beside, None where they are not all on this machine."""
    code, includes = unit.code, unit.includes
    if unit.remote or includes is None:
        return None
    if not all(os.path.exists(path) for path in (*includes, *filter(None, [code]))):
        return None
    return context.listing(code, includes)


def _idle(unit: Unit, listing: Listing | None) -> Iterator[Finding]:
    """The declared ports that nothing uses."""
    passed = used(unit)
    for section, ports in (("inputs", unit.inputs), ("outputs", unit.outputs)):
        idle = [
            (name, port)
            for name, port in ports.items()
            if not any(kind == section and (it == name or it.startswith(f"{name}.")) for kind, it in passed)
        ]
        if not idle or unit.function or listing is None or _reads_variables(unit, listing, _VARIABLE[section]):
            continue
        for name, port in idle:
            what = section.removesuffix("s")
            message = f"{what} '{name}' is declared, but the command does not pass it: use ${{{{{section}.{name}}}}}"
            yield found(IDLE, unit.document.place(port.key), f"{message} or remove it")


def _reads_variables(unit: Unit, listing: Listing, word: str) -> bool:
    """Whether the command or any script beside it reads ports by environment variables."""
    if word in unit.text.upper() or not listing.whole:
        return True
    for name, path in listing.files.items():
        if name.endswith((".py", ".sh", ".r", ".R", ".jl")):
            try:
                with open(path, "rb") as stream:
                    if word.encode() in stream.read(1 << 20).upper():
                        return True
            except OSError:
                return True
    return False


def _invocations(unit: Unit) -> Iterator[Invocation]:
    if not unit.function:
        yield from invocations(unit.text)
        return
    entry = unit.keys["entry_script"][1].value
    commands = split(unit.text) if unit.text else [[]]
    if len(commands) == 1:
        yield Invocation(Word((entry,), 0, 0), False, tuple(commands[0]), "", False, True)


def _script(unit: Unit, invocation: Invocation, listing: Listing, context: Context) -> Iterator[Finding]:
    name = invocation.script.text
    if name is None or name.startswith(("/", "~", "-")):
        return
    place = unit.place(invocation.script.start, invocation.script.end)
    entry, problem = (_module if invocation.module else _file)(name, invocation.folder, listing)
    if problem:
        if invocation.sure and listing.whole:
            yield found(SCRIPT, place, problem)
        return
    if not entry.endswith(".py"):
        return
    module = context.python(listing.files[entry])
    if module.problem is not None:
        place = Place(module.path, module.problem.line, module.problem.column)
        yield found(UNREADABLE, place, f"this file cannot be read as Python: {module.problem.message}; mend it")
        return
    for node, text in shared_arguments(module):
        message = f"this function reads '{text}', which only the main part of the script sets; pass it as a parameter"
        yield found(SHARED, Place(module.path, node.lineno, node.col_offset + 1), message)
    root = invocation.folder if invocation.module else posixpath.dirname(entry)
    interface = context.remembered(
        (entry, root, unit.function, id(listing)),
        lambda: script.read(entry, script.Files(listing.files, context.python), (root,), unit.function),
    )

    def port(binding: Binding) -> Port | None:
        name = ".".join(binding.path[1:])
        if binding.path[0] not in ("inputs", "outputs") or name in unit.varied:
            return None
        return (unit.inputs if binding.path[0] == "inputs" else unit.outputs).get(name)

    seen = set()
    problems = arguments.match(invocation.words, interface, port, adds=invocation.adds)
    for problem_ in islice(problems, _MOST):
        word = problem_.word or invocation.script
        if (problem_.kind, problem_.message) not in seen:
            seen.add((problem_.kind, problem_.message))
            where = unit.place(word.start, word.end) if unit.text else unit.document.place(unit.command)
            yield found(_BY_KIND[problem_.kind], where, f"{entry}: {problem_.message}")


def _file(name: str, folder: str, listing: Listing) -> tuple[str, str]:
    """The file that `python name` starts, or what is wrong with it; neither where that cannot be told."""
    path = posixpath.normpath(posixpath.join(folder, name))
    if path.startswith("../"):
        return "", ""
    if path in listing.files:
        return path, ""
    if listing.has_folder(path):
        inner = posixpath.normpath(posixpath.join(path, "__main__.py"))
        return (inner, "") if inner in listing.files else ("", "")
    if listing.is_left_out(path):
        return "", f"{path} is kept out of the snapshot by an ignore file in the code folder; mend that file"
    return "", f"the code folder has no file {path}; {_hint(path, listing)}"


def _module(name: str, folder: str, listing: Listing) -> tuple[str, str]:
    """The same of `python -m name`, which may be a module of the environment where its first part is not here."""
    base = posixpath.normpath(posixpath.join(folder, name.replace(".", "/")))
    for path in (f"{base}.py", f"{base}/__main__.py"):
        if path in listing.files:
            return path, ""
    top = posixpath.normpath(posixpath.join(folder, name.partition(".")[0]))
    if not listing.has_folder(top) and f"{top}.py" not in listing.files:
        return "", ""
    if listing.has_folder(base):
        return "", f"the package {name} has no __main__.py, so it cannot be started by -m; name a module in it"
    if listing.is_left_out(f"{base}.py"):
        return "", f"{base}.py is kept out of the snapshot by an ignore file in the code folder; mend that file"
    return "", f"the code folder has no module {name} ({base}.py); {_hint(f'{base}.py', listing)}"


def _hint(path: str, listing: Listing) -> str:
    scripts = [name for name in listing.files if name.endswith(".py")]
    same = [name for name in scripts if posixpath.basename(name) == posixpath.basename(path)]
    near = same[0] if same else nearest(path, scripts)
    if near:
        return f"did you mean {near}?"
    return "mend its name, or the code folder" if listing.files else "say with 'code' where it lies"
