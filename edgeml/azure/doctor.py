"""`edgeml doctor`: each thing that a workflow will need, in the order in which it will need it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.azure.workspace import Workspace
    from edgeml.settings import Settings


class Finding(NamedTuple):
    """One thing that was tested; `fix` is a command or an edit, empty where all is well."""

    name: str
    ok: bool
    told: str
    fix: str = ""


NEEDED = ("subscription_id", "resource_group", "workspace")


def examine(settings: Settings, target: str) -> Iterator[Finding]:
    """Test in order; what depends on something that failed is not tested. Raises EdgemlError for an unknown target."""
    if target and target not in settings.compute:
        raise EdgemlError(f"edgeml.toml has no [compute.{target}]; it has: {', '.join(settings.compute) or 'none'}")
    yield from _pipelines()
    yield from _storage(settings)
    kinds = [target] if target else list(settings.compute)
    azure = [name for name in kinds if settings.compute[name].kind != "edge"]
    asked = settings.registry.to == "azureml" or bool(azure) or bool(settings.azure.workspace)
    reached: Workspace | None = None
    if asked:
        for found in _workspace(settings):
            if isinstance(found, Finding):
                yield found
            else:
                reached = found
    for name in kinds:
        yield from _target(settings, name, reached)


def _pipelines() -> Iterator[Finding]:
    from edgeml.check import check

    found = [finding for finding in check([]) if finding.severity == "error"]
    if found:
        first = f"{found[0].path}:{found[0].line} {found[0].message}"
        yield Finding("check", False, f"{len(found)} errors, the first: {first}", "edgeml check")
    else:
        yield Finding("check", True, "nothing is wrong with the repository's files")


def _storage(settings: Settings) -> Iterator[Finding]:
    if not settings.storage.account_url:
        yield Finding("storage", True, "the embedded server, for this machine only (storage.account_url is empty)")
        return
    from edgeml import storage
    from edgeml.storage import blob_client

    try:
        with blob_client.container(settings.storage.container, storage.step_environment()) as client:
            next(iter(client.list_blobs(results_per_page=1)), None)
    except EdgemlError as error:
        yield Finding("storage", False, str(error), "edgeml data list")
    except Exception as error:  # the SDK's, the network's, a certificate's: all mean that rows cannot be read
        told = f"{settings.storage.account_url} does not let us in ({type(error).__name__})"
        yield Finding("storage", False, told, "edgeml data list")
    else:
        yield Finding("storage", True, f"{settings.storage.account_url}/{settings.storage.container} answers")


def _workspace(settings: Settings) -> Iterator[Any]:
    """The findings about the workspace and, after them, the workspace itself where it was reached."""
    from edgeml.azure.explain import sentence
    from edgeml.azure.workspace import Workspace

    for key in NEEDED:
        if not getattr(settings.azure, key):
            fix = f"set azure.{key} in edgeml.toml, or EDGEML_AZURE_{key.upper()}"
            yield Finding("settings", False, f"azure.{key} is empty", fix)
            return
    workspace = Workspace(settings)
    from azure.core.exceptions import AzureError

    steps: list[tuple[str, Callable[[], str], str]] = [
        ("cloud", lambda: workspace.cloud.arm, "check azure.cloud and azure.metadata_url"),
        (
            "sign-in",
            lambda: _signed_in(workspace),
            "az login, or check azure.tenant_id, azure.client_id and the federation",
        ),
        ("workspace", lambda: f"{workspace.name} in {workspace.location()}", "check [azure] in edgeml.toml"),
        ("jobs", lambda: _listed(workspace, "jobs"), "give this identity the role AzureML Data Scientist"),
        ("datastores", lambda: _listed(workspace, "datastores"), "give this identity the role AzureML Data Scientist"),
    ]
    for name, call, fix in steps:
        try:
            yield Finding(name, True, call())
        except EdgemlError as error:
            yield Finding(name, False, str(error), fix)
            return
        except AzureError as error:
            yield Finding(name, False, sentence(error, settings), fix)
            return
    yield workspace


def _signed_in(workspace: Workspace) -> str:
    """Both tokens that a job needs: for Resource Manager, and for Azure ML itself."""
    for audience in (workspace.cloud.arm, workspace.cloud.ml):
        workspace.credential.get_token(f"{audience}/.default")
    return f"by {type(workspace.credential).__name__}"


def _listed(workspace: Workspace, what: str) -> str:
    workspace.request("GET", what)
    return f"this identity may read {what}"


def _target(settings: Settings, name: str, workspace: Workspace | None) -> Iterator[Finding]:
    kind = settings.compute[name].kind
    if kind == "edge":
        try:
            check = import_module("edgeml.edge.check")
            for found in check.examine(name):
                yield Finding(f"{name}: {found.name}", found.ok, found.cause, found.fix)
        except EdgemlError as error:
            yield Finding(name, False, str(error), f"edgeml compute check {name}")
        return
    if workspace is None:
        yield Finding(name, False, "not tested, because the workspace was not reached", "mend what is above")
        return
    from edgeml.azure import compute

    try:
        state = compute.state(workspace, name)
    except EdgemlError as error:
        yield Finding(name, False, str(error), f"edgeml compute attach {name}")
        return
    yield Finding(
        name, state == "Succeeded", f"{kind}, {state}", "" if state == "Succeeded" else f"edgeml compute attach {name}"
    )
