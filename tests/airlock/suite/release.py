"""The legitimate release of a table: the files that the project's own components write, made by them, in this process.

Made once per table and algorithm; each test copies it. A leak is then one change to an otherwise clean release.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .table import Table

ROOT = Path(__file__).resolve().parents[3]

_folder = tempfile.TemporaryDirectory(prefix="edgeml-airlock-")


class Broken(Exception):  # noqa: N818 - the suite is wrong, not the gate
    """A component would not make the release that the suite is built on."""


@cache
def on_disk(table: Table) -> tuple[Path, Path]:
    """The table's Parquet folder and contract, written once."""
    return table.write(Path(tempfile.mkdtemp(dir=_folder.name)))


@cache
def papers(table: Table) -> tuple[Path, Path]:
    """The manifest of what was ingested and the report of validate_data, which the gate reads and keeps."""
    data, contract = on_disk(table)
    manifest, validation = contract.with_name("manifest.json"), contract.with_name("validation.json")
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in sorted(data.iterdir()))).hexdigest()
    document = {
        "version": 1,
        "rows": table.rows,
        "bytes": 64 * table.rows,
        "fingerprint": f"sha256:{digest}",
        "blobs": [],
    }
    manifest.write_text(json.dumps(document))
    _step("validate_data", table=data, contract=contract, validation=validation)
    return manifest, validation


@cache
def release_of(table: Table, algorithm: str) -> Path:
    """The folder of what train_model and evaluate_model hand to the gate, without the parity report, which stays."""
    data, contract = on_disk(table)
    work = Path(tempfile.mkdtemp(dir=_folder.name))
    given: dict[str, Any] = {"contract": contract}
    parts = {"train": work / "train", "test": work / "test"}
    _step("split_data", table=data, validation=papers(table)[1], **parts, **given)
    quick: dict[str, Any] = {"algorithm": algorithm, "folds": 0, "max_iter": 60 if algorithm == "mlp" else 12}
    _step("train_model", **parts, model=work / "model", **quick, **given)
    made = {"model": work / "model", "evaluation": work / "evaluation"}
    _step("evaluate_model", test=parts["test"], samples=200, **made, **given)
    shutil.copytree(made["evaluation"], work / "release")
    for name in ("model.onnx", "signature.json"):
        shutil.copy(made["model"] / name, work / "release")
    return work / "release"


def algorithms(table: Table) -> tuple[str, ...]:
    """What train_model offers for the table's task, the linear one first."""
    linear = "logistic_regression" if table.form.task == "classification" else "ridge"
    return (linear, "gradient_boosting", "random_forest", "mlp")


def copy_release(table: Table, destination: Path, algorithm: str = "") -> Path:
    """A fresh copy of the legitimate release."""
    shutil.copytree(release_of(table, algorithm or algorithms(table)[0]), destination)
    return destination


def _step(component: str, **options: Any) -> None:
    argv = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
    told = io.StringIO()
    tracking = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            code = _script(component).main(argv)
    finally:
        if tracking is not None:
            os.environ["MLFLOW_TRACKING_URI"] = tracking
    if code:
        raise Broken(f"{component}: {told.getvalue()[-500:]}")


def _script(component: str) -> Any:
    """The component's script as a module, as its snapshot would import it."""
    spec = yaml.safe_load((ROOT / "components" / component / "component.yml").read_text())
    folders = [ROOT / "components" / component]
    folders += [(folders[0] / include).resolve().parent for include in spec["additional_includes"]]
    for folder in folders:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return importlib.import_module(component)
