"""POST /score: a table in, one prediction per row out.

    {"input_data": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}}   named columns, in any order ("index" is ignored)
    {"input_data": [[1, 2], [3, 4]]}                                    rows in the signature's order
    {"input_data": [{"a": 1, "b": 2}]}                                  records
    {"data": ...}                                                       the last two under their other name
    [{"a": 1, "b": 2}]                                                  bare records or rows

Beside input_data or data may stand "id": "edgeml-golden", for rows that are of no patient and are counted nowhere.

The answer is {"model_name", "model_version", "predictions": [{output: value}]}, a value by class where the model's
output has one column for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType

from edgeml.serving import cells
from edgeml.serving.model import Feed, Model, Question
from edgeml.serving.refusal import Refusal
from edgeml.serving.signature import Column

T = TypeVar("T")
REMEMBERED = 64  # lists of columns as clients write them; each has its own, and a decoder for one is costly to make
REMEMBERED_BYTES = 64 << 10
_FORMS = 'give {"input_data": {"columns": [...], "data": [[...]]}}, {"input_data": [...]} or {"data": [...]}'


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    input_data: Raw | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    id: Literal["edgeml-golden"] | UnsetType = UNSET  # window.GOLDEN; no other means anything here


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    columns: Raw
    data: Raw
    index: Raw | UnsetType = UNSET


_BODY = msgspec.json.Decoder(_Body)
_SPLIT = msgspec.json.Decoder(_Split)
_NAMES = msgspec.json.Decoder(list[str])
_ENCODER = msgspec.json.Encoder()


class Table:
    """The /score of one model: decoders made from its signature."""

    def __init__(self, model: Model, most_rows: int) -> None:
        self._model = model
        self._most = most_rows
        self._columns = model.signature.columns
        self._names = [column.name for column in self._columns]
        self._order = {name: index for index, name in enumerate(self._names)}
        self._rows = _rows_decoder(self._columns)
        self._usual = _usual_decoder(self._columns)
        fields = [(f"c{index}", cells.of_column(column)) for index, column in enumerate(self._columns)]
        rename = {f"c{index}": name for index, name in enumerate(self._names)}
        record = msgspec.defstruct("Record", fields, rename=rename, forbid_unknown_fields=True)
        self._records = msgspec.json.Decoder(list[record])  # type: ignore[valid-type]
        self._alike = len({(column.kind, column.dtype, column.shape) for column in self._columns}) == 1
        self._block = all(
            column.dtype == self._columns[0].dtype != "object" and not column.shape for column in self._columns
        ) and all(len(tensor.shape) == 2 for tensor in model.signature.inputs)
        self._outputs = [tensor.name for tensor in model.signature.outputs]
        self._known: dict[bytes, tuple[list[str], msgspec.json.Decoder[Any], list[int] | None]] = {}

    def read(self, body: bytes) -> Question:
        """The question in a body. Raises Refusal."""
        if not self._model.signature.by_row:
            raise Refusal(400, "this model does not give one answer per row; use /v2/models/.../infer")
        return Question(*self.parse(body))

    def answer(self, question: Question, outputs: list[np.ndarray]) -> bytes:
        """The answer to a question, of the model's outputs."""
        if not question.asked:
            self._model.count(outputs)
        columns = [self._values(output, question.rows) for output in outputs]
        predictions = [dict(zip(self._outputs, values, strict=True)) for values in zip(*columns, strict=True)]
        return _ENCODER.encode(
            {"model_name": self._model.name, "model_version": self._model.version, "predictions": predictions}
        )

    def parse(self, body: bytes) -> tuple[Feed, int, bool]:
        """What the model is fed, the number of rows, and whether they are of a golden request. Raises Refusal."""
        try:
            usual = self._usual.decode(body).input_data
        except ValueError:  # another form or order, or wrong: looked at in peace
            return self._any(body)
        known = self._known.get(bytes(usual.columns))
        if known is None or not (known[2] is None or self._alike):
            return self._any(body)
        return *self._checked(usual.data, known[2]), False

    def _any(self, body: bytes) -> tuple[Feed, int, bool]:
        """As parse, for any form of a table."""
        table, golden = self._table(body)
        first = table[:1]
        if first == b"{":
            given = self._decode(_SPLIT, table, self._names)
            names, decoder, order = self._decoder(bytes(given.columns))
            rows = self._decode(decoder, given.data, names)
        elif first == b"[":
            if table[1:].lstrip(b" \t\r\n")[:1] == b"{":
                records = self._decode(self._records, table, self._names)
                rows, order = [msgspec.structs.astuple(record) for record in records], None
            else:
                rows, order = self._decode(self._rows, table, self._names), None
        else:
            raise Refusal(400, f"the table must be an object or a list; {_FORMS}")
        return *self._checked(rows, order), golden

    def _checked(self, rows: list[Any], order: list[int] | None) -> tuple[Feed, int]:
        if not rows:
            raise Refusal(400, "the table has no row; give at least one")
        if len(rows) > self._most:
            raise Refusal(413, f"the table has {len(rows)} rows, more than {self._most}; send it in parts")
        return self._feed(rows, order), len(rows)

    def _table(self, body: bytes) -> tuple[bytes, bool]:
        """The part of the body that holds the table, without space around it, and whether it is a golden request."""
        if body.lstrip()[:1] == b"[":
            return body.strip(), False
        given = self._decode(_BODY, body, self._names)
        if (given.input_data is UNSET) == (given.data is UNSET):
            raise Refusal(400, f"the body must have exactly one of input_data and data; {_FORMS}")
        part = given.data if isinstance(given.input_data, UnsetType) else given.input_data
        return bytes(part), given.id is not UNSET  # type: ignore[arg-type]

    def _decoder(self, columns: bytes) -> tuple[list[str], msgspec.json.Decoder[Any], list[int] | None]:
        """The names of a request's columns, the decoder of its rows, and the place of each column of the signature."""
        known = self._known.get(columns)
        if known is None:
            try:
                names = _NAMES.decode(columns)
            except cells.BROKEN:
                raise Refusal(400, "columns must be a list of names", "columns") from None
            given = set(names)
            for name in names:
                if name not in self._order:
                    raise Refusal(400, f"the model has no column '{name[:64]}'", name[:64])
            for name in self._names:
                if name not in given:
                    raise Refusal(400, f"column '{name}' is missing", name)
            if len(names) != len(given):
                twice = next(name for name in self._names if names.count(name) > 1)
                raise Refusal(400, f"column '{twice}' is given twice", twice)
            if names == self._names:
                known = names, self._rows, None
            else:
                decoder = _rows_decoder([self._columns[self._order[name]] for name in names])
                known = names, decoder, [names.index(name) for name in self._names]
            if len(columns) <= REMEMBERED_BYTES:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[columns] = known
        return known

    def _decode(self, decoder: msgspec.json.Decoder[T], data: bytes | Raw, names: Sequence[str]) -> T:
        try:
            return decoder.decode(data)
        except msgspec.ValidationError as error:
            raise self._refusal(error, names) from None
        except cells.BROKEN as error:
            raise cells.broken(error) from None

    def _refusal(self, error: msgspec.ValidationError, names: Sequence[str]) -> Refusal:
        """msgspec's finding at a path such as `[3][1]` or `[3].name`, told by row and column."""
        found, path = cells.split(error)
        row, _, rest = path.removeprefix("[").partition("]")
        where = f" in row {row}" if path.startswith("[") and row.isdecimal() else ""
        field = ""
        if where and rest.startswith("["):
            index = rest[1:].partition("]")[0]
            field = names[int(index)] if index.isdecimal() and int(index) < len(names) else ""
        elif where and rest.startswith("."):
            # A name may hold what looks like the end of a path; the longest that fits is meant.
            inside = [name for name in names if rest[1:] == name or rest[1:].startswith(f"{name}[")]
            field = max(inside, key=len, default="")
        elif "`" in found and "field `" in found:
            field = found.partition("field `")[2].rstrip("`")
        subject = f"column '{field}'{where}: " if field and where else f"the table{where}: "
        return Refusal(400, f"{subject}{found}" if where else f"{found}; {_FORMS}", field)

    def _feed(self, rows: list[Any], order: list[int] | None) -> Feed:
        inputs = self._model.signature.inputs
        if self._block:
            block = self._numbers(rows)
            if order is not None:
                block = block[:, order]
            if self._model.signature.matrix:
                return {inputs[0].name: block}
            return dict(zip(self._names, np.ascontiguousarray(block.T)[:, :, None], strict=True))
        by_name = list(zip(*rows, strict=True))
        if order is not None:
            by_name = [by_name[index] for index in order]
        if self._model.signature.matrix:
            made = [self._array(column, values) for column, values in zip(self._columns, by_name, strict=True)]
            return {inputs[0].name: np.stack(made, axis=1)}
        feed = {}
        for tensor, column, values in zip(inputs, self._columns, by_name, strict=True):
            whole = self._array(column, values)
            wanted = (len(rows), *column.shape)
            if len(whole.shape) != len(wanted) or any(
                size not in (-1, found) for size, found in zip((-1, *column.shape), whole.shape, strict=True)
            ):
                raise Refusal(
                    400, f"column '{column.name}' must have values of shape {list(column.shape)}", column.name
                )
            feed[tensor.name] = whole.reshape(len(rows), 1) if tensor.shape[1:] == (1,) else whole
        return feed

    def _numbers(self, rows: list[Any]) -> np.ndarray:
        try:
            return np.array(rows, dtype=self._columns[0].dtype)
        except OverflowError:
            raise Refusal(400, f"an integer is too large for {self._columns[0].dtype}") from None

    @staticmethod
    def _array(column: Column, values: Sequence[Any]) -> np.ndarray:
        try:
            return cells.array(values, column.dtype)
        except (ValueError, OverflowError):
            raise Refusal(400, f"column '{column.name}' has values that do not fit together", column.name) from None

    def _values(self, output: np.ndarray, rows: int) -> list[Any]:
        classes = self._model.signature.classes
        if output.ndim == 2 and output.shape[1] == len(classes) and output.dtype.kind == "f":
            return [dict(zip(classes, row, strict=True)) for row in output.tolist()]
        values: list[Any] = (output.reshape(rows) if output.shape == (rows, 1) else output).tolist()
        return values


def _usual_decoder(columns: Sequence[Column]) -> msgspec.json.Decoder[Any]:
    """For what nearly every client sends, columns in the signature's order: parsed at once, not part by part."""
    rows = list[_row(columns)]  # type: ignore[misc, valid-type]
    split = msgspec.defstruct("Split", [("columns", Raw), ("data", rows)], forbid_unknown_fields=True)
    return msgspec.json.Decoder(msgspec.defstruct("Body", [("input_data", split)], forbid_unknown_fields=True))


def _rows_decoder(columns: Sequence[Column]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(list[_row(columns)])  # type: ignore[misc]


def _row(columns: Sequence[Column]) -> Any:
    return tuple.__class_getitem__(tuple(cells.of_column(column) for column in columns))
