"""What azure-ai-ml makes of a job, in the plain shape that `shape.py` makes of edgeml's graph.

The SDK only loads: bindings stay text, nested pipelines stay nested, and a literal is sent as `str()` of what it
loaded. So the oracle follows the bindings through the SDK's own objects, and shares no line with edgeml's resolver.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Shape = dict[str, Any]

_BINDING = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_GROUP = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
_LITERALS = frozenset({"string", "integer", "number", "boolean"})


class Place(str):
    """Text that stands for an output of a step, as `<step.output>`, or that has one or a local path in it."""


@cache
def load(path: Path) -> Any:
    """The job that the SDK loads from a file; it is slow, so each file is loaded once."""
    logging.getLogger("azure").setLevel(logging.CRITICAL)
    from azure.ai.ml import load_job

    return load_job(path)


def problems(path: Path) -> list[str]:
    """What the SDK's offline validation says against a file; that no compute is named is of no interest here."""
    try:
        job = load(path)
        # A sweep job by itself has no validation beyond its schema.
        errors = job._validate().error_messages if job.type != "sweep" else {}
    except Exception as error:  # whatever stops the SDK, stumbling or refusing
        return [f"{type(error).__name__}: {error}"]
    return [f"{where}: {what}" for where, what in errors.items() if not where.endswith("compute")]


def shape(path: Path, maps: Mapping[str, str] | None = None) -> Shape:
    """A job of any kind as the SDK sees it, with remote data replaced by what `maps` says."""
    return _Reader(maps or {}).job(load(path), path)


class _Level:
    """One pipeline, the outermost or nested, with the values of its inputs."""

    def __init__(self, jobs: Mapping[str, Any], prefix: str, parent: _Level | None, node: Any) -> None:
        self.jobs = jobs
        self.prefix = prefix
        self.parent = parent
        self.node = node
        self.inputs: dict[str, Any] = {}


class _Reader:
    def __init__(self, maps: Mapping[str, str]) -> None:
        self.maps = maps
        self.steps: dict[str, Shape] = {}

    def job(self, job: Any, path: Path) -> Shape:
        if job.type != "pipeline":
            name = job.name or path.stem
            return _outer({name: self.standalone(job)}, {}, {}, None)
        root = _Level(job.jobs, "", None, job)
        root.inputs = {name: self.value(root, given, job.base_path, None) for name, given in job.inputs.items()}
        self.walk(root)
        outputs = {}
        for name, output in job.outputs.items():
            source = self.promoted(root, name)
            outputs[name] = {"from": source, "type": output.type or "uri_folder", "uri": output.path or ""}
        return _outer(self.steps, _described(root.inputs), outputs, job.settings)

    def walk(self, level: _Level) -> None:
        for name, node in level.jobs.items():
            if node.type != "pipeline":
                self.steps[level.prefix + name] = self.step(level, name, node)
                continue
            inner = _Level(node.component.jobs, f"{level.prefix}{name}.", level, node)
            inner.inputs = self.inputs(level, node, node.component.inputs)
            self.walk(inner)

    # ---- steps ----

    def step(self, level: _Level, name: str, node: Any) -> Shape:
        component = _own(node, "component")
        inputs = self.inputs(level, node, component.inputs)
        outputs = {key: self.output(level, node, key) for key in component.outputs}
        variables = dict(_own(component, "environment_variables") or {}) | {
            key: value for key, value in (_own(node, "environment_variables") or {}).items() if value is not None
        }
        swept = {key: Place(f"<{key}>") for key in _own(node, "search_space") or {}}
        made = {
            "inputs": _described({key: value for key, value in inputs.items() if key not in swept}),
            "outputs": outputs,
            "variables": {
                key: _fill(_text(self.value(level, value, "", None)), inputs, outputs)
                for key, value in variables.items()
                if value is not None
            },
            "environment": _environment(_own(node, "environment") or _own(component, "environment")),
            "compute": _text(self.value(level, node.compute, "", None)).removeprefix("azureml:"),
            "deterministic": component.is_deterministic,
            "distribution": _distribution(node),
            "sweep": _sweep(node) if node.type == "sweep" else None,
            "parallel": _parallel(node) if node.type == "parallel" else None,
        }
        if node.type == "parallel":
            task = node.task
            command = f"{task.entry_script} {task.program_arguments or ''}".strip()
            files = _listing(Path(component.base_path, task.code))
            made |= {"environment": _environment(task.environment)}
            return made | {"command": _command(command, inputs, outputs), "files": files}
        return made | {"command": _command(component.command, inputs | swept, outputs), "files": _files(component)}

    def standalone(self, job: Any) -> Shape:
        """A command or sweep job by itself; a sweep job's `trial` has the command and the job the rest."""
        level = _Level({}, "", None, None)
        trial = job.trial if job.type == "sweep" else job.component
        inputs = {name: self.value(level, given, job.base_path, None) for name, given in job.inputs.items()}
        outputs = {name: {"type": out.type or "uri_folder", "uri": out.path or ""} for name, out in job.outputs.items()}
        swept = {key: Place(f"<{key}>") for key in _own(job, "search_space") or {}}
        variables = _own(job, "environment_variables") or trial.environment_variables or {}
        return {
            "inputs": _described(inputs),
            "outputs": outputs,
            "variables": {key: _fill(_text(value), inputs, outputs) for key, value in variables.items()},
            "environment": _environment(trial.environment),
            "compute": job.compute or "",
            "deterministic": True,
            "distribution": _distribution(trial),
            "sweep": _sweep(job) if job.type == "sweep" else None,
            "parallel": None,
            "command": _command(trial.command, inputs | swept, outputs),
            "files": _listing(Path(job.base_path, trial.code)) if trial.code else [],
        }

    # ---- values ----

    def inputs(self, level: _Level, node: Any, ports: Mapping[str, Any]) -> dict[str, Any]:
        values = {}
        for name, port in ports.items():
            given = node.inputs.get(name)
            value = self.value(level, given, node.base_path, port)
            values[name] = port.default if value is None else value
        return values

    def value(self, level: _Level, given: Any, base: Any, port: Any) -> Any:
        """A literal, `{path, type}`, an Place, a text with any of these in it, or None."""
        given = getattr(given, "_data", given)
        if isinstance(given, dict) and "value" in given:
            given = given["value"]
        if hasattr(given, "path"):
            value = self.follow(level, given.path) if "${{" in given.path else self.data(given.path, given.type, base)
        else:
            value = self.follow(level, given) if isinstance(given, str) and "${{" in given else given
        if port is None or value is None:
            return value
        if isinstance(value, dict):
            return value if port.type in _LITERALS else value | {"type": port.type}
        return value if isinstance(value, Place) else _typed(value, port)

    def data(self, path: str, type_: str, base: Any) -> dict[str, str]:
        local = self.maps.get(path) or self.maps.get(f"azureml:{path}") or path.removeprefix("file:")
        return {"path": os.path.normpath(os.path.join(base, local)), "type": type_}

    def follow(self, level: _Level, text: str) -> Any:
        whole = _BINDING.fullmatch(text.strip())
        if whole:
            return self.target(level, whole[1], whole[0])
        found = [self.target(level, match[1], match[0]) for match in _BINDING.finditer(text)]
        parts = iter(found)
        made = _BINDING.sub(lambda _: _text(next(parts)), text)
        return Place(made) if any(isinstance(part, (dict, Place)) for part in found) else made

    def target(self, level: _Level, binding: str, written: str) -> Any:
        match binding.split("."):
            case ["parent", "inputs", *name]:
                return level.inputs[".".join(name)]
            case ["parent", "jobs", job, "outputs", output]:
                return self.source(level, job, output)
            case ["inputs" | "outputs", *_]:
                return written  # of the step itself: filled in when its command is
        raise AssertionError(f"the oracle knows no binding {written}")

    def source(self, level: _Level, job: str, output: str) -> Place:
        node = level.jobs[job]
        if node.type != "pipeline":
            return Place(f"<{level.prefix}{job}.{output}>")
        return self.promoted(_Level(node.component.jobs, f"{level.prefix}{job}.", level, node), output)

    def promoted(self, level: _Level, output: str) -> Place:
        """The step that is bound to an output of its pipeline."""
        for job, node in level.jobs.items():
            for name in node.outputs:
                if _bound_output(node.outputs[name]) == output:
                    return self.source(level, job, name)
        raise AssertionError(f"nothing is bound to the output {output}")

    def output(self, level: _Level, node: Any, name: str) -> Shape:
        declared = _own(node, "component").outputs[name]
        own = node.outputs.get(name)
        made = {"type": declared.type or "uri_folder", "uri": declared.path or ""}
        bound = _bound_output(own)
        if bound:
            outer = level.node.outputs[bound] if level.parent is None else None
            uri = (outer.path or "") if outer is not None else self.output(level.parent, level.node, bound)["uri"]
            return made | {"uri": uri}
        path = getattr(own, "path", None)
        return made | {"uri": path or made["uri"]}


def _outer(steps: dict[str, Shape], inputs: Shape, outputs: Shape, settings: Any) -> Shape:
    def setting(name: str, default: object) -> object:
        value = getattr(settings, name, None)
        return default if value is None else value

    return {
        "steps": steps,
        "inputs": inputs,
        "outputs": outputs,
        "default_datastore": setting("default_datastore", ""),
        "continue_on_failure": setting("continue_on_step_failure", True),
        "force_rerun": setting("force_rerun", False),
    }


def _typed(value: Any, port: Any) -> Any:
    """A literal at a declared port: what the SDK sends is `str()` of it.

    Text at a port of another type is sent as it is, for the service to read; here it is read by the SDK's own
    reader for that type, whose numbers are all floats, so an integer's text stays one as it does unquoted.
    """
    if port.type == "string":
        return str(value)
    if not isinstance(value, str):
        return value
    return int(value) if port.type == "number" and value.strip("+- ").isdigit() else port._parse(value)


def _described(values: Mapping[str, Any]) -> Shape:
    """Values with their types beside them, because True == 1 == 1.0; those without a value are left out."""
    made = {}
    for name, value in values.items():
        if isinstance(value, (dict, Place)):
            made[name] = value if isinstance(value, dict) else str(value)
        elif value is not None:
            made[name] = [type(value).__name__, value]
    return made


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return str(value["path"])
    return "" if value is None else str(value)


def _command(command: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    def group(match: re.Match[str]) -> str:
        named = [binding.split(".")[1] for binding in _BINDING.findall(match[1]) if binding.startswith("inputs.")]
        return match[1] if all(inputs[name] is not None for name in named) else ""

    return _fill(_GROUP.sub(group, command), inputs, outputs)


def _fill(text: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> str:
    def replace(match: re.Match[str]) -> str:
        side, _, name = match[1].partition(".")
        if side == "outputs":
            assert name in outputs
            return f"<{name}>"
        return _text(inputs[name])

    return _BINDING.sub(replace, text)


def _bound_output(output: Any) -> str:
    data = getattr(output, "_data", output)
    written = data if isinstance(data, str) else getattr(data, "path", None)
    match = _BINDING.fullmatch(written.strip()) if isinstance(written, str) else None
    return match[1].removeprefix("parent.outputs.") if match and match[1].startswith("parent.outputs.") else ""


def _environment(environment: Any) -> Any:
    if environment is None or isinstance(environment, str):
        return environment or ""
    return {
        key: value
        for key, value in {
            "image": environment.image,
            "conda": environment.conda_file["dependencies"] if environment.conda_file else None,
            "build": environment.build and environment.build.path,
        }.items()
        if value
    }


def _files(component: Any) -> list[str]:
    """The names in the snapshot that the SDK would upload."""
    if not component.code and not component.additional_includes:
        return []
    with component._build_code() as code:
        return _listing(Path(component.base_path, code.path))


def _listing(path: Path) -> list[str]:
    from azure.ai.ml._utils._asset_utils import get_ignore_file, get_upload_files_from_folder

    if path.is_file():
        return [path.name]
    found = get_upload_files_from_folder(path, ignore_file=get_ignore_file(path))
    names = {os.path.relpath(file, path) for file, _ in found}
    return sorted(names - {".amlignore", ".gitignore"})


def _own(thing: Any, name: str) -> Any:
    """An attribute of the SDK's object itself: nodes make up any other on being asked."""
    held = vars(thing) if thing is not None else {}
    return held.get(name, held.get(f"_{name}"))


def _distribution(node: Any) -> Any:
    held = _own(node, "distribution") or _own(_own(node, "component"), "distribution")
    return held and {"type": held.type, "processes": held.process_count_per_instance or 1}


def _sweep(node: Any) -> Shape:
    """A search, with what Azure ML's reference says of limits that are not given; 0 is no limit."""
    sampling, limits, policy = node.sampling_algorithm, node.limits, node.early_termination
    return {
        "algorithm": sampling if isinstance(sampling, str) else sampling.type,
        "seed": getattr(sampling, "seed", None),
        "space": {name: dict(vars(one)) for name, one in node.search_space.items()},
        "goal": node.objective.goal,
        "metric": node.objective.primary_metric,
        "max_trials": limits.max_total_trials,
        "max_concurrent": limits.max_concurrent_trials or limits.max_total_trials,
        "timeout": limits.timeout or 0,
        "trial_timeout": limits.trial_timeout or 0,
        "early_termination": "" if policy is None else policy.type,
    }


def _parallel(node: Any) -> Shape:
    """The mini-batches of a node, with the reference's defaults; the SDK has no unit beside the size."""
    retry = node.retry_settings

    def port(binding: str | None) -> str:
        return _BINDING.fullmatch(binding)[1].partition(".")[2] if binding else ""

    def given(value: Any, default: int) -> int:
        return default if value is None else int(value)

    return {
        "input": port(node.input_data),
        "append_to": port(node.task.append_row_to),
        "size": int(node.mini_batch_size),
        "workers": given(node.max_concurrency_per_instance, 1),
        "retries": given(getattr(retry, "max_retries", None), 2),
        "timeout": given(getattr(retry, "timeout", None), 60),
        "failed_batches": given(node.mini_batch_error_threshold, -1),
        "failed_items": given(node.error_threshold, -1),
    }
