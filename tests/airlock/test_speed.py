"""What is found in whole arrays is what was to be found one by one: the fast ways lose nothing."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeml.airlock import disclosure
from edgeml.airlock.evidence import near
from edgeml.airlock.evidence.corpus import distinct
from edgeml.airlock.evidence.tokens import encoded, tokens, words_of
from edgeml.airlock.finding import Artifact
from edgeml.airlock.intake import alike, decodings, json_views, spans, views
from tests.airlock.private_table import NUMBERS, log, private, table

SECRET = "Margaret O'Neill 17.993 10,381 122.81 é"
MARKS = ["\n", " ", ",", "; ", ".", "\r\n", "-", "=", "\n  ", ":", "x", "", "é", "\x0c"]


def _lines(text: str, width: int, end: str = "\n") -> str:
    return end.join(text[at : at + width] for at in range(0, len(text), width))


DRESSES: list[Callable[[bytes, random.Random], str]] = [
    lambda data, _: base64.b64encode(data).decode(),
    lambda data, chance: _lines(base64.b64encode(data * 3).decode(), chance.choice([4, 8, 12, 76])),
    lambda data, chance: _lines(base64.b64encode(data).decode(), chance.choice([4, 8, 12]), "\r\n"),
    lambda data, _: base64.urlsafe_b64encode(data).decode().rstrip("="),
    lambda data, chance: data.hex(chance.choice([" ", ":", ","])),
    lambda data, _: data.hex(),
    lambda data, _: "".join(f"0x{byte:02x} " for byte in data),
    lambda data, _: "".join(f"\\x{byte:02x}" for byte in data),
    lambda data, _: base64.b32encode(data).decode(),
    lambda data, _: base64.b85encode(data).decode(),
    lambda data, chance: chance.choice([", ", ",", " "]).join(map(str, data)),
    lambda *_: "1,5 2,75",
    lambda *_: "0.5",
    lambda *_: "abcd",
    lambda *_: "12345678901234567",
    lambda *_: "550e8400-e29b-41d4-a716-446655440000",
]


def _mixed(chance: random.Random, marks: list[str] = MARKS) -> str:
    """A text of pieces that are encoded in many ways, of what is text and of what is not."""
    parts = []
    for _ in range(chance.randint(5, 25)):
        data = (SECRET * chance.randint(1, 3)).encode()[: chance.randint(3, 90)]
        if chance.random() < 0.2:
            data = chance.randbytes(chance.randint(4, 120))
        elif chance.random() < 0.1:
            data = data.decode("utf-8", "replace").encode("utf-16")
        parts += [chance.choice(DRESSES)(data, chance), chance.choice(marks)]
    text = "".join(parts)
    return text if chance.random() < 0.4 else text.encode("ascii", "ignore").decode()


@pytest.mark.parametrize("marks", [MARKS, [mark for mark in MARKS if mark != "\n  "], ["\n", "\r\n", " "]])
@pytest.mark.parametrize("seed", range(4))
def test_spans_hold_all_that_the_patterns_find_in_the_whole_text(seed: int, marks: list[str]) -> None:
    chance, found = random.Random(seed), 0
    for _ in range(40):
        text = _mixed(chance, marks)
        letters = spans.Letters(text)
        for name, way in decodings.WAYS:
            if name != "quoted-printable":
                expected = list(way(text, None))
                assert list(way(text, letters)) == expected, (name, text)
                found += len(expected)
    assert found > 130


KEYS = ["epoch", "loss", "count", "max_glucose", "f1", "total", "dof", "roc", "predictions", "confusion", "note", "a 7"]
PRINTED = ["0", "7", "3.0", "-0.25", "1e-05", "12345", "0.000", "NaN", "true", '"n 12"', "null"]


def _document(chance: random.Random, depth: int = 2) -> str:
    if depth and chance.random() < 0.5:
        parts = [f'"{key}": {_document(chance, depth - 1)}' for key in chance.sample(KEYS, chance.randint(0, 3))]
        return f"{{{', '.join(parts)}}}"
    if depth and chance.random() < 0.4:
        return f"[{', '.join(_document(chance, depth - 1) for _ in range(chance.choice([0, 2, 60, 150])))}]"
    return chance.choice(PRINTED)


def test_lines_of_one_form_are_judged_as_each_of_them_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other numbers in the same places, among them some that are no JSON; and as many lines as rows or not."""
    opened, chance, told, shorter = private(table(300), tmp_path), random.Random(9), 0, 0
    shortened = alike.shortened

    def counted(text: str, silent: Callable[[str], bool | None]) -> str:
        nonlocal shorter
        found = shortened(text, silent)
        shorter += len(found) < len(text)
        return found

    monkeypatch.setattr(alike, "LEAST", 0)
    for _ in range(25):
        forms = [f'{{"step": {_document(chance)}}}' for _ in range(chance.randint(1, 4))]
        lines = [re.sub(r"(?<=[ \[])[37](?=[,\]}])", lambda _: str(chance.randint(0, 99)), one) for one in forms * 75]
        if chance.random() < 0.3:
            lines[chance.randrange(len(lines))] = chance.choice(
                ['{"a": 07}', '{"a": 1.}', "[1,", "]", "5", '{"a": -0}']
            )
        artifact = Artifact("run.jsonl", "json", "\n".join(lines).encode())
        monkeypatch.setattr(alike, "shortened", lambda text, _: text)
        plain = disclosure.check([artifact], opened)
        monkeypatch.setattr(alike, "shortened", counted)
        assert disclosure.check([artifact], opened) == plain
        told += bool(plain)
    assert told > 5 and shorter > 5


def test_of_lines_that_are_not_quoted_printable_only_words_with_escapes_are_decoded() -> None:
    plain = log(8_000)  # step=17, id=550e…
    hidden = "Mar=67aret=20O'Neill=0A"
    inside = dict(decodings.of(plain + hidden + "\nkey=value name=Mar=67aret\n" + plain))["quoted-printable"]
    assert isinstance(inside, str) and "Margaret O'Neill" in inside and "name=Margaret" in inside
    assert len(inside) < len(plain) / 2


def test_of_large_json_what_other_things_stand_between_is_put_together() -> None:
    filler = {"epoch": 1, "loss": [0.5, 0.25], "note": "nothing"}
    record = {"17.25": 0.125, "parts": {"a": [1.5, 2.5]}, "x": 0.375, "more": [3.5], "y": 0.625, "names": "1,5 2,75"}
    lines = [json.dumps(filler)] * 4_000 + [json.dumps(record), '{"broken": "'] + [json.dumps(filler)] * 10
    lines.append(json.dumps({"city": "Lübeck", "k": 1}))  # escaped: parsed
    text = "\n".join(lines)
    assert len(text) > json_views.LARGE
    seen = [found.text for found in views.of([Artifact("metrics.jsonl", "json", text.encode())])]
    assert any("Lübeck" in found for found in seen[1:])
    assert any("1.5 2.75" in found for found in seen[1:])  # decimal commas of a string, beside points
    rows = [[float(value) for value in tokens(encoded(found)).numbers.value] for found in seen[1:]]
    assert any(_follow(row, [0.125, 0.375, 0.625]) for row in rows)


def _follow(numbers: list[float], wanted: list[float]) -> bool:
    return any(numbers[at : at + len(wanted)] == wanted for at in range(len(numbers)))


@pytest.mark.parametrize("digits", [1, 7, 8, 9, 15, 16, 17, 24])
def test_digits_are_read_eight_at_a_time(digits: int) -> None:
    for text in (
        "9" * digits,
        "1" + "0" * (digits - 1),
        "0." + "3" * digits,
        f"-0.{'0' * digits}7",
        "5" * digits + ".5",
    ):
        found = tokens(encoded(f"a {text} b")).numbers
        assert found.value.tolist() == pytest.approx([float(text)], rel=1e-14)
        assert abs(float(text) - found.value[0]) <= found.half[0]


def test_a_value_at_the_end_of_a_piece_is_one_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeml.airlock.evidence.tokens.CHUNK", 64)
    text = encoded("\n".join(["Mary Ann Testname of Leeds"] * 40))
    words = words_of(text)
    assert [bool(joined) for joined in words.joined] == [True, True, True, True, False] * 40


@pytest.mark.parametrize("rows", [300, 20_000])
def test_cells_meet_all_numbers_that_they_fit(rows: int, tmp_path: Path) -> None:
    """With few rows each is looked for, with many a sieve tells first which steps of the range hold a number."""
    frame = table(rows)
    opened = private(frame, tmp_path)
    random_ = np.random.default_rng(1)
    printed = [f"{value:.{random_.integers(0, 5)}f}" for value in random_.normal(60, 50, 3000)]
    numbers = distinct(tokens(encoded(" ".join([*printed, "1e300", "-5e-300", "nan"]))).numbers)
    index = near.Near(numbers, opened, dict.fromkeys(NUMBERS, 1.0))
    found = dict.fromkeys(NUMBERS, 0)
    for batch in opened.batches():
        for name in index.names:
            found[name] += sum(len(cells) for cells, _ in index.pairs(batch, name))
    for name in NUMBERS:
        cells = frame[name].cast(float).to_numpy()
        span = opened.profile.numbers[name].high - opened.profile.numbers[name].low
        fine = 2 * numbers.half <= span / 4
        expected = sum(
            int((np.abs(cells - value) <= half).sum())
            for value, half in zip(numbers.value[fine], numbers.half[fine], strict=True)
        )
        assert found[name] >= expected > 0 or expected == 0, name
