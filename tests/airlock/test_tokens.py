"""The numbers and words of a text, as they are written by people and by programs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.airlock.evidence.tokens import encoded, tokens


def numbers(text: str) -> list[float]:
    return [round(float(value), 9) for value in tokens(encoded(text)).numbers.value]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.87 -12 +3 .5 5. 1e-5 3.25E+02", [0.87, -12, 3, 0.5, 5, 1e-5, 325]),
        ("[1, 2.5,3]", [1, 2.5, 3]),
        ("a=5;b: 6.5 'c': '7'", [5, 6.5, 7]),
        ("12.5ms 3% $4", [12.5, 3, 4]),
        ("1:0.5 2:7.25", [0.5, 7.25]),
        ("2026-03-05T10:11:12.345Z 10:15 v1.2.3 10.0.0.1 3/10", []),
        ("550e8400-e29b-41d4-a716-446655440000 sha256:1a2b3c4d P000123 0x1f feature_12", []),
        ("true False", [1, 0]),
        ("５６.７ −3", [56.7, -3]),
        ("", []),
        ("1", [1]),
    ],
)
def test_numbers_are_read_and_what_only_looks_so_is_not(text: str, expected: list[float]) -> None:
    assert numbers(text) == expected


def test_decimal_commas_and_percents_are_further_readings() -> None:
    found = tokens(encoded("12,5; 0,87; -3,25"))
    assert found.others[0].value.tolist() == pytest.approx([12.5, 0.87, -3.25])
    assert tokens(encoded("87% 4")).others[0].value.tolist() == pytest.approx([0.87, 4])
    assert tokens(encoded("1,2,3,4")).others == ()


def test_nulls_are_told_from_absent_numbers() -> None:
    found = tokens(encoded("nan 1 null None")).numbers
    assert [math.isnan(value) for value in found.value] == [True, False, True, True]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32, min_value=-1e9, max_value=1e9), max_size=20))
def test_every_number_lies_in_the_interval_of_its_print(values: list[float]) -> None:
    for form in (repr, "{:.3g}".format, "{:.4e}".format, "{:.2f}".format):
        found = tokens(encoded(" ".join(map(form, values)))).numbers
        assert len(found.value) == len(values)
        assert all(
            abs(value - told) <= half + 1e-12 for value, told, half in zip(values, found.value, found.half, strict=True)
        )


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    found = tokens(encoded(text))
    assert (found.words.end > found.words.start).all()


def test_pieces_give_the_tokens_of_the_whole() -> None:
    line = "2026-01-01 INFO step=17 loss=0.125 acc=0.5\n"
    whole = tokens(encoded(line * 40_000))  # some pieces
    assert len(whole.numbers.value) == 3 * 40_000
    assert len(set(whole.words.hash[whole.numbers.key[::3]].tolist())) == 1
    assert whole.line(int(whole.numbers.at[-1])) == 40_000
