"""How many bits of each weight leave: the fewest that change nothing, measured on the private rows.

The weights are trimmed step by step (`canonical.trim`), and every trimmed model predicts the private rows
beside the one that was trained. A step is enough where no prediction moves by more than TOLERANCE (see
`canonical.Deviation`) and the metric moves by no more either: the log loss of a classification, and the
root mean squared error of a regression in relation to itself. The second is there because a regression
whose predictions are all near a million could lose its whole precision within a thousandth of them.

What is told is a maximum and a mean over all rows in two digits; which rows moved is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from edgeml.airlock.models import canonical
from edgeml.airlock.models.activations import Failed, session
from edgeml.airlock.models.membership import losses

TOLERANCE = 1e-3
STEPS = (canonical.MANTISSA_BITS, 13, 16, 23)
ALL_BITS = 52  # of a double: nothing is trimmed


class Change(NamedTuple):
    """What leaving only `bits` of mantissa does to a model's predictions and to its `metric` ("" if it has none)."""

    bits: int
    weights: int
    prediction: float
    metric: str
    metric_change: float

    def document(self) -> dict[str, Any]:
        """What `egress.json` says of it."""
        told: dict[str, Any] = {"mantissa_bits": self.bits, "weights": self.weights, "tolerance": TOLERANCE}
        told["largest_change"] = float(f"{self.prediction:.2g}")
        if self.metric:
            told |= {"metric": self.metric, "metric_change": float(f"{self.metric_change:.2g}")}
        return told


def steps_from(least: int | None) -> tuple[int, ...]:
    """The steps that are tried, in order, if no fewer than `least` bits are wanted."""
    first = STEPS[0] if least is None else least
    return (first, *(step for step in STEPS if step > first))


def chosen(changes: Iterable[Change]) -> Change:
    """The first step that is good enough; without one all bits leave, which changes nothing."""
    for change in changes:
        if change.prediction <= TOLERANCE and abs(change.metric_change) <= TOLERANCE:
            return change
    return Change(ALL_BITS, 0, 0.0, "", 0.0)


class Trimming:
    """Some trimmed forms of one model, beside the model itself."""

    def __init__(self, model: Any, classes: Sequence[str], steps: Sequence[int]) -> None:
        self.outputs = [port.name for port in model.graph.output]
        self.classes = list(classes)
        self.before = _Mean()
        self.forms = [_Form(model, bits) for bits in steps]

    def feed(self, feeds: Mapping[str, Any], values: Mapping[str, Any], truth: Any) -> None:
        """Take what some rows were fed as, what the model made of them, and their true targets."""
        before = [values[name] for name in self.outputs]
        self.before.add(losses(dict(zip(self.outputs, before, strict=True)), truth, self.classes))
        for form in self.forms:
            after = form.run(feeds)
            if after is not None:
                form.deviation.feed(before, after)
                form.loss.add(losses(dict(zip(self.outputs, after, strict=True)), truth, self.classes))

    def changes(self) -> list[Change]:
        return [self._change(form) for form in self.forms]

    def _change(self, form: _Form) -> Change:
        if form.failed:
            return Change(form.bits, form.weights, float("inf"), "", 0.0)
        metric, change = "", 0.0
        if self.before.count:
            old, new = self.before.value, form.loss.value
            metric, change = "log_loss", new - old
            if not self.classes:
                metric, change = "rmse", (new**0.5 - old**0.5) / max(old**0.5, 1e-30)
        return Change(form.bits, form.weights, form.deviation.value, metric, float(change))


class _Form:
    """A model with trimmed weights; one that does not run any more has `failed`."""

    def __init__(self, model: Any, bits: int) -> None:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        self.bits, self.weights, self.failed = bits, canonical.trim(copy.graph, bits), False
        self.deviation, self.loss = canonical.Deviation(), _Mean()
        try:
            self.session = session(copy, everything=False)
        except Failed:
            self.failed = True

    def run(self, feeds: Mapping[str, Any]) -> list[Any] | None:
        if self.failed:
            return None
        try:
            return list(self.session.run(None, dict(feeds)))
        except Exception:  # its message may quote the rows
            self.failed = True
            return None


class _Mean:
    """The mean of what is finite."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, found: tuple[Any, Any] | None) -> None:
        if found is not None:
            known = found[0][np.isfinite(found[0])]
            self.total, self.count = self.total + float(known.sum()), self.count + known.size

    @property
    def value(self) -> float:
        return self.total / max(self.count, 1)
