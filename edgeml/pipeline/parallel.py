"""Parallel nodes: how the files of one input are handed, in mini-batches, to an entry script.

Source: Azure ML's parallel job YAML reference; defaults are those that it states.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from collections.abc import Mapping as AbstractMapping
from typing import Any

from edgeml.pipeline import expressions, load
from edgeml.pipeline.graph import Component, Data, Parallel, Value
from edgeml.pipeline.source import Mapping, at, read

Plain = Callable[[Mapping, str], Any]

_SIZE = re.compile(r"\s*(\d+)\s*(kb|mb|gb)?\s*", re.IGNORECASE)
_UNITS = {"": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_FILES = 10  # files in a mini-batch where none are asked for
_SECONDS = 60
_RETRIES = 2
_SETTINGS = (
    "mini_batch_size",
    "mini_batch_error_threshold",
    "error_threshold",
    "max_concurrency_per_instance",
    "retry_settings",
    "input_data",
    "partition_keys",
)


def command_mapping(document: Mapping, name: str) -> Mapping:
    """A parallel component or inline node as the command component that runs its entry script."""
    task = load.section(document, "task")
    script = load.text(task, "entry_script")
    if not script:
        raise at(document, "task", f"the task of parallel node '{name}' has no entry_script")
    made = document.copied()
    made.line = document.line_of("task")
    made.key_lines["command"] = task.line_of("entry_script")
    made["command"] = f"{script} {load.text(task, 'program_arguments')}".strip()
    for key in ("code", "environment", "additional_includes"):
        if key in task:
            made[key] = task[key]
            made.key_lines[key] = task.line_of(key)
    return made


def parallel_of(
    node: Mapping,
    document: Mapping,
    component: Component,
    name: str,
    plain: Plain,
    inputs: AbstractMapping[str, Value | None],
) -> Parallel:
    """The settings of a parallel node: the node's own, else its component's.

    Raises PipelineError with file and line for what cannot be done here: partitions by keys, and mini-batches
    of rows where the data is known (`inputs` are the node's).
    """
    found = {key: node if key in node else document for key in _SETTINGS}

    def number(key: str, default: int, section: Mapping | None = None) -> int:
        mapping = found[key] if section is None else section
        value = plain(mapping, key)
        try:
            return default if value is None else int(str(value))
        except ValueError:
            raise at(mapping, key, f"'{key}' must be a whole number") from None

    source = _input(found["input_data"], component, name)
    value = inputs.get(source)
    if value is None:
        raise at(found["input_data"], "input_data", f"input '{source}' of parallel node '{name}' has no value; set it")
    if isinstance(value, Data) and (reader := row_reader(value.path)):
        raise at(found["input_data"], "input_data", f"parallel node '{name}' {rows_refused(reader)}")
    retry = load.section(found["retry_settings"], "retry_settings")
    files, size = _batch(found["mini_batch_size"], plain)
    script = component.command.split(maxsplit=1)[0]
    if component.code and not os.path.isfile(os.path.join(component.code, script)):
        raise at(document, "task", f"the entry script {script} of node '{name}' is not in its code folder")
    return Parallel(
        input=source,
        append_to=_append_to(load.section(document, "task"), component, name),
        files=files,
        bytes=size,
        workers=max(1, number("max_concurrency_per_instance", 1)),
        retries=number("max_retries", _RETRIES, retry),
        timeout=number("timeout", _SECONDS, retry),
        failed_batches=number("mini_batch_error_threshold", -1),
        failed_items=number("error_threshold", -1),
    )


def rows_refused(reader: str) -> str:
    return f"reads a table in mini-batches ({reader}), which this runner cannot do; give it files"


def row_reader(path: str) -> str:
    """The transformation by which the `MLTable` file of a folder reads rows; empty where there is none."""
    table = os.path.join(path, "MLTable")
    if not os.path.isfile(table):
        return ""
    steps = read(table).get("transformations") or []
    named = (str(name) for step in steps if isinstance(step, (dict, str)) for name in _names(step))
    return next((name for name in named if name.startswith("read_")), "")


def _names(step: dict[str, Any] | str) -> list[str]:
    return [step] if isinstance(step, str) else list(step)


def _input(mapping: Mapping, component: Component, name: str) -> str:
    binding = expressions.single(mapping.get("input_data"))
    port = None if binding is None or len(binding.path) != 2 else component.inputs.get(binding.path[1])
    if binding is None or port is None:
        raise at(mapping, "input_data", f"input_data of parallel node '{name}' must be bound to one of its inputs")
    if mapping.get("partition_keys"):
        raise at(mapping, "partition_keys", f"parallel node '{name}' partitions by keys, which this runner cannot do")
    return binding.path[1]


def _append_to(task: Mapping, component: Component, name: str) -> str:
    written = task.get("append_row_to")
    if not written:
        return ""
    binding = expressions.single(written)
    if binding is None or binding.path[0] != "outputs" or binding.path[-1] not in component.outputs:
        raise at(task, "append_row_to", f"append_row_to of parallel node '{name}' must be bound to one of its outputs")
    return binding.path[-1]


def _batch(mapping: Mapping, plain: Plain) -> tuple[int, int]:
    """Files and bytes of a mini-batch; the one that does not bound it is 0."""
    written = plain(mapping, "mini_batch_size")
    if written is None:
        return _FILES, 0
    match = _SIZE.fullmatch(str(written))
    if match is None or int(match[1]) < 1:
        raise at(mapping, "mini_batch_size", "'mini_batch_size' must be a number of files, or of kb, mb or gb")
    unit = (match[2] or "").lower()
    amount = int(match[1]) * _UNITS[unit]
    return (0, amount) if unit else (amount, 0)
