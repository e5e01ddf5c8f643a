"""`edgeml register`: the model that a run released becomes a version in the registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = """Register the model that a run released.

Only what the egress gate released is registered, and only if every file is what it released. The same
model has the same version, however often it is registered."""
EXAMPLES = [
    "edgeml register                                   # the newest completed run",
    "edgeml register train-20260101-120000-1a2b --name breast-cancer",
    "edgeml register --to azureml                      # in the Azure ML workspace as well",
    "edgeml register --override 'the champion leaks; agreed with the data officer' --json",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default="", help="name or folder of a run (default: the newest completed)")
    parser.add_argument("--name", default="", metavar="MODEL", help="name of the model (default: registry.model)")
    parser.add_argument("--override", metavar="REASON", help="register in spite of a verdict not to promote")
    parser.add_argument(
        "--to", choices=("local", "azureml"), help="azureml: in the workspace as well (default: registry.to)"
    )
    parser.add_argument("--json", action="store_true", help="print the version as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import registry, workflow

    version, created = registry.register(args.run, args.name, args.override)
    published = _published(version, args.to)
    workflow.tell(model=str(version))
    if args.json:
        print(json.dumps(document(version) | {"created": created} | published, indent=2))
        return 0
    print(f"{version}  {'registered' if created else 'is already registered: the same model'}")
    print(f"  model     sha256:{version.sha256}")
    print(f"  data      {version.tags['data.fingerprint']}")
    if created and "override.reason" in version.tags:
        print(f"  override  recorded for {version.tags['override.user']}: {version.tags['override.reason']}")
    if published:
        print(
            f"  azureml   {published['azureml']}  {'registered' if published['azureml_created'] else 'already there'}"
        )
    return 0


def _published(version: registry.Version, to: str | None) -> dict[str, object]:
    """What became of the version in the workspace, where it is to be there."""
    from edgeml import registry, settings

    if (to or settings.load().registry.to) != "azureml":
        return {}
    from edgeml.commands.submit import say

    made, created = registry.publish(version, say)
    return {"azureml": made, "azureml_created": created}


def document(version: registry.Version) -> dict[str, object]:
    """A version for machines."""
    return {
        "name": version.name,
        "version": version.version,
        "created": version.created,
        "sha256": version.sha256,
        "aliases": list(version.aliases),
        "tags": version.tags,
    }


if TYPE_CHECKING:
    from edgeml import registry
