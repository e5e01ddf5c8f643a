"""Azure ML's YAML documents: which keys each kind has and what may stand there.

Source: Azure ML's CLI v2 YAML reference; a test compares the keys with those of azure-ai-ml's own schemas.
A value is described by one of the shapes below; `Fields` is a mapping of known keys.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edgeml.check.document import Document, entries, scalar
from edgeml.pipeline.ports import DATA_TYPES, LITERAL_TYPES


class Scalar(NamedTuple):
    """A plain value: `kind` is text, integer, number, boolean or any; bindings are taken everywhere but in `exact`."""

    kind: str = "any"
    choices: tuple[str, ...] = ()
    exact: bool = False


class Items(NamedTuple):
    """A list of values of one shape."""

    of: Shape


class Names(NamedTuple):
    """A mapping of names that the author chooses; `identifiers` where Azure ML puts them into code and paths."""

    of: Shape
    identifiers: bool = False


class Fields(NamedTuple):
    """A mapping of known keys, some of them required."""

    name: str
    known: dict[str, Shape]
    required: tuple[str, ...] = ()


class OneOf(NamedTuple):
    """A plain value where a plain value stands, a mapping where a mapping stands."""

    plain: Scalar
    mapping: Shape


class Open(NamedTuple):
    """Anything: Azure ML does not describe it, or describes it by another kind."""


Shape = Scalar | Items | Names | Fields | OneOf | Open

ANY, TEXT, BOOLEAN = Scalar(), Scalar("text"), Scalar("boolean")
INTEGER, NUMBER = Scalar("integer"), Scalar("number")
_OPEN, _TAGS = Open(), Names(ANY)
_MODES = ("mount", "download", "upload", "direct", "ro_mount", "rw_mount", "eval_mount", "eval_download")
# Of a value that is given; what a component declares is not looked at by the SDK either.
_INPUT_MODES = tuple(mode for mode in _MODES if mode != "upload")
_OUTPUT_MODES = ("mount", "rw_mount", "upload", "direct")
_TYPES = (*sorted(LITERAL_TYPES), *sorted(DATA_TYPES))

_ABOUT: dict[str, Shape] = {
    "$schema": TEXT,
    "name": TEXT,
    "version": ANY,
    "display_name": TEXT,
    "description": TEXT,
    "tags": _TAGS,
    "properties": _TAGS,
}

PORT = Fields(
    "input",
    {
        "type": Scalar("text", _TYPES, exact=True),
        "description": TEXT,
        "optional": Scalar("boolean", exact=True),
        "default": ANY,
        "min": ANY,
        "max": ANY,
        "enum": Items(ANY),
        "mode": Scalar("text", _MODES),
    },
    ("type",),
)
OUTPUT_PORT = Fields(
    "output",
    {
        "type": Scalar("text", _TYPES, exact=True),
        "description": TEXT,
        "mode": Scalar("text", _MODES),
        "path": TEXT,
        "early_available": BOOLEAN,
        "is_control": BOOLEAN,
    },
)
VALUE = Fields(
    "input",
    {
        "type": Scalar("text", _TYPES),
        "path": TEXT,
        "mode": Scalar("text", _INPUT_MODES),
        "value": ANY,
        "default": ANY,
        "description": TEXT,
        "optional": BOOLEAN,
        "min": ANY,
        "max": ANY,
        "enum": Items(ANY),
        "path_on_compute": TEXT,
        "datastore": TEXT,
    },
)
OUTPUT = Fields(
    "output",
    {
        "type": Scalar("text", _TYPES),
        "path": TEXT,
        "mode": Scalar("text", _OUTPUT_MODES),
        "name": TEXT,
        "version": ANY,
        "description": TEXT,
    },
)
PORTS, OUTPUT_PORTS = Names(OneOf(Scalar("text", _TYPES), PORT), True), Names(OneOf(ANY, OUTPUT_PORT), True)
VALUES, OUTPUTS = Names(OneOf(ANY, VALUE), True), Names(OneOf(ANY, OUTPUT), True)

RESOURCES = Fields(
    "resources",
    {
        "instance_count": INTEGER,
        "instance_type": TEXT,
        "max_instance_count": INTEGER,
        "properties": _OPEN,
        "locations": Items(TEXT),
        "shm_size": TEXT,
        "docker_args": _OPEN,
    },
)
DISTRIBUTION = Fields(
    "distribution",
    {
        "type": Scalar("text", ("pytorch", "mpi", "tensorflow", "ray"), exact=True),
        "process_count_per_instance": INTEGER,
        "worker_count": INTEGER,
        "parameter_server_count": INTEGER,
        "port": INTEGER,
        "address": TEXT,
        "include_dashboard": BOOLEAN,
        "dashboard_port": INTEGER,
        "head_node_additional_args": TEXT,
        "worker_node_additional_args": TEXT,
    },
    ("type",),
)
QUEUE = Fields(
    "queue_settings",
    {
        "job_tier": Scalar("text", ("spot", "basic", "standard", "premium", "null")),
        "priority": Scalar("text", ("low", "medium", "high")),
    },
)
ENVIRONMENT = Fields(
    "environment",
    {
        **{key: _ABOUT[key] for key in ("$schema", "name", "version", "description", "tags")},
        "image": TEXT,
        "build": Fields("build", {"path": TEXT, "dockerfile_path": TEXT}, ("path",)),
        "conda_file": _OPEN,
        "inference_config": _OPEN,
        "os_type": Scalar("text", ("linux", "windows")),
        "datastore": TEXT,
        "auto_delete_setting": _OPEN,
    },
)
_RUNS: dict[str, Shape] = {
    "command": TEXT,
    "code": TEXT,
    "environment": OneOf(TEXT, ENVIRONMENT),
    "environment_variables": Names(ANY),
    "resources": RESOURCES,
    "distribution": DISTRIBUTION,
    "queue_settings": QUEUE,
}
_NODE: dict[str, Shape] = {
    **{key: _ABOUT[key] for key in ("name", "display_name", "description", "tags", "properties")},
    "type": TEXT,
    "comment": TEXT,
    "compute": TEXT,
    "inputs": VALUES,
    "outputs": OUTPUTS,
    "identity": _OPEN,
    "services": _OPEN,
    "limits": Fields("limits", {"timeout": INTEGER}),
    "resources": RESOURCES,
    "queue_settings": QUEUE,
}
_BATCHES: dict[str, Shape] = {
    "task": Fields(
        "task",
        {
            "type": Scalar("text", ("run_function", "function", "model"), exact=True),
            "code": TEXT,
            "entry_script": TEXT,
            "program_arguments": TEXT,
            "append_row_to": TEXT,
            "environment": OneOf(TEXT, ENVIRONMENT),
            "model": _OPEN,
        },
    ),
    "mini_batch_size": ANY,
    "partition_keys": Items(TEXT),
    "input_data": TEXT,
    "logging_level": Scalar("text", ("DEBUG", "INFO", "WARNING", "WARN", "ERROR")),
    "retry_settings": Fields("retry_settings", {"max_retries": INTEGER, "timeout": INTEGER}),
    "max_concurrency_per_instance": INTEGER,
    "error_threshold": INTEGER,
    "mini_batch_error_threshold": INTEGER,
}
DISTRIBUTION_OF_A_SPACE = Fields(
    "distribution",
    {
        "type": TEXT,
        "values": Items(_OPEN),
        **dict.fromkeys(("upper", "min_value", "max_value", "mu", "sigma", "q"), ANY),
    },
    ("type",),
)
EARLY_TERMINATION = Fields(
    "early_termination",
    {
        "type": Scalar("text", ("bandit", "median_stopping", "truncation_selection")),
        "evaluation_interval": INTEGER,
        "delay_evaluation": INTEGER,
        "slack_factor": NUMBER,
        "slack_amount": NUMBER,
        "truncation_percentage": INTEGER,
    },
    ("type",),
)
_SEARCH: dict[str, Shape] = {
    "sampling_algorithm": OneOf(
        Scalar("text", ("random", "grid", "bayesian")),
        Fields("sampling_algorithm", {"type": TEXT, "seed": INTEGER, "rule": TEXT, "logbase": ANY}, ("type",)),
    ),
    "search_space": Names(DISTRIBUTION_OF_A_SPACE),
    "objective": Fields(
        "objective",
        {"goal": Scalar("text", ("minimize", "maximize")), "primary_metric": TEXT},
        ("goal", "primary_metric"),
    ),
    "early_termination": EARLY_TERMINATION,
    "limits": Fields(
        "limits",
        dict.fromkeys(("max_total_trials", "max_concurrent_trials", "timeout", "trial_timeout"), INTEGER),
    ),
}
_COMPONENT: dict[str, Shape] = {
    **_ABOUT,
    "type": TEXT,
    "is_deterministic": Scalar("boolean", exact=True),
    "inputs": PORTS,
    "outputs": OUTPUT_PORTS,
    "auto_delete_setting": _OPEN,
}

COMMAND_COMPONENT = Fields(
    "command component", {**_COMPONENT, **_RUNS, "additional_includes": Items(_OPEN)}, ("command",)
)
PARALLEL_COMPONENT = Fields("parallel component", {**_COMPONENT, **_BATCHES, "resources": RESOURCES}, ("task",))
_INLINE = OneOf(TEXT, COMMAND_COMPONENT)
COMMAND_NODE = Fields("command node", {**_NODE, **_RUNS, "component": _INLINE})
PARALLEL_NODE = Fields(
    "parallel node",
    {
        **_NODE,
        **_BATCHES,
        "component": OneOf(TEXT, PARALLEL_COMPONENT),
        "environment_variables": Names(ANY),
        "environment": _OPEN,
    },
)
SWEEP_NODE = Fields("sweep node", {**_NODE, **_SEARCH, "trial": _INLINE}, ("trial", "objective", "search_space"))
PIPELINE_NODE = Fields("pipeline node", {**_NODE, "component": _OPEN, "jobs": _OPEN, "settings": _OPEN})
NODES = {
    "command": COMMAND_NODE,
    "parallel": PARALLEL_NODE,
    "sweep": SWEEP_NODE,
    "pipeline": PIPELINE_NODE,
}
SETTINGS = Fields(
    "settings",
    {
        "default_datastore": TEXT,
        "default_compute": TEXT,
        "continue_on_step_failure": BOOLEAN,
        "continue_run_on_failed_optional_input": BOOLEAN,
        "force_rerun": BOOLEAN,
    },
)
_PIPELINE: dict[str, Shape] = {"jobs": Names(_OPEN, True), "outputs": OUTPUTS, "settings": SETTINGS}
PIPELINE_COMPONENT = Fields("pipeline component", {**_COMPONENT, **_PIPELINE, "inputs": PORTS}, ("jobs",))
PIPELINE_JOB = Fields(
    "pipeline job",
    {**_ABOUT, **_NODE, **_PIPELINE, "experiment_name": TEXT, "component": _OPEN, "inputs": VALUES},
)
COMMAND_JOB = Fields(
    "command job",
    {**_ABOUT, **_NODE, **_RUNS, "experiment_name": TEXT, "component": _OPEN, "parent_job_name": TEXT},
    ("command",),
)
SWEEP_JOB = Fields(
    "sweep job", {**_ABOUT, **_NODE, **_SEARCH, "experiment_name": TEXT, "trial": _INLINE}, ("trial", "objective")
)
DATA = Fields(
    "data asset",
    {
        **{key: _ABOUT[key] for key in ("$schema", "name", "version", "description", "tags", "properties")},
        "type": Scalar("text", ("uri_file", "uri_folder", "mltable")),
        "path": TEXT,
        "datastore": TEXT,
        "auto_delete_setting": _OPEN,
    },
    ("path",),
)

_IDENTITY = Fields(
    "identity",
    {
        "type": Scalar("text", ("system_assigned", "user_assigned", "none")),
        "user_assigned_identities": _OPEN,
    },
    ("type",),
)
_COMPUTE: dict[str, Shape] = {
    "$schema": TEXT,
    "name": TEXT,
    "type": TEXT,
    "location": TEXT,
    "description": TEXT,
    "resource_id": TEXT,
    "tags": _TAGS,
}
VIRTUAL_MACHINE = Fields(
    "virtual machine",
    {
        **_COMPUTE,
        "ssh_settings": Fields(
            "ssh_settings",
            {"admin_username": TEXT, "admin_password": TEXT, "ssh_port": INTEGER, "ssh_private_key_file": TEXT},
        ),
    },
    ("name", "type", "resource_id"),
)
KUBERNETES = Fields(
    "Kubernetes compute",
    {**_COMPUTE, "namespace": TEXT, "properties": _OPEN, "identity": _IDENTITY},
    ("name", "type", "namespace"),
)
CLUSTER = Fields(
    "compute cluster",
    {
        **_COMPUTE,
        "size": TEXT,
        "tier": Scalar("text", ("dedicated", "low_priority", "lowpriority")),
        "min_instances": INTEGER,
        "max_instances": INTEGER,
        "idle_time_before_scale_down": INTEGER,
        "ssh_public_access_enabled": BOOLEAN,
        "ssh_settings": Fields("ssh_settings", {"admin_username": TEXT, "admin_password": TEXT, "ssh_key_value": TEXT}),
        "network_settings": Fields("network_settings", {"vnet_name": TEXT, "subnet": TEXT}),
        "identity": _IDENTITY,
        "enable_node_public_ip": BOOLEAN,
    },
    ("name", "type"),
)
_DATASTORE: dict[str, Shape] = {
    "$schema": TEXT,
    "name": TEXT,
    "type": TEXT,
    "description": TEXT,
    "tags": _TAGS,
    "account_name": TEXT,
    "endpoint": TEXT,
    "protocol": Scalar("text", ("http", "https", "wasb", "wasbs", "abfs", "abfss")),
}
_KEY_OR_TOKEN = Fields("credentials", {"account_key": TEXT, "sas_token": TEXT})
_TENANT = Fields(
    "credentials",
    dict.fromkeys(
        (
            "tenant_id",
            "client_id",
            "client_secret",
            "authority_url",
            "resource_url",
            "certificate",
            "thumbprint",
        ),
        TEXT,
    ),
)
BLOB_STORE = Fields(
    "blob datastore",
    {**_DATASTORE, "container_name": TEXT, "credentials": _KEY_OR_TOKEN},
    ("name", "type", "account_name", "container_name"),
)
FILE_STORE = Fields(
    "file datastore",
    {**_DATASTORE, "file_share_name": TEXT, "credentials": _KEY_OR_TOKEN},
    ("name", "type", "account_name", "file_share_name"),
)
LAKE_STORE = Fields(
    "data lake datastore",
    {**_DATASTORE, "filesystem": TEXT, "credentials": _TENANT},
    ("name", "type", "account_name", "filesystem"),
)

BY_SCHEMA: dict[str, tuple[Fields, str]] = {
    "pipelineJob": (PIPELINE_JOB, "pipeline"),
    "pipelineComponent": (PIPELINE_COMPONENT, "pipeline"),
    "commandComponent": (COMMAND_COMPONENT, "command"),
    "parallelComponent": (PARALLEL_COMPONENT, "parallel"),
    "commandJob": (COMMAND_JOB, "command"),
    "sweepJob": (SWEEP_JOB, "sweep"),
    "environment": (ENVIRONMENT, ""),
    "data": (DATA, ""),
    "vmCompute": (VIRTUAL_MACHINE, "virtualmachine"),
    "kubernetesCompute": (KUBERNETES, "kubernetes"),
    "amlCompute": (CLUSTER, "amlcompute"),
    "azureBlob": (BLOB_STORE, "azure_blob"),
    "azureFile": (FILE_STORE, "azure_file"),
    "azureDataLakeGen2": (LAKE_STORE, "azure_data_lake_gen2"),
}
"""Kinds by the name of their schema, each with the `type` that says the same; empty where it says something else."""

OTHER_SCHEMAS = (
    *("workspace", "hub", "project", "registry", "connection", "schedule", "model", "MLTable", "computeInstance"),
    *("sparkJob", "sparkComponent", "autoMLJob", "importJob", "azureDataLakeGen1", "flow", "index"),
    *("managedOnlineEndpoint", "kubernetesOnlineEndpoint", "batchEndpoint", "managedOnlineDeployment"),
    *("kubernetesOnlineDeployment", "modelBatchDeployment", "pipelineComponentBatchDeployment", "batchDeployment"),
    *("featureStore", "featureSet", "featureStoreEntity", "monitorSchedule", "parallelJob"),
)
"""Schemas of kinds that are not checked here."""

_SCHEMA = re.compile(r"/(?P<name>\w+)\.schema\.json$")
_TYPED = {
    type_: kind for kind, type_ in BY_SCHEMA.values() if "_" in type_ or type_ in ("virtualmachine", "amlcompute")
}


def schema_of(document: Document) -> str:
    """The name in a document's `$schema`; empty where it has none of that form."""
    present = entries(document.root)
    match = _SCHEMA.search((scalar(present["$schema"][1]) if "$schema" in present else None) or "")
    return match["name"] if match else ""


_OF_COMPONENTS = frozenset({"name", "is_deterministic", "additional_includes"})


def kind_of(document: Document) -> Fields | None:
    """The kind that a document says it is, by `$schema`, else by `type` and what only that kind has."""
    present = entries(document.root)
    type_ = ((scalar(present["type"][1]) if "type" in present else None) or "").lower()
    kind, own = BY_SCHEMA.get(schema_of(document), (None, ""))
    # Where the two contradict each other, which is a finding, the type decides, as it does for Azure ML.
    if kind is not None and (not own or not type_ or type_ == own):
        return kind
    if "jobs" in present or type_ == "pipeline":
        return PIPELINE_JOB
    if type_ == "sweep":
        return SWEEP_JOB
    if type_ == "parallel" and "task" in present:
        return PARALLEL_COMPONENT
    if type_ == "kubernetes" and "namespace" in present and "name" in present:
        return KUBERNETES
    if type_ in _TYPED and "name" in present:
        return _TYPED[type_]
    if "command" in present:
        return COMMAND_COMPONENT if present.keys() & _OF_COMPONENTS else COMMAND_JOB
    return None
