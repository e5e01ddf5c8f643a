"""Strings that are words, and strings that are something else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeml.airlock import gate
from edgeml.airlock.intake import entropy
from tests.release_builder import artifacts, read_json, write_json

WORDS = [
    "gradient_boosting",
    "roc_auc: the challenger is not better than the champion: difference -0.0021 [-0.0093, 0.0048]",
    "area under the ROC curve of class Malignant is 0.993 (95 % interval [0.98, 1]), at least 0.9 is asked",
    "permutation importance: 10 repeats, drop in ROC AUC; seed 20260101",
    "oneHotEncoderForCategoricals",
    "highest quarter (12.5, 28.11]",
    "NT-proBNP_level_24h, FT4_pmol_L and ICD10_I21 on ward 7B",
]
ENCODINGS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda data: base64.b64encode(data).decode(),
    "base64 for addresses": lambda data: base64.urlsafe_b64encode(data).decode(),
    "hexadecimal": bytes.hex,
    "base64 in words": lambda data: " ".join(base64.b64encode(data[i : i + 5]).decode()[:7] for i in range(0, 90, 5)),
}


@pytest.mark.parametrize("text", WORDS)
def test_words_pass(text: str) -> None:
    assert not entropy.encoded(text)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_encoded_is_seen(encoding: str) -> None:
    r = np.random.default_rng(1)
    seen = [entropy.encoded("difference to the champion: " + ENCODINGS[encoding](r.bytes(90))) for _ in range(100)]
    assert sum(seen) >= 99


def test_names_that_the_contract_gives_may_look_as_they_like() -> None:
    name = "Q7bX2aK9dL4mN8"
    assert entropy.encoded(f"worst column: {name}") and not entropy.encoded(f"worst column: {name}", {name})
    assert entropy.excess({"a": [name]}, {"a", name}) == "" and entropy.excess({"a": [name]}, {"a"})


def test_what_all_strings_tell_together_is_bounded() -> None:
    r = np.random.default_rng(2)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz    "))
    reasons = ["".join(r.choice(letters, 300)) for _ in range(20)]
    assert not any(map(entropy.encoded, reasons))
    assert "2048 bytes" in entropy.excess({"reasons": reasons}, ())
    assert entropy.excess({"reasons": reasons[:3]}, ()) == ""


@pytest.mark.parametrize("place", ["reasons", "method"])
def test_the_gate_lets_no_encoded_string_out(tmp_path: Path, place: str) -> None:
    made = artifacts(tmp_path / "inputs")
    hidden = base64.b64encode(np.random.default_rng(3).bytes(60)).decode().replace("=", "")
    file = "promotion.json" if place == "reasons" else "importance.json"
    document = read_json(made.evaluation / file)
    document[place] = [hidden] if place == "reasons" else hidden
    write_json(made.evaluation / file, document)
    papers = {name: made.folder / f"{name}.json" for name in ("manifest", "validation")}
    verdict = gate.check(
        [made.folder / "table"], made.folder / "contract.yml", [made.model, made.evaluation], tmp_path / "out",
        state=tmp_path / "state", **papers,
    )  # fmt: skip
    assert [(finding.rule, finding.file) for finding in verdict.findings if finding.rule == "text.entropy"] == [
        ("text.entropy", file)
    ]
    assert hidden not in json.dumps(verdict.document())
