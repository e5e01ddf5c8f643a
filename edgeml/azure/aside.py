"""The command of a private step as Azure ML is sent it: what it prints and writes stays on the edge.

Azure ML takes what a command prints, and what it writes to ./outputs and ./logs, into the run, in the cloud. So a
private step's streams go elsewhere, and it works in a copy of its code elsewhere. (That Azure ML looks only below the
job's own working directory is documented, and not proven here.)
"""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.pipeline.graph import FromStep, datastore_of, sources_of

if TYPE_CHECKING:
    from edgeml.pipeline.graph import Graph, Step
    from edgeml.policy import Policy

LOG = "edgeml_log"  # the output to which a private step's streams go where Azure ML writes its outputs
HOME = "/tmp/edgeml"  # noqa: S108 - in the job's own container, removed when the command ends
_COPY = 'cd "$(mktemp -d)" && cp -R "$OLDPWD/." .'
# What a private step logs with MLflow stays with it; what may be known of it is in what the gate releases.
_TRACKING = 'export MLFLOW_TRACKING_URI="sqlite:///$PWD/mlflow.db"'
_GROUP = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)


class Stowed(NamedTuple):
    """What the steps keep in the private storage by themselves: outputs and inputs by step, and the container."""

    container: str
    outputs: dict[str, tuple[str, ...]]
    inputs: dict[str, tuple[str, ...]]


def stowed(graph: Graph, policy: Policy, container: str) -> Stowed:
    """Which ports lie in a private datastore.

    Raises EdgemlError, exit code 1, for a step that cannot fetch or stow: it would put a private output in the cloud.
    """
    outputs = {
        name: tuple(
            key
            for key, output in step.outputs.items()
            if datastore_of(output.uri or graph.default_datastore) in policy.private
        )
        for name, step in graph.steps.items()
    }
    inputs: dict[str, tuple[str, ...]] = {}
    for name, step in graph.steps.items():
        taken = [
            key
            for key, value in step.inputs.items()
            if any(source.output in outputs[source.step] for source in sources_of(value))
        ]
        inputs[name] = tuple(taken)
        whole = all(isinstance(step.inputs[key], FromStep) for key in taken) and not any(
            source.output in outputs[source.step]
            for value in step.environment_variables.values()
            for source in sources_of(value)
        )
        several = step.parallel is not None or (step.distribution is not None and step.distribution.processes > 1)
        if (outputs[name] or taken) and (several or not whole):
            why = "runs as several processes" if several else "takes a part of another step's private output"
            raise EdgemlError(
                f"'{name}' {why}, so it cannot keep its outputs by itself; set outputs = \"datastore\" for this "
                "compute, or submit it to a target of kind edge",
                1,
            )
    return Stowed(container, outputs, inputs)


def to_datastore(command: str, sweep: bool) -> str:
    """The command where Azure ML writes the private datastore: it has the output `LOG`, to which the streams go."""
    start = f'mkdir -p "${{{{outputs.{LOG}}}}}" && exec >>"${{{{outputs.{LOG}}}}}/log.txt" 2>&1'
    lines = [f"{start} && {_COPY}", *([] if sweep else [_TRACKING])]
    return " && ".join(lines) + " && {\n" + command.rstrip("\n") + "\n}"


def to_storage(command: str, step: Step, job: str, stowed: Stowed) -> str:
    """The command where the step fetches and stows by itself, with `edgeml_stow.py` beside its code.

    A failure says in the run which of the two it was; its cause, as all that is printed, is in the private log. Only
    where the log itself cannot be stored, the run has the sentence that says why (it is ours, and quotes no value).
    """
    home, place = f"{HOME}/{job}/{step.name}", f"{job}/{step.name}"
    taken, made = stowed.inputs[step.name], stowed.outputs[step.name]
    python, container = "python edgeml_stow.py", shlex.quote(stowed.container)
    last = f"{python} log {container} {home}/log.txt logs/{place}"
    lines = [
        f"exec 3>&2; rm -rf {home}; mkdir -p {home}/inputs {home}/outputs && chmod 700 {home}",
        f"exec >>{home}/log.txt 2>&1",
        _COPY,
        f"trap 'edgeml_code=$?; {last} 2>&3; rm -rf {home}; exit $edgeml_code' EXIT",
        "trap 'exit 143' TERM",
    ]
    if taken:
        ports = " ".join(f'{name}="${{{{inputs.{name}}}}}"' for name in taken)
        lines.append(_or_say(f"{python} fetch {container} {home}/inputs {ports}", step, "fetch its private inputs"))
    exports = [f"AZURE_ML_INPUT_{name}={home}/inputs/{name}" for name in taken]
    exports += [f"AZURE_ML_OUTPUT_{name}={home}/outputs/{name}" for name in made]
    lines += [f"export {' '.join(exports)}"] if exports else []
    lines += [] if step.sweep is not None else [_TRACKING]
    # In a shell of its own, whose `exit` ends no more than itself, and without the way back into the run.
    lines.append("(\n" + placed(command, step, home, stowed).rstrip("\n") + "\n) 3>&-")
    if made:
        ports = " ".join(f'{name}="${{{{outputs.{name}}}}}"' for name in made)
        stow = f"{python} stow {container} {home}/outputs outputs/{place} {ports}"
        lines.append(_or_say(stow, step, "store its private outputs"))
    return " && ".join(lines)


def placed(text: str, step: Step, home: str, stowed: Stowed) -> str:
    """A command, or a variable's value, with the folders of what was fetched and is to be stowed in it."""
    taken = stowed.inputs[step.name]

    def group(found: re.Match[str]) -> str:
        # Azure ML drops a group by the bindings in it; one whose binding becomes a folder has to be decided here.
        bound = re.findall(r"\$\{\{\s*inputs\.(\w+)\s*\}\}", found[1])
        kept = any(name in taken for name in bound) and all(name in step.inputs for name in bound)
        return found[1] if kept else found[0]

    text = _GROUP.sub(group, text)
    for kind, names in (("inputs", taken), ("outputs", stowed.outputs[step.name])):
        for name in names:
            text = re.sub(rf"\$\{{\{{\s*{kind}\.{re.escape(name)}\s*\}}\}}", f"{home}/{kind}/{name}", text)
    return text


def _or_say(command: str, step: Step, what: str) -> str:
    said = f"edgeml: step {step.name} could not {what}; the cause is in its log in the private storage"
    return f"{{ {command} || {{ echo '{said}' >&3; exit 1; }}; }}"


def beside(includes: tuple[str, ...]) -> tuple[str, ...]:
    """The files that a step needs to fetch and stow, besides those that it includes already, of whichever version."""
    here = os.path.dirname(__file__)
    # By its path: to import it would import the storage's SDK, half a second of a submission that finds its job.
    files = (os.path.join(here, "edgeml_stow.py"), os.path.join(os.path.dirname(here), "storage", "blob_client.py"))
    there = {os.path.basename(path) for path in includes}
    return tuple(path for path in files if os.path.basename(path) not in there)
