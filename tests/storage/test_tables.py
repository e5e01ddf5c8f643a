"""The made-up table and the sample."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pyarrow.csv as arrow
import pytest

from edgeml.errors import EdgemlError
from edgeml.storage import sample, synth
from tests.memory import peak_of


def digest(paths: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def test_a_seed_is_its_bytes(tmp_path: Path) -> None:
    one, two = (synth.write(tmp_path / name, 1000, seed=7) for name in ("one", "two"))
    assert digest(one) == digest(two) != digest(synth.write(tmp_path / "other", 1000, seed=8))


def test_the_rows_do_not_depend_on_how_they_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "CHUNK", 64)
    seen: list[int] = []
    whole = synth.write(tmp_path / "whole", 300, files=1, progress=seen.append)
    parts = synth.write(tmp_path / "parts", 300, files=7)
    lines = [path.read_text().splitlines() for path in parts]
    assert sum(seen) == 300 and all(part[0] == lines[0][0] for part in lines)
    assert whole[0].read_text().splitlines()[1:] == [line for part in lines for line in part[1:]]
    assert len({line.split(",")[0] for line in whole[0].read_text().splitlines()}) == 301, "ids are unique"


def test_the_types_are_mixed_and_some_values_missing(tmp_path: Path) -> None:
    (path,) = synth.write(tmp_path, 2000)
    table = arrow.read_csv(path)
    assert {str(kind) for kind in table.schema.types} == {"string", "int64", "double", "bool", "date32[day]"}
    assert table["weight"].null_count and table["ward"].to_pylist().count("") and not table["age"].null_count


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        code = "from pathlib import Path; from edgeml.storage import synth; synth.write(Path('made'), int(sys.argv[1]))"
        found, done = peak_of(code, str(rows), folder=tmp_path)
        assert done.returncode == 0 and (tmp_path / "made").is_dir(), done.stderr
        return found

    assert peak(synth.CHUNK * 12) < 1.25 * peak(synth.CHUNK * 3)


@pytest.mark.parametrize(("rows", "files"), [(0, 1), (-1, 1), (3, 0), (3, 4)])
def test_a_table_that_cannot_be_made(tmp_path: Path, rows: int, files: int) -> None:
    with pytest.raises(EdgemlError, match="at least one row for each file"):
        synth.write(tmp_path, rows, files=files)


def test_the_sample_is_the_table_of_scikit_learn_with_ids(tmp_path: Path) -> None:
    from sklearn.datasets import load_breast_cancer

    paths = sample.write(tmp_path / "one")
    assert digest(paths) == digest(sample.write(tmp_path / "two")) and len(paths) == 4
    rows = [row for path in paths for row in csv.DictReader(path.open())]
    source = load_breast_cancer()
    assert len(rows) == len({row["patient_id"] for row in rows}) == 569
    assert all(len(row["patient_id"]) == 7 and row["patient_id"][0] == "P" for row in rows)
    assert list(rows[0])[1] == "mean_radius" and len(rows[0]) == 32
    assert [float(row["worst_fractal_dimension"]) for row in rows] == list(source.data[:, -1])
    assert [row["diagnosis"] for row in rows].count("malignant") == 212
