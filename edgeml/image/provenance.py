"""Where an image comes from, as an in-toto statement with SLSA's provenance v1, signed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import edgeml
from edgeml import project
from edgeml.engine import git
from edgeml.image import base as base_image
from edgeml.image import oci, parts

if TYPE_CHECKING:
    from edgeml.image.base import Base
    from edgeml.image.recipe import Recipe
    from edgeml.image.wheels import Wheel

KIND = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:edgeml:package:v1"
_RECIPE = ("Dockerfile", "layers.py", "requirements.lock")


def statement(
    recipe: Recipe, digest: str, base: Base, wheels: Sequence[Wheel], builder: str, began: float,
    byproducts: Mapping[str, bytes],
) -> bytes:  # fmt: skip
    """The statement about an image; `byproducts` are documents by name that its signature answers for as well."""
    environment = os.path.join(project.root_folder(), base_image.ENVIRONMENT)
    used = [
        _resource(f"{base.reference.partition('@')[0]}", base.digest.removeprefix("sha256:")),
        _resource(f"model {recipe}", recipe.sha256),
        _resource(f"egress verdict of {recipe}", recipe.labels["edgeml.egress.sha256"]),
        *(_resource(os.path.join(base_image.ENVIRONMENT, name), parts.digest(os.path.join(environment, name)))
          for name in _RECIPE),
        *(_resource(f"pkg:pypi/{wheel.name}@{wheel.version}", wheel.sha256) for wheel in wheels),
    ]  # fmt: skip
    if commit := git.Question(os.path.join(environment, "Dockerfile")).answer().commit:
        used.append({"name": "source", "digest": {"gitCommit": commit}})
    return oci.encode(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": recipe.name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": KIND,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {"model": str(recipe), "base": base.reference, "builder": builder},
                    "internalParameters": {"edgeml": edgeml.__version__, "architecture": base_image.architecture()},
                    "resolvedDependencies": used,
                },
                "runDetails": {
                    "builder": {"id": _builder()},
                    "metadata": {
                        "invocationId": _invocation(),
                        "startedOn": _time(began),
                        "finishedOn": _time(time.time()),
                    },
                    "byproducts": [
                        _resource(name, oci.digest_of(data).removeprefix("sha256:"))
                        for name, data in sorted(byproducts.items())
                    ],
                },
            },
        }
    )


def answers_for(document: dict[str, Any], digest: str) -> bool:
    """Whether a statement is the provenance of this image."""
    subjects = document.get("subject")
    named = [s.get("digest", {}).get("sha256") for s in subjects if isinstance(s, dict)] if subjects else []
    return document.get("predicateType") == KIND and named == [digest.removeprefix("sha256:")]


def byproducts(document: dict[str, Any]) -> dict[str, str]:
    """The digests of the documents that a statement answers for, by name."""
    listed = document["predicate"]["runDetails"]["byproducts"]
    return {str(entry["name"]): "sha256:" + str(entry["digest"]["sha256"]) for entry in listed}


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def _builder() -> str:
    """Who builds: the workflow, where GitHub says which, else a machine of the project."""
    server, workflow = os.environ.get("GITHUB_SERVER_URL"), os.environ.get("GITHUB_WORKFLOW_REF")
    return f"{server}/{workflow}" if server and workflow else "urn:edgeml:machine"


def _invocation() -> str:
    run = [os.environ.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID", "RUN_ATTEMPT")]
    if all(run):
        return f"{run[0]}/{run[1]}/actions/runs/{run[2]}/attempts/{run[3]}"
    import uuid

    return f"urn:uuid:{uuid.uuid4()}"


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
