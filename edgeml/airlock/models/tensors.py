"""Private rows and dumps of private columns among the numbers of a model, in the space of the table itself.

The numbers of the model are indexed and the table streams past them, so that memory grows with the
model and not with the table, and rarity is counted exactly. The first pass counts, for every number of
the model and every column, the rows that hold it. Where that leaves a suspicion, a second pass proves
or drops it:

* a stored row: at least four cells of one private row lie close together, in whatever order, row by row
  or column by column, with at least 60 bits of evidence; or five rows with 20 bits each. The evidence
  of a cell is how improbable it is that a number which has nothing to do with the row hits it; the
  number of rows and of windows that were looked at is taken off.
* a column dump: k or more values that fewer than k rows hold, and over four times as many as decoys hit
  (the same numbers, shifted by a few steps of the column's lattice or of float32), or over twice as many if
  they are nearly all numbers of the tensor; or a growing list of values that rows hold, mostly fewer than k.
* a run: k or more values of a column one after another as the rows have them, with at least 60 bits of evidence. Its
  order tells it, also where so many rows share each value that the values say little.

Not seen here: numbers that were scaled or rotated (see `activations`) or encoded on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from edgeml.airlock.finding import CONTENT, Finding, Rule
from edgeml.airlock.models.batch import numbers
from edgeml.airlock.models.walk import Place

ROW = Rule(
    "model.rows", CONTENT, "stored rows",
    "the model holds cells of single private rows side by side", waivable=False,
)  # fmt: skip
COLUMN = Rule(
    "model.column", CONTENT, "a dump of a column",
    "the model holds many values of a private column that few rows share", waivable=False,
)  # fmt: skip
RECORDS = Rule(
    "model.per-record", CONTENT, "one number per private row", "a tensor has exactly as many entries as the table rows"
)
RULES = (ROW, COLUMN, RECORDS)

ROW_BITS, CELLS = 60.0, 4
FEW_BITS, FEW_ROWS = 20.0, 5
CHANCE = 4
LISTED = 0.95  # of a growing list: between two values there may be a mean of them
NEARLY_ALL = 0.8  # of a tensor's numbers: then twice what chance does is enough
SPARSEST = 5  # lattice points per row of the table, below which a column's single cells say little
# How trees number their parts: the values of a column of small whole numbers, by nature.
NUMBERED = frozenset(
    f"{part}_{ids}" for part in ("nodes", "target", "class") for ids in ("treeids", "nodeids", "ids", "featureids")
) | {"nodes_truenodeids", "nodes_falsenodeids", "nodes_hitrates"}
NUMBERED |= {"nodes_trueleafs", "nodes_falseleafs", "leaf_targetids", "tree_roots"}  # of version 5
THRESHOLDS = frozenset({"nodes_values", "nodes_values_as_tensor", "nodes_splits"})  # see `trees`
CONTINUOUS_BITS = {"float32": 20.0, "float16": 9.0, "bfloat16": 6.0}
ULPS = {"float32": 1, "float16": 1 << 13, "bfloat16": 1 << 16}  # in units of float32's last place
WINDOWS, GROUPS, PAIRS = 5_000, 200, 20_000
FOUR, RUN = 4, 32  # rows of a run that are met at once, and numbers among which it is suspected
PROOF = 1_000  # rows found in one form: no more are looked for
SAMPLE = 20_000
RECORD_ROWS = 200
Array = np.ndarray[Any, Any]


class Form(NamedTuple):
    """One reading of the numbers at a place: float32 values in the space of a type of the table's cells."""

    file: str
    place: Place
    space: str
    values: Array


def forms(file: str, place: Place) -> Iterator[Form]:
    """The readings of an array: as it stands, whole numbers also as decimals and as the bits of other types."""
    array = place.array
    if array is None or array.size == 0 or (place.role in NUMBERED and _says_nothing(array)):
        return
    kind = array.dtype.name
    if kind in ("float32", "float64"):
        yield Form(file, place, "float32", _finite(array))
    elif kind in ("float16", "bfloat16"):
        yield Form(file, place, kind, _finite(array.astype(np.float32)))
    elif array.dtype.kind in "iu":
        whole = array.astype(np.float64)
        yield Form(file, place, "float32", _finite(whole))
        if array.size < CELLS:
            return
        if np.abs(whole).max() > 100:
            for digits in (10, 100, 1000):
                yield Form(file, place, "float32", _finite(whole / digits))
        raw = np.ascontiguousarray(array)
        for other in (np.float32, np.float64):
            if raw.nbytes % np.dtype(other).itemsize == 0 and raw.dtype.itemsize in (1, np.dtype(other).itemsize):
                seen = raw.ravel().view(other)
                with np.errstate(all="ignore"):
                    plausible = np.isfinite(seen) & (np.abs(seen) > 1e-9) & (np.abs(seen) < 1e15)
                if plausible.mean() > 0.5:
                    yield Form(file, place, "float32", _finite(seen))


def _says_nothing(array: Array) -> bool:
    """Whether numbers are references within as many parts, which must hold for the model to run, or one number."""
    distinct = np.unique(array)
    return distinct.size == 1 or bool(array.dtype.kind in "iu" and distinct[0] >= 0 and distinct[-1] < array.size)


def _finite(array: Array) -> Array:
    with np.errstate(all="ignore"):
        values = array.astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(0)) + np.float32(0)  # no -0.0


def cast(values: Array, space: str) -> Array:
    """Cells as float32, by way of the type in which the model keeps its numbers; NaN stays."""
    with np.errstate(all="ignore"):
        if space == "float16":
            return values.astype(np.float16).astype(np.float32)
        if space == "bfloat16":
            import ml_dtypes  # comes with onnx

            return values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
        return values.astype(np.float32) + np.float32(0)


class Index:
    """Distinct float32 numbers that can be looked up fast: a table of marks stands before the search."""

    def __init__(self, values: Array) -> None:
        self.values = np.unique(values)
        size = int(np.clip(np.ceil(np.log2(self.values.size * 8 + 1)), 16, 26))
        self._shift = np.uint32(32 - size)
        self._marks = np.zeros(1 << size, dtype=bool)
        self._marks[self._slots(self.values)] = True

    def _slots(self, values: Array) -> Array:
        return (values.view(np.uint32) * np.uint32(2654435761)) >> self._shift

    def find(self, cells: Array) -> tuple[Array, Array]:
        """The rows whose cell is in the index, and where."""
        rows = np.flatnonzero(self._marks[self._slots(cells)])
        places = np.searchsorted(self.values, cells[rows])
        places[places == self.values.size] = 0
        exact = self.values[places] == cells[rows] if self.values.size else np.zeros(0, bool)
        return rows[exact], places[exact]


class Lattice:
    """What is known of a column's values: their range, and the step at which they are written (0 if none)."""

    def __init__(self) -> None:
        self.rows, self.low, self.high, self.step = 0, np.inf, -np.inf, -1.0

    def add(self, values: Array) -> None:
        known = values[np.isfinite(values)]
        if not known.size:
            return
        if self.step < 0:
            self.step = _step(known[:SAMPLE])
        self.rows += known.size
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))

    @property
    def points(self) -> float:
        return (self.high - self.low) / self.step + 1 if self.step > 0 else np.inf

    def bits(self, values: Array, counts: Array, space: str) -> Array:
        """The evidence that lies in each of some numbers which `counts` rows of the column hold."""
        with np.errstate(divide="ignore"):
            frequency = np.log2(self.rows / np.maximum(counts, 1))
        if self.points < SPARSEST * self.rows:
            bits = np.minimum(frequency, np.log2(max(self.points, 1)))
        else:
            bits = np.minimum(frequency + 4, min(np.log2(self.points), CONTINUOUS_BITS[space]))
        bits = np.where(_round(values), np.minimum(bits, 6), bits)
        return np.where((counts == 0) | np.isin(values, (0, 1, -1)), 0, bits)


def _step(values: Array) -> float:
    for digits in range(7):
        scaled = values * 10.0**digits
        if (np.abs(scaled - np.round(scaled)) <= 1e-9 * np.maximum(1, np.abs(scaled))).mean() >= 0.99:
            return float(10.0**-digits)
    return 0.0


def _round(values: Array) -> Array:
    """Whether a number has at most two significant digits."""
    with np.errstate(all="ignore"):
        scale = 10.0 ** (1 - np.floor(np.log10(np.abs(values.astype(np.float64)))))
        scaled = values * scale
        return np.asarray((np.abs(scaled - np.round(scaled)) < 1e-6) | (values == 0))


class Group(NamedTuple):
    """Triples of numbers that stand near each other in a form, to be met by one row in three given columns."""

    columns: tuple[int, int, int]
    keys: Array  # sorted
    positions: Array  # of the first number, in the view
    view: int


class Runs(NamedTuple):
    """Four numbers after another in a form, to be met by four rows after another in a column."""

    column: int
    keys: Array  # sorted
    positions: Array  # of the first number, in `where`
    where: Array  # indices into the index of the space
    form: int


class View(NamedTuple):
    form: int
    where: Array  # indices into the index of the space, in the order in which the numbers are read


class Tensors:
    """The examination of all numbers of some models; `again` asks for the second pass."""

    def __init__(self, places: Iterable[tuple[str, Place]], order: Iterable[str], k: int) -> None:
        self.forms = [form for file, place in places for form in forms(file, place)]
        self.order, self.k = list(order), k
        self.columns: list[str] = []
        self.orders: list[tuple[int, ...]] = []
        self.lattices: dict[str, Lattice] = {}
        self.rows = 0
        spaces = sorted({form.space for form in self.forms})
        self.indices = {
            s: Index(np.concatenate([f.values.ravel() for f in self.forms if f.space == s])) for s in spaces
        }
        self.counts: dict[tuple[str, str], Array] = {}
        self.groups: dict[str, list[Group]] = {space: [] for space in spaces}
        self.views: list[View] = []
        self.hits: dict[int, dict[int, tuple[float, int]]] = {}
        self.runs: dict[str, list[Runs]] = {space: [] for space in spaces}
        self.met: dict[tuple[int, int], tuple[int, float]] = {}  # by form and column: the longest run and its evidence
        self.tails: dict[tuple[str, int], Array] = {}
        self.dumps: dict[tuple[int, str], Array] = {}  # decoys of a suspected dump
        self.decoys: dict[tuple[str, str], tuple[Index, Array]] = {}
        self.seen_again = 0

    # --- the first pass ---------------------------------------------------------------------------

    def feed(self, batch: pa.RecordBatch) -> None:
        cells = numbers(batch)
        if not self.columns:
            known = [name for name in self.order if name in cells]
            self.columns = known + [name for name in cells if name not in known]
            stored = (self.columns, list(cells))  # as models take the columns, and as the table has them
            self.orders = list(dict.fromkeys(tuple(map(self.columns.index, order)) for order in stored))
        self.rows += batch.num_rows
        for name in self.columns:
            self.lattices.setdefault(name, Lattice()).add(cells[name])
            for space, index in self.indices.items():
                _, places = index.find(cast(cells[name], space))
                counts = self.counts.setdefault((space, name), np.zeros(index.values.size, dtype=np.uint32))
                if places.size:
                    found, times = np.unique(places, return_counts=True)
                    counts[found] += times.astype(np.uint32)

    # --- suspicion --------------------------------------------------------------------------------

    def again(self) -> bool:
        """Whether the rows must be seen once more."""
        for space in self.indices:
            self._suspect_rows(space)
            self._suspect_dumps(space)
            self._suspect_runs(space)
        return any(self.groups.values()) or any(self.runs.values()) or bool(self.dumps)

    def _bits(self, space: str, name: str) -> Array:
        return self.lattices[name].bits(self.indices[space].values, self.counts[space, name], space)

    def _suspect_rows(self, space: str) -> None:
        if len(self.columns) < 3 or not self.rows:
            return
        bits = np.stack([self._bits(space, name) for name in self.columns]).astype(np.float32)
        best, column = bits.max(axis=0), bits.argmax(axis=0)
        if not (best > 2).any():
            return
        width = len(self.columns)
        for number, form in enumerate(self.forms):
            if form.space != space or form.values.size < 3:
                continue
            where = np.searchsorted(self.indices[space].values, form.values)
            if np.count_nonzero(best[where] > 2) < 3:
                continue
            for reading in readings(where, width):
                view = len(self.views)
                self.views.append(View(number, reading))
                self._suspect_view(space, view, bits, best, column)

    def _suspect_view(self, space: str, view: int, bits: Array, best: Array, column: Array) -> None:
        where, width = self.views[view].where, len(self.columns)
        chance = np.log2(self.rows) + np.log2(max(where.size / width, 1))
        sums = np.concatenate([[0], np.cumsum(best[where], dtype=np.float64)])
        starts = np.arange(0, max(where.size - width, 0) + 1, width)
        ends = np.minimum(starts + 2 * width, where.size)
        suspicious = np.flatnonzero(sums[ends] - sums[starts] - chance >= FEW_BITS)
        if not suspicious.size:
            return
        if suspicious.size > WINDOWS:
            suspicious = suspicious[np.linspace(0, suspicious.size - 1, WINDOWS).astype(int)]
        inside = np.zeros(where.size, dtype=bool)
        for start, end in zip(starts[suspicious], ends[suspicious], strict=True):
            inside[start:end] = True
        self._neighbours(space, view, bits, inside)
        if self.forms[self.views[view].form].place.role not in THRESHOLDS:
            self._best_columns(space, view, best, column, inside)

    def _neighbours(self, space: str, view: int, bits: Array, inside: Array) -> None:
        """Triples of three adjacent numbers that hit three adjacent columns, in an order that is stored."""
        where = self.views[view].where
        starts = np.flatnonzero(inside[:-2])
        adjacent = {order[a : a + 3] for order in self.orders for a in range(len(order) - 2)}
        for columns in sorted(adjacent):
            first, second, third = (bits[column][where[starts + i]] for i, column in enumerate(columns))
            good = starts[(first > 0) & (second > 0) & (third > 0) & (first + second + third > 12)]
            a, b, c = columns
            self._add_group(space, view, (a, b, c), good, np.stack([where[good + i] for i in range(3)]))

    def _best_columns(self, space: str, view: int, best: Array, column: Array, inside: Array) -> None:
        """Triples of numbers with evidence that follow each other, each in the column where it says most."""
        where, size = self.views[view].where, len(self.columns)
        cells = np.flatnonzero(inside & (best[where] > 2))
        if cells.size < 3:
            return
        triples = np.stack([cells[:-2], cells[1:-1], cells[2:]])
        c = column[where[triples]]
        code = (c[0] * size + c[1]) * size + c[2]
        distinct = (c[0] != c[1]) & (c[1] != c[2]) & (c[0] != c[2]) & (triples[2] - triples[0] <= 2 * size)
        triples, code = triples[:, distinct], code[distinct]
        codes, sizes = np.unique(code, return_counts=True)
        for one in codes[np.argsort(-sizes, kind="stable")][:GROUPS]:
            chosen = triples[:, code == one]
            columns = (int(one) // size // size, int(one) // size % size, int(one) % size)
            self._add_group(space, view, columns, chosen[0], where[chosen])

    def _add_group(self, space: str, view: int, columns: tuple[int, int, int], at: Array, numbers_: Array) -> None:
        if at.size:
            keys = _keys(*numbers_)
            order = np.argsort(keys, kind="stable")
            self.groups[space].append(Group(columns, keys[order], at[order], view))

    def _suspect_dumps(self, space: str) -> None:
        values = self.indices[space].values
        for name in self.columns:
            counts, lattice = self.counts[space, name], self.lattices[name]
            rare = (counts > 0) & (counts < self.k) & ~np.isin(values, (0, 1, -1))
            if np.count_nonzero(rare) < self.k:
                continue
            decoys = np.concatenate([_shifted(values, lattice, shift, space) for shift in (-5, -2, 3, 7)])
            for number, form in enumerate(self.forms):
                if form.space != space or form.place.role in THRESHOLDS:
                    continue
                where = np.unique(np.searchsorted(values, form.values))
                if np.count_nonzero(rare[where]) >= self.k:
                    self.dumps[number, name] = where
                    if (space, name) not in self.decoys:
                        index = Index(cast(decoys, space))
                        self.decoys[space, name] = index, np.zeros(index.values.size, np.uint32)

    def _suspect_runs(self, space: str) -> None:
        told = {number: self._bits(space, name).astype(np.float32) for number, name in enumerate(self.columns)}
        told = {number: bits for number, bits in told.items() if np.count_nonzero(bits) >= FOUR}
        values = self.indices[space].values
        for number, form in enumerate(self.forms):
            if form.space != space or form.values.size < self.k or form.place.role in THRESHOLDS or not told:
                continue
            for reading in readings(np.searchsorted(values, form.values), 0):
                for column, bits in told.items():
                    at = _telling(reading, bits)
                    four = np.stack([reading[at + i] for i in range(FOUR)])
                    some = np.flatnonzero((bits[four] > 0).all(axis=0) & _irregular(values, four))
                    if some.size > self.k - FOUR and len(self.runs[space]) < GROUPS:
                        keys = _keys(*four[:, some])
                        order = np.argsort(keys, kind="stable")
                        self.runs[space].append(Runs(column, keys[order], at[some][order], reading, number))

    # --- the second pass --------------------------------------------------------------------------

    def feed_again(self, batch: pa.RecordBatch) -> None:
        cells = numbers(batch)
        for (space, name), (index, counts) in self.decoys.items():
            _, places = index.find(cast(cells[name], space))
            np.add.at(counts, places, 1)
        for space, groups in self.groups.items():
            if groups:
                self._meet(space, groups, cells, batch.num_rows)
        for space, runs in self.runs.items():
            for column in {one.column for one in runs}:
                self._follow(space, [one for one in runs if one.column == column], cells[self.columns[column]])
        self.seen_again += batch.num_rows

    def _follow(self, space: str, runs: list[Runs], cells: Array) -> None:
        """Meet the rows of a column, four after another; those of the batch before go on into this one."""
        column = runs[0].column
        found, places = self.indices[space].find(cast(cells, space))
        rows = np.full(cells.size, -1, dtype=np.int64)
        rows[found] = places
        before = self.tails.get((space, column), np.zeros(0, dtype=np.int64))
        rows = np.concatenate([before, rows])
        self.tails[space, column] = rows[-RUN:]
        if rows.size < FOUR:
            return
        at = np.flatnonzero(np.convolve(rows >= 0, np.ones(FOUR), "valid") == FOUR)
        if not at.size:
            return
        keys = _keys(*(rows[at + i] for i in range(FOUR)))
        bits = self._bits(space, self.columns[column])
        for one in runs:
            left, right = np.searchsorted(one.keys, keys, "left"), np.searchsorted(one.keys, keys, "right")
            times = np.minimum(right - left, 4)
            met = np.repeat(np.arange(at.size), times)
            if met.size <= self.k - FOUR:
                continue
            nth = np.arange(met.size) - np.repeat(np.cumsum(times) - times, times)
            position = one.positions[left[met] + nth]
            # Of one run row and position grow together.
            _, run, count = np.unique(at[met] - position, return_inverse=True, return_counts=True)
            score = np.bincount(run, bits[one.where[position]]) - np.log2(self.rows) - np.log2(one.where.size)
            best = int(np.argmax(score))
            length = int(count[best]) + FOUR - 1
            if length >= self.k and score[best] >= ROW_BITS:
                known = self.met.get((one.form, column), (0, 0.0))
                self.met[one.form, column] = max(known, (length, float(score[best])))

    def _meet(self, space: str, groups: list[Group], cells: dict[str, Array], rows: int) -> None:
        where = np.full((len(self.columns), rows), -1, dtype=np.int64)
        for number, name in enumerate(self.columns):
            found, places = self.indices[space].find(cast(cells[name], space))
            where[number, found] = places
        bits = np.zeros(where.shape, dtype=np.float32)
        for number, name in enumerate(self.columns):
            hit = where[number] >= 0
            bits[number, hit] = self._bits(space, name)[where[number, hit]]
        for group in groups:
            if len(self.hits.get(self.views[group.view].form, ())) >= PROOF:
                continue
            three = where[list(group.columns)]
            full = np.flatnonzero((three >= 0).all(axis=0))
            if not full.size:
                continue
            keys = _keys(*three[:, full])
            left, right = np.searchsorted(group.keys, keys, "left"), np.searchsorted(group.keys, keys, "right")
            times = np.minimum(right - left, 4)
            met = np.repeat(np.arange(full.size), times)[:PAIRS]
            if met.size:
                nth = np.arange(met.size) - np.repeat(np.cumsum(times) - times, times)[:PAIRS]
                self._prove(group, full[met], group.positions[left[met] + nth], where, bits)

    def _prove(self, group: Group, rows: Array, positions: Array, where: Array, bits: Array) -> None:
        """Count the cells of each row around the place where three of them were met."""
        view, width = self.views[group.view].where, len(self.columns)
        around = positions[:, None] + np.arange(-width, width + 1)
        near = np.where((around >= 0) & (around < view.size), view[np.clip(around, 0, view.size - 1)], -2)
        score, cells = np.zeros(rows.size), np.zeros(rows.size, dtype=int)
        aligned = np.zeros((len(self.orders), rows.size))
        cost = np.log2(near.shape[1])
        for column in range(width):
            cell, worth = where[column, rows], bits[column, rows]
            met = (near == cell[:, None]).any(axis=1) & (worth > 0)
            score += np.where(met, np.maximum(worth - cost, 0), 0)
            cells += met
            for number, order in enumerate(self.orders):  # where this column stands if that is the order
                offset = width + order.index(column) - order.index(group.columns[0])
                if 0 <= offset < near.shape[1]:
                    aligned[number] += np.where(near[:, offset] == cell, worth, 0)
        chance = np.log2(self.rows) + np.log2(max(view.size / width, 1))
        score = np.maximum(score, aligned.max(axis=0)) - chance
        found = self.hits.setdefault(self.views[group.view].form, {})
        for row, bits_, count in zip(rows, score, cells, strict=True):
            if bits_ >= FEW_BITS and bits_ > found.get(self.seen_again + int(row), (0.0, 0))[0]:
                found[self.seen_again + int(row)] = (float(bits_), int(count))

    # --- the verdict ------------------------------------------------------------------------------

    def findings(self) -> list[Finding]:
        return [*self._rows_found(), *self._dumps_found(), *self._runs_found(), *self._records_found()]

    def _rows_found(self) -> Iterator[Finding]:
        for number, rows in self.hits.items():
            strong = [(bits, cells) for bits, cells in rows.values() if bits >= ROW_BITS and cells >= CELLS]
            if strong or len(rows) >= FEW_ROWS:
                bits, cells = max(strong or rows.values())
                form = self.forms[number]
                yield Finding(
                    ROW.id, form.file, form.place.where,
                    f"holds cells of {len(strong or rows)} private rows side by side",
                    "train an estimator that keeps no rows (no neighbours, support vectors or Gaussian process)",
                    rows=len(strong or rows), cells=cells, bits=round(bits, 1),
                )  # fmt: skip

    def _dumps_found(self) -> Iterator[Finding]:
        for (number, name), where in self.dumps.items():
            form = self.forms[number]
            values, counts = self.indices[form.space].values, self.counts[form.space, name]
            matched = where[(counts[where] > 0) & (counts[where] < self.k) & ~np.isin(values[where], (0, 1, -1))]
            index, seen = self.decoys[form.space, name]
            chance = 0.0
            for shift in (-5, -2, 3, 7):
                shifted = cast(_shifted(values[where], self.lattices[name], shift, form.space), form.space)
                times = seen[np.searchsorted(index.values, shifted)]
                chance += np.count_nonzero((times > 0) & (times < self.k)) / 4
            nearly_all = matched.size >= NEARLY_ALL * where.size and matched.size > 2 * (chance + 1)
            held = np.count_nonzero(counts[where]) >= LISTED * where.size
            listed = held and matched.size >= where.size / 2 and _grows(form.values)
            if matched.size > CHANCE * (chance + 1) or nearly_all or listed:
                yield Finding(
                    COLUMN.id, form.file, form.place.where,
                    f"holds {matched.size} values of the column that fewer than {self.k} rows share",
                    "keep order statistics and categories of private columns out of the model, or coarsen them",
                    column=name, cells=int(matched.size),
                )  # fmt: skip

    def _runs_found(self) -> Iterator[Finding]:
        for (number, column), (length, bits) in self.met.items():
            form = self.forms[number]
            yield Finding(
                COLUMN.id, form.file, form.place.where, f"holds {length} values of the column in the order of the rows",
                "keep what was computed for single rows out of the model",
                column=self.columns[column], cells=length, bits=round(bits, 1),
            )  # fmt: skip

    def _records_found(self) -> Iterator[Finding]:
        if self.rows < RECORD_ROWS:
            return
        for form in self.forms:
            array = form.place.array
            if array is not None and self.rows in array.shape and form.place.role not in THRESHOLDS:
                yield Finding(
                    RECORDS.id, form.file, form.place.where,
                    "has exactly as many entries as the private table has rows",
                    "keep what was computed for single rows out of the model", rows=self.rows,
                )  # fmt: skip


def readings(where: Array, width: int) -> Iterator[Array]:
    """The orders in which an array may hold rows: as it lies, and column by column."""
    flat = where.ravel()
    yield flat
    seen = set()
    if where.ndim >= 2 and min(where.shape[0], flat.size // where.shape[0]) > 1:
        seen.add(where.shape[0])
        yield where.reshape(where.shape[0], -1).T.ravel()
    for height in range(max(3, width - 3), width + 2):
        if height not in seen and flat.size % height == 0 and flat.size // height > 1:
            yield flat.reshape(height, -1).T.ravel()


def _grows(values: Array) -> bool:
    """Whether numbers are a growing list, as order statistics are, and no grid of equal steps."""
    steps = np.diff(values.ravel().astype(np.float64))
    return bool(steps.size and (steps >= 0).all() and steps.max() > 1.01 * steps.min())


def _telling(reading: Array, bits: Array) -> Array:
    """Where four numbers begin that lie in windows with enough evidence; of very many windows an even choice."""
    half = max(FOUR, min(RUN, reading.size) // 2)
    sums = np.add.reduceat(bits[reading], np.arange(0, reading.size, half))
    starts = np.flatnonzero(sums[:-1] + sums[1:] >= ROW_BITS) * half
    if starts.size > WINDOWS:
        starts = starts[np.linspace(0, starts.size - 1, WINDOWS).astype(int)]
    at = np.unique(starts[:, None] + np.arange(2 * half))
    return np.asarray(at[at <= reading.size - FOUR])


def _irregular(values: Array, where: Array) -> Array:
    """Which of several numbers after another are neither much the same nor at equal steps, as a count or grid is."""
    with np.errstate(all="ignore"):
        step = np.diff(values[where].astype(np.float64), axis=0)
        same = np.abs(np.diff(step, axis=0)) <= 1e-5 * np.abs(step).max(axis=0)
    return np.asarray((np.count_nonzero(step, axis=0) >= FOUR - 2) & ~same.all(axis=0))


def _keys(*places: Array) -> Array:
    """One 64-bit key for several places in the index; what it confuses, the proof tells apart."""
    mixed = places[0].astype(np.uint64)
    for one, factor in zip(places[1:], (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93), strict=False):
        mixed = mixed * np.uint64(factor) + one.astype(np.uint64)
    return mixed


def _shifted(values: Array, lattice: Lattice, steps: int, space: str) -> Array:
    """Numbers near the given ones that are as likely to be cells by chance."""
    if lattice.step > 0:
        digits = round(-np.log10(lattice.step))
        return np.round(values.astype(np.float64) + steps * lattice.step, max(digits, 0))
    bits = values.view(np.int32) + np.int32(steps * ULPS[space])
    shifted = bits.view(np.float32)
    return np.where(np.isfinite(shifted), shifted, np.float32(0)).astype(np.float64)
