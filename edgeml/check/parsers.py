"""argparse: which options the parser that reads the command line was given, by following the program.

A parser that gets out of sight, or is given options whose names are computed, is not completely known. What is added
in a branch that may not be taken counts as not required.
"""

from __future__ import annotations

from typing import Any

from edgeml.check.evaluate import TooMuchError
from edgeml.check.follow import Program
from edgeml.check.script import MANY, Files, Interface, Option
from edgeml.check.values import ARGV, UNKNOWN, Class, External, Items, Literal, Method, Table, Tracked, name_of, text_of

_PARSES = {
    "parse_args": False,
    "parse_intermixed_args": False,
    "parse_known_args": True,
    "parse_known_intermixed_args": True,
}
_HARMLESS = frozenset(
    [
        "set_defaults",
        "print_help",
        "print_usage",
        "format_help",
        "format_usage",
        "error",
        "exit",
        "get_default",
        "register",
        "append",
        "remove",
        "convert_arg_line_to_args",
    ]
)
_ZERO = frozenset(["store_const", "store_true", "store_false", "append_const", "count", "help", "version"])
_NARGS = {"OPTIONAL": "?", "ZERO_OR_MORE": "*", "ONE_OR_MORE": "+", "REMAINDER": "...", "PARSER": "A..."}


class Parser(Tracked):
    """A parser; of an exclusive group (`group_of`) only one argument may be given, so none is required."""

    def __init__(self, *, complete: bool = True, group_of: Parser | None = None) -> None:
        self.options: list[Option] = [] if group_of is None else group_of.options
        self.complete = complete
        self.prefixes = True
        self.commands: list[tuple[tuple[str, ...], Parser]] = []
        self.has_commands = False
        self.commands_required = False
        self.group_of = group_of

    def interface(self, *, lenient: bool = False, seen: int = 0) -> Interface:
        options = list(self.options)
        if self.has_commands:
            made = []
            for names, parser in self.commands:
                inner = parser.interface(lenient=lenient, seen=seen + 1) if seen < 5 else Interface()
                made += [(name, inner) for name in names]
            options.append(Option("command", required=self.commands_required, commands=tuple(made)))
        return Interface(tuple(options), self.complete, lenient, self.prefixes)


class Commands(Tracked):
    """What `add_subparsers` gives."""

    def __init__(self, of: Parser) -> None:
        self.of = of


def read(entry: str, files: Files, roots: tuple[str, ...], function: str = "") -> Interface:
    """The interface of the parser that reads the command line; not complete where none or more than one does."""
    program = _Program(files, roots)
    try:
        scope = program.load(entry, "__main__" if not function else "entry")
        called = scope.names.get(function) if scope is not None and function else None
        if called is not None:
            program.call_value(called, [], {})
    except TooMuchError:
        return Interface()
    parsers = {id(parser): parser for parser, _ in program.parsed}
    if len(parsers) != 1:
        return Interface()
    (parser,) = parsers.values()
    made = parser.interface(lenient=all(known for _, known in program.parsed))
    return made._replace(complete=made.complete and not program.opaque)


class _Program(Program):
    seeds = frozenset(
        {"ArgumentParser", "add_argument", "add_parser", "add_subparsers", "add_argument_group", "argv", *_PARSES}
    )

    def __init__(self, files: Files, roots: tuple[str, ...]) -> None:
        super().__init__(files, roots)
        self.parsed: list[tuple[Parser, bool]] = []

    def lost(self, value: Tracked) -> None:
        if isinstance(value, Commands):
            value = value.of
        if isinstance(value, Parser):
            value.complete = False
            if value.group_of is not None:
                value.group_of.complete = False

    def part(self, owner: Tracked, name: str) -> Any:
        return owner if name == "_action_groups" else Method(owner, name)

    def instance(self, made: Class) -> Any:
        return Parser(complete=False) if _is_parser_class(made) else None

    def foreign(self, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        return self.parser(named, known=known) if name == "argparse.ArgumentParser" else None

    def tracked(self, owner: Tracked, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        if isinstance(owner, Commands):
            return self.command(owner.of, name, args, named, known=known)
        assert isinstance(owner, Parser)
        return self.parser_method(owner, name, args, named, known=known)

    def parser(self, named: dict[str, Any], *, known: bool) -> Parser:
        made = Parser(complete=known)
        prefixes, help_ = named.get("allow_abbrev"), named.get("add_help")
        made.prefixes = not (isinstance(prefixes, Literal) and not prefixes.value)
        if "prefix_chars" in named or "fromfile_prefix_chars" in named:
            made.complete = False
        if not (isinstance(help_, Literal) and not help_.value):
            made.options.append(Option("help", ("-h", "--help"), fewest=0, most=0))
        if "parents" in named:
            parents = self.items(named["parents"])
            made.complete = made.complete and parents is not None
            for parent in parents or []:
                if isinstance(parent, Parser):
                    made.options += parent.options
                    made.complete = made.complete and parent.complete
                else:
                    made.complete = False
        return made

    def parser_method(self, owner: Parser, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        target = owner.group_of or owner
        if name == "add_argument":
            self.argument(owner, args, named, known=known)
        elif name == "add_argument_group":
            return owner
        elif name == "add_mutually_exclusive_group":
            return Parser(group_of=target)
        elif name == "add_subparsers":
            required = named.get("required")
            target.has_commands = True
            target.commands_required = bool(isinstance(required, Literal) and required.value) and not self.unsure
            return Commands(target)
        elif name in _PARSES:
            given = args[0] if args else named.get("args")
            if isinstance(given, Items):
                return UNKNOWN  # not the command line
            if not (given is None or given is ARGV or (isinstance(given, Literal) and given.value is None)):
                target.complete = False
            self.parsed.append((target, _PARSES[name]))
            return Items([UNKNOWN, UNKNOWN]) if _PARSES[name] else UNKNOWN
        elif name == "pop":
            return owner  # of its list of groups
        elif name not in _HARMLESS:
            target.complete = False
        return UNKNOWN

    def command(self, owner: Parser, name: str, args: list[Any], named: dict[str, Any], *, known: bool) -> Any:
        if name != "add_parser":
            owner.complete = False
            return UNKNOWN
        made = self.parser(named, known=known)
        names = [args[0] if args else UNKNOWN, *(self.items(named.get("aliases")) or [])]
        texts = tuple(str(it.value) for it in names if isinstance(it, Literal))
        if len(texts) != len(names) or ("aliases" in named and self.items(named["aliases"]) is None):
            owner.complete = False
        owner.commands.append((texts, made))
        return made

    def argument(self, owner: Parser, args: list[Any], named: dict[str, Any], *, known: bool) -> None:
        target = owner.group_of or owner
        flags = [arg.value for arg in args if isinstance(arg, Literal) and isinstance(arg.value, str)]
        if len(flags) != len(args) or (not known and not args):
            target.complete = False
            return
        sure = not self.unsure and owner.group_of is None
        option = option_of(flags, named, sure=sure, known=known)
        if option is None:
            target.complete = False
        else:
            target.options.append(option)


def option_of(flags: list[str], named: dict[str, Any], *, sure: bool, known: bool) -> Option | None:
    """The option that `add_argument` makes; None where what it takes cannot be told."""
    positional = not flags or not flags[0].startswith("-")
    name = flags[0] if flags else text_of(named.get("dest")) or "argument"
    fewest, most = _arity(named)
    if not known:
        return Option(name, () if positional else tuple(flags), "", False, (), 0, MANY)
    if most < 0:
        return None
    if name_of(named.get("action")).endswith("BooleanOptionalAction"):
        flags = [*flags, *(f"--no-{flag[2:]}" for flag in flags if flag.startswith("--"))]
    required = named.get("required")
    demanded = (fewest > 0) if positional else bool(isinstance(required, Literal) and required.value)
    if positional and not sure:
        fewest = 0
    return Option(
        name,
        () if positional else tuple(flags),
        _type(named.get("type")),
        demanded and sure,
        _choices(named.get("choices")),
        fewest,
        most,
    )


def _arity(named: dict[str, Any]) -> tuple[int, int]:
    """Fewest and most values; most is -1 where the option swallows what follows."""
    action, nargs = named.get("action"), named.get("nargs")
    if action is not None:
        word = text_of(action)
        if word in _ZERO or name_of(action).endswith("BooleanOptionalAction"):
            return 0, 0
        if word not in ("store", "append", "extend"):
            return 0, MANY
    if nargs is None or (isinstance(nargs, Literal) and nargs.value is None):
        return 1, 1
    if isinstance(nargs, Literal) and isinstance(nargs.value, int) and not isinstance(nargs.value, bool):
        return nargs.value, nargs.value
    form = text_of(nargs) or _NARGS.get(name_of(nargs).removeprefix("argparse."), "")
    if form in ("...", "A..."):
        return 0, -1
    return {"?": (0, 1), "*": (0, MANY), "+": (1, MANY)}.get(form, (0, MANY))


def _type(value: Any) -> str:
    if value is None or (isinstance(value, Literal) and value.value is None):
        return "str"
    return name_of(value) if name_of(value) in ("int", "float", "str", "bool") else ""


def _choices(value: Any) -> tuple[str, ...]:
    items: list[Any] = []
    if isinstance(value, Items):
        items = value.items
    elif isinstance(value, Table):
        items = [key for key, _ in value.pairs]
    made = [str(item.value) for item in items if isinstance(item, Literal)]
    return tuple(made) if len(made) == len(items) else ()


def _is_parser_class(value: Any, seen: int = 0) -> bool:
    if isinstance(value, External):
        return value.name.endswith("ArgumentParser")
    return isinstance(value, Class) and seen < 8 and any(_is_parser_class(base, seen + 1) for base in value.bases)
