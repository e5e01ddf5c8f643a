"""Command lines at random, against argparse: what it takes is never reported, what it refuses nearly always is."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgeml.check.arguments import Problem, match
from edgeml.check.parsers import option_of
from edgeml.check.script import Interface
from edgeml.check.shell import invocations
from edgeml.check.values import External, Items, Literal

FLAGS = ("--rate", "--rates", "--learning-rate", "--loud", "--low", "-n", "-lr", "-v")
VALUES = ("1", "2.5", "-1", "-0.5", "a", "b", "two words", "", "x=1", "--", "1e3")
TYPES = {"int": int, "float": float, "str": str}

FITTING = {"int": ("1", "-1"), "float": ("2.5", "1e3", "-0.5"), "str": ("a", "b"), "": ("",)}

Spec = tuple[tuple[str, ...], dict[str, Any]]


@st.composite
def parsers(draw: st.DrawFn) -> list[Spec]:
    """Arguments of a parser: names or flags, and keywords as `add_argument` takes them."""
    specs: list[Spec] = []
    for flag in draw(st.lists(st.sampled_from(FLAGS), unique=True, max_size=5)):
        if draw(st.booleans()) and flag.startswith("--l"):
            specs.append(((flag,), {"action": "store_true"}))
            continue
        keywords: dict[str, Any] = {"type": draw(st.sampled_from(sorted(TYPES)))}
        keywords["nargs"] = draw(st.sampled_from([None, None, None, 2, "?", "*", "+"]))
        keywords["required"] = draw(st.booleans())
        if keywords["type"] == "str" and draw(st.booleans()):
            keywords["choices"] = ["a", "b"]
        specs.append(((flag,), keywords))
    for number in range(draw(st.integers(0, 2))):
        keywords = {"type": draw(st.sampled_from(sorted(TYPES)))}
        keywords["nargs"] = draw(st.sampled_from([None, None, "?"])) if number else None
        specs.append(((f"word{number}",), keywords))
    return specs


@st.composite
def lines(draw: st.DrawFn, specs: list[Spec]) -> list[str]:
    """Words for a parser, many of them such as it takes."""
    words: list[str] = []
    if draw(st.integers(0, 3)):
        for names, keywords in specs:
            if keywords.get("required") or not names[0].startswith("-") or draw(st.booleans()):
                count = {"+": 2, "*": 1, None: 1, "?": 1}.get(keywords.get("nargs"), 2)
                value = draw(st.sampled_from(FITTING[keywords.get("type", "")]))
                words += ([names[0]] if names[0].startswith("-") else []) + [value] * count * ("type" in keywords)
    for _ in range(draw(st.integers(0, 2 if words else 6))):
        flag = draw(st.sampled_from((*FLAGS, "--rat", "--lo", "--l", "--other", "-q", "-n3")))
        value = draw(st.sampled_from(VALUES))
        words += draw(st.sampled_from([[flag], [flag, value], [flag, value], [value], [f"{flag}={value}"]]))
    return words


def refused(specs: list[Spec], words: list[str]) -> str:
    """What argparse says, empty where it takes the line."""
    parser = argparse.ArgumentParser(exit_on_error=True)
    for names, keywords in specs:
        made = dict(keywords) | ({"type": TYPES[keywords["type"]]} if "type" in keywords else {})
        if made.get("nargs") is None:
            made.pop("nargs", None)
        parser.add_argument(*names, **made)
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            parser.parse_args(words)
    except SystemExit:
        return told.getvalue() or "help"
    return ""


def reported(specs: list[Spec], words: list[str]) -> list[Problem]:
    options = []
    for names, keywords in specs:
        made: dict[str, Any] = {}
        for key, value in keywords.items():
            made[key] = External(value) if key == "type" else Literal(value)
            if key == "choices":
                made[key] = Items([Literal(choice) for choice in value])
        option = option_of(list(names), made, sure=True, known=True)
        assert option is not None
        options.append(option)
    interface = Interface(tuple(options), complete=True, prefixes=True)
    (invocation,) = invocations(shlex.join(["python", "s.py", *words]))
    return list(match(invocation.words, interface, lambda binding: None))


SEEN: Counter[str] = Counter()


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_what_argparse_takes_is_not_reported(data: st.DataObject) -> None:
    specs = data.draw(parsers())
    words = data.draw(lines(specs))
    refusal, problems = refused(specs, words), reported(specs, words)
    assume(refusal != "help")
    if not refusal:
        assert problems == [], (specs, words)
    SEEN["refused and reported" if refusal and problems else "refused in silence" if refusal else "taken"] += 1


def test_what_argparse_refuses_is_reported_nearly_always() -> None:
    test_what_argparse_takes_is_not_reported() if not SEEN else None
    assert SEEN["taken"] > 100, SEEN
    assert SEEN["refused in silence"] < 0.05 * SEEN["refused and reported"], SEEN
