"""Statistics that tell of single rows: the rules of output checking, over JSON and the tables that people print.

The defaults follow what research data centres publish: ten contributors behind every number (the rule of ten of
ABS DataLab; acro 1.0 has the same threshold, sdcLog takes five), two contributors with no more than 90 % of a total
(acro; sdcLog 85 %), ten degrees of freedom of a model (ABS DataLab, acro). k is the data contract's.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from edgeml.airlock.evidence import bits
from edgeml.airlock.evidence.cells import Lookup
from edgeml.airlock.evidence.words import COMMON
from edgeml.airlock.finding import Artifact, Finding, Rule
from edgeml.airlock.intake import alike
from edgeml.airlock.private import Private
from edgeml.airlock.profile import Numbers

DOMINANCE = 0.9  # of a total, held by the two largest: acro; sdcLog takes 0.85
DEGREES_OF_FREEDOM = 10  # ABS DataLab, acro
POINTS = 101  # of a curve; a full one has a threshold for every row's score
_COARSE = 200  # parts of a column's range: what is told more coarsely is rounded
_LIKELY = 0.05  # rows that would fit a quantile by chance, for one that fits it to be the one
_REMEMBERED = 4096  # keys of one object: where there are more they are hardly met again
_USUAL = 64  # keys of an object of which there may be many alike
PER_ROW = 30  # elements from which on a list as long as the table is taken to have one for each row
_LONG = min(PER_ROW, 52)  # elements that a list for each row or a full curve has at least

COUNT = Rule(
    "small-count",
    "content",
    "A count from 1 to k-1",
    "Few contributors can be told apart by who knows some of them; the differences of two tables name the rest.",
)
PER_RECORD = Rule(
    "per-record-output",
    "content",
    "A list with one element for each row",
    "Predictions, scores or residuals of single rows tell whether and as what each of them is in the table.",
    waivable=False,
)
EXTREME = Rule(
    "extreme-of-individuals",
    "content",
    "A minimum, maximum or quantile that fewer than k rows share",
    "Order statistics are the values of single rows.",
)
DOMINATED = Rule(
    "dominated-total",
    "content",
    "A total that one or two contributors make up",
    "Who knows the total knows the largest contributor within a few percent.",
)
FREEDOM = Rule(
    "degrees-of-freedom",
    "content",
    "A fit with fewer than ten residual degrees of freedom",
    "A model with almost as many parameters as rows can be solved for the rows.",
)
CURVE = Rule(
    "full-curve",
    "content",
    "A ROC or precision-recall curve at every row's score",
    "The thresholds of a full curve are the scores of single rows, its steps their classes.",
)
RULES = (COUNT, PER_RECORD, EXTREME, DOMINATED, FREEDOM, CURVE)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_COUNTS = _set("count counts n nobs support freq frequency frequencies histogram tp fp tn fn cases")
_ROWS = _set(
    "rows samples patients persons people records observations positives negatives positive negative cases members "
    "subjects customers individuals missing nulls null"
)
_NO_ROWS = _set(
    "min max leaf split job jobs estimators splits features feature components layers layer classes class epochs "
    "epoch error errors warning warnings retry retries attempt attempts step steps iteration iterations iter worker "
    "workers core cores gpu gpus thread threads column columns fold folds file files batch batches model models "
    "tokens version trees tree leaves nodes node bins bin inputs outputs input output parameters parameter neighbors "
    "clusters bootstraps bootstrap repeats seeds points cpu cpus k degree categories cached skipped levels rate ratio "
    "fraction share"
)
_EXTREMES = _set("min max minimum maximum smallest largest lowest highest low high range bounds")
_QUANTILES = _set("median quantile quantiles percentile percentiles quartile quartiles q1 q3 edges")
_PERCENT = re.compile(r"[0-9]{1,2}(\.[0-9]+)?%|p[0-9]{1,2}|q[0-9]{1,2}")
_RECORD_WORDS = _set("predictions predicted probabilities proba probas residuals shap")
_RECORD_KEYS = re.compile(r"(y_?(true|pred|score|prob|proba|hat))s?|(row|record|patient|sample)_?(ids?|index|indices)")
_TOTALS = _set("sum total")
_CURVES = _set("roc thresholds fpr tpr precision recall pr")
_FREEDOMS = re.compile(r"(residual_)?(dof|df|degrees_of_freedom)(_resid(ual)?)?")
_LABELS = re.compile(r"\s*(min|max|[0-9]{1,2}(?:\.[0-9]+)?%)\s")
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?")


class _Printed(str):
    """A number as it stands in a document; few of them are ever read."""

    __slots__ = ()


class _Number(float):
    """A number with half of the unit of its last printed digit."""

    half: float

    @classmethod
    def read(cls, text: str) -> _Number:
        number = cls(text)
        match = _NUMBER.fullmatch(text)
        decimals, power = (len(match[1] or ""), int(match[2] or 0)) if match else (0, 0)
        number.half = max(0.5 * 10.0 ** max(-300, min(300, power - decimals)) * (1 + 1e-9), abs(number) * 6.1e-8)
        return number


class _Place:
    """A path of keys in a document, and what they say of a value there: told once for all values of the path."""

    def __init__(self, path: tuple[str, ...], names: _Names) -> None:
        self.path, self._names = path, names
        self._inner: dict[str, _Place] = {}
        self._telling: dict[tuple[str, ...], tuple[frozenset[str], bool]] = {}

    def inner(self, key: str) -> _Place:
        place = self._inner.get(key)
        if place is None:
            place = _Place((*self.path, key), self._names)
            if len(self._inner) < _REMEMBERED:
                self._inner[key] = place
        return place

    def telling(self, keys: tuple[str, ...]) -> tuple[frozenset[str], bool]:
        """Under which of an object's keys a number is of interest, and whether one is a total: most have equal keys."""
        known = self._telling.get(keys)
        if known is None:
            inner = {key: self.inner(key) for key in keys}
            known = frozenset(key for key in keys if inner[key].says), any(inner[key].total for key in keys)
            if len(keys) <= _USUAL and len(self._telling) < _REMEMBERED:
                self._telling[keys] = known
        return known

    @cached_property
    def told(self) -> str:
        return self._names.place(self.path)

    @cached_property
    def keys(self) -> list[str]:
        return [part for part in self.path if part != "[]"]

    @cached_property
    def freedom(self) -> bool:
        return bool(self.keys) and _FREEDOMS.fullmatch(self.keys[-1].lower()) is not None

    @cached_property
    def matrix(self) -> bool:
        """Whether counts stand here if they are whole numbers: of what was confused with what."""
        return self.keys[-1:] == ["matrix"] and self.path[-2:] == ("[]", "[]")

    @cached_property
    def counted(self) -> bool:
        last = self.keys[-1] if self.keys else ""
        holders = self.keys if self.path[-1:] == ("[]",) else self.keys[:-1]
        return _counts(last) or (any(map(_holds_counts, holders)) and not _other(last))

    @cached_property
    def question(self) -> tuple[str, bool]:
        """The private column of which an extreme or a quantile stands here, and whether it is an extreme."""
        words = tuple(word for key in self.keys for word in _words(key))
        extreme = bool(set(words) & _EXTREMES)
        if not extreme and not set(words) & _QUANTILES and not any(_PERCENT.fullmatch(key) for key in self.keys):
            return "", False
        return self._names.column(words), extreme

    @cached_property
    def total(self) -> bool:
        return bool(set(_words(self.path[-1])) & _TOTALS)

    @cached_property
    def says(self) -> bool:
        """Whether any rule is about a number here."""
        return self.freedom or self.matrix or self.counted or bool(self.question[0])

    @cached_property
    def recorded(self) -> bool:
        last = self.keys[-1] if self.keys else ""
        return _RECORD_KEYS.fullmatch(last.lower()) is not None

    @cached_property
    def predicted(self) -> bool:
        return bool(self.keys and set(_words(self.keys[-1].lower())) & _RECORD_WORDS)

    @cached_property
    def curved(self) -> bool:
        return any(set(_words(key)) & _CURVES for key in self.keys)


class _Asked(NamedTuple):
    """A number whose rows must be counted before it is known to be anyone's."""

    file: str
    place: str
    column: str
    number: _Number
    extreme: bool


def check(artifacts: Sequence[Artifact], private: Private) -> list[Finding]:
    """The findings in all JSON (also one document a line) and in printed tables; one pass over `private` at most."""
    findings: list[Finding] = []
    asked: list[_Asked] = []
    names = _Names(private)
    for artifact in artifacts:
        text = artifact.data.decode("utf-8", "replace")
        text = alike.shortened(text, lambda line: _silent(line, names))
        document = _document(text, _PLAIN)
        if document is None:
            asked += _printed(artifact.name, text, names)
            continue
        root, numbers = _Place((), names), False
        found: dict[tuple[str, str], Finding] = {}
        for place, value in _walk(root, document):
            if isinstance(value, float):
                numbers = True
            else:
                _note(found, _shapes(artifact.name, place, value, private))
        # As they were printed numbers are read only where a rule says something of one: it takes much longer.
        for place, value in _walk(root, _document(text, _EXACT), _Printed) if numbers else ():
            if isinstance(value, _Printed):
                number = _Number.read(value)
                _note(found, _small(artifact.name, place, number, private.contract.k))
                if place.question[0]:
                    asked.append(_Asked(artifact.name, place.told, place.question[0], number, place.question[1]))
        findings += found.values()
    return findings + _answered(asked, private)


class _Names:
    """The private columns of numbers by the words of their names, and which keys may be told."""

    def __init__(self, private: Private) -> None:
        self.private = private
        self._columns = {_words(name): name for name in bits.numeric(private) if not private.columns[name].public}
        self._safe = COMMON | {word for name in private.columns for word in _words(name)} | _COUNTS | _ROWS | _NO_ROWS

    def column(self, words: tuple[str, ...]) -> str:
        """The column whose name is the longest part of these words; "" where none is."""
        best: tuple[str, ...] = ()
        for name in self._columns:
            size = len(name)
            if size > len(best) and any(words[at : at + size] == name for at in range(len(words) - size + 1)):
                best = name
        return self._columns.get(best, "")

    def header(self, line: str) -> list[str]:
        """The parts of a line if one of them names a column and the line is no row of statistics itself, else none."""
        lower = line.lower()
        if not any(name[0] in lower for name in self._columns if name) or len(line) > 100_000 or _LABELS.match(line):
            return []
        parts = _cells(line)
        return parts if any(self.column(_words(part)) for part in parts) else []

    def place(self, path: Sequence[str]) -> str:
        """A JSON path that tells no key which could be a private value, and no index of a list."""
        told = [part if part == "[]" or all(word in self._safe for word in _words(part)) else "*" for part in path]
        return ".".join(["$", *told])


def _silent(line: str, names: _Names) -> bool | None:
    """Whether no rule says anything of a document, whatever its numbers are; None where there is none."""
    document = _document(line, _PLAIN)
    return None if document is None else next(_walk(_Place((), names), [document]), None) is None


_SHAPES = frozenset({dict, list})
_PLAIN = json.JSONDecoder(parse_int=float)
_EXACT = json.JSONDecoder(parse_float=_Printed, parse_int=_Printed, parse_constant=lambda _: None)


def _document(text: str, decoder: json.JSONDecoder) -> Any:
    """The JSON document, or the list of those on each line; None where it is neither."""
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return decoder.decode(text)
    with contextlib.suppress(ValueError, RecursionError):
        return decoder.decode(f"[{','.join(line for line in text.splitlines() if line.strip())}]")
    return None


def _walk(root: _Place, document: Any, kind: type = float) -> Iterator[tuple[_Place, Any]]:
    """The objects and lists of which a rule may say something, with their places, and the numbers; a stack,
    because documents may be deep."""
    stack = [(root, document)]
    while stack:
        place, value = stack.pop()
        if len(value) >= _LONG:
            yield place, value
        if isinstance(value, dict):
            says, total = place.telling(tuple(value))
            if total and len(value) < _LONG:
                yield place, value
            for key, child in value.items():
                if child.__class__ in _SHAPES:
                    stack.append((place.inner(key), child))
                elif key in says and isinstance(child, kind):
                    yield place.inner(key), child
        elif isinstance(value, list):
            inner = place.inner("[]")
            stack += [(inner, child) for child in value if child and child.__class__ in _SHAPES]
            if inner.says:
                yield from ((inner, child) for child in value if isinstance(child, kind))


def _words(key: str) -> tuple[str, ...]:
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    return tuple(re.findall(r"[^\W_]+", split.lower()))


def _note(found: dict[tuple[str, str], Finding], findings: Iterator[Finding]) -> None:
    """Add findings, those of one rule and place as one that counts its cells."""
    for finding in findings:
        known = found.setdefault((finding.rule, finding.place), finding)
        if known is not finding:
            found[finding.rule, finding.place] = known._replace(cells=known.cells + 1)


def _shapes(file: str, place: _Place, value: list[Any] | dict[str, Any], private: Private) -> Iterator[Finding]:
    yield from _long(file, place, value, private)
    if isinstance(value, dict) and place.telling(tuple(value))[1]:
        yield from _dominance(file, place, value)


def _small(file: str, place: _Place, number: _Number, k: int) -> Iterator[Finding]:
    value = float(number)
    if place.freedom and 0 <= value < DEGREES_OF_FREEDOM:
        message = f"the fit has fewer than {DEGREES_OF_FREEDOM} residual degrees of freedom"
        yield Finding(FREEDOM.id, file, place.told, message, "fit fewer parameters or more rows")
    counted = number.half >= 0.5 if place.matrix else place.counted
    if 0 < value < k and value == int(value) and counted:
        message = f"a count of 1 to {k - 1} rows stands here"
        fix = f"merge or leave out groups of fewer than {k}, or round counts to a multiple of five"
        yield Finding(COUNT.id, file, place.told, message, fix, cells=1)


def _counts(key: str) -> bool:
    words = set(_words(key))
    if words & _NO_ROWS:
        return False
    return bool(words & _COUNTS) or (
        bool(words & _ROWS) and bool(words & {"num", "number", "total"} or len(words) == 1)
    )


def _other(key: str) -> bool:
    """Whether a key inside of counts is no count itself."""
    return bool(set(_words(key)) & (_NO_ROWS | _EXTREMES | {"precision", "recall", "f1", "score", "mean", "std"}))


def _holds_counts(key: str) -> bool:
    words = set(_words(key))
    return "confusion" in words or (bool(words & {"counts", "histogram", "frequencies"}) and not words & _NO_ROWS)


def _long(file: str, place: _Place, value: list[Any] | dict[str, Any], private: Private) -> Iterator[Finding]:
    size = len(value)
    sizes = {table.rows for table in private.tables} | {private.rows}
    named = place.recorded or (place.predicted and isinstance(value, list))
    flat = isinstance(value, list) and all(not isinstance(child, list | dict) for child in value[:3])
    if size >= PER_ROW and (size in sizes or (named and flat)):
        message = "a list stands here that has one element for each row"
        fix = "give statistics over groups of rows instead"
        yield Finding(PER_RECORD.id, file, place.told, message, fix, rows=size)
        return
    if isinstance(value, list) and place.curved and (size > POINTS or size > max(51, private.rows / 5)):
        message = f"a curve of more than {min(POINTS, size - 1)} points stands here"
        fix = f"give it at {POINTS} evenly spaced points or fewer"
        yield Finding(CURVE.id, file, place.told, message, fix, cells=size)


def _dominance(file: str, place: _Place, group: dict[str, Any]) -> Iterator[Finding]:
    """A group that gives its total and its largest contributor (or its two largest)."""
    numbers = {_words(key): float(value) for key, value in group.items() if type(value) is float}
    total = next((value for words, value in numbers.items() if set(words) & _TOTALS and value > 0), None)
    if total is None:
        return
    largest = [value for words, value in numbers.items() if set(words) & {"max", "maximum", "largest", "second"}]
    if largest and DOMINANCE <= sum(sorted(largest)[-2:]) / total <= 1:
        message = f"one or two contributors make up {DOMINANCE:.0%} of a total or more"
        yield Finding(DOMINATED.id, file, place.told, message, "merge the group with others or leave its total out")


def _printed(file: str, text: str, names: _Names) -> Iterator[_Asked]:
    """The minima, maxima and quantiles of a table as `describe()` prints it: columns beside each other."""
    if not any(label in text for label in ("min", "max", "%")):
        return
    lines = text.splitlines()
    header: list[str] = []
    seen = 0  # lines above which the header is known; it is looked for only once a row of statistics stands below
    for number, line in enumerate(lines):
        label = _LABELS.match(line) if len(line) <= 100_000 else None
        if label is None:
            continue
        above = (names.header(lines[at]) for at in range(number - 1, seen - 1, -1))
        header, seen = next((parts for parts in above if parts), header), number
        cells = _cells(line[label.end() :])
        if len(cells) != len(header) or not all(_NUMBER.fullmatch(cell) for cell in cells):
            continue
        for name, cell in zip(header, cells, strict=True):
            column = names.column(_words(name))
            if column:
                yield _Asked(file, f"line {number + 1}", column, _Number.read(cell), label[1] in ("min", "max"))


def _cells(line: str) -> list[str]:
    return re.split(r"[\s,|;]+", line.strip(" |,;\t"))


def _answered(asked: Sequence[_Asked], private: Private) -> list[Finding]:
    """The numbers that are values of fewer than k rows; a bound that the data contract declares is no one's."""
    import numpy as np

    k, columns = private.contract.k, private.contract.columns
    open_ = [
        one
        for one in asked
        if one.column not in columns or float(one.number) not in (columns[one.column].min, columns[one.column].max)
    ]
    if not open_:
        return []
    by_column: dict[str, list[_Asked]] = {}
    for one in open_:
        by_column.setdefault(one.column, []).append(one)
    numbers = {
        name: (np.array([float(one.number) for one in ones]), np.array([one.number.half for one in ones]))
        for name, ones in by_column.items()
    }
    lookup = Lookup(private, numbers)
    for batch in private.batches(sorted(numbers)):
        lookup.feed(batch)
    found: dict[tuple[str, str, str], Finding] = {}
    for name, ones in by_column.items():
        chance = bits.chance(private.profile.numbers[name], *numbers[name]) * private.rows
        for one, rows, likely in zip(ones, lookup.counts(name).tolist(), chance.tolist(), strict=True):
            # A quantile that is printed coarsely fits some rows anyhow; a minimum or maximum is some row's.
            exact = one.extreme and _exact(private.profile.numbers[name], one.number)
            if 0 < rows < k and (exact or likely <= _LIKELY):
                message = f"a minimum, maximum or quantile of {name} is the value of fewer than {k} rows"
                fix = f"round it until {k} rows or more share it, or give mean and standard deviation"
                finding = Finding(EXTREME.id, one.file, one.place, message, fix, name, rows, 1)
                found.setdefault((one.file, one.place, name), finding)
    return list(found.values())


def _exact(column: Numbers, number: _Number) -> bool:
    """Whether a number is a column's end, or is told as finely as the column is measured, which singles rows out.

    A whole number that ends in zeros is rounded to as many places.
    """
    if min(abs(number - column.low), abs(number - column.high)) <= column.lattice / 4:
        return True
    half = number.half
    while half >= 0.5 and number and round(number) % round(20 * half) == 0:
        half *= 10
    return half <= max(column.lattice * 0.75, (column.high - column.low) / _COARSE)
