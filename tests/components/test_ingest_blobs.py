"""`ingest_blobs` against the embedded server: what it writes, what it refuses, and what it never says."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from azure.storage.blob import ContainerClient

from edgeml.storage import blob_client

COMPONENT = Path(__file__).parents[2] / "components/ingest_blobs"
SECRET = "Xq7secret"


@pytest.fixture(scope="module")
def ingest_blobs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The script as its snapshot holds it: with the blob client beside it."""
    snapshot = tmp_path_factory.mktemp("snapshot")
    definition = yaml.safe_load((COMPONENT / "component.yml").read_text())
    for path in [COMPONENT / "ingest_blobs.py", *(COMPONENT / more for more in definition["additional_includes"])]:
        (snapshot / path.name).write_bytes(path.read_bytes())
    sys.path.insert(0, str(snapshot))
    yield importlib.import_module("ingest_blobs")
    sys.path.remove(str(snapshot))
    for name in ("ingest_blobs", "blob_client"):
        sys.modules.pop(name, None)


@dataclass
class Container:
    """A container of the test's own, and the component that reads it."""

    client: ContainerClient
    module: Any
    out: Path
    capsys: pytest.CaptureFixture[str]
    error: str = ""

    def put(self, name: str, content: bytes | str, **options: Any) -> None:
        self.client.upload_blob(name, content, overwrite=True, **options)

    def ingest(self, prefix: str = "/", container: str = "") -> int:
        names = ["--container", container or self.client.container_name, "--prefix", prefix]
        code = self.module.main([*names, "--table", str(self.out / "table"), "--manifest", str(self.manifest_file)])
        self.error = self.capsys.readouterr().err
        return int(code)

    @property
    def manifest_file(self) -> Path:
        return self.out / "manifest.json"

    @property
    def manifest(self) -> dict[str, Any]:
        return dict(json.loads(self.manifest_file.read_text()))

    @property
    def types(self) -> dict[str, str]:
        return {column["name"]: column["type"] for column in self.manifest["columns"]}

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables(pq.read_table(path) for path in sorted((self.out / "table").glob("part-*.parquet")))

    def refusal(self, *words: str) -> None:
        """It failed with one sentence that holds these words, quotes no value and left no manifest."""
        assert self.ingest() == 1
        line = self.error.splitlines()[-1]
        assert line.startswith("ingest_blobs: ") and all(word in line for word in words), self.error
        assert SECRET not in self.error and "Traceback" not in self.error
        assert not self.manifest_file.exists()


@pytest.fixture
def container(
    storage: Any,
    ingest_blobs: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Container:
    name = "i" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:20]
    for key, value in storage.environment.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(ingest_blobs, "BLOCK", 4096)  # so that little data has many blocks
    client = blob_client.container(name, storage.environment)
    client.create_container()
    return Container(client, ingest_blobs, tmp_path, capsys)


def rows(count: int, value: str = "1.5") -> str:
    return "".join(f"P{number:05d},{number},{value}\n" for number in range(count))


HEADER = "id,number,value\n"


def test_the_sample_arrives_whole(container: Container, tmp_path: Path) -> None:
    from edgeml.storage import sample, transfer

    paths = sample.write(tmp_path / "sample")
    transfer.push(container.client, transfer.sources([tmp_path / "sample"], "patients/"))
    container.put("elsewhere/other.csv", "a\n1\n")
    container.put("patients/readme.txt", "not a table")
    assert container.ingest("patients/") == 0, container.error
    table, manifest = container.table, container.manifest
    assert table.num_rows == manifest["rows"] == 569
    assert [(blob["name"], blob["bytes"], blob["sha256"]) for blob in manifest["blobs"]] == [
        (f"patients/{path.name}", path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths
    ]
    assert manifest["bytes"] == sum(path.stat().st_size for path in paths) and manifest["version"] == 1
    assert container.types["patient_id"] == "string" and container.types["mean_radius"] == "double"
    assert list(container.types) == table.schema.names and len(container.types) == 32
    from sklearn.datasets import load_breast_cancer

    assert np.array_equal(table["mean_radius"].to_numpy(), load_breast_cancer().data[:, 0])


def test_the_outputs_are_a_function_of_the_content(container: Container) -> None:
    container.put("a.csv", HEADER + rows(3000))
    container.put("b.csv", HEADER + rows(50))

    def outputs() -> dict[str, bytes]:
        assert container.ingest() == 0, container.error
        return {path.name: path.read_bytes() for path in container.out.rglob("*") if path.is_file()}

    first = outputs()
    assert set(first) == {"part-00000.parquet", "part-00001.parquet", "manifest.json"}
    container.put("a.csv", HEADER + rows(3000))  # the same content, another etag and time
    assert outputs() == first
    fingerprint = container.manifest["fingerprint"]
    container.put("b.csv", HEADER + rows(51))
    assert outputs() != first and container.manifest["fingerprint"] != fingerprint


def test_cells_arrive_as_what_they_are(container: Container) -> None:
    container.put(
        "a.csv",
        "\ufefftext,whole,real,yes,day,moment,none\r\n"
        '"a, ""b""\nc",1,1.5,true,2026-01-02,2026-01-02 03:04:05,\r\n'
        ",,NA,false,,,\r\n"
        "ü,-3,NaN,,2026-01-03,2026-01-03 00:00:00,\r\n".encode(),
    )
    assert container.ingest() == 0, container.error
    kinds = ["string", "int64", "double", "bool", "date32[day]", "timestamp[s]", "null"]
    assert list(container.types.values()) == kinds
    table = container.table
    assert table["text"].to_pylist() == ['a, "b"\nc', None, "ü"]
    assert table["whole"].to_pylist() == [1, None, -3] and table["real"].to_pylist() == [1.5, None, None]


@pytest.mark.parametrize(
    ("early", "late", "kind"),
    [
        ("1", "2.5", "double"),
        ("1", SECRET, "string"),
        ("1.5", SECRET, "string"),
        ("", "7", "int64"),
        ("", SECRET, "string"),
        ("true", SECRET, "string"),
        ("2026-01-01", "2026-01-01 10:00:00", "timestamp[s]"),
        ("2026-01-01", SECRET, "string"),
    ],
)
@pytest.mark.parametrize("where", ["same blob", "another blob"])
def test_a_later_value_widens_its_column_and_loses_nothing(
    container: Container, early: str, late: str, kind: str, where: str
) -> None:
    content = HEADER + rows(1500, early)
    if where == "same blob":
        container.put("a.csv", content + f"P9,9,{late}\n")
    else:
        container.put("a.csv", content)
        container.put("b.csv", HEADER + f"P9,9,{late}\n")
    assert container.ingest() == 0, container.error
    assert container.types == {"id": "string", "number": "int64", "value": kind}
    values = container.table["value"].to_pylist()
    assert len(values) == 1501 and values[-1] is not None
    if kind == "string":
        assert values[0] == (early or None) and values[-1] == late, "text is kept as it was written"
    assert SECRET not in container.error and "Traceback" not in container.error


def test_a_last_cell_of_several_lines(container: Container) -> None:
    container.put("a.csv", 'size,note\n1,a\n2,"b\n3,c"\n')
    assert container.ingest() == 0, container.error
    assert container.table["note"].to_pylist() == ["a", "b\n3,c"]


def test_a_lone_quote_within_a_cell_is_text(container: Container) -> None:
    container.put("a.csv", 'size,note\n1,5" pipe\n2,4 inch\n')
    assert container.ingest() == 0, container.error
    assert container.table["note"].to_pylist() == ['5" pipe', "4 inch"]


def test_columns_may_stand_in_another_order(container: Container) -> None:
    container.put("a.csv", "x,y\n1,a\n")
    container.put("b.csv", "y,x\nb,2\n")
    assert container.ingest() == 0, container.error
    assert container.table.to_pydict() == {"x": [1, 2], "y": ["a", "b"]}


def test_parquet_blobs_beside_csv(container: Container) -> None:
    def parquet(columns: dict[str, Any]) -> bytes:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), sink)
        return bytes(sink.getvalue())

    number = pa.array([2, 3], pa.int32())
    container.put("a.csv", "name,number\na,1\n")
    container.put("b.parquet", parquet({"number": number, "name": pa.array(["b", "c"]).dictionary_encode()}))
    container.put("c.parquet", parquet({"name": ["d"], "number": pa.array([4.5], pa.float32())}))
    assert container.ingest() == 0, container.error
    assert container.table.to_pydict() == {"name": ["a", "b", "c", "d"], "number": [1.0, 2.0, 3.0, 4.5]}
    container.manifest_file.unlink()
    container.put("c.parquet", parquet({"name": ["d"], "number": [[1]]}))
    container.refusal("'c.parquet'", "'number'", "list")
    container.put("c.parquet", b"PAR1" + SECRET.encode())
    container.refusal("'c.parquet'", "cannot be read as Parquet")


@pytest.mark.parametrize(
    ("blobs", "words"),
    [
        ({}, ["no .csv or .parquet blob"]),
        ({"a.csv": b""}, ["'a.csv'", "is empty"]),
        ({"a.csv": b"\n\n"}, ["'a.csv'", "is empty"]),
        ({"a.csv": b"x,y"}, ["'a.csv'", "no rows"]),
        ({"a.csv": b"x,x\n1,2\n"}, ["'a.csv'", "column 'x' twice"]),
        ({"a.csv": f"x,y\n1,2\n{SECRET}\n".encode()}, ["'a.csv'", "a row of 1 cells where its header has 2"]),
        ({"a.csv": b"x,y\n" + b"1,2\n" * 5000 + f"1,2,{SECRET}\n".encode()}, ["a row of 3 cells"]),
        ({"a.csv": b"x,y\n" + f"1,{SECRET}".encode() * 9999 + b"\n"}, ["'a.csv'", "a row of more than"]),
        ({"a.csv": b"x,y\n1," + b"z" * 9000 + b"\n"}, ["a row of more than"]),
        ({"a.csv": b'x,y\n1,a\n2,"' + b"1,2\n" * 500}, ["'a.csv'", "a quote that is never closed"]),
        ({"a.csv": b'x,y\n1,"' + b"1,2\n" * 50}, ["'a.csv'", "a quote that is never closed"]),
        ({"a.csv": b"x,y\n1,\xff\xfe\n"}, ["'a.csv'", "not UTF-8"]),
        ({"a.csv": b"x,y\n" + b"1,a\n" * 5000 + b"1,\xff\n"}, ["'a.csv'", "not UTF-8"]),
        ({"a.csv": b"x,y\n" + b"1,2\n" * 5000 + b"1,\xff\n"}, ["'a.csv'", "not UTF-8"]),
        ({"a.csv": "x,y\n1,2\n".encode("utf-16")}, ["'a.csv' is not UTF-8"]),
        ({"a.csv": b"x,y\n1,2\n", "b.csv": b"x\n1\n"}, ["'b.csv' lacks the column 'y'"]),
        ({"a.csv": b"x\n1\n", "b.csv": b"x,y\n1,2\n"}, ["'b.csv' has the column 'y'"]),
    ],
)
def test_what_is_refused(container: Container, blobs: dict[str, bytes], words: list[str]) -> None:
    for name, content in blobs.items():
        container.put(name, content)
    container.refusal(*words)


def test_a_container_and_an_account_that_are_not_as_named(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert container.ingest(container="not-there") == 1 and "container does not exist" in container.error
    for name, value, words in [
        ("EDGEML_STORAGE_ACCOUNT_KEY", "d3Jvbmc=", "refuses the credential"),
        ("EDGEML_STORAGE_ACCOUNT_URL", "https://127.0.0.1:9/edgeml", "cannot be reached"),
        ("EDGEML_STORAGE_ACCOUNT_URL", "", "is not set"),
    ]:
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            container.refusal(words)


@pytest.mark.parametrize(
    "stored",
    [
        {"metadata": {"sha256": "0" * 64}},
    ],
)
def test_content_that_is_not_what_was_stored(container: Container, stored: dict[str, Any]) -> None:
    container.put("a.csv", HEADER + rows(10))
    container.put("b.csv", HEADER + rows(10), **stored)
    container.refusal("'b.csv' does not match its stored checksum")


@pytest.mark.parametrize("change", ["overwrite", "delete"])
def test_a_blob_that_changes_while_it_is_read_fails_the_step(
    container: Container, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The blob is rewritten, at the same length, once its first rows have been parsed."""
    import blob_client as included  # the copy in the snapshot

    monkeypatch.setattr(included, "CHUNK", 8192)
    content = HEADER + rows(20_000)
    container.put("a.csv", HEADER + rows(10))
    container.put("b.csv", content)
    parse = container.module.csv_batches

    def parse_then_change(reading: Any, types: Any) -> Any:
        batches = parse(reading, types)
        yield next(batches)
        if reading.blob.name == "b.csv":
            if change == "overwrite":
                container.put("b.csv", content.replace("1.5", "2.5"))
            else:
                container.client.delete_blob("b.csv")
        yield from batches

    monkeypatch.setattr(container.module, "csv_batches", parse_then_change)
    container.refusal("blob 'b.csv'", "was changed while")


def test_as_a_step_runs_it(container: Container, storage: Any, tmp_path: Path, ingest_blobs: Any) -> None:
    """The command of component.yml, in the snapshot, in a process of its own."""
    container.put("p/a.csv", HEADER + rows(100))
    command = yaml.safe_load((COMPONENT / "component.yml").read_text())["command"]
    given = {
        "inputs.container": container.client.container_name,
        "inputs.prefix": "p/",
        "outputs.table": str(tmp_path / "table"),
        "outputs.manifest": str(tmp_path / "manifest.json"),
    }
    for name, value in given.items():
        command = command.replace("${{" + name + "}}", value)
    command = command.replace("python ", f"{sys.executable} ", 1)
    snapshot = Path(ingest_blobs.__file__).parent
    done = subprocess.run(["bash", "-c", command], cwd=snapshot, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("100 rows, 3 columns") and container.manifest["prefix"] == "p/"


def test_the_component_declares_what_the_engine_and_azure_ml_need() -> None:
    definition = yaml.safe_load((COMPONENT / "component.yml").read_text())
    assert definition["is_deterministic"] is False and definition["tags"] == {"edgeml.needs": "storage"}
    assert {name: port["type"] for name, port in definition["outputs"].items()} == {
        "table": "uri_folder",
        "manifest": "uri_file",
    }
