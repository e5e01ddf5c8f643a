"""Leaves of exported trees that fewer than k private rows reach, and targets that such leaves give away.

A leaf with one row repeats that row's target, and its path describes the row. The private rows are
routed through the arrays of the ONNX operators (TreeEnsembleClassifier, TreeEnsembleRegressor and the
TreeEnsemble of version 5); more than one leaf in a hundred below k, and the trees stay. A tree is
followed no further once all its leaves have k rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edgeml.airlock.finding import CONTENT, Finding, Rule
from edgeml.airlock.models.walk import messages

LEAVES = Rule(
    "model.leaves", CONTENT, "leaves of few rows", "a tree's leaf that fewer than k rows reach points at single rows"
)
TARGETS = Rule(
    "model.leaf-targets", CONTENT, "targets in leaves", "leaves of few rows repeat private targets", waivable=False
)
UNFOLLOWED = Rule(
    "model.trees-unfollowed", CONTENT, "trees that cannot be followed",
    "trees whose arrays do not make trees could hold anything", waivable=False,
)  # fmt: skip
RULES = (LEAVES, TARGETS, UNFOLLOWED)

OPERATORS = frozenset({"TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"})
SHARE = 0.01
DEEPEST = 4096
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "BRANCH_MEMBER", "LEAF")
MEMBER, LEAF = 6, 7
Array = np.ndarray[Any, Any]


class Malformed(Exception):  # noqa: N818
    """The arrays of the operator do not describe trees."""


class Forest:
    """The trees of one operator as flat arrays, and how many private rows reached each leaf."""

    def __init__(self, node: Any) -> None:
        self.op = node.op_type
        self.source = node.input[0]
        attributes = {a.name: _value(a) for a in node.attribute}
        try:
            if node.op_type == "TreeEnsemble":
                self._version_5(attributes)
            else:
                self._version_1(attributes)
            self._check()
        except (KeyError, ValueError, IndexError, TypeError):
            raise Malformed from None
        self.reached = np.zeros(self.mode.size, dtype=np.int64)
        self.followed = 0

    def _version_1(self, a: dict[str, Any]) -> None:
        tree, node = np.asarray(a["nodes_treeids"]), np.asarray(a["nodes_nodeids"])
        self.mode = np.array([MODES.index(mode) for mode in a["nodes_modes"]])
        size = self.mode.size
        key = {pair: i for i, pair in enumerate(zip(tree.tolist(), node.tolist(), strict=True))}
        if len(key) != size:
            raise ValueError("two nodes of one name")
        inner = self.mode != LEAF
        self.true, self.false = np.arange(size), np.arange(size)
        for side, field in ((self.true, "nodes_truenodeids"), (self.false, "nodes_falsenodeids")):
            child = np.asarray(a[field])
            for i in np.flatnonzero(inner):
                side[i] = key[int(tree[i]), int(child[i])]
        values = a.get("nodes_values", a.get("nodes_values_as_tensor"))
        self.value = np.asarray(values)
        self.feature = np.asarray(a["nodes_featureids"])
        missing = a.get("nodes_missing_value_tracks_true")
        self.missing = np.zeros(size, bool) if missing is None or not len(missing) else np.asarray(missing) != 0
        first = np.unique(tree, return_index=True)[1]
        pointed = np.zeros(size, bool)
        pointed[self.true[inner]] = pointed[self.false[inner]] = True
        roots = np.flatnonzero(~pointed)
        self.roots = roots if roots.size == first.size else first
        prefix = "class" if "class_ids" in a else "target"
        weights = a.get(f"{prefix}_weights", a.get(f"{prefix}_weights_as_tensor", ()))
        self.leaf_of = np.array(
            [key[t, n] for t, n in zip(a[f"{prefix}_treeids"], a[f"{prefix}_nodeids"], strict=True)], dtype=int
        )
        self.weights = np.asarray(weights, dtype=np.float64)
        self.members: dict[int, Array] = {}

    def _version_5(self, a: dict[str, Any]) -> None:
        modes = np.asarray(a["nodes_modes"]).astype(int)
        inner, leaves = modes.size, np.asarray(a["leaf_targetids"]).size
        self.mode = np.concatenate([modes, np.full(leaves, LEAF)])
        size = inner + leaves
        self.true, self.false = np.arange(size), np.arange(size)
        for side, ids, flags in (
            (self.true, a["nodes_truenodeids"], a["nodes_trueleafs"]),
            (self.false, a["nodes_falsenodeids"], a["nodes_falseleafs"]),
        ):
            side[:inner] = np.asarray(ids) + inner * (np.asarray(flags) != 0)
        pad = np.zeros(leaves)
        self.value = np.concatenate([np.asarray(a["nodes_splits"]), pad.astype(np.asarray(a["nodes_splits"]).dtype)])
        self.feature = np.concatenate([np.asarray(a["nodes_featureids"]), pad.astype(int)])
        missing = a.get("nodes_missing_value_tracks_true")
        self.missing = np.zeros(size, bool)
        if missing is not None and len(missing):
            self.missing[:inner] = np.asarray(missing) != 0
        self.roots = np.asarray(a["tree_roots"]).astype(int)
        self.leaf_of = inner + np.arange(leaves)
        self.weights = np.asarray(a["leaf_weights"], dtype=np.float64)
        asking = np.flatnonzero(self.mode == MEMBER).tolist()
        self.members = dict(zip(asking, _sets(a["membership_values"]), strict=True)) if asking else {}

    def _check(self) -> None:
        size = self.mode.size
        arrays = (self.true, self.false, self.value, self.feature, self.missing)
        if not size or not self.roots.size or any(array.size != size for array in arrays):
            raise ValueError("arrays of different lengths")
        if self.weights.size != self.leaf_of.size or (self.feature[self.mode != LEAF] < 0).any():
            raise ValueError("weights without leaves")
        for side in (self.true, self.false, self.roots):
            if side.min() < 0 or side.max() >= size:
                raise IndexError("a child that is not there")
        if set(np.flatnonzero(self.mode == MEMBER).tolist()) != set(self.members):
            raise ValueError("a membership test without members")
        for inner_leaf in self.leaf_of:
            if self.mode[inner_leaf] != LEAF:
                raise ValueError("weights at a node that is no leaf")

    def feed(self, rows: Array, k: int) -> None:
        """Route rows (n, features) through every tree that still has a leaf of fewer than k rows."""
        self.followed += len(rows)
        roots = self._wanting(k)
        for start in range(0, roots.size, 64):
            at = np.repeat(roots[None, start : start + 64], len(rows), axis=0)
            which = np.arange(len(rows))[:, None]
            for _ in range(DEEPEST):
                if (self.mode[at] == LEAF).all():
                    break
                cells = rows[which, np.where(self.mode[at] == LEAF, 0, self.feature[at])]
                at = np.where(self._goes_true(cells, at), self.true[at], self.false[at])
            else:
                raise Malformed
            np.add.at(self.reached, at.ravel(), 1)

    def _goes_true(self, cells: Array, at: Array) -> Array:
        value, mode = self.value[at], self.mode[at]
        with np.errstate(invalid="ignore"):
            tests = (cells <= value, cells < value, cells >= value, cells > value, cells == value, cells != value)
            goes = np.select([mode == number for number in range(6)], tests, default=True)
        for node in np.unique(at[mode == MEMBER]).tolist():
            asked = at == node
            goes[asked] = np.isin(cells[asked], self.members[node])
        return np.asarray(np.where(np.isnan(cells), self.missing[at], goes))

    def _trees(self) -> Array:
        """For each node the place of its tree's root among the roots, or -1 where none leads to it."""
        tree = np.full(self.mode.size, -1)
        for number, root in enumerate(self.roots):
            front = np.array([root])
            while front.size:
                front = front[tree[front] < 0]
                tree[front] = number
                inner = front[self.mode[front] != LEAF]
                front = np.unique(np.concatenate([self.true[inner], self.false[inner]]))
        return tree

    def _wanting(self, k: int) -> Array:
        if not hasattr(self, "_tree"):
            self._tree = self._trees()
        low = (self.mode == LEAF) & (self.reached < k) & (self._tree >= 0)
        return np.asarray(self.roots[np.unique(self._tree[low])])

    def few(self, k: int) -> Array:
        """The leaves that fewer than k rows reached, those that no root leads to included."""
        return np.flatnonzero((self.mode == LEAF) & (self.reached < k))


class Leaves:
    """The forests of one model."""

    def __init__(self, model: Any, k: int) -> None:
        self.k, self.rows, self.malformed = k, 0, False
        self.forests: list[tuple[str, Forest]] = []
        for number, node in enumerate(model.graph.node):
            if node.op_type in OPERATORS and node.domain == "ai.onnx.ml":
                try:
                    self.forests.append((f"node {number} ({node.op_type})", Forest(node)))
                except Malformed:
                    self.malformed = True
        nodes = [message for message in messages(model) if isinstance(message, onnx.NodeProto)]
        if sum(node.op_type in OPERATORS for node in nodes) > len(self.forests):
            self.malformed = True  # within a branch or a loop only some rows reach them
        self.candidates = [_candidates(forest) for _, forest in self.forests]
        self.given = [np.zeros(values.size, dtype=np.int64) for values in self.candidates]
        self.met = [np.zeros(values.size, dtype=bool) for values in self.candidates]

    def feed(self, values: dict[str, Any], targets: Array | None) -> None:
        """Take what one run gave, by the names of the graph, and the targets of the same rows."""
        for number, (_, forest) in enumerate(self.forests):
            rows = values.get(forest.source)
            if not isinstance(rows, np.ndarray) or rows.ndim != 2 or self.malformed:
                self.malformed = True
                continue
            if forest.feature[forest.mode != LEAF].max(initial=0) >= rows.shape[1]:
                self.malformed = True
                continue
            try:
                forest.feed(rows, self.k)
            except Malformed:
                self.malformed = True
            if targets is not None and self.candidates[number].size:
                self._meet(number, targets)

    def _meet(self, number: int, targets: Array) -> None:
        """Mark the leaf values that equal a row's target, to float32's precision."""
        values = self.candidates[number]
        known = np.sort(targets[np.isfinite(targets)])
        width = np.abs(values) * 3e-7 + 1e-12
        self.met[number] |= np.searchsorted(known, values + width, "right") > np.searchsorted(known, values - width)

    def findings(self, file: str, regression: bool) -> Iterator[Finding]:
        fix = f"raise min_samples_leaf to {2 * self.k} or more (a bootstrap counts the same row several times)"
        if self.malformed:
            yield Finding(
                UNFOLLOWED.id, file, "trees", "the arrays of its trees cannot be followed",
                "export the trees again, with an operator of ai.onnx.ml",
            )  # fmt: skip
            return
        for number, (place, forest) in enumerate(self.forests):
            few, leaves = forest.few(self.k), int(np.count_nonzero(forest.mode == LEAF))
            if few.size > SHARE * leaves:
                yield Finding(
                    LEAVES.id, file, place, f"{few.size} of {leaves} leaves hold fewer than {self.k} rows", fix,
                    cells=int(few.size),
                )  # fmt: skip
            given = self.met[number] & np.isin(np.resize(forest.leaf_of, self.met[number].size), few)
            count = int(np.count_nonzero(given[: forest.leaf_of.size] | given[forest.leaf_of.size :]))
            if regression and count >= self.k and few.size > SHARE * leaves:
                yield Finding(
                    TARGETS.id, file, place, f"{count} leaves of fewer than {self.k} rows repeat a private target", fix,
                    cells=count,
                )  # fmt: skip


def _candidates(forest: Forest) -> Array:
    """What a leaf says of a target: its weight as it stands, and times the number of trees."""
    return np.concatenate([forest.weights, forest.weights * forest.roots.size])


def _sets(values: Any) -> list[Array]:
    """The members of each membership test, which NaNs part from each other."""
    parts: list[list[Any]] = [[]]
    for value in np.asarray(values):
        if np.isnan(value):
            parts.append([])
        else:
            parts[-1].append(value)
    return [np.array(part) for part in (parts if parts[-1] else parts[:-1])]


def _value(attribute: Any) -> Any:
    if attribute.HasField("t"):
        return numpy_helper.to_array(attribute.t)
    if attribute.strings:
        return [text.decode("utf-8", "replace") for text in attribute.strings]
    return (
        np.array(attribute.floats, dtype=np.float32) if attribute.floats else np.array(attribute.ints, dtype=np.int64)
    )
