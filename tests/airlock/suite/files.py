"""Leaks: files that training leaves behind, in the formats and encodings that rows come in."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import html
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .table import Table
from .vectors import add, leak, records, some

FILES = "files and logs"

EPOCH = "2026-11-24T10:{:02d}:{:02d}Z INFO train: epoch {} loss {:.4f} val_loss {:.4f} lr 0.001"


def csv_of(table: Table, rows: list[int], columns: list[str] | None = None, separator: str = ",") -> str:
    frame = table.frame if columns is None else table.frame.select(columns)
    return frame[rows].write_csv(separator=separator)


def numeric(table: Table, rows: list[int]) -> str:
    """The rows as CSV, of numbers only."""
    return csv_of(table, rows, table.names)


def log_lines(rng: np.random.Generator, lines: int) -> list[str]:
    """An honest log of training."""
    values = rng.random((lines, 2))
    return [EPOCH.format(line // 60 % 60, line % 60, line, 0.2 + a, 0.3 + b) for line, (a, b) in enumerate(values)]


def in_log(folder: Path, rng: np.random.Generator, text: str, lines: int = 200) -> None:
    """A log with one more piece of text somewhere in it."""
    told = log_lines(rng, lines)
    told.insert(int(rng.integers(10, lines - 10)), text)
    (folder / "train.log").write_text("\n".join(told) + "\n")


# --- as text --------------------------------------------------------------------------------------


def _frame_print(table: Table, rows: list[int], decimals: int | None) -> str:
    """What `head()` prints: a header, then the cells in columns of a fixed width."""
    names = table.names
    lines = ["    " + " ".join(f"{name[:12]:>14}" for name in names)]
    lines += [f"{row:<4}" + " ".join(f"{cell:>14}" for cell in table.cells(row, decimals)) for row in rows]
    return "\n".join(lines)


def _head(decimals: int | None) -> Callable[[Path, Table, np.random.Generator], None]:
    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        in_log(folder, rng, _frame_print(table, some(table, rng, 5), decimals))

    return write


for _name, _decimals in (("head_in_full", None), ("head_to_two_decimals", 2), ("head_to_one_decimal", 1)):
    add(FILES, _name, _head(_decimals))
add(FILES, "head_to_whole_numbers", _head(0))


def _told(name: str, text: Callable[[Table, np.random.Generator], str]) -> None:
    """A vector that puts one text into a log."""
    add(FILES, name, lambda folder, table, rng: in_log(folder, rng, text(table, rng)))


def _one(table: Table, rng: np.random.Generator) -> dict[str, Any]:
    return records(table, some(table, rng, 1))[0]


def _traceback(table: Table, rng: np.random.Generator) -> str:
    row = table.cells(some(table, rng, 1)[0])
    return (
        'Traceback (most recent call last):\n  File "train.py", line 41, in <module>\n    fit(batch)\n'
        f"ValueError: Input contains NaN: array([{', '.join(row)}])"
    )


def _bad_cell(table: Table, rng: np.random.Generator) -> str:
    return f"ValueError: could not convert string to float: '{table.texts(table.form.person)[some(table, rng, 1)[0]]}'"


def _sql(table: Table, rng: np.random.Generator) -> str:
    row = _one(table, rng)
    return f"INSERT INTO {table.form.title} ({', '.join(row)}) VALUES ({', '.join(map(repr, row.values()))});"


def _listed(table: Table, rng: np.random.Generator) -> str:
    return "\n".join(f"  {name}: {value}" for name, value in _one(table, rng).items())


_told("traceback_with_a_row", _traceback)
_told("traceback_with_a_name", _bad_cell)
_told("insert_statement", _sql)
_told("repr_of_a_record", lambda table, rng: f"DEBUG sample {_one(table, rng)!r}")
_told("row_listed_over_lines", _listed)
_told("one_mail_address", lambda table, rng: f"INFO notified {_one(table, rng)[table.form.mail]}")
_told("one_id", lambda table, rng: f"WARN skipped {_one(table, rng)[table.form.key]}: duplicate")
_told("one_name_in_capitals", lambda table, rng: f"INFO row of {_one(table, rng)[table.form.person].upper()} dropped")
_told("one_note", lambda table, rng: f"DEBUG tokens: {_one(table, rng)[table.form.note]}")
_told("half_a_note", lambda table, rng: "DEBUG " + " ".join(_one(table, rng)[table.form.note].split()[-14:]))
_told("row_in_scientific_notation", lambda table, rng: " ".join(f"{v:.8e}" for v in _numbers(table, rng)))
_told("row_in_a_numpy_print", lambda table, rng: str(np.array(_numbers(table, rng))))
_told("row_in_hexadecimal_floats", lambda table, rng: " ".join(float(v).hex() for v in _numbers(table, rng)))
_told("row_in_base64", lambda table, rng: base64.b64encode(_line(table, rng)).decode())
_told("row_in_url_safe_base64", lambda table, rng: base64.urlsafe_b64encode(_line(table, rng)).decode().rstrip("="))
_told("row_in_base64_over_lines", lambda table, rng: base64.encodebytes(_line(table, rng)).decode())
_told("row_in_base85", lambda table, rng: base64.b85encode(_line(table, rng)).decode())
_told("row_in_base32", lambda table, rng: base64.b32encode(_line(table, rng)).decode())
_told("row_in_hexadecimal", lambda table, rng: _line(table, rng).hex())
_told("row_url_encoded", lambda table, rng: urllib.parse.urlencode(_one(table, rng)))
_told("row_percent_encoded", lambda table, rng: "".join(f"%{byte:02X}" for byte in _line(table, rng)))
_told("row_in_html_entities", lambda table, rng: "".join(f"&#{byte};" for byte in _line(table, rng)))
_told("row_in_unicode_escapes", lambda table, rng: "".join(f"\\u{byte:04x}" for byte in _line(table, rng)))
_told("row_in_byte_escapes", lambda table, rng: "".join(f"\\x{byte:02x}" for byte in _line(table, rng)))
_told(
    "floats_in_base64", lambda table, rng: base64.b64encode(_numbers(table, rng).astype("float32").tobytes()).decode()
)
_told("doubles_in_hexadecimal", lambda table, rng: _numbers(table, rng).astype("float64").tobytes().hex())
_told("gzip_in_base64", lambda table, rng: base64.b64encode(gzip.compress(_line(table, rng))).decode())
_told("pickle_in_base64", lambda table, rng: base64.b64encode(pickle.dumps(_one(table, rng))).decode())
_told("base64_in_base64", lambda table, rng: base64.b64encode(base64.b64encode(_line(table, rng))).decode())
_told("decimal_commas", lambda table, rng: "; ".join(cell.replace(".", ",") for cell in _cells(table, rng)))
_told("thousands_separated", lambda table, rng: " | ".join(f"{value:,.2f}" for value in _numbers(table, rng)))
_told(
    "xml_of_a_row", lambda table, rng: "".join(f"<{k}>{html.escape(str(v))}</{k}>" for k, v in _one(table, rng).items())
)
_told("cells_in_another_order", lambda table, rng: "vals=" + "/".join(rng.permutation(_cells(table, rng))))
_told("five_cells_of_a_row", lambda table, rng: "x=" + ",".join(_precise(table, rng)))


def _cells(table: Table, rng: np.random.Generator) -> list[str]:
    return [cell or "nan" for cell in table.cells(some(table, rng, 1)[0])]


def _precise(table: Table, rng: np.random.Generator) -> list[str]:
    """Five neighbouring columns of a row."""
    return _cells(table, rng)[4:9]


def _numbers(table: Table, rng: np.random.Generator) -> np.ndarray:
    """One row in double precision, without what is missing."""
    while True:
        row = table.frame.select(table.names).row(some(table, rng, 1)[0])
        if None not in row:
            return np.array(row, dtype="float64")


def _line(table: Table, rng: np.random.Generator) -> bytes:
    return csv_of(table, some(table, rng, 1)).split("\n")[1].encode()


@leak(FILES)
def one_row_in_a_large_log(folder: Path, table: Table, rng: np.random.Generator) -> None:
    in_log(folder, rng, "batch " + " ".join(_cells(table, rng)), 12_000)


@leak(FILES)
def slow_drip(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """One cell of a row in each line of a log."""
    told = log_lines(rng, 120)
    for place, cell in enumerate(_cells(table, rng)):
        told[place * 3] += f" aux {cell}"
    (folder / "train.log").write_text("\n".join(told) + "\n")


@leak(FILES)
def slow_drip_of_three_rows(folder: Path, table: Table, rng: np.random.Generator) -> None:
    told = log_lines(rng, 300)
    cells = [cell or "nan" for row in some(table, rng, 3) for cell in table.cells(row)]
    for place, cell in enumerate(cells):
        told[place * 6] += f" aux {cell}"
    (folder / "train.log").write_text("\n".join(told) + "\n")


@leak(FILES)
def losses_that_are_a_row(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """The cells instead of the losses."""
    cells = _cells(table, rng)
    lines = [f"epoch {epoch} loss {cell}" for epoch, cell in enumerate(cells)]
    (folder / "train.log").write_text("\n".join(lines) + "\n")


# --- as files -------------------------------------------------------------------------------------


def _file(name: str, file: str, data: Callable[[Table, np.random.Generator], str | bytes]) -> None:
    """A vector that adds one file."""

    def write(folder: Path, table: Table, rng: np.random.Generator) -> None:
        content = data(table, rng)
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())

    add(FILES, name, write)


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, default=str)


def _split(table: Table, rng: np.random.Generator) -> str:
    """MLflow's input example: columns, then rows."""
    rows = [list(record.values()) for record in records(table, some(table, rng, 5), table.names)]
    return _json({"columns": table.names, "data": rows})


def _serving(table: Table, rng: np.random.Generator) -> str:
    rows = [list(record.values()) for record in records(table, some(table, rng, 2), table.names)]
    return json.dumps({"dataframe_split": {"columns": table.names, "data": rows}})


def _columns(table: Table, rng: np.random.Generator) -> str:
    rows = some(table, rng, 40)
    return "\n".join(",".join(table.cells(row)[at] for row in rows) for at in range(len(table.names)))


def _predictions(table: Table, rng: np.random.Generator, ids: bool) -> str:
    keys = table.texts(table.form.key) if ids else [str(row) for row in range(table.rows)]
    scores = rng.random(table.rows)
    return "id,score\n" + "".join(f"{key},{score:.4f}\n" for key, score in zip(keys, scores, strict=True))


def _notebook(table: Table, rng: np.random.Generator) -> str:
    cell = {
        "cell_type": "code",
        "source": ["df.head()"],
        "outputs": [
            {"output_type": "execute_result", "data": {"text/plain": [_frame_print(table, some(table, rng, 5), 3)]}}
        ],
    }
    return _json({"cells": [cell], "nbformat": 4, "nbformat_minor": 5, "metadata": {}})


def _arrays(table: Table, rng: np.random.Generator, rows: int) -> np.ndarray:
    return table.matrix()[some(table, rng, rows)]


def _npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _parquet(table: Table, rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    table.frame[some(table, rng, 30)].write_parquet(stream)
    return stream.getvalue()


def _arrow(table: Table, rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    table.frame[some(table, rng, 30)].write_ipc(stream, compression="uncompressed")
    return stream.getvalue()


def _sqlite(table: Table, rng: np.random.Generator) -> bytes:
    rows = records(table, some(table, rng, 20))
    with sqlite3.connect(":memory:") as connection:
        connection.execute(f"CREATE TABLE runs ({', '.join(rows[0])})")
        marks = ", ".join("?" * len(rows[0]))
        connection.executemany(f"INSERT INTO runs VALUES ({marks})", [list(row.values()) for row in rows])
        connection.commit()
        return connection.serialize()


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def tarred(members: dict[str, bytes], mode: Any = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _csv(table: Table, rng: np.random.Generator) -> bytes:
    return csv_of(table, some(table, rng, 20)).encode()


def _workbook(table: Table, rng: np.random.Generator) -> bytes:
    """A spreadsheet as Excel stores it, without the parts that a reader can do without."""
    cells = "".join(
        f"<row>{''.join(f'<c><v>{c}</v></c>' for c in table.cells(row))}</row>" for row in some(table, rng, 5)
    )
    return zipped({"xl/worksheets/sheet1.xml": f"<worksheet><sheetData>{cells}</sheetData></worksheet>".encode()})


def _html_table(table: Table, rng: np.random.Generator) -> str:
    rows = [f"<tr>{''.join(f'<td>{cell}</td>' for cell in table.cells(row))}</tr>" for row in some(table, rng, 4)]
    return f"<html><body><table>{''.join(rows)}</table></body></html>"


def _estimator_page(table: Table, rng: np.random.Generator) -> str:
    """The page that autologging keeps: the names of an encoder's columns are people."""
    people = [table.texts(table.form.person)[row] for row in some(table, rng, 30)]
    return f"<html><div class='sk-estimator'>{''.join(f'<td>{table.form.person}_{name}</td>' for name in people)}</div>"


def _libsvm(table: Table, rng: np.random.Generator) -> str:
    lines = [" ".join(f"{i}:{c}" for i, c in enumerate(table.cells(row), 1) if c) for row in some(table, rng, 5)]
    return "\n".join(f"1 {line}" for line in lines)


def _png(table: Table, rng: np.random.Generator) -> bytes:
    from matplotlib.figure import Figure

    stream = io.BytesIO()
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot(table.matrix()[:50, 0], table.matrix()[:50, 1], ".")
    figure.savefig(stream, metadata={"Comment": _line(table, rng).decode()})
    return stream.getvalue()


def _quoted_csv(table: Table, rng: np.random.Generator) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerows(record.values() for record in records(table, some(table, rng, 5)))
    return stream.getvalue()


_file("input_example", "input_example.json", _split)
_file("serving_input_example", "serving_input_example.json", _serving)
_file("comma_separated", "sample.csv", _csv)
_file("every_cell_quoted", "sample.csv", _quoted_csv)
_file("numbers_without_header", "x.txt", lambda t, rng: numeric(t, some(t, rng, 10)).split("\n", 1)[1])
_file("tab_separated", "sample.tsv", lambda t, rng: csv_of(t, some(t, rng, 10), separator="\t"))
_file("json_lines", "sample.jsonl", lambda t, rng: "\n".join(map(json.dumps, records(t, some(t, rng, 5)))))
_file("columns_one_after_another", "columns.txt", _columns)
_file("one_column_dumped", "range.txt", lambda t, rng: "\n".join(str(v) for v in t.frame[t.names[-1]].to_list()[:300]))
_file("one_column_sorted", "sorted.json", lambda t, rng: _json(sorted(t.frame[_full(t)].to_list()[:200])))
_file("parquet", "sample.parquet", _parquet)
_file("arrow", "sample.arrow", _arrow)
_file("database", "runs.db", _sqlite)
_file("pickle", "sample.pkl", lambda t, rng: pickle.dumps(records(t, some(t, rng, 10))))
_file("pickle_of_an_array", "x.pkl", lambda t, rng: pickle.dumps(_arrays(t, rng, 20)))
_file("numpy_array", "x.npy", lambda t, rng: _npy(_arrays(t, rng, 20)))
_file("numpy_array_in_fortran_order", "x.npy", lambda t, rng: _npy(np.asfortranarray(_arrays(t, rng, 20))))
_file("replay_buffer", "replay.npz", lambda t, rng: _npz(states=_arrays(t, rng, 40), rewards=rng.random(40)))
_file("shap_background", "background.json", lambda t, rng: _json({"background": _arrays(t, rng, 20).tolist()}))
_file("raw_floats", "weights.bin", lambda t, rng: _arrays(t, rng, 20).tobytes())
_file("raw_doubles_big_endian", "weights.bin", lambda t, rng: _arrays(t, rng, 20).astype(">f8").tobytes())
_file("predictions_by_id", "predictions.csv", lambda t, rng: _predictions(t, rng, True))
_file("predictions_by_row", "predictions.csv", lambda t, rng: _predictions(t, rng, False))
_file("scores_of_every_row", "scores.json", lambda t, rng: _json([round(v, 5) for v in rng.random(t.rows).tolist()]))
_file("notebook", "explore.ipynb", _notebook)
_file("zip", "logs.zip", lambda t, rng: zipped({"sample.csv": _csv(t, rng)}))
_file("zip_in_a_zip", "logs.zip", lambda t, rng: zipped({"inner.zip": zipped({"sample.csv": _csv(t, rng)})}))
_file("tar_in_a_zip", "logs.zip", lambda t, rng: zipped({"inner.tar.gz": tarred({"sample.csv": _csv(t, rng)})}))
_file("tar", "cache.tar.gz", lambda t, rng: tarred({"a/sample.csv": _csv(t, rng)}))
_file("gzip", "train.log.gz", lambda t, rng: gzip.compress(_csv(t, rng)))
_file("bzip2", "train.log.bz2", lambda t, rng: bz2.compress(_csv(t, rng)))
_file("xz", "train.log.xz", lambda t, rng: lzma.compress(_csv(t, rng)))
_file("spreadsheet", "report.xlsx", _workbook)
_file("page_with_a_table", "report.html", _html_table)
_file("page_of_an_estimator", "estimator.html", _estimator_page)
_file("markdown_table", "report.md", lambda t, rng: "\n".join(f"| {' | '.join(t.cells(r))} |" for r in some(t, rng, 4)))
_file("libsvm", "train.svm", _libsvm)
_file("plot_with_a_comment", "plot.png", _png)


def _full(table: Table) -> str:
    """A column that is printed with all its digits."""
    return next(name for name in table.names if table.decimals(name) is None)
