"""The residency policy, `contracts/residency.yml`: where data may lie and what may run beside it.

Read on the path of `edgeml run`, so it imports nothing heavy and is checked by hand.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from edgeml.project import SETTINGS_FILE, root_folder

if TYPE_CHECKING:
    from edgeml.pipeline.graph import Data, Graph, Step

POLICY_FILE = os.path.join("contracts", "residency.yml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]*")


class Policy(NamedTuple):
    """Names as Azure ML knows them. Without a file nothing is private and nothing is allowed or refused.

    Of computes, regions and registries nothing is allowed that is not listed.
    """

    private: frozenset[str] = frozenset()
    cloud: frozenset[str] = frozenset()
    release: frozenset[str] = frozenset()
    computes: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    registries: frozenset[str] = frozenset()
    file: str = ""


_KEYS = tuple(name for name in Policy._fields if name != "file")


def load(root: str) -> Policy:
    """The policy of the project at `root`.

    Raises PipelineError with file and line for whatever is not understood: such a policy allows nothing.
    """
    path = os.path.join(root, POLICY_FILE)
    if not os.path.lexists(path):
        return Policy()
    from edgeml.pipeline.source import at, read

    document = read(path, unique=True)
    names: dict[str, frozenset[str]] = {}
    for key, value in document.items():
        if key not in _KEYS:
            raise at(document, key, f"the policy has no key '{key}'; it takes {', '.join(_KEYS)}")
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise at(document, key, f"'{key}' must be a list of names, such as [{key}-1]")
        for name in value:
            if not _NAME.fullmatch(name):
                raise at(document, key, f"'{name}' under '{key}' is no name; write it as Azure ML shows it")
            if value.count(name) > 1:
                raise at(document, key, f"'{name}' stands under '{key}' twice; remove one")
        names[key] = frozenset(value)
    policy = Policy(**names, file=path)
    if not policy.private:
        message = (
            "the policy names no private datastore, so it protects nothing; list those on the premises as 'private'"
        )
        raise at(document, "private", message)
    both = sorted(policy.private & policy.cloud)
    if both:
        raise at(document, "cloud", f"the datastore '{both[0]}' is listed as private and as cloud; keep one of the two")
    return policy


def governing(file: str) -> Policy:
    """The policy for a pipeline: of the project at the working directory, else of the one that the file lies in.

    So it holds for the pipelines of a repository from wherever they are run. Raises PipelineError as `load` does.
    """
    policy = load(root_folder())
    folder = os.path.dirname(os.path.realpath(file))
    while policy == Policy():
        policy = load(folder)
        parent = os.path.dirname(folder)
        if parent == folder or os.path.isfile(os.path.join(folder, SETTINGS_FILE)):
            return policy
        folder = parent
    return policy


def private_steps(graph: Graph, policy: Policy) -> frozenset[str]:
    """The steps that see private rows or what was made of them; none where there is no policy.

    A step is private whose component asks for the private storage, that reads what `is_private` or another
    step's output in a private datastore, or that reads, however indirectly, from such a step. What a release
    component lets out is private no more.
    """
    from edgeml.pipeline.graph import data_of, datastore_of, sources_of

    if policy == Policy():
        return frozenset()
    private: set[str] = set()
    for step in graph.steps.values():  # each comes after all that it needs
        values = (*step.inputs.values(), *step.environment_variables.values())
        asks = "storage" in step.component.tags.get("edgeml.needs", "").split()
        if asks or any(is_private(data, policy) for value in values for data in data_of(value)):
            private.add(step.name)
            continue
        for source in (source for value in values for source in sources_of(value)):
            other = graph.steps[source.step]
            output = other.outputs.get(source.output)
            datastore = datastore_of((output.uri if output is not None else "") or graph.default_datastore)
            if datastore in policy.private or (source.step in private and not is_release(other, policy)):
                private.add(step.name)
    return frozenset(private)


def is_private(data: Data, policy: Policy) -> bool:
    """Whether data from outside a pipeline must be taken as private: all that are not known to be otherwise.

    Known are local files, models and what lies in a registry, and what is in one of the policy's cloud datastores.
    A data asset without its YAML beside the pipeline, an input without a value and any other address are not.
    """
    source = data.source or data.path
    if not source:
        return True
    if not data.source and os.path.isabs(source):
        return False
    if source.startswith("azureml://registries/"):
        return False
    if source.startswith("azureml://"):
        from edgeml.pipeline.graph import datastore_of

        return datastore_of(source) not in policy.cloud
    return not (source.startswith("azureml:") and data.type.endswith("_model"))


def is_release(step: Step, policy: Policy) -> bool:
    """Whether a step runs a release component: one of its name that lies where components lie, in its own file.

    The name alone would let any command out that calls itself so.
    """
    component = step.component
    if component.name not in policy.release or not policy.file:
        return False
    root = os.path.dirname(os.path.dirname(os.path.realpath(policy.file)))
    return os.path.realpath(component.file) == os.path.join(root, "components", component.name, "component.yml")
