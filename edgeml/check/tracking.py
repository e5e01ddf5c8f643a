"""The rules over what scripts log: MLflow writes to the workspace, past the egress gate.

They hold in a repository with a residency policy, for every Python file of a code folder.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import ERROR, WARNING, Finding, Place, Rule, found
from edgeml.check.python import Module, dotted, imported
from edgeml.check.units import units

_TREE = (
    "# --- contracts/residency.yml\nprivate: [stackhub]\n# --- {name}.yml\n"
    "type: command\nname: train\nversion: 1\ncode: src\nenvironment: azureml:e:1\ncommand: python train.py\n"
    "# --- src/train.py\nimport mlflow\n\n{script}\n"
)


def _example(name: str, script: str) -> str:
    return _TREE.format(name=name, script=script)


AUTOLOG = Rule(
    "mlflow-autolog",
    ERROR,
    "No script turns MLflow's autologging on",
    "It logs what the library's authors chose: with some models input examples, that is rows, with others data set "
    "digests and estimators that hold rows.",
    _example("bad", "mlflow.sklearn.autolog()"),
    _example("good", 'mlflow.log_metric("auc", 0.5)'),
)
ROWS = Rule(
    "logged-rows",
    ERROR,
    "No script logs rows: no input example, table or data set",
    "Each of these uploads rows to the workspace as they are. A signature says what a model takes, and holds none.",
    _example("bad", 'mlflow.log_table({"age": [71]}, "rows.json")'),
    _example("good", 'mlflow.log_params({"depth": 3})'),
)
FILES = Rule(
    "logged-files",
    WARNING,
    "No script uploads files by MLflow",
    "What leaves goes through the egress gate: a step writes files to its outputs, and the release decides.",
    _example("bad", 'mlflow.log_artifact("model.onnx")'),
    _example("good", 'mlflow.log_metrics({"auc": 0.5})'),
)
RULES = (AUTOLOG, ROWS, FILES)

_ROWS = frozenset(("log_table", "log_input", "log_inputs"))
_FILES = frozenset(("log_artifact", "log_artifacts", "log_text", "log_dict", "log_figure", "log_image"))
_MODELS = frozenset(("log_model", "save_model"))


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings in the Python files of every unit's code; each file is looked at once."""
    if not context.is_governed:
        return
    for unit in units(document):
        if unit.includes is None or not (unit.code or unit.includes):
            continue
        for name, path in context.listing(unit.code, unit.includes).files.items():
            if name.endswith(".py"):
                yield from _module(context.python(path))


def _module(module: Module) -> Iterator[Finding]:
    if "mlflow" not in module.text.lower() or module.tree is None:
        return
    names = imported(module.tree)
    clients = _clients(module.tree, names)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield from _call(node, module, names, clients)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            name = dotted(node.value, names)  # an alias: log = mlflow.autolog
            if _is_mlflow(name) and name.endswith(".autolog"):
                yield found(AUTOLOG, _place(module, node), "autologging is passed on under another name; remove it")


def _call(node: ast.Call, module: Module, names: dict[str, str], clients: frozenset[str]) -> Iterator[Finding]:
    name = dotted(node.func, names)
    if not name and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call):
        maker = dotted(node.func.value.func, names)  # MlflowClient().log_table(…)
        name = f"{maker}.{node.func.attr}" if maker.endswith("MlflowClient") else ""
    if not _is_mlflow(name) and name.partition(".")[0] not in clients:
        return
    called = name.rpartition(".")[2]
    place = _place(module, node)
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    if called == "autolog":
        if not _is(given.get("disable"), True):
            message = "MLflow's autologging uploads rows with some models; log metrics and parameters by name"
            yield found(AUTOLOG, place, message)
    elif called in _ROWS:
        yield found(ROWS, place, f"{called} uploads rows; write them to an output, or log a number of them")
    elif called in _MODELS and "input_example" in given and not _is(given["input_example"], None):
        yield found(ROWS, place, "an input example is rows that leave with the model; give a signature instead")
    elif called in _FILES:
        yield found(FILES, place, f"{called} uploads past the egress gate; write the file to an output of the step")


def _is_mlflow(name: str) -> bool:
    return name.partition(".")[0] == "mlflow"


def _clients(tree: ast.Module, names: dict[str, str]) -> frozenset[str]:
    """Names that hold a client of MLflow."""
    return frozenset(
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and dotted(node.value.func, names).endswith("MlflowClient")
    )


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _place(module: Module, node: ast.expr | ast.stmt) -> Place:
    return Place(module.path, node.lineno, node.col_offset + 1)
