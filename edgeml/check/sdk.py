"""The second opinion: what azure-ai-ml's own loader says of a file, offline (`--with-sdk`).

It takes more than a second to import and accepts much of what this check refuses; it is asked because it is what
`edgeml submit` and Azure's own command line will read the file with.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeml.check import kinds
from edgeml.check.finding import ERROR, Finding, Place, Rule, found
from edgeml.errors import EdgemlError

SDK = Rule(
    "azure-ai-ml",
    ERROR,
    "Azure ML's own loader takes the file (`--with-sdk`)",
    "A file that the SDK cannot load cannot be submitted, whatever else may be right with it.",
    "type: pipeline\njobs:\n  a: {type: command, command: echo a, identity: {type: nobody}}\n",
    "type: pipeline\njobs:\n  a: {type: command, command: echo a, identity: {type: managed_identity}}\n",
)
RULES = (SDK,)

_LOADERS = {
    kinds.PIPELINE_JOB.name: "load_job",
    kinds.COMMAND_JOB.name: "load_job",
    kinds.SWEEP_JOB.name: "load_job",
    kinds.COMMAND_COMPONENT.name: "load_component",
    kinds.PARALLEL_COMPONENT.name: "load_component",
    kinds.PIPELINE_COMPONENT.name: "load_component",
    kinds.ENVIRONMENT.name: "load_environment",
    kinds.DATA.name: "load_data",
}


def check(path: str, kind: str) -> Iterator[Finding]:
    """What loading the file with azure-ai-ml ends in, where it does not end well.

    Raises EdgemlError where azure-ai-ml is not installed.
    """
    if kind not in _LOADERS:
        return
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK warns hundreds of times about its own use of marshmallow
        logging.disable(logging.WARNING)
        try:
            try:
                from azure.ai import ml
            except ImportError:
                raise EdgemlError("--with-sdk needs azure-ai-ml; install edgeml[azure]") from None
            try:
                getattr(ml, _LOADERS[kind])(path)
            except Exception as error:  # whatever it raises is its opinion
                yield found(SDK, Place(path, 1, 1), f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        finally:
            logging.disable(logging.NOTSET)
