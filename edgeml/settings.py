"""`edgeml.toml` and the environment, validated.

Every key can be given as an environment variable, `EDGEML_<SECTION>_<KEY>` in capitals, which wins over the file; that
of a compute target as `EDGEML_COMPUTE_<NAME>_<KEY>`, or all targets at once as JSON in `EDGEML_COMPUTE`. Secrets come
from the environment only; one found in the file is refused.
Importing this module costs pydantic: import it inside the functions that need it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from edgeml.errors import EdgemlError
from edgeml.project import SETTINGS_FILE, STATE_FOLDER, root

SECRETS = {"storage": ("account_key", "sas_token"), "image": ("password", "signing_key")}
# Names under which people have put a secret into a settings file; none is a key, and none may be committed.
SECRET_NAMES = re.compile(r"(^|_)(secret|password|passphrase|token|private_key|ssh_key|account_key|access_key)s?$")
COMPUTE_PREFIX = "EDGEML_COMPUTE_"


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Storage(Section):
    """Where the private rows lie."""

    account_url: str = Field(default="", description="blob endpoint of the storage account; empty: the embedded server")
    account_name: str = Field(default="", description="account name; empty: the first label of account_url's host")
    container: str = Field(default="private", description="container of the private rows")
    ca_bundle: str = Field(default="", description="PEM file of the authority that signed the endpoint's certificate")
    port: int = Field(default=0, ge=0, le=65535, description="embedded server's port; 0: a free one, then remembered")
    account_key: SecretStr | None = Field(default=None, description="environment only: shared key")
    sas_token: SecretStr | None = Field(default=None, description="environment only: shared access signature")


class Registry(Section):
    """Experiments and models."""

    tracking_uri: str = Field(default="", description="MLflow tracking store; empty: SQLite under .edgeml/")
    model: str = Field(default="model", description="name under which `edgeml register` registers")
    to: Literal["local", "azureml"] = Field(
        default="local", description="`azureml`: `edgeml register` publishes in the workspace as well"
    )


class Airlock(Section):
    """The egress gate."""

    public_keys: list[str] = Field(
        default_factory=list, description="gates on other machines whose signature counts: their `key.pub`"
    )


class Image(Section):
    """Container images of models."""

    registry: str = Field(default="", description="host of the container registry; empty: images stay under .edgeml/")
    repository: str = Field(default="", description="path of the images there; empty: edgeml/ and the model's name")
    base: str = Field(default="", description="base image, `HOST/PATH@sha256:...`; empty: one of Debian packages")
    key: str = Field(default="", description="file of the key that signs; empty: one made under .edgeml/image")
    latency_ms: float = Field(default=250, gt=0, description="longest time for one row, 99th percentile")
    memory_mb: int = Field(default=512, ge=64, description="most memory of the scoring server")
    username: str = Field(default="", description="user of the container registry; empty: docker's configuration")
    password: SecretStr | None = Field(default=None, description="environment only: password of that user")
    signing_key: SecretStr | None = Field(default=None, description="environment only: the key that signs, as PEM")


class Azure(Section):
    """The Azure Machine Learning workspace."""

    cloud: str = Field(default="AzureCloud", description="name of the Azure cloud that holds the workspace")
    metadata_url: str = Field(default="", description="a private cloud's metadata endpoint; empty: the known clouds'")
    tenant_id: str = Field(default="", description="Microsoft Entra tenant")
    client_id: str = Field(default="", description="application or identity that workflows sign in as")
    subscription_id: str = Field(default="", description="subscription of the workspace")
    resource_group: str = Field(default="", description="resource group of the workspace")
    workspace: str = Field(default="", description="name of the workspace")


class StackHub(Section):
    """The Azure Stack Hub on which `edgeml infra` makes the edge VM."""

    arm_url: str = Field(default="", description="its Resource Manager: https://management.<region>.<fqdn>")
    tenant_id: str = Field(default="", description="Microsoft Entra tenant of the stamp, or adfs")
    client_id: str = Field(default="", description="application that signs in by certificate; empty: the Azure CLI")
    client_certificate: str = Field(default="", description="PEM file of that application's certificate and key")
    subscription_id: str = Field(default="", description="subscription on the stamp")
    resource_group: str = Field(default="", description="resource group of the edge VM and the rows")
    egress: list[str] = Field(
        default_factory=list, description="host:port that the VM's uploader and jobs may open, the storage's included"
    )


class Sites(Section):
    """The places that serve, and what lets a release reach them."""

    order: list[str] = Field(
        default_factory=list, description="sites in the order of promotion; each gets what the one before it runs"
    )
    approvals: int = Field(default=1, ge=1, description="people who must approve a change of a record")


class Kubernetes(Section):
    """`kind = "kubernetes"`: an Arc-enabled cluster, attached as Azure ML Kubernetes compute."""

    kind: Literal["kubernetes"]
    resource_id: str = Field(description="ARM id of the connected cluster")
    namespace: str = Field(default="default", description="namespace of the jobs")
    instance_type: str = Field(default="", description="instance type of the jobs; empty: the cluster's default")
    outputs: Literal["step", "datastore"] = Field(
        default="step", description="who puts private outputs into the storage: the step itself, or Azure ML"
    )


class Ssh(Section):
    """What a machine that is reached by SSH needs; the key comes from the environment."""

    address: str = Field(default="", description="public address or host name of the VM")
    port: int = Field(default=22, ge=1, le=65535, description="SSH port")
    user: str = Field(default="edgeml", description="user who runs the jobs")
    host_key: str = Field(default="", description="the VM's public host key, as in known_hosts: `ssh-ed25519 AAAA...`")


class VirtualMachine(Ssh):
    """`kind = "vm"`: a VM that Azure ML's own scheduler reaches by SSH."""

    kind: Literal["vm"]
    resource_id: str = Field(default="", description="ARM id of the VM; empty: attached by its address")
    outputs: Literal["step", "datastore"] = Field(
        default="step", description="who puts private outputs into the storage: the step itself, or Azure ML"
    )


class Edge(Ssh):
    """`kind = "edge"`: a VM on which edgeml's engine runs; it reports to the workspace."""

    kind: Literal["edge"]
    folder: str = Field(
        default="edgeml", description="folder on the VM for code, cache and runs, below the user's home"
    )


class VmSite(Ssh):
    """A site of the kind `edge-vm`; an empty address is this machine."""

    folder: str = Field(default="edgeml", description="folder at the site for its state, below the user's home")
    serve_port: int = Field(default=8080, ge=1, le=65533, description="port that requests come to; two more follow it")


class ClusterSite(Section):
    """A site of the kind `kubernetes`."""

    context: str = Field(default="", description="context in the configuration of kubectl; never the current one")
    namespace: str = Field(default="", description="namespace of this site alone")


class EndpointSite(Section):
    """A site of the kind `azureml-online`."""

    endpoint: str = Field(default="", description="online endpoint of the workspace, of this site alone")


class AppSite(Section):
    """A site of the kind `app-service`."""

    resource_id: str = Field(default="", description="ARM id of the web app for containers; empty: exported only")
    slot: str = Field(default="staging", description="its deployment slot, which takes the new image first")


class Site(VmSite, ClusterSite, EndpointSite, AppSite):
    """Where a site is; which keys count depends on the kind that its record says."""


Compute = Annotated[Kubernetes | VirtualMachine | Edge, Field(discriminator="kind")]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="EDGEML_", env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    storage: Storage = Storage()
    registry: Registry = Registry()
    airlock: Airlock = Airlock()
    image: Image = Image()
    azure: Azure = Azure()
    stackhub: StackHub = StackHub()
    sites: Sites = Sites()
    compute: dict[str, Compute] = Field(default_factory=dict, description="compute targets by name")
    site: dict[str, Site] = Field(default_factory=dict, description="where sites are, by the site's name")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, root() / SETTINGS_FILE)
        return (_Targets(settings_cls, file.toml_data), _Sections(settings_cls), file)


class _Sections(EnvSettingsSource):
    """The environment, less the variables of single compute targets, whose names hold the delimiter themselves."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {k: v for k, v in self.env_vars.items() if not k.upper().startswith(COMPUTE_PREFIX)}


class _Targets(PydanticBaseSettingsSource):
    """`EDGEML_COMPUTE_<NAME>_<KEY>` for the targets that the file or `EDGEML_COMPUTE` names."""

    def __init__(self, settings_cls: type[BaseSettings], file: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._file = file

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        targets: dict[str, dict[str, str]] = {}
        for variable, value in os.environ.items():
            if variable.startswith(COMPUTE_PREFIX):
                name, key = self._split(variable)
                targets.setdefault(name, {})[key] = value
        return {"compute": targets} if targets else {}

    def _split(self, variable: str) -> tuple[str, str]:
        known = [*self._file.get("compute", {}), *_json_names()]
        rest = variable.removeprefix(COMPUTE_PREFIX)
        for name in sorted(known, key=len, reverse=True):
            start = in_capitals(name) + "_"
            if rest.startswith(start):
                return name, rest.removeprefix(start).lower()
        listed = ", ".join(known) or "none"
        raise EdgemlError(f"{variable} is for no compute target of {SETTINGS_FILE}; there are: {listed}")


def in_capitals(target: str) -> str:
    """A compute target's name as a part of an environment variable: `edge-vm` is `EDGE_VM`."""
    return re.sub(r"[^A-Za-z0-9]", "_", target).upper()


def _json_names() -> list[str]:
    import json

    try:
        given = json.loads(os.environ.get("EDGEML_COMPUTE", "{}"))
    except ValueError:
        return []
    return list(given) if isinstance(given, dict) else []


def load() -> Settings:
    """Read the settings; any unknown key, wrong type or secret in the file is an `EdgemlError`."""
    file = root() / SETTINGS_FILE
    _refuse_secrets(file)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise EdgemlError(
            f"{SETTINGS_FILE} or the environment: {key}: {first['msg'].lower()}; docs/settings.md lists every key"
        ) from None


def tracking_uri(settings: Settings) -> str:
    """The MLflow tracking store: the settings', else a SQLite file in the project's state folder."""
    return settings.registry.tracking_uri or f"sqlite:///{root() / STATE_FOLDER / 'mlflow.db'}"


def _refuse_secrets(file: Path) -> None:
    if not file.is_file():
        return
    import tomllib

    try:
        content = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EdgemlError(f"{file} is not valid TOML ({error}); mend it or restore it with git") from None
    for section, key in _keys(content):
        known = key in SECRETS.get(section, ())
        if known or SECRET_NAMES.search(key):
            advice = f"EDGEML_{section}_{key}".upper() if known else "an environment variable"
            raise EdgemlError(
                f"{SETTINGS_FILE} holds the secret {section}.{key}; remove it, renew the secret and give it as {advice}"
            )


def _keys(content: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Every key with the section that it stands in, to any depth."""
    found: list[tuple[str, str]] = []
    for key, value in content.items():
        if isinstance(value, dict):
            found += _keys(value, f"{above}.{key}" if above else key)
        elif above:
            found.append((above, key))
    return found
