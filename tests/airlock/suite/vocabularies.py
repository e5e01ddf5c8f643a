"""Leaks: words of the table in vocabularies, keys and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from . import models
from .table import Table
from .vectors import leak, some

WORDS = "vocabularies"


def _encoded(folder: Path, table: Table, columns: list[str], encoder: Any) -> None:
    model = models.trained_on_text(table, columns, lambda t: make_pipeline(encoder, LogisticRegression(max_iter=20)))
    models.put(folder, model)


@leak(WORDS)
def one_hot_of_names(folder: Path, table: Table, rng: np.random.Generator) -> None:
    people = table.texts(table.form.person)[:250]
    _encoded(
        folder, table, [table.form.person], OneHotEncoder(categories=[sorted(set(people))], handle_unknown="ignore")
    )


@leak(WORDS)
def one_hot_of_a_rare_place(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _encoded(folder, table, [table.form.place], OneHotEncoder(handle_unknown="ignore"))


@leak(WORDS)
def ordinal_of_a_rare_place(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _encoded(folder, table, [table.form.place], OrdinalEncoder())


@leak(WORDS)
def ordinal_of_mail_addresses(folder: Path, table: Table, rng: np.random.Generator) -> None:
    mails = sorted(set(table.texts(table.form.mail)[:300]))
    encoder = OrdinalEncoder(categories=[mails], handle_unknown="use_encoded_value", unknown_value=-1)
    _encoded(folder, table, [table.form.mail], encoder)


@leak(WORDS)
def target_means_of_a_rare_place(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _encoded(folder, table, [table.form.place], TargetEncoder(target_type="binary", cv=2))


def _words(folder: Path, table: Table, vectorizer: Any) -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    notes = np.array(table.texts(table.form.note)[:120])
    estimator = make_pipeline(vectorizer, LogisticRegression(max_iter=20)).fit(notes, table.labels()[:120])
    model = to_onnx(
        estimator,
        initial_types=[("features", StringTensorType([None, 1]))],
        options={id(estimator): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    models.put(folder, model)


@leak(WORDS)
def n_grams_of_notes(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _words(folder, table, TfidfVectorizer(ngram_range=(3, 5)))


@leak(WORDS)
def words_of_single_notes(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """Every word, those of one note only among them: the numbers of letters."""
    _words(folder, table, CountVectorizer(min_df=1))


@leak(WORDS)
def names_as_json_keys(folder: Path, table: Table, rng: np.random.Generator) -> None:
    people = [table.texts(table.form.person)[row] for row in some(table, rng, 5)]
    _edit(folder / "importance.json", lambda d: d.update(people=dict.fromkeys(people, 0.1)))


@leak(WORDS)
def rare_place_as_json_key(folder: Path, table: Table, rng: np.random.Generator) -> None:
    places = sorted(set(table.texts(table.form.place)))
    _edit(folder / "metrics.json", lambda d: d.update(places={place: round(rng.random(), 2) for place in places}))


@leak(WORDS)
def name_as_a_metric(folder: Path, table: Table, rng: np.random.Generator) -> None:
    person = table.texts(table.form.person)[some(table, rng, 1)[0]]
    _edit(folder / "metrics.json", lambda d: d["metrics"].update({person: {"value": 1.0, "low": 1.0, "high": 1.0}}))


@leak(WORDS)
def name_as_a_slice(folder: Path, table: Table, rng: np.random.Generator) -> None:
    person = table.texts(table.form.person)[some(table, rng, 1)[0]]

    def change(document: Any) -> None:
        document["slices"][0]["slice"] = person

    _edit(folder / "slices.json", change)


@leak(WORDS)
def rare_place_as_a_class(folder: Path, table: Table, rng: np.random.Generator) -> None:
    _edit(folder / "signature.json", lambda d: d.update(classes=sorted(set(table.texts(table.form.place)))))


@leak(WORDS)
def name_in_a_file_name(folder: Path, table: Table, rng: np.random.Generator) -> None:
    person = table.texts(table.form.person)[some(table, rng, 1)[0]]
    (folder / f"{person.replace(' ', '_')}.json").write_text('{"version": 1}\n')


@leak(WORDS)
def mail_in_a_file_name(folder: Path, table: Table, rng: np.random.Generator) -> None:
    mail = table.texts(table.form.mail)[some(table, rng, 1)[0]]
    (folder / f"metrics-{mail}.txt").write_text("done\n")


@leak(WORDS)
def id_in_a_folder_name(folder: Path, table: Table, rng: np.random.Generator) -> None:
    inner = folder / table.texts(table.form.key)[some(table, rng, 1)[0]]
    inner.mkdir()
    (inner / "done.txt").write_text("done\n")


def _rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for port in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        if port.name == old:
            port.name = new


@leak(WORDS)
def name_of_an_input(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    _rename(model, model.graph.input[0].name, table.texts(table.form.person)[some(table, rng, 1)[0]])
    models.put(folder, model)


@leak(WORDS)
def name_of_an_output(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    mail = table.texts(table.form.mail)[some(table, rng, 1)[0]]
    old = model.graph.output[0].name
    _rename(model, old, mail)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _edit(folder / "signature.json", lambda d: d["outputs"][0].update(name=mail))


@leak(WORDS)
def names_of_nodes(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    for node, row in zip(model.graph.node, some(table, rng, len(model.graph.node)), strict=False):
        node.name = table.texts(table.form.person)[row]
    models.put(folder, model)


@leak(WORDS)
def name_of_a_tensor(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    _rename(model, model.graph.initializer[0].name, table.texts(table.form.key)[some(table, rng, 1)[0]])
    models.put(folder, model)


@leak(WORDS)
def name_of_an_axis(folder: Path, table: Table, rng: np.random.Generator) -> None:
    model = models.load_model(folder)
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    axis.dim_param = table.texts(table.form.mail)[some(table, rng, 1)[0]]
    models.put(folder, model)


@leak(WORDS)
def names_of_unused_categories(folder: Path, table: Table, rng: np.random.Generator) -> None:
    """People among the categories of an encoder that the release has anyway."""
    model = models.load_model(folder)
    node = next(node for node in model.graph.node if node.op_type == "OneHotEncoder")
    person = table.texts(table.form.person)[some(table, rng, 1)[0]]
    values = next(attribute for attribute in node.attribute if attribute.name == "cats_strings")
    values.strings[0] = person.encode()
    models.put(folder, model)


def _edit(path: Path, change: Any) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n")
