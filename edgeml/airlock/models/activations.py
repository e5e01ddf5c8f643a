"""Private rows among a model's constants in any space that the model itself computes.

Every output of every operator is made an output of the graph, also those within branches and loops (see
`inside`), the model runs on the private rows without
optimisation, and what comes out is compared with the constants: a model that keeps scaled, rotated or
otherwise prepared rows must hold them in the very space in which it compares them. Nothing needs to be
known of the preparation.

Rows of an activation and rows of the constants of the same width are projected on one random vector,
sorted and matched by bands; what the band lets through is compared element by element (to 1e-4 of the
standard deviation, or to half a step where the constants stand on a grid, as numbers of eight bits do).
Constants are also what the model computes of constants alone. A match is evidence as far as its cells are
rare among the rows; patterns that k or more rows share are none. Where the activation is narrow, decoys (the
columns shifted against each other) tell how many matches chance gives.

Not seen: rows that are stored but that nothing is compared with (see `scaled`), and models that keep only
0/1 features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa

from edgeml.airlock.finding import CONTENT, Finding, Rule
from edgeml.airlock.models.inputs import Plan
from edgeml.airlock.models.inside import opened
from edgeml.airlock.models.walk import Place

STORED = Rule(
    "model.stored-rows", CONTENT, "rows in prepared form",
    "constants of the model equal what it computes of single private rows", waivable=False,
)  # fmt: skip
RULES = (STORED,)

TOLERANCE = 1e-4  # of an activation's standard deviation
CELLS, ROW_BITS = 4, 60.0
FEW_ROWS, FEW_BITS, CHANCE = 5, 20.0, 4
NARROW = 6  # at and below this width matches are judged by decoys
COMMON = 0.1  # a cell that this share of the rows holds says nothing
REFERENCE = 4096
ELEMENTS = 8_000_000  # of all activations of a chunk
CANDIDATES = 200_000
LOOP_ROUNDS = 8
POINTS, LEVELS = 256, 16  # of a column's grid at most, and that CELLS columns use at least
Array = np.ndarray[Any, Any]


class Constant(NamedTuple):
    where: str
    values: Array  # (m, p) float64
    projected: Array  # m, of what is not ordered
    tolerance: Array  # p
    band: float  # of the projected


class Space:
    """The rows of one activation, against all constants of its width."""

    def __init__(self, width: int, first: Array, constants: list[tuple[str, Array]], k: int) -> None:
        self.k, self.width = k, width
        self.reference = first[np.isfinite(first).any(axis=1)][:REFERENCE]
        if not self.reference.size:
            self.reference = np.zeros((1, width))
        known = np.isfinite(self.reference)
        count = np.maximum(known.sum(axis=0), 1)
        cells = np.where(known, self.reference, 0)
        with np.errstate(all="ignore"):
            mean = cells.sum(axis=0) / count
            spread = np.sqrt((np.where(known, self.reference - mean, 0) ** 2).sum(axis=0) / count)
        self.spread = np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)
        self.vector = np.random.default_rng(width).standard_normal(width) / self.spread
        self.constants = []
        for where, values in constants:
            shaped = values.reshape(-1, width)
            for tolerance in (TOLERANCE * self.spread, _half_step(shaped)):
                if tolerance is not None:
                    band = 4 * float(np.sqrt(((tolerance / self.spread) ** 2).sum()))
                    self.constants.append(Constant(where, shaped, self._project(shaped), tolerance, band))
        self.matches = [np.zeros(len(c.values), dtype=np.int64) for c in self.constants]
        self.bits = [np.zeros(len(c.values)) for c in self.constants]
        self.cells = [np.zeros(len(c.values), dtype=np.int64) for c in self.constants]
        self.chance = [np.zeros(len(c.values), dtype=np.int64) for c in self.constants]

    def _project(self, rows: Array) -> Array:
        with np.errstate(all="ignore"):  # a missing cell must meet a missing cell
            return np.asarray(np.where(np.isfinite(rows), rows, 3 * self.spread) @ self.vector)

    def feed(self, rows: Array) -> None:
        projected = self._project(rows)
        order = np.argsort(projected)
        for index, constant in enumerate(self.constants):
            for match in self._pairs(rows, projected[order], order, constant):
                self.matches[index][match] += 1
        if self.width <= NARROW and self.width > 1:
            shifted = np.stack([np.roll(rows[:, i], 17 * i * i + i) for i in range(self.width)], axis=1)
            projected = self._project(shifted)
            order = np.argsort(projected)
            for index, constant in enumerate(self.constants):
                for match in self._pairs(shifted, projected[order], order, constant):
                    self.chance[index][match] += 1

    def _pairs(self, rows: Array, sorted_: Array, order: Array, constant: Constant) -> Iterator[int]:
        """The constant's rows that a row equals, once for each such row."""
        left = np.searchsorted(sorted_, constant.projected - constant.band)
        right = np.searchsorted(sorted_, constant.projected + constant.band, "right")
        left[~np.isfinite(constant.projected)] = right[~np.isfinite(constant.projected)] = 0
        times = np.minimum(right - left, max(64, CANDIDATES // max(len(constant.values), 1)))
        which = np.repeat(np.arange(times.size), times)[:CANDIDATES]
        if not which.size:
            return
        nth = np.arange(which.size) - np.repeat(np.cumsum(times) - times, times)[:CANDIDATES]
        against = order[left[which] + nth]
        for start in range(0, which.size, 4096):
            some = slice(start, start + 4096)
            ours, theirs = constant.values[which[some]], rows[against[some]]
            with np.errstate(all="ignore"):
                near = np.abs(ours - theirs) <= constant.tolerance + 1e-6 * np.abs(theirs)
            both = ~np.isfinite(ours) & ~np.isfinite(theirs)
            yield from which[some][(near | both).all(axis=1)].tolist()

    def judge(self, total: int) -> Iterator[tuple[str, int, int, float]]:
        """Where, rows, cells and bits of what cannot be chance."""
        for index, constant in enumerate(self.constants):
            matched = self.matches[index]
            rare = np.flatnonzero((matched > 0) & (matched < self.k))
            if not rare.size:
                continue
            rare = self._told_apart(constant, rare)
            scores = [self._evidence(constant.values[row], constant.tolerance) for row in rare[:2000]]
            penalty = np.log2(max(total, 1)) + np.log2(len(constant.values))
            bits = np.array([score for score, _ in scores]) - penalty
            cells = np.array([count for _, count in scores])
            strong = (bits >= ROW_BITS) & (cells >= CELLS)
            few = (bits >= FEW_BITS) & (cells >= 2)
            best = int(np.argmax(bits))
            if strong.any() or few.sum() >= FEW_ROWS:
                yield constant.where, int(max(strong.sum(), few.sum())), int(cells[best]), float(bits[best])
            elif 1 < self.width <= NARROW:
                telling = np.count_nonzero(cells >= 2)
                if telling >= self.k and rare.size > CHANCE * (np.count_nonzero(self.chance[index]) + 1):
                    yield constant.where, int(rare.size), int(cells[best]), float(max(bits[best], 0))

    @staticmethod
    def _told_apart(constant: Constant, rare: Array) -> Array:
        """One of each group of matched rows that are the same to the tolerance.

        Where few rows of the table lie far out, the tolerance of all is wide, and a matrix of small weights is
        nothing but one point to it. A row that is met once is one row, however many weights lie beside it.
        """
        values = constant.values[rare]
        cell = np.where(np.isfinite(values), values / (4 * constant.tolerance), np.inf)
        return rare[np.sort(np.unique(np.round(cell), axis=0, return_index=True)[1])]

    def _evidence(self, row: Array, tolerance: Array) -> tuple[float, int]:
        with np.errstate(all="ignore"):
            near = np.abs(self.reference - row) <= tolerance + 1e-6 * np.abs(row)
        both = ~np.isfinite(self.reference) & ~np.isfinite(row)
        share = (near | both).sum(axis=0) / len(self.reference)
        telling = share <= COMMON
        bits = -np.log2(np.maximum(share, 1 / len(self.reference))) + np.where(share * len(self.reference) <= 1, 4, 0)
        return float(bits[telling].sum()), int(telling.sum())


def _half_step(values: Array) -> Array | None:
    """Half the step of every column's grid, if all stand on one of few points and enough of them use many."""
    if len(values) < FEW_ROWS or not np.isfinite(values).all():
        return None
    steps, levels = np.zeros(values.shape[1]), 0
    for number, column in enumerate(values.T):
        points = np.unique(column)
        if points.size == 1:
            steps[number] = max(abs(points[0]), 1.0) * TOLERANCE
            continue
        wide = points[-1] - points[0]
        # As many steps as it takes to come from one end to the other: not each of them need be used.
        counts = np.arange(max(1, np.floor(wide / np.diff(points).min())), POINTS)[:, None]
        at = (points - points[0]) * counts / wide if points.size <= POINTS else np.zeros((0, 1))
        fits = np.flatnonzero((np.abs(at - np.round(at)) <= 0.05).all(axis=1))
        if not fits.size:
            return None
        steps[number] = wide / counts[fits[0], 0]
        levels += points.size >= LEVELS
    return steps / 2 * (1 + 1e-3) if levels >= CELLS else None


class Failed(Exception):  # noqa: N818
    """The model does not run on the private rows."""


def session(model: Any, everything: bool) -> Any:
    """An unoptimised session with one thread, optionally with all intermediate values as outputs; or Failed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(opened(model) if everything else model)
    for node in copy.graph.node:
        if node.op_type == "StringNormalizer":  # its default locale is one that machines lack: nothing would load
            kept = [attribute for attribute in node.attribute if attribute.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("locale", "C")])
    del copy.graph.value_info[:]
    for port in [*copy.graph.input, *copy.graph.output]:
        if port.type.tensor_type.HasField("shape") and port.type.tensor_type.shape.dim:
            port.type.tensor_type.shape.dim[0].dim_param = "rows"
    if everything:
        known = {port.name for port in copy.graph.output}
        for node in copy.graph.node:
            copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name not in known | {""})
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # messages quote values
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        raise Failed("the runtime does not load it") from None


class Run:
    """One model under one plan of feeding it, which may fail at any batch: `failed` then says why."""

    def __init__(self, model: Any, plan: Plan, constants: list[Place], k: int) -> None:
        self.plan, self.k = plan, k
        self.session = session(model, everything=True)
        self.names = [port.name for port in self.session.get_outputs()]
        self.inputs = [port.name for port, _ in plan.columns]
        self.constants = [(p.where, a) for p in constants for a in shapes(p)]
        self.derived = derived(model)
        self.spaces: dict[str, Space | None] = {}
        self.rows, self.chunk = 0, 0

    def feed(self, batch: pa.RecordBatch) -> Iterator[tuple[int, dict[str, Any]]]:
        """Run on all rows; yields what each chunk gave (with the inputs), and from which row on."""
        start = 0
        while start < batch.num_rows:
            size = self.chunk or min(16, batch.num_rows)
            feeds = self.plan.feeds(batch.slice(start, size))
            values = dict(feeds)
            try:
                values.update(zip(self.names, self.session.run(self.names, feeds), strict=True))
            except Exception:
                raise Failed("the runtime cannot run it on the private rows") from None
            size = len(next(iter(feeds.values())))
            if not self.chunk:
                width = sum(v.size for v in values.values() if isinstance(v, np.ndarray)) // size + 1
                self.chunk = int(np.clip(ELEMENTS // width, 16, 8192))
                continue  # again, as one whole chunk
            self._compare(values, size)
            yield start, values
            start += size
            self.rows += size

    def _compare(self, values: dict[str, Any], size: int) -> None:
        if not self.rows:
            for name in self.derived:
                if isinstance(array := values.get(name), np.ndarray) and array.dtype.kind == "f":
                    self.constants += [(f"what is computed as '{name}'", one) for one in both_ways(array)]
        values = {name: value for name, value in values.items() if name not in self.derived}
        for name, value in _of_rows(values, size):
            if self.spaces.get(name, 0) is None:
                continue
            rows = value.reshape(size, -1).astype(np.float64)
            if name not in self.spaces:
                self.spaces[name] = self._space(rows)
            space = self.spaces[name]
            if space is not None and rows.shape[1] == space.width:
                space.feed(rows)

    def _space(self, rows: Array) -> Space | None:
        width = rows.shape[1]
        fitting = [(where, array) for where, array in self.constants if array.size and array.size % width == 0]
        fitting = [(where, a) for where, a in fitting if a.ndim < 2 or a.shape[-1] == width or a.size > width]
        return Space(width, rows, fitting, self.k) if width > 1 and fitting else None

    def findings(self, file: str) -> Iterator[Finding]:
        best: dict[str, tuple[int, int, float]] = {}
        for space in self.spaces.values():
            for where, rows, cells, bits in space.judge(self.rows) if space else ():
                best[where] = max(best.get(where, (0, 0, 0.0)), (rows, cells, bits))
        for where, (rows, cells, bits) in best.items():
            yield Finding(
                STORED.id, file, where, f"equals what the model computes of {rows} private rows",
                "train an estimator that keeps no rows (no neighbours, support vectors or Gaussian process)",
                rows=rows, cells=cells, bits=round(bits, 1),
            )  # fmt: skip


def _of_rows(values: dict[str, Any], size: int) -> Iterator[tuple[str, Array]]:
    """The values that are numbers of so many rows; what a loop computed in its first rounds each for itself."""
    for name, value in values.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim == 0 or size == 0:
            continue
        if value.shape[0] == size:
            yield name, value
        elif value.ndim > 1 and value.shape[1] == size:
            yield from ((f"{name} in round {number}", part) for number, part in enumerate(value[:LOOP_ROUNDS]))


def shapes(place: Place) -> Iterator[Array]:
    """A constant of floats as it lies and transposed."""
    array = place.array
    if array is not None and array.dtype.kind in "fV":
        yield from both_ways(array)


def both_ways(array: Array) -> Iterator[Array]:
    """An array of two numbers or more as it lies and transposed."""
    if array.size < 2:
        return
    values = array.astype(np.float64)
    yield values
    if values.ndim == 2 and min(values.shape) > 1:
        yield np.ascontiguousarray(values.T)


def derived(model: Any) -> list[str]:
    """The values that a model computes of nothing but its constants, as of rows that it keeps in eight bits."""
    known, found = {"", *(tensor.name for tensor in model.graph.initializer)}, []
    for node in model.graph.node:
        plain = all(attribute.type not in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute)
        if plain and known.issuperset(node.input):
            known.update(node.output)
            found += [name for name in node.output if name]
    return found
