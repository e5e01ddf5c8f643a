"""`edgeml.toml` and the environment, validated.

Every key can be given as an environment variable, `EDGEML_<SECTION>_<KEY>` in capitals, which wins
over the file. Secrets come from the environment only; one found in the file is refused.
Importing this module costs pydantic: import it inside the functions that need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from edgeml.errors import EdgemlError
from edgeml.project import SETTINGS_FILE, STATE_FOLDER, root

SECRETS = ("account_key", "sas_token")


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


class Airlock(Section):
    """The egress gate."""

    public_keys: list[str] = Field(
        default_factory=list, description="gates on other machines whose signature counts: their `key.pub`"
    )


class Azure(Section):
    """The Azure Machine Learning workspace."""

    cloud: str = Field(default="AzureCloud", description="name of the Azure cloud that holds the workspace")
    metadata_url: str = Field(default="", description="a private cloud's metadata endpoint; empty: the known clouds'")
    tenant_id: str = Field(default="", description="Microsoft Entra tenant")
    client_id: str = Field(default="", description="application or identity that workflows sign in as")
    subscription_id: str = Field(default="", description="subscription of the workspace")
    resource_group: str = Field(default="", description="resource group of the workspace")
    workspace: str = Field(default="", description="name of the workspace")


class Kubernetes(Section):
    """`kind = "kubernetes"`: an Arc-enabled cluster, attached as Azure ML Kubernetes compute."""

    kind: Literal["kubernetes"]
    resource_id: str = Field(description="ARM id of the connected cluster")
    namespace: str = Field(default="default", description="namespace of the jobs")
    instance_type: str = Field(default="", description="instance type of the jobs; empty: the cluster's default")


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


class Edge(Ssh):
    """`kind = "edge"`: a VM on which edgeml's engine runs; it reports to the workspace."""

    kind: Literal["edge"]
    folder: str = Field(
        default="edgeml", description="folder on the VM for code, cache and runs, below the user's home"
    )


Compute = Annotated[Kubernetes | VirtualMachine | Edge, Field(discriminator="kind")]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="EDGEML_", env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    storage: Storage = Storage()
    registry: Registry = Registry()
    airlock: Airlock = Airlock()
    azure: Azure = Azure()
    compute: dict[str, Compute] = Field(default_factory=dict, description="compute targets by name")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (env_settings, TomlConfigSettingsSource(settings_cls, root() / SETTINGS_FILE))


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
    found = [key for key in SECRETS if key in content.get("storage", {})]
    if found:
        raise EdgemlError(
            f"{SETTINGS_FILE} holds the secret storage.{found[0]}; remove it, renew the secret and "
            f"give it as the environment variable EDGEML_STORAGE_{found[0].upper()}"
        )
