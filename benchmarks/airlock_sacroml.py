"""sacroml's check for stored rows on the estimators of the leak suite, before they become ONNX.

usage: python benchmarks/airlock_sacroml.py [PYTHON]

Not part of any make target: sacroml installs PyTorch with CUDA, 6 GB. PYTHON is an interpreter that has sacroml and
the project's version of scikit-learn; without it, an environment is made below .edgeml/bench from sacroml's newest
release. It looks at objects in memory and not at files, so it is given what the suite's vectors were exported from.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from measured import say

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

FOLDER = ROOT / ".edgeml/bench/sacroml"
CHILD = """
import logging, pickle, sys
logging.disable(logging.CRITICAL)
from sacroml.attacks.instance_based_attack import InstanceBasedAttack
from sacroml.attacks.target import Target
for line in sys.stdin:
    name = line.strip()
    try:
        with open(name, "rb") as file:
            model, x, y = pickle.load(file)
        target = Target(model=model, dataset_name="suite", X_train=x, y_train=y, X_test=x, y_test=y)
        attack = InstanceBasedAttack(write_report=False)
        attack.attack(target)
        said = f"{attack.results.n_matched} rows" if attack.results.data_leakage_confirmed else "no leak"
    except Exception as error:
        said = f"error ({type(error).__name__})"
    print(said, flush=True)
"""


def main() -> int:
    from tests.airlock.suite.stored_rows import STORING, TELLING
    from tests.airlock.suite.table import make

    warnings.simplefilter("ignore")
    table = make("clinic", 1, 300)
    matrix, labels = table.matrix().astype("float64"), table.labels()
    answers = {"label": labels, "number": (labels == "yes").astype(int), "amount": table.amounts(), "none": None}
    names, files = [], []
    with tempfile.TemporaryDirectory(prefix="edgeml-sacroml-") as folder:
        for name, (factory, target, limit) in {**STORING, **TELLING}.items():
            y = answers[target]
            known = None if y is None else y[:limit]
            fitted = factory(table).fit(matrix[:limit], known)
            file = Path(folder) / f"{name}.pkl"
            file.write_bytes(pickle.dumps((fitted, matrix[:limit], labels[:limit] if known is None else known)))
            names.append(name)
            files.append(str(file))
        done = subprocess.run(
            [interpreter(), "-c", CHILD],
            input="\n".join(files),
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            check=True,
        )
    print("| estimator | sacroml, instance based |\n|---|---|")
    for name, said in zip(names, done.stdout.splitlines()[-len(names) :], strict=True):
        print(f"| {name} | {said} |")
    return 0


def interpreter() -> str:
    if len(sys.argv) > 1:
        return sys.argv[1]
    python = FOLDER / "bin/python"
    if not python.exists():
        say(f"installing sacroml into {FOLDER} (6 GB)")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(FOLDER)], check=True)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(python),
            "--disable-pip-version-check",
            "install",
            "--quiet",
        ]
        subprocess.run([*pip, "sacroml==2.0.1", "scikit-learn==1.9.1"], check=True)
    return str(python)


if __name__ == "__main__":
    sys.exit(main())
