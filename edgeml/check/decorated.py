"""click's decorators and typer's signatures, read as the options that they declare."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from edgeml.check.python import dotted, imported
from edgeml.check.script import MANY, Interface, Option

Function = ast.FunctionDef | ast.AsyncFunctionDef
_PLAIN = {"int": "int", "float": "float", "str": "str", "bool": "bool"}
_CLICK_TYPES = {"click.INT": "int", "click.FLOAT": "float", "click.STRING": "str", "click.BOOL": ""}
_HELP = Option("help", ("--help",), fewest=0, most=0)
_TYPER_OWN = Option("completion", ("--install-completion", "--show-completion"), fewest=0, most=0)


def read(tree: ast.Module) -> Interface | None:
    """The interface of the one command that a script runs; None where it has nothing of click or typer.

    Groups of commands, and decorators that are not click's own, are not read: then nothing is complete.
    """
    names = imported(tree)
    if not any(name.partition(".")[0] in ("click", "typer") for name in names.values()):
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    commands = [(node, call) for node in functions for call in _decorations(node, names, "click.command")]
    groups = any(list(_decorations(node, names, "click.group")) for node in functions)
    if commands or groups:
        called = _called(tree)
        if groups or len(commands) != 1 or commands[0][0].name not in called:
            return Interface()
        return _click(commands[0][0], commands[0][1], names)
    return _typer(tree, functions, names)


def _decorations(node: Function, names: dict[str, str], wanted: str) -> Iterator[ast.expr]:
    for decorator in node.decorator_list:
        if dotted(decorator.func if isinstance(decorator, ast.Call) else decorator, names) == wanted:
            yield decorator


def _called(tree: ast.Module) -> set[str]:
    """Names of functions that the script calls outside any function."""
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        waiting += ast.iter_child_nodes(node)
    return found


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}


def _literal(node: ast.expr | None) -> object:
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ...


def _texts(nodes: list[ast.expr]) -> list[str] | None:
    made = [_literal(node) for node in nodes]
    return [text for text in made if isinstance(text, str)] if all(isinstance(it, str) for it in made) else None


def _click(node: Function, command: ast.expr, names: dict[str, str]) -> Interface:
    options, complete = [_HELP], True
    if isinstance(command, ast.Call) and _keywords(command).keys() & {"cls", "context_settings", "params"}:
        complete = False
    if isinstance(command, ast.Call) and any(keyword.arg is None for keyword in command.keywords):
        complete = False
    for decorator in reversed(node.decorator_list):
        name = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator, names)
        if name in ("click.command", "click.pass_context", "click.help_option"):
            continue
        if name == "click.version_option":
            options.append(Option("version", ("--version",), fewest=0, most=0))
            continue
        unpacked = isinstance(decorator, ast.Call) and any(keyword.arg is None for keyword in decorator.keywords)
        made = None
        if isinstance(decorator, ast.Call) and not unpacked and name in ("click.option", "click.argument"):
            made = (_click_option if name == "click.option" else _click_argument)(decorator, names)
        if made is None:
            complete = False
        else:
            options.append(made)
    # Decorators are applied from below, but click lists arguments in the order of the file.
    return Interface((options[0], *reversed(options[1:])), complete)


def _click_option(call: ast.Call, names: dict[str, str]) -> Option | None:
    texts, given = _texts(call.args), _keywords(call)
    if texts is None or not any(text.startswith("-") for text in texts) or "cls" in given:
        return None
    flags = [flag.strip() for text in texts if text.startswith("-") for flag in text.split("/")]
    two = any("/" in text for text in texts)
    is_flag = _literal(given.get("is_flag"))
    fewest = most = 1
    if two or is_flag is True or _literal(given.get("count")) is True or ("flag_value" in given and is_flag is None):
        fewest = most = 0
    elif is_flag is ...:
        return None
    elif "nargs" in given:
        nargs = _literal(given["nargs"])
        fewest, most = (nargs, nargs) if isinstance(nargs, int) and nargs >= 0 else (0, MANY)
    required = _literal(given.get("required")) is True and not given.keys() & {"envvar", "prompt", "default"}
    type_, choices = _click_type(given, names)
    return Option(flags[0].lstrip("-"), tuple(flags), type_, required, choices, fewest, most)


def _click_argument(call: ast.Call, names: dict[str, str]) -> Option | None:
    texts, given = _texts(call.args), _keywords(call)
    if not texts or "cls" in given:
        return None
    required = _literal(given["required"]) is True if "required" in given else True
    required = required and not given.keys() & {"default", "envvar"}
    nargs = _literal(given.get("nargs"))
    type_, choices = _click_type(given, names)
    if nargs is None:
        return Option(texts[0], (), type_, required, choices, int(required), 1)
    if not isinstance(nargs, int) or nargs < 0:
        least = int(_literal(given.get("required")) is True)
        return Option(texts[0], (), type_, bool(least), choices, least, MANY)
    return Option(texts[0], (), type_, required, choices, nargs if required else 0, nargs)


def _click_type(given: dict[str, ast.expr], names: dict[str, str]) -> tuple[str, tuple[str, ...]]:
    declared = given.get("type")
    if declared is None:
        default = _literal(given.get("default"))
        if default is None:
            return "str", ()
        # click reads true and false as they are written, so a bool is no trap here.
        return ({int: "int", float: "float", str: "str"}.get(type(default), ""), ())
    if isinstance(declared, ast.Call):
        name = dotted(declared.func, names)
        if name == "click.Choice" and declared.args and "case_sensitive" not in _keywords(declared):
            choices = _literal(declared.args[0])
            if isinstance(choices, (list, tuple)) and all(isinstance(choice, str) for choice in choices):
                return "str", tuple(choices)
        return {"click.IntRange": "int", "click.FloatRange": "float"}.get(name, ""), ()
    name = dotted(declared, names)
    made = _CLICK_TYPES.get(name, _PLAIN.get(name, ""))
    return ("" if made == "bool" else made), ()


def _typer(tree: ast.Module, functions: list[Function], names: dict[str, str]) -> Interface:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    runs = [call for call in calls if dotted(call.func, names) == "typer.run" and len(call.args) == 1]
    apps = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and dotted(node.value.func, names) == "typer.Typer"
    }
    if len(runs) == 1 and not apps and isinstance(runs[0].args[0], ast.Name):
        wanted = runs[0].args[0].id
        found = [node for node in functions if node.name == wanted]
        return _signature(found[0], names) if len(found) == 1 else Interface()
    if runs or len(apps) != 1:
        return Interface()
    (app,) = apps
    others = [call for call in calls if isinstance(call.func, ast.Attribute) and _name(call.func.value) == app]
    if any(call.func.attr not in ("command",) for call in others if isinstance(call.func, ast.Attribute)):
        return Interface()  # callbacks and further applications
    commands = [node for node in functions for call in node.decorator_list if _is_command(call, app)]
    if len(commands) != 1 or app not in _called(tree) or len(commands[0].decorator_list) != 1:
        return Interface()
    call = commands[0].decorator_list[0]
    if isinstance(call, ast.Call) and _keywords(call).keys() & {"cls", "context_settings"}:
        return Interface()
    return _signature(commands[0], names)


def _is_command(node: ast.expr, app: str) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "command"
        and _name(node.func.value) == app
    )


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _signature(node: Function, names: dict[str, str]) -> Interface:
    declared = node.args
    if declared.vararg is not None or declared.kwarg is not None or declared.posonlyargs:
        return Interface()
    options, complete = [_HELP, _TYPER_OWN], True
    plain = declared.args
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(declared.defaults)) + list(declared.defaults)
    for parameter, default in [
        *zip(plain, defaults, strict=True),
        *zip(declared.kwonlyargs, declared.kw_defaults, strict=True),
    ]:
        made = _parameter(parameter, default, names)
        if made is None:
            complete = False
        else:
            options.append(made)
    return Interface(tuple(options), complete)


def _parameter(parameter: ast.arg, default: ast.expr | None, names: dict[str, str]) -> Option | None:
    annotation, about = parameter.annotation, None
    if isinstance(annotation, ast.Subscript) and dotted(annotation.value, names).endswith("Annotated"):
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else []
        annotation = parts[0] if parts else None
        about = next((part for part in parts[1:] if isinstance(part, ast.Call)), None)
        demanded = default is None
    elif isinstance(default, ast.Call):
        about = default
        first = default.args[0] if default.args else _keywords(default).get("default")
        demanded = first is None or (isinstance(first, ast.Constant) and first.value is ...)
        default = first
    else:
        demanded = default is None
    kind = dotted(about.func, names) if about is not None else ("typer.Option" if default is not None else "")
    if kind not in ("", "typer.Option", "typer.Argument"):
        return None
    given = _keywords(about) if about is not None else {}
    if about is not None and (any(keyword.arg is None for keyword in about.keywords) or "default_factory" in given):
        return None
    demanded = demanded and not given.keys() & {"envvar", "prompt"}
    type_, several = _annotated(annotation, names)
    if type_ == "context":
        return None
    if kind != "typer.Option":
        fewest = int(demanded)
        return Option(parameter.arg, (), type_ if type_ != "bool" else "", demanded, (), fewest, MANY if several else 1)
    start = 0 if _is_annotated(parameter, names) else 1  # which of its arguments is the first flag
    texts = _texts(about.args[start:]) if about is not None else []
    if texts is None:
        return None
    written = "--" + parameter.arg.replace("_", "-")
    flags = [flag.strip() for text in texts for flag in text.split("/")] or [written]
    if type_ == "bool":
        if not any(flag.startswith("--") for text in texts for flag in text.split("/")):
            flags += [written] * bool(texts) + [f"--no-{written[2:]}"]
        return Option(parameter.arg, tuple(flags), "", demanded, (), 0, 0)
    if texts and not any(flag.startswith("--") for flag in flags):
        flags.append(written)
    zero = _literal(given.get("count")) is True or _literal(given.get("is_flag")) is True
    return Option(parameter.arg, tuple(flags), type_, demanded, (), int(not zero), int(not zero))


def _is_annotated(parameter: ast.arg, names: dict[str, str]) -> bool:
    annotation = parameter.annotation
    return isinstance(annotation, ast.Subscript) and dotted(annotation.value, names).endswith("Annotated")


def _annotated(annotation: ast.expr | None, names: dict[str, str]) -> tuple[str, bool]:
    """The type of a parameter, and whether it takes several."""
    if annotation is None:
        return "str", False
    if isinstance(annotation, ast.BinOp):
        sides = [annotation.left, annotation.right]
        some = [side for side in sides if not (isinstance(side, ast.Constant) and side.value is None)]
        return _annotated(some[0], names) if len(some) == 1 else ("", False)
    if isinstance(annotation, ast.Subscript):
        name = dotted(annotation.value, names).rpartition(".")[2]
        if name == "Optional":
            return _annotated(annotation.slice, names)
        if name in ("List", "list", "Sequence"):
            return _annotated(annotation.slice, names)[0], True
        return "", True
    name = dotted(annotation, names)
    return ("context", False) if name == "typer.Context" else (_PLAIN.get(name, ""), False)
