"""The sample: the Wisconsin diagnostic breast-cancer table that scikit-learn ships, as private clinical CSV files.

Source: W. H. Wolberg, O. L. Mangasarian, W. N. Street, UCI Machine Learning Repository (1995). The rows are its 569
in its order; the patient ids are made up by us, from a fixed seed.
"""

from __future__ import annotations

from pathlib import Path

FILES = 4
SEED = 19951101


def write(folder: Path) -> list[Path]:
    """Write `part-0.csv` … `part-3.csv` and return their paths; the same bytes each time.

    Columns: patient_id (string, unique), 30 measurements (number), diagnosis (malignant or benign).
    """
    import csv

    import numpy as np
    from sklearn.datasets import load_breast_cancer

    table = load_breast_cancer()
    rows = len(table.target)
    ids = np.random.default_rng(SEED).choice(1_000_000, size=rows, replace=False)
    names = ["patient_id", *(str(name).replace(" ", "_") for name in table.feature_names), "diagnosis"]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(FILES):
        path = folder / f"part-{number}.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            out = csv.writer(stream, lineterminator="\n")
            out.writerow(names)
            for row in range(rows * number // FILES, rows * (number + 1) // FILES):
                diagnosis = str(table.target_names[table.target[row]])
                out.writerow([f"P{ids[row]:06d}", *map(float, table.data[row]), diagnosis])
        paths.append(path)
    return paths
