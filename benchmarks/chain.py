"""The chain that every runner gets: five Python processes, each reading the last one's small file and writing its own.

How each runner is told to run it stands in `peers/`; here are the commands that a user would type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import venvs
from measured import checkout, edgeml

STEPS = 5

# `python -c STEP SOURCE TARGET`. A line in $TRACE for each step that really ran. No character that a shell would take.
STEP = (
    "import os,sys;s,t=sys.argv[1:];n=0 if s=='-' else int(open(s).read());"
    "open(t,'w').write(str(n+1));open(os.environ['TRACE'],'a').write(t+chr(10))"
)


@dataclass(frozen=True)
class Peer:
    """How one runner runs the chain. `files` is a folder of `peers/`; `{bin}` in commands is the environment's."""

    files: str
    cold: list[str]
    again: list[str] = field(default_factory=list)  # the same command, where empty
    prepare: list[list[str]] = field(default_factory=list)  # not timed
    lock: str = ""  # the environment's name; empty: the bare one
    variables: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def _edgeml() -> Peer:
    return Peer("azureml", [edgeml(), "run", "pipeline.yml"], variables=checkout(), note="`edgeml run`")


_LUIGI = ["{bin}/luigi", "--local-scheduler", "--module", "chain", "Step", "--i", str(STEPS)]

PEERS: dict[str, Callable[[], Peer]] = {
    "bare-sh": lambda: Peer("bare", ["bash", "chain.sh"], note="the five processes alone"),
    "bare-python": lambda: Peer("bare", ["{bin}/python", "chain.py"], note="the same, from Python"),
    "edgeml": _edgeml,
    "luigi": lambda: Peer("luigi", _LUIGI, lock="luigi", variables={"PYTHONPATH": "."}, note="looks for files only"),
    "kedro": lambda: Peer(
        "kedro",
        ["{bin}/kedro", "run"],
        ["{bin}/kedro", "run", "--only-missing-outputs"],
        [["mkdir", "-p", "data", "conf/local"]],
        lock="kedro",
        note="looks for files only",
    ),
    "dvc": lambda: Peer(
        "dvc",
        ["{bin}/dvc", "repro"],
        prepare=[["{bin}/python", "prepare.py"], ["{bin}/dvc", "init", "--no-scm", "-q"]],
        lock="dvc",
        note="without Git",
    ),
    "kfp": lambda: Peer("kfp", ["{bin}/python", "chain.py"], lock="kfp", note="subprocess runner"),
    "metaflow": lambda: Peer(
        "metaflow",
        ["{bin}/python", "chain.py", "run"],
        ["{bin}/python", "chain.py", "resume", "end"],
        lock="metaflow",
        note="no cache: `resume end`",
    ),
    "snakemake": lambda: Peer("snakemake", ["{bin}/snakemake", "-c1"], lock="snakemake"),
    "zenml": lambda: Peer(
        "zenml",
        ["{bin}/python", "chain.py"],
        prepare=[["{bin}/python", "-c", "from zenml.client import Client; Client().active_stack_model"]],
        lock="zenml",
        note="its database made before",
    ),
    "azure-ai-ml": lambda: Peer(
        "azureml", ["{bin}/python", "load_only.py"], lock="azure-ai-ml", note="import and load only"
    ),
}


def variables(home: Path) -> dict[str, str]:
    """The variables that the peers' files read, and those that keep peers from phoning home or writing elsewhere."""
    return {
        "HOME": str(home),
        "TRACE": str(home / "trace"),
        "STEP": STEP,
        "STEP_PYTHON": str(venvs.FOLDER / venvs.BARE / "bin/python"),
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(home / "dvc"),
        "KEDRO_DISABLE_TELEMETRY": "1",
        "METAFLOW_USER": "bench",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_CONFIG_PATH": str(home / "zenml"),
        "ZENML_LOGGING_VERBOSITY": "WARN",
    }
