"""Whether the model's loss tells who was trained on: membership inference on the exported model.

With rows that were not trained on at hand (`holdout`), a threshold on the loss is the simplest attack:
its area under the ROC curve and its true positives at 1 % false positives, each with the lower end of a
95 % interval over 200 bootstraps. It says nothing of stored rows, and stored rows do not show here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeml.airlock.finding import CONTENT, Finding, Rule

MEMBERSHIP = Rule(
    "model.membership", CONTENT, "membership shows",
    "the model's loss tells rows that it was trained on from others: it has learnt them by heart",
)  # fmt: skip
RULES = (MEMBERSHIP,)

AUC, TPR, FALSE_POSITIVES = 0.60, 0.05, 0.01
BOOTSTRAPS, SEED = 200, 20260101
MOST, FEWEST = 20_000, 100
GAP = 0.05
Array = np.ndarray[Any, Any]


class Losses:
    """The losses of one model on rows that were trained on and on rows that were not."""

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes
        self.losses: dict[bool, list[Array]] = {True: [], False: []}
        self.right: dict[bool, list[Array]] = {True: [], False: []}

    def feed(self, outputs: dict[str, Any], truth: Array, member: Array) -> None:
        """Take one run's outputs (by name), the true targets as class positions or values, and who was trained on."""
        if not (found := losses(outputs, truth, self.classes)):
            return
        loss, right = found
        for side in (True, False):
            chosen = (member == side) & np.isfinite(loss)
            if sum(map(len, self.losses[side])) < MOST:
                self.losses[side].append(loss[chosen])
                self.right[side].append(right[chosen])

    def note(self, file: str) -> tuple[str, Finding | None]:
        """What was measured, in a sentence, and the finding if it is too much."""
        members, others = (np.concatenate(self.losses[side] or [np.zeros(0)])[:MOST] for side in (True, False))
        if min(members.size, others.size) < FEWEST:
            return f"{file}: membership inference was skipped, fewer than {FEWEST} rows on one side had a loss", None
        auc, tpr = attack(members, others)
        generator = np.random.default_rng(SEED)
        samples = [
            attack(generator.choice(members, members.size), generator.choice(others, others.size))
            for _ in range(BOOTSTRAPS)
        ]
        low_auc, low_tpr = np.percentile([s[0] for s in samples], 2.5), np.percentile([s[1] for s in samples], 2.5)
        gap = 0.0
        if self.classes:
            gap = float(np.concatenate(self.right[True]).mean() - np.concatenate(self.right[False]).mean())
        note = f"{file}: membership inference AUC {auc:.3f} (at least {low_auc:.3f}), TPR at 1 % FPR {tpr:.3f}"
        if gap > GAP:
            note += f"; accuracy falls by {100 * gap:.0f} points outside of the training rows, it may be overfitted"
        if low_auc <= AUC and low_tpr <= TPR:
            return note, None
        return note, Finding(
            MEMBERSHIP.id, file, "outputs",
            f"its loss tells training rows from others (AUC at least {low_auc:.2f}, TPR at 1 % FPR {low_tpr:.2f})",
            "regularise: larger leaves, fewer rounds, a stronger penalty, or train with differential privacy",
            rows=int(members.size),
        )  # fmt: skip


def losses(outputs: dict[str, Any], truth: Array, classes: list[str]) -> tuple[Array, Array] | None:
    """The loss of each row (log loss, or the squared error) and whether it was right; None without a prediction.

    `outputs` are one run's by name, `truth` the true targets as class positions or values, NaN where unknown.
    """
    size = len(truth)
    for value in outputs.values():
        if isinstance(value, list) and len(value) == size and value and isinstance(value[0], dict):
            value = np.array([list(row.values()) for row in value], dtype=np.float64)  # a zipmap
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.shape[:1] != (size,):
            continue
        if classes and value.ndim == 2 and value.shape[1] == len(classes):
            known = np.isfinite(truth)
            chosen = np.where(known, truth, 0).astype(int)
            likely = np.clip(value[np.arange(size), chosen], 1e-12, 1)
            return np.where(known, -np.log(likely), np.nan), (value.argmax(axis=1) == chosen).astype(float)
        if not classes and value.size == size:
            return (value.reshape(-1) - truth) ** 2, np.zeros(size)
    return None


def attack(members: Array, others: Array) -> tuple[float, float]:
    """Area under the ROC curve of `low loss means member`, and the true positives at 1 % false positives."""
    others = np.sort(others)
    below = np.searchsorted(others, members, "left")
    ties = np.searchsorted(others, members, "right") - below
    auc = float((others.size - below - ties / 2).mean() / others.size)
    threshold = others[min(int(FALSE_POSITIVES * others.size), others.size - 1)]
    return auc, float((members < threshold).mean())
