"""Judge a model on the test part: metrics with intervals, curves, slices, and a verdict on promotion.

The model is judged as what would be deployed, the ONNX file, and never as the estimator it came from.
The verdict is closed by default: it is first written as `promote: false` and replaced only when every
check has passed judgement, so a step that fails, or is killed, leaves a refusal behind.

The champion is run on the same rows, and the difference is bootstrapped in pairs. That is fair because
split_data never moves a row from the test part to the training part, so the champion has not seen them
either (as long as seed and fraction are those it was trained with).

Every number has k rows or more behind it, and six significant digits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import contract as data_contract
import measures
from contract import Contract, Refusal
from measures import Estimate, Scored, Valued

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

Document = dict[str, Any]

NO_CHAMPION = "NO_CHAMPION"  # a file of this name in place of a model: none serves yet
QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
IMPORTANCE_ROWS = 5_000  # rows are in the order of a hash, so the first ones are a fair sample
IMPORTANCE_REPEATS = 5
SLICE_METRICS = ("roc_auc", "accuracy", "brier", "rmse", "mae")


# --- the model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A model folder, opened."""

    session: Any
    features: list[tuple[str, str]]
    classes: list[str]
    sha256: str

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [port.name for port in self.session.get_outputs()]
        answers = self.session.run(None, {name: inputs[name] for name, _ in self.features})
        return dict(zip(names, answers, strict=True))


def open_model(folder: Path, contract: Contract) -> Model:
    """Open a model folder; refuse one that does not predict what the contract asks for."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported: it would send events to its maker
    import onnxruntime

    try:
        data = (folder / "model.onnx").read_bytes()
        signature = json.loads((folder / "signature.json").read_text(encoding="utf-8"))
        features = [(feature["name"], feature["type"]) for feature in signature["features"]]
        purpose = [signature[key] for key in ("task", "target", "classes", "positive")]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # the order of sums must not depend on the machine
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = type(error).__name__
        raise Refusal(f"a model cannot be read ({reason}); give a folder of model.onnx and signature.json") from None
    if purpose != [contract.task, contract.target, contract.classes, contract.positive]:
        raise Refusal("a model was trained for another target than the contract's; train it again")
    if any(name not in contract.columns or contract.columns[name].type != kind for name, kind in features):
        raise Refusal("a model takes features that the contract does not declare so; train it again")
    return Model(session, features, contract.classes, hashlib.sha256(data).hexdigest())


def predict(model: Model, test: pl.DataFrame, contract: Contract) -> tuple[Scored | Valued, np.ndarray, np.ndarray]:
    """The model's predictions on the test part, with the truth and the predicted labels or values."""
    import numpy as np

    truth = truth_of(test, contract)
    try:
        answers = model.run(data_contract.model_inputs(test, model.features))
        rows, predicted = judge(model, answers, truth, contract)
        finite = np.isfinite(rows.score if isinstance(rows, Scored) else rows.predicted).all()
    except Exception as error:
        raise Refusal(f"a model cannot be run on the test part ({type(error).__name__}); train it again") from None
    if not finite:
        raise Refusal("a model's predictions are not all finite numbers; train it again")
    return rows, truth, predicted


def truth_of(test: pl.DataFrame, contract: Contract) -> np.ndarray:
    import numpy as np

    values = test[contract.target].to_list()
    if contract.classes:
        return np.array([data_contract.as_text(value) for value in values], dtype=object)
    return np.array(values, dtype=float)


def judge(
    model: Model, answers: dict[str, np.ndarray], truth: np.ndarray, contract: Contract
) -> tuple[Scored | Valued, np.ndarray]:
    """The answers of a model beside the truth, and the predicted labels or values."""
    import numpy as np

    if not contract.classes:
        values = answers["prediction"].reshape(-1).astype(float)
        return Valued(truth, values), values
    probabilities, labels = answers["probabilities"].astype(float), answers["label"].astype(object)
    place = {name: index for index, name in enumerate(model.classes)}
    of_truth = probabilities[np.arange(len(truth)), [place[name] for name in truth]]
    if not np.isfinite(probabilities).all():
        of_truth = np.full(len(truth), math.nan)
    score = np.where(np.isnan(of_truth), math.nan, probabilities[:, place[str(contract.positive)]])
    positive, predicted = truth == contract.positive, labels == contract.positive
    return Scored(positive, score, predicted, labels == truth, of_truth), labels


# --- what is reported -----------------------------------------------------------------------------


def slice_masks(test: pl.DataFrame, column: str, contract: Contract) -> dict[str, np.ndarray]:
    """Rows of each slice of a column by label, and those without a value under ""."""
    import numpy as np

    rules, values = contract.columns[column], test[column]
    if rules.type == "boolean" or rules.allowed is not None:
        named = (False, True) if rules.allowed is None else rules.allowed
        masks = {data_contract.as_text(value): (values == value).fill_null(False).to_numpy() for value in named}
    else:
        numbers = values.cast(float).fill_null(math.nan).to_numpy()
        known = ~np.isnan(numbers)
        edges = np.quantile(numbers[known], [0.25, 0.5, 0.75]) if known.any() else np.zeros(3)
        quarter = np.searchsorted(edges, numbers, side="left")
        masks = {label: known & (quarter == index) for index, label in enumerate(QUARTERS)}
    masks[""] = values.is_null().to_numpy()
    return masks


def slices(test: pl.DataFrame, rows: Scored | Valued, contract: Contract, options: argparse.Namespace) -> Document:
    """Metrics per slice of k rows or more; those that need both classes only where each has k rows.

    Rows without a value are never shown, so what is hidden in a column cannot be had by subtraction.
    """
    import numpy as np

    shown, hidden = [], 0
    for column in contract.slices:
        masks = slice_masks(test, column, contract)
        counts = np.array([[mask.sum() for mask in masks.values()]])
        secret = measures.suppress(counts, contract.k)[0]
        for (label, mask), hide in zip(masks.items(), secret, strict=True):
            if not mask.any():
                continue
            if hide or not label:
                hidden += 1
                continue
            part = rows.take(mask)
            drawn = measures.draws([measures.measure(part)], len(part), options.samples, options.seed)[0]
            found = measures.estimates(part, drawn, options.confidence)
            thin = isinstance(part, Scored) and part.smaller_class < contract.k
            names = [name for name in SLICE_METRICS if name in found and not (thin and name == "roc_auc")]
            kept = {name: found[name] for name in names}
            shown.append({"column": column, "slice": label, "rows": len(part), "metrics": kept})
    return {"version": 1, "k": contract.k, "slices": shown, "suppressed": hidden}


def importance(model: Model, test: pl.DataFrame, contract: Contract, seed: int) -> Document:
    """How much the primary metric drops when one feature is shuffled, all repeats in one call of the model."""
    import numpy as np

    metric, repeats = measures.PRIMARY[contract.task], IMPORTANCE_REPEATS
    part = test.head(IMPORTANCE_ROWS)
    truth = truth_of(part, contract)
    single = data_contract.model_inputs(part, model.features)
    inputs = {name: np.tile(values, (repeats, 1)) for name, values in single.items()}
    generator = np.random.default_rng(seed)

    def score(answers: dict[str, np.ndarray], repeat: int) -> float:
        window = slice(repeat * len(truth), (repeat + 1) * len(truth))
        rows, _ = judge(model, {name: values[window] for name, values in answers.items()}, truth, contract)
        return measures.point(measures.measure(rows), len(truth))[metric]

    whole = score(model.run(single), 0)
    found: list[Document] = []
    for name, _ in model.features if math.isfinite(whole) else ():
        shuffled = np.concatenate([generator.permutation(single[name]) for _ in range(repeats)])
        answers = model.run({**inputs, name: shuffled})
        drops = [whole - score(answers, repeat) for repeat in range(repeats)]
        found.append({"name": name, **measures.spread(drops)})
    found.sort(key=lambda feature: (-feature["mean"], feature["name"]))
    method = f"permutation of the test part through the ONNX model, drop in {metric}"
    return {"version": 1, "method": method, "features": found}


# --- the verdict ----------------------------------------------------------------------------------


def check(name: str, passed: bool, detail: str) -> Document:
    return {"name": name, "passed": bool(passed), "detail": detail}


def told(estimate: Estimate) -> str:
    return f"{estimate['value']:.4g} [{estimate['low']:.4g}, {estimate['high']:.4g}]"


def check_rows(rows: Scored | Valued, contract: Contract, needed: int) -> Document:
    enough = len(rows) >= needed and (isinstance(rows, Valued) or rows.smaller_class >= contract.k)
    return check("rows", enough, f"{len(rows)} test rows, {needed} needed, and {contract.k} in each class")


def check_parity(folder: Path) -> Document:
    """The training step's own comparison of ONNX and estimator must lie beside the model."""
    try:
        report = json.loads((folder / "parity.json").read_text(encoding="utf-8"))
        difference, tolerance = float(report["max_difference"]), float(report["tolerance"])
    except (OSError, ValueError, KeyError, TypeError):
        return check("parity", False, "parity.json is missing or cannot be read")
    return check("parity", difference <= tolerance, f"differs by {difference:.3g}, tolerance {tolerance:.3g}")


def check_thresholds(found: dict[str, Estimate], contract: Contract) -> list[Document]:
    """The unfavourable end of each interval against the contract; the primary metric must have a threshold."""
    primary, checks = measures.PRIMARY[contract.task], []
    for metric in sorted({primary, *contract.thresholds}):
        name, limit = f"threshold {metric}", contract.thresholds.get(metric)
        if limit is None:
            checks.append(check(name, False, f"the contract sets no threshold for {metric}"))
        elif metric not in found:
            checks.append(check(name, False, f"{metric} could not be estimated on the test part"))
        elif metric in measures.LOWER_IS_BETTER:
            high = found[metric]["high"]
            checks.append(check(name, high <= limit, f"{told(found[metric])}, high end at most {limit:g}"))
        else:
            low = found[metric]["low"]
            checks.append(check(name, low >= limit, f"{told(found[metric])}, low end at least {limit:g}"))
    return checks


def check_slices(found: dict[str, Estimate], document: Document, rows: Scored | Valued, margin: float) -> Document:
    """No slice may be worse than the whole by more than the margin, beyond what its few rows explain.

    The share of right labels, or of the whole's variance that is explained; the favourable end of
    the slice's interval against the value of the whole.
    """

    def share(metrics: dict[str, Estimate], end: str) -> float:
        if isinstance(rows, Scored):
            return metrics["accuracy"]["high" if end == "best" else "value"]
        error = metrics["rmse"]["low" if end == "best" else "value"]
        return 1 - error**2 / max(float(rows.actual.var()), 1e-30)

    name = "accuracy" if isinstance(rows, Scored) else "explained variance"
    try:
        whole = share(found, "value")
        parts = {f"{item['column']} {item['slice']}": share(item["metrics"], "best") for item in document["slices"]}
    except KeyError:
        return check("slices", False, f"{name} could not be estimated in every slice")
    worse = [f"{part} (at best {best:.4g})" for part, best in sorted(parts.items()) if best < whole - margin]
    if worse:
        more = f" and {len(worse) - 3} more" if len(worse) > 3 else ""
        return check("slices", False, f"{name} {whole:.4g} on the whole, but {', '.join(worse[:3])}{more}"[:300])
    return check("slices", True, f"{len(parts)} slices, none worse than the whole by more than {margin:g}")


def serves_none(champion: Path) -> bool:
    """Whether the folder says that there is no champion; one that holds nothing at all does not say so."""
    return (champion / NO_CHAMPION).is_file() and not (champion / "model.onnx").exists()


def compare(
    rows: Scored | Valued, test: pl.DataFrame, contract: Contract, options: argparse.Namespace
) -> tuple[Document, Document | None]:
    """The check against the champion, and what is told of it.

    Non-inferiority: the low end of challenger minus champion, over paired resamples, must lie above
    minus the margin. `p_value` is the share of resamples in which it does not.
    """
    if options.champion is None or serves_none(options.champion):
        return check("champion", True, "there is none; the thresholds alone decide"), None
    metric = measures.PRIMARY[contract.task]
    try:
        champion = open_model(options.champion, contract)
        theirs, _, _ = predict(champion, test, contract)
        pair = [measures.measure(rows), measures.measure(theirs)]
        drawn = measures.draws(pair, len(rows), options.samples, options.seed)
        apart = drawn[0][metric] - drawn[1][metric]
        value = measures.point(pair[0], len(rows))[metric] - measures.point(pair[1], len(rows))[metric]
        low, high = measures.interval(apart, options.confidence)
    except Refusal as refusal:
        return check("champion", False, f"the champion cannot be compared: {refusal}"[:300]), None
    except Exception as error:
        return check("champion", False, f"the champion cannot be compared ({type(error).__name__})"), None
    if not all(map(math.isfinite, (value, low, high))):
        return check("champion", False, f"the difference in {metric} could not be estimated"), None
    difference = {
        "metric": metric,
        "value": value,
        "low": low,
        "high": high,
        "p_value": float((1 + (apart <= -options.margin).sum()) / (1 + len(apart))),
        "margin": options.margin,
        "samples": options.samples,
        "confidence": options.confidence,
    }
    detail = f"{metric} differs by {value:+.4g} [{low:+.4g}, {high:+.4g}], low end above {-options.margin:g}"
    described = {
        "model_sha256": champion.sha256,
        "metrics": measures.estimates(theirs, drawn[1], options.confidence),
        "difference": difference,
    }
    return check("champion", low > -options.margin, detail), described


def verdict(checks: list[Document], champion: Document | None) -> Document:
    """Promote only if there are checks and all passed; the reasons are those against, or else all."""
    promote = bool(checks) and all(item["passed"] for item in checks)
    told_of = [item for item in checks if item["passed"] == promote]
    reasons = [f"{item['name']}: {item['detail']}"[:300] for item in told_of]
    return {"version": 1, "promote": promote, "reasons": reasons, "checks": checks, "champion": champion}


# --- the step -------------------------------------------------------------------------------------


def evaluate(options: argparse.Namespace) -> dict[str, Document]:
    """Every file of the evaluation folder, by name without its extension."""
    contract = data_contract.load(options.contract)
    test = data_contract.read_table(options.test, contract)
    if test.height < contract.k:
        raise Refusal(f"the test part has fewer than k={contract.k} rows; nothing can be told of it")
    model = open_model(options.model, contract)
    rows, truth, predicted = predict(model, test, contract)
    drawn = measures.draws([measures.measure(rows)], len(rows), options.samples, options.seed)[0]
    found = measures.estimates(rows, drawn, options.confidence)
    by_slice = slices(test, rows, contract, options)
    against, champion = compare(rows, test, contract, options)
    checks = [
        check_rows(rows, contract, options.min_rows),
        check_parity(options.model),
        *check_thresholds(found, contract),
        check_slices(found, by_slice, rows, options.slice_margin),
        against,
    ]
    bootstrap = {"samples": options.samples, "confidence": options.confidence, "seed": options.seed}
    files: dict[str, Document] = {
        "metrics": {"version": 1, "rows": len(rows), "metrics": found, "bootstrap": bootstrap},
        "slices": by_slice,
        "importance": importance(model, test, contract, options.seed),
        "promotion": verdict(checks, champion),
    }
    spread = measures.distribution(rows, contract.k)
    if isinstance(rows, Scored):
        matrix = measures.confusion(truth, predicted, contract.classes, contract.k)
        drawn_curves = {**measures.curves(rows, contract.k), "calibration": measures.calibration(rows, contract.k)}
        files["curves"] = {"version": 1, **drawn_curves, "distribution": spread}
        files["confusion"] = {"version": 1, "labels": contract.classes, "matrix": matrix}
    else:
        files["curves"] = {"version": 1, "residuals": measures.residuals(rows, contract.k), "distribution": spread}
    return files


def run(options: argparse.Namespace) -> None:
    options.evaluation.mkdir(parents=True, exist_ok=True)
    refused = {**verdict([], None), "reasons": ["the evaluation did not finish"]}
    data_contract.write_json(options.evaluation / "promotion.json", refused)
    try:
        files = evaluate(options)
    except Refusal as refusal:
        data_contract.write_json(options.evaluation / "promotion.json", {**refused, "reasons": [str(refusal)]})
        raise
    for name in sorted(files, key=lambda name: name == "promotion"):  # the verdict last
        data_contract.write_json(options.evaluation / f"{name}.json", files[name])
    for item in files["promotion"]["checks"]:
        print(f"  {'passed' if item['passed'] else 'FAILED'}  {item['name']}: {item['detail']}", file=sys.stderr)
    print(f"promote: {str(files['promotion']['promote']).lower()}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Judge a model on the test part and write a verdict.")
    parser.add_argument("--model", type=Path, required=True, help="model folder of train_model")
    parser.add_argument("--test", type=Path, required=True, help="test part, folder of Parquet")
    parser.add_argument("--contract", type=Path, required=True, help="data contract, YAML")
    parser.add_argument("--champion", type=Path, help="model folder that serves now")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder to write to")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap resamples")
    parser.add_argument("--confidence", type=float, default=0.95, help="of every interval")
    parser.add_argument("--margin", type=float, default=0.01, help="how much worse than the champion is not worse")
    parser.add_argument("--slice-margin", type=float, default=0.1, help="how much worse a slice may be than the whole")
    parser.add_argument("--min-rows", type=int, default=50, help="fewest test rows that permit a promotion")
    parser.add_argument("--seed", type=int, default=20260101)
    options = parser.parse_args(argv)
    code: int = data_contract.guarded("evaluate_model", lambda: run(options))
    return code


if __name__ == "__main__":
    sys.exit(main())
