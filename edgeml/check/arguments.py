"""The words of a command against the interface of the script that it starts, by argparse's own way of reading them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from edgeml.check.script import Interface, Option
from edgeml.check.shell import Word
from edgeml.check.units import Port
from edgeml.errors import nearest
from edgeml.pipeline.expressions import Binding
from edgeml.pipeline.ports import DATA_TYPES

UNKNOWN, MISSING, VALUE, BOOLEAN = "unknown", "missing", "value", "boolean"
Ports = Callable[[Binding], Port | None]

_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")
_READS = {"int": int, "float": float}
_NO = frozenset({"false", "no", "off", "0"})


class Problem(NamedTuple):
    """What does not fit, at a word or (None) in the whole."""

    kind: str
    word: Word | None
    message: str


class _Given:
    """What was met on the command line so far."""

    def __init__(self) -> None:
        self.options: dict[Option, bool] = {}  # whether it is passed whatever values there are
        self.positional: list[Word] = []
        self.after: dict[int, Option] = {}  # flags without values, by the position of the word behind them
        self.open = False  # the shell may add words that are not known


def match(words: tuple[Word, ...], interface: Interface, ports: Ports, *, adds: bool = False) -> Iterator[Problem]:
    """All that does not fit; nothing where the interface is not completely known."""
    if not interface.complete:
        return
    given = _Given()
    given.open = adds
    slots = [option for option in interface.options if not option.flags]
    at, ended = 0, False
    while at < len(words):
        word = words[at]
        at += 1
        if not ended and word.text == "--":
            ended = True
        elif not ended and _is_flag(word):
            taken, problems = _flag(words, at, word, interface, ports, given)
            yield from problems
            at = taken
        elif word.dynamic and word.many:
            given.open = True
        else:
            slot = slots[len(given.positional)] if len(given.positional) < len(slots) else None
            if slot is not None and slot.commands:
                inner = dict(slot.commands).get(word.text or "")
                if word.text is None:
                    return
                given.options[slot] = True
                if inner is None:
                    yield Problem(UNKNOWN, word, f"the script has no command '{word.text}'{_near(word.text, slot)}")
                else:
                    yield from match(words[at:], inner, ports, adds=adds)
                slots.remove(slot)
                break
            given.positional.append(word)
    yield from _positionals(slots, interface, ports, given)
    for option in interface.options:
        if option.required and option.flags and not given.open:
            yield from _missing(option, given)


def _missing(option: Option, given: _Given) -> Iterator[Problem]:
    flag = max(option.flags, key=len)
    if option not in given.options:
        yield Problem(MISSING, None, f"the script requires {flag}, which the command does not pass; add it")
    elif not given.options[option]:
        message = f"the script requires {flag}, which the command passes only where an optional input has a value"
        yield Problem(MISSING, None, f"{message}; give the input a default or the argument one")


def _flag(
    words: tuple[Word, ...], at: int, word: Word, interface: Interface, ports: Ports, given: _Given
) -> tuple[int, list[Problem]]:
    """Where reading goes on after a flag and its values, and what is wrong with them."""
    flag, equals, _ = word.head.partition("=")
    if not equals and word.text is None:
        given.open = True  # the flag itself is put together
        return at, []
    run = at
    while run < len(words) and not _is_flag(words[run]) and words[run].text != "--":
        run += 1
    option = interface.flag(flag)
    if option is None:
        if not flag.startswith("--"):
            near = interface.flag(flag[:2])
            if near is not None:  # -n5 or -vx
                given.options[near] = given.options.get(near, False) or not _may_lack(word, ports)
                return at, []
            if any(known.startswith(flag) for it in interface.options for known in it.flags):
                return at, []
        if interface.lenient:
            return run, []
        known = [name for it in interface.options for name in it.flags]
        meant = nearest(flag, known)
        hint = f"; did you mean {meant}?" if meant else "; remove it or add it to the script's arguments"
        return run, [Problem(UNKNOWN, word, f"the script has no argument {flag}{hint}")]
    given.options[option] = given.options.get(option, False) or not _may_lack(word, ports)
    if equals:
        if option.most == 0:
            return at, [Problem(VALUE, word, f"{flag} takes no value; write the flag alone, or not at all")]
        rest = word.head[len(flag) + 1 :]
        if rest == "--":  # which argparse takes for no value at all
            return at, []
        parts = ((rest,) if rest else ()) + word.parts[1:]
        return at, list(_value(option, word._replace(parts=parts or ("",)), ports, flag))
    values = words[at:run][: option.most]
    elastic = any(it.many for it in values)
    if len(values) < option.fewest and not elastic:
        count = "a value" if option.fewest == 1 else f"{option.fewest} values"
        return at + len(values), [
            Problem(VALUE, word, f"{flag} takes {count}, and the command gives {len(values) or 'none'}")
        ]
    if option.most == 0 and run > at:
        given.after[words[at].start] = option
    if elastic:
        given.open = True
        return at + len(values), []
    return at + len(values), [problem for it in values for problem in _value(option, it, ports, flag)]


def _positionals(slots: list[Option], interface: Interface, ports: Ports, given: _Given) -> Iterator[Problem]:
    words = given.positional
    certain = [word for word in words if not _is_elastic(word, ports)]
    room = sum(slot.most for slot in slots)
    if len(certain) > room and not interface.lenient:
        word = certain[room]
        flag = given.after.get(word.start)
        if flag is not None:
            message = f"{max(flag.flags, key=len)} takes no value; write the flag alone, or not at all"
            yield Problem(VALUE, word, message)
        elif (word.text or "")[:1].isspace():
            message = "a backslash joins this word to the space before it; in folded YAML lines need no backslash"
            yield Problem(UNKNOWN, word, message)
        else:
            takes = f"takes {room} arguments without a flag" if room else "takes no argument without a flag"
            yield Problem(UNKNOWN, word, f"the script {takes}, and this is one more; remove it or name its flag")
    elif len(certain) == len(words) and not given.open:
        need = [slot for slot in slots if slot.required for _ in range(slot.fewest or 1)]
        if len(words) < len(need):
            name = need[len(words)].name
            yield Problem(MISSING, None, f"the script requires the argument '{name}', which the command does not pass")
    if all((slot.fewest, slot.most) == (1, 1) for slot in slots) and len(certain) == len(words) and not given.open:
        for slot, word in zip(slots, words, strict=False):
            yield from _value(slot, word, ports, f"'{slot.name}'")


def _value(option: Option, word: Word, ports: Ports, flag: str) -> Iterator[Problem]:
    """What is wrong with a value: a literal, or what an input of its type may bring."""
    binding = word.binding
    if binding is None:
        text = word.text
        if text is None:
            return
        if option.type == "bool" and text.lower() in _NO:
            yield Problem(BOOLEAN, word, _trap(flag))
        elif option.type in _READS and not _reads(option, text):
            yield Problem(VALUE, word, f"{flag} of the script is of type {option.type}, which this value is not")
        elif not _is_choice(option, text):
            yield Problem(VALUE, word, f"{flag} of the script takes one of {', '.join(option.choices)}, not this value")
        return
    port = ports(binding)
    if port is None or not port.type:
        return
    name = binding.path[-1]
    if option.type == "bool" and port.type == "boolean":
        yield Problem(BOOLEAN, word, _trap(flag))
    elif option.type in _READS:
        never = port.type == "boolean" or port.type in DATA_TYPES or (option.type, port.type) == ("int", "number")
        if never:
            better = "integer" if option.type == "int" else "number"
            message = f"{flag} of the script is of type {option.type}, but '{name}' is of type {port.type}"
            yield Problem(VALUE, word, f"{message}; declare it as {better}, or change the script")
            return
        if not all(_reads(option, text) for text in port.values):
            message = f"{flag} of the script is of type {option.type}, which a value declared for '{name}' is not"
            yield Problem(VALUE, word, f"{message}; make its type and values such")
            return
    if option.choices and not all(_is_choice(option, text) for text in port.values):
        message = f"{flag} of the script takes one of {', '.join(option.choices)}, but '{name}' is declared with others"
        yield Problem(VALUE, word, f"{message}; make the two agree")


def _trap(flag: str) -> str:
    return (
        f"{flag} of the script has type=bool, which takes any text, also False, as true; "
        "compare the text in the script: type=lambda text: text.lower() == 'true'"
    )


def _reads(option: Option, text: str) -> bool:
    try:
        _READS[option.type](text)
    except ValueError:
        return False
    return True


def _is_choice(option: Option, text: str) -> bool:
    if not option.choices or option.type not in ("str", "int", "float"):
        return True
    read = _READS.get(option.type, str)
    try:
        return read(text) in {read(choice) for choice in option.choices}
    except ValueError:
        return False


def _near(text: str, slot: Option) -> str:
    names = [name for name, _ in slot.commands]
    near = nearest(text, names)
    return f"; did you mean '{near}'?" if near else f"; it has {', '.join(names)}"


def _is_flag(word: Word) -> bool:
    head = word.head
    return len(head) > 1 and head.startswith("-") and word.text != "--" and not _NUMBER.match(word.text or "")


def _may_lack(word: Word, ports: Ports) -> bool:
    """Whether the word stands in a group that is left out where an input has no value."""
    found = [ports(binding) for binding in word.group]
    return any(port is None or port.may_lack for port in found)


def _is_elastic(word: Word, ports: Ports) -> bool:
    """Whether the shell may make no word or several of it: a placeholder of text outside quotes, for one."""
    if word.many or _may_lack(word, ports):
        return True
    if not word.bare:
        return False
    found = [ports(part) for part in word.parts if isinstance(part, Binding)]
    return any(port is None or port.type in ("", "string") for port in found)
