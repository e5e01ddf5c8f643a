"""What people print, restated as the JSON that `disclosure` judges: matrices in logs, extremes in sentences, and
arrays beside a list of names, and files of numbers with as many lines as a table.

Nothing is judged here. A statement that is overlooked in a log changes no verdict, because logs do not leave: it
tells what was in them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from edgeml.airlock.finding import Artifact
from edgeml.airlock.private import Private

MOST = 1_000  # statements of one file
LONGEST = 64 << 20
EXTREMES = "min|max|minimum|maximum|smallest|largest|lowest|highest"
EXTREME = re.compile(rf"(?<![a-z])(?:{EXTREMES})(?![a-z])", re.IGNORECASE)
NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
MATRIX = re.compile(r"confusion[\w \t]{0,24}[:=]?\s{0,8}(\[\s*\[[\d\s,.\[\]]{1,4000}\]\s*\])")
NUMBERS = re.compile(rf"\s*{NUMBER}(?:[\s,;|]+{NUMBER})*[\s,;|]*")
OF_ROWS = re.compile(
    r"(?<![a-z])(?:id|row|index|record|patient|sample|pred\w*|prob\w*|score|residual|label|target)s?(?![a-z])"
)
LOOKS = 2_000  # of one word in one file
AROUND = 80  # letters before and behind an extreme in which its column and number stand
LOOSE = 1_000  # empty lines
FEWEST = 30  # lines of a file that has one for each row


def of(artifacts: Sequence[Artifact], private: Private) -> list[Artifact]:
    """One JSON artifact for each that says something restatable, under the same name."""
    names = sorted(private.columns, key=len, reverse=True)
    told = "|".join(re.escape(name).replace("_", "[_ -]") for name in names)
    sentence = re.compile(
        rf"(?<![\w.])(?:({told})\W{{1,3}}({EXTREMES})|({EXTREMES})\W{{1,3}}(?:of\W)?({told}))"
        rf"(?:\W{{1,3}}(?:is|was|of|at))?[\s:=)\]]{{1,4}}({NUMBER})(?!\.?\w)",
        re.IGNORECASE,
    )
    sizes = {table.rows for table in private.tables} | {private.rows}
    found = []
    for artifact in artifacts:
        if len(artifact.data) > LONGEST or artifact.format not in ("text", "json"):
            continue
        text = artifact.data.decode("utf-8", "replace")
        said = _arrays(text, set(names)) if artifact.format == "json" else _of_text(text, sentence, sizes)
        if statements := list(islice(said, MOST)):
            found.append(Artifact(artifact.name, "json", f"[{','.join(statements)}]".encode()))
    return found


def _of_text(text: str, sentence: re.Pattern[str], sizes: set[int]) -> Iterator[str]:
    """JSON that keeps every number as it was printed."""
    text = text.lower()
    for match in (MATRIX.match(text, at) for at in _found("confusion", text)):
        if match is None:
            continue
        rows = [re.findall(NUMBER, row) for row in re.findall(r"\[([^\[\]]*)\]", match[1])]
        yield _stated({"confusion_matrix": [[Printed(cell) for cell in row] for row in rows]})
    for at in (at for word in EXTREMES.split("|") for at in _found(word, text)):
        for match in sentence.finditer(text, max(0, at - AROUND), at + AROUND):
            column, extreme = match[1] or match[4], match[2] or match[3]
            yield _stated({column: {extreme: Printed(match[5])}})
    if text.count("\n") > max(sizes) + LOOSE:
        return
    lines = [line for line in text.splitlines() if line.strip()]
    named = bool(lines) and not NUMBERS.fullmatch(lines[0])
    if named and not OF_ROWS.search(lines[0]):
        return  # as many lines by chance: of seconds, epochs, trees
    rows_ = lines[1:] if named else lines
    if FEWEST <= len(rows_) in sizes and all(map(NUMBERS.fullmatch, rows_)):
        yield _stated({"lines": [Printed("0")] * len(rows_)})


def _found(word: str, text: str) -> Iterator[int]:
    """Where a word stands, the first LOOKS times; faster than a pattern that could be any of several."""
    at = text.find(word)
    for _ in range(LOOKS):
        if at < 0:
            return
        yield at
        at = text.find(word, at + 1)


def _arrays(text: str, names: set[str]) -> Iterator[str]:
    """Extremes of several columns, as a scaler keeps them: one array of names, and one of numbers for each extreme."""
    try:
        stack = [json.loads(text, parse_float=Printed, parse_int=Printed)]
    except (ValueError, RecursionError):
        return
    while stack:
        value = stack.pop()
        stack += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not isinstance(value, dict):
            continue
        lists = {key: item for key, item in value.items() if isinstance(item, list) and len(item) > 1}
        columns = [item for item in lists.values() if all(isinstance(n, str) and n in names for n in item)]
        for key, item in lists.items():
            if EXTREME.search(key) and all(isinstance(number, Printed) for number in item):
                for named in (named for named in columns if len(named) == len(item)):
                    yield from (_stated({name: {key: number}}) for name, number in zip(named, item, strict=True))


class Printed(str):
    """A number as it was printed."""


def _stated(value: Any) -> str:
    if isinstance(value, Printed):
        return value.lstrip("+")
    if isinstance(value, list):
        return f"[{','.join(map(_stated, value))}]"
    return "{" + ",".join(f"{json.dumps(key)}:{_stated(item)}" for key, item in value.items()) + "}"
