"""What the loopback cloud knows and answers: Azure Resource Manager, Azure ML, sign-in, GitHub's OIDC endpoint.

Stateful, and strict where Azure is: a body that the SDK's own models do not describe is refused with 400 and kept in
`wrong`. What is an assumption about Azure says so.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.azure import contract, loop, online, rights, tracked, web
from tests.azure.server import Answer, Request, refusal

ENDED = ("Completed", "Failed", "Canceled")
JOB = r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}"


@dataclass
class Job:
    """A job and how it will go on: each time it is looked at, it takes the next state of its plan."""

    body: dict[str, Any]
    plan: list[str]
    status: str = "NotStarted"
    started: int = 1
    created: float = field(default_factory=time.time)
    steps: dict[str, str] = field(default_factory=dict)


@dataclass
class State:
    """Everything that lasts."""

    computes: dict[str, dict[str, Any]] = field(default_factory=dict)
    datastores: dict[str, dict[str, Any]] = field(default_factory=dict)
    assets: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    operations: dict[str, list[str]] = field(default_factory=dict)
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    asked_github: int = 0
    experiments: tracked.Experiments = field(default_factory=tracked.Experiments)
    online: online.Online = field(default_factory=online.Online)
    web: web.Web = field(default_factory=web.Web)


class Service:
    """Answers requests. `plan` is how new jobs will go, `on_completed` is called when one gets there."""

    def __init__(self, store_key: str) -> None:
        self.store_key = store_key
        self.state = State()
        self.wrong: list[str] = []
        self.plan = ["Queued", "Running", "Completed"]
        self.token_seconds = 3600
        self.slow_operations = 0
        self.gone = False
        self.tracking_uri = ""
        self.denied: tuple[str, str] | None = None  # method and kind of what this identity may not do
        self.granted: frozenset[str] | None = None  # the actions of its roles on what is here; None: it may do all
        self.used: set[str] = set()  # actions that were needed
        self.on_completed: Callable[[str, Job], None] = lambda name, job: None
        self.on_created: Callable[[str, Job], None] = lambda name, job: None
        self._lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """A workspace as it is after it was made: its own datastore and nothing else."""
        self.state = State()
        self.wrong = []
        self.plan, self.token_seconds, self.slow_operations = ["Queued", "Running", "Completed"], 3600, 0
        self.gone, self.denied, self.granted, self.used = False, None, None, set()
        self.tracking_uri = f"azureml://{loop.API.removeprefix('https://')}/mlflow/v1.0{loop.WORKSPACE_ID}"
        self.on_completed = self.on_created = lambda name, job: None
        self.state.datastores["workspaceblobstore"] = {
            "datastoreType": "AzureBlob",
            "accountName": loop.STORE,
            "containerName": loop.CONTAINER,
            "endpoint": loop.STORAGE,
            "protocol": "https",
            "isDefault": True,
            "credentials": {"credentialsType": "AccountKey"},
        }

    def __call__(self, request: Request) -> Answer:
        with self._lock:
            if request.host == loop.LOGIN.removeprefix("https://"):
                return self._login(request)
            if request.host == "actions." + loop.SUFFIX:
                return self._github(request)
            if request.host == loop.API.removeprefix("https://"):
                return self._api(request)
            if request.host == loop.ARM.removeprefix("https://"):
                return self._arm(request)
            if request.host.endswith(f".{web.HOST}"):
                return self.state.web.call(request)
            if request.host.endswith(f".{online.HOST}"):
                by_token = self._knows(request.headers.get("authorization", "").removeprefix("Bearer "), loop.ML)
                if by_token and self._ungranted(request, rights.SCORE):
                    return Answer(403, {"message": "this identity may not score"})
                return self.state.online.score(request, by_token=by_token)
            return refusal(404, "NotFound", f"nothing at {request.host}")

    # ---- sign-in ----

    def _github(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"bearer {loop.REQUEST_TOKEN}":
            return Answer(401, {"message": "unauthorized"})
        self.state.asked_github += 1
        claims = {
            "aud": request.query.get("audience"),
            "sub": "repo:o@1/r@2:environment:edge",
            "jti": str(uuid.uuid4()),
        }
        return Answer(200, {"value": _jwt(claims | {"exp": time.time() + 300})})

    def _login(self, request: Request) -> Answer:
        tenant, _, rest = request.path.lstrip("/").partition("/")
        if rest == "v2.0/.well-known/openid-configuration":
            base = f"{loop.LOGIN}/{tenant}"
            return Answer(
                200,
                {
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
                    "issuer": f"{base}/v2.0",
                    "tenant_region_scope": None,
                },
            )
        if rest != "oauth2/v2.0/token":
            return refusal(404, "NotFound", request.path)
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        assertion = _claims(form.get("client_assertion", ""))
        if tenant != loop.TENANT or form.get("client_id") != loop.CLIENT:
            return _denied("unauthorized_client", "AADSTS700016: Application was not found in the directory.")
        if assertion.get("aud") != "api://AzureADTokenExchange" or assertion.get("exp", 0) < time.time():
            return _denied("invalid_client", "AADSTS700024: Client assertion is not within its valid time range.")
        audience = form["scope"].removesuffix("/.default")
        until = time.time() + self.token_seconds
        token = _jwt(
            {
                "aud": audience.rstrip("/"),
                "exp": until,
                "tid": loop.TENANT,
                "oid": loop.CLIENT,
                "jti": str(uuid.uuid4()),
            }
        )
        self.state.tokens[token] = (audience.rstrip("/"), until)
        return Answer(200, {"token_type": "Bearer", "expires_in": self.token_seconds, "access_token": token})

    def _unauthorized(self, request: Request, *audiences: str) -> Answer | None:
        if not self._knows(request.headers.get("authorization", "").removeprefix("Bearer "), *audiences):
            return refusal(
                401, "ExpiredAuthenticationToken", "The access token is missing, expired or for another audience."
            )
        return None

    def _knows(self, token: str, *audiences: str) -> bool:
        """Whether a token was given here, for one of the audiences, and has not run out."""
        audience, until = self.state.tokens.get(token, ("", 0.0))
        return audience in audiences and until >= time.time()

    # ---- Azure Resource Manager ----

    def _arm(self, request: Request) -> Answer:
        if request.path == "/metadata/endpoints":
            return Answer(200, [METADATA])
        if refused := self._unauthorized(request, loop.ARM):
            return refused
        if "api-version" not in request.query:
            return refusal(400, "MissingApiVersionParameter", "The api-version query parameter is required.")
        match = re.fullmatch(
            r"/subscriptions/([^/]+)(?:/resourceGroups/([^/]+))?(?:/providers/(.*))?", request.path, re.I
        )
        if match is None:
            return refusal(404, "InvalidResourceType", request.path)
        if match[1] != loop.SUBSCRIPTION:
            return refusal(404, "SubscriptionNotFound", f"The subscription '{match[1]}' could not be found.")
        if match[2] and match[2].lower() != loop.GROUP:
            return refusal(404, "ResourceGroupNotFound", f"Resource group '{match[2]}' could not be found.")
        if match[2] and (refused := self._ungranted(request, rights.action(request.method, request.path))):
            return refused
        if request.path.startswith(web.PROVIDER):
            return self.state.web.arm(request, self.wrong)
        here = f"{loop.WORKSPACE_ID}/"
        if request.path.lower() == loop.WORKSPACE_ID.lower() and not self.gone:
            return self._permitted(request, "workspaces") or Answer(200, _workspace(self.tracking_uri))
        if self.gone or not request.path.lower().startswith(here.lower()):
            if "/mfeOperationsStatus/" in request.path:
                return self.state.online.operation(request.path.rpartition("/")[2])
            if "operationsStatus" in request.path:
                return self._operation(request.path.rpartition("/")[2])
            kind = "Microsoft.MachineLearningServices/workspaces"
            return refusal(
                404, "ResourceNotFound", f"The Resource '{kind}/{request.path.split('/')[-1]}' was not found."
            )
        parts = request.path[len(here) :].split("/")
        inner = "deployments" if parts[2:3] == ["deployments"] else parts[0]
        if refused := self._permitted(request, inner):
            return refused
        action = parts[-1] if parts[-1] in ("listSecrets", "startPendingUpload", "cancel", "listKeys") else ""
        body = request.json()
        if request.method in ("PUT", "POST"):
            kind = action if action in ("listSecrets", "cancel", "listKeys") else inner
            if errors := contract.errors(kind, request.method, body):
                self.wrong += [f"{request.method} {request.path}: {error}" for error in errors]
                return refusal(400, "ValidationError", "; ".join(errors))
        if parts[0] == "onlineEndpoints":
            return self.state.online.arm(request, parts, body, self._environment)
        handler = {
            "computes": self._compute,
            "datastores": self._datastore,
            "jobs": self._job,
            **dict.fromkeys(("codes", "environments", "components", "models", "data"), self._asset),
        }.get(parts[0])
        if handler is None:
            self.wrong.append(f"{request.method} {request.path}: not a call that the loopback cloud knows")
            return refusal(404, "NotFound", request.path)
        return handler(request, parts, action, body)

    def _ungranted(self, request: Request, action: str) -> Answer | None:
        """Azure's refusal of an action that no role of this identity has; actions are named in any case."""
        self.used.add(action)
        if self.granted is None or action.lower() in {each.lower() for each in self.granted}:
            return None
        message = (
            f"The client '{loop.CLIENT}' does not have authorization to perform action '{action}' over scope "
            f"'{request.path}' or the scope is invalid."
        )
        return refusal(403, "AuthorizationFailed", message)

    def _permitted(self, request: Request, kind: str) -> Answer | None:
        if self.denied is not None and self.denied == (request.method, kind):
            provider = "Microsoft.MachineLearningServices/workspaces"
            verb = {"GET": "read", "PUT": "write", "DELETE": "delete"}.get(request.method, "action")
            message = (
                f"The client '{loop.CLIENT}' does not have authorization to perform action "
                f"'{provider}/{kind}/{verb}' over scope '{request.path}' or the scope is invalid."
            )
            return refusal(403, "AuthorizationFailed", message)
        return None

    def _compute(self, request: Request, parts: list[str], action: str, body: Any) -> Answer:
        computes, name = self.state.computes, parts[1] if len(parts) > 1 else ""
        if not name:
            return Answer(200, {"value": [_resource(f"computes/{n}", c) for n, c in computes.items()]})
        if request.method == "PUT":
            properties = body["properties"]
            there = computes.get(name)
            if there and there["computeType"] != properties["computeType"]:
                return refusal(
                    409, "Conflict", f"A compute named {name} of type {there['computeType']} already exists."
                )
            computes[name] = properties | {"provisioningState": "Succeeded", "isAttachedCompute": True}
            return self._begun(201, _resource(f"computes/{name}", _shown(computes[name])))
        if name not in computes:
            return refusal(404, "NotFound", f"Compute {name} was not found.")
        if request.method == "DELETE":
            if request.query.get("underlyingResourceAction") != "Detach":
                return refusal(400, "BadRequest", "An attached compute can only be detached.")
            del computes[name]
            return self._begun(202, None)
        return Answer(200, _resource(f"computes/{name}", _shown(computes[name])))

    def _begun(self, status: int, body: Any) -> Answer:
        """A long-running operation, which says InProgress as often as `slow_operations`."""
        operation = uuid.uuid4().hex
        self.state.operations[operation] = ["InProgress"] * self.slow_operations + ["Succeeded"]
        url = (
            f"{loop.ARM}/subscriptions/{loop.SUBSCRIPTION}/providers/Microsoft.MachineLearningServices/locations/"
            f"{loop.LOCATION}/operationsStatus/{operation}?api-version=2024-10-01"
        )
        return Answer(status, body, {"Azure-AsyncOperation": url, "Location": url, "Retry-After": "0"})

    def _operation(self, name: str) -> Answer:
        left = self.state.operations.get(name)
        if left is None:
            return refusal(404, "NotFound", name)
        status = left.pop(0) if len(left) > 1 else left[0]
        return Answer(200, {"status": status, "name": name}, {"Retry-After": "0"})

    def _datastore(self, request: Request, parts: list[str], action: str, body: Any) -> Answer:
        stores = self.state.datastores
        if len(parts) == 1:
            found = {n: s for n, s in stores.items() if not request.query.get("isDefault") or s.get("isDefault")}
            return Answer(200, {"value": [_resource(f"datastores/{n}", s) for n, s in found.items()]})
        name = parts[1]
        if request.method == "PUT":
            stores[name] = body["properties"] | {"isDefault": False}
            return Answer(200, _resource(f"datastores/{name}", stores[name]))
        if name not in stores:
            return refusal(404, "UserError", f"Could not find datastore: {name}")
        if action == "listSecrets":
            if stores[name]["accountName"] != loop.STORE:
                return refusal(400, "UserError", "The datastore has no credentials.")
            return Answer(200, {"secretsType": "AccountKey", "key": self.store_key})
        return Answer(200, _resource(f"datastores/{name}", stores[name]))

    def _asset(self, request: Request, parts: list[str], action: str, body: Any) -> Answer:
        assets, kind, name = self.state.assets, parts[0], parts[1]
        if len(parts) == 3:
            found = [(v, a) for (k, n, v), a in assets.items() if (k, n) == (kind, name)]
            if wanted := request.query.get("hash"):
                found = [(v, a) for v, a in found if a.get("properties", {}).get("hash_sha256") == wanted]
            if not found and kind != "codes":
                return refusal(404, "UserError", f"No {kind} named {name}")
            return Answer(
                200, {"value": [_resource(f"{kind}/{name}/versions/{v}", _asset(kind, a)) for v, a in reversed(found)]}
            )
        version = parts[3]
        if action == "startPendingUpload":
            return self._pending(name, version)
        if request.method == "PUT":
            there, new = assets.get((kind, name, version)), body["properties"]
            # A version's content never changes; only its description and tags do.
            fixed = ("modelUri", "codeUri", "dataUri", "image", "build", "componentSpec")
            if there and any(there.get(key) != new.get(key) for key in fixed):
                return refusal(409, "UserError", f"{kind} {name}:{version} is already registered. Asset is immutable.")
            assets[kind, name, version] = new | {"made": (there or {}).get("made", 0) + (there is None)}
            return Answer(200 if there else 201, _resource(f"{kind}/{name}/versions/{version}", _asset(kind, new)))
        if (kind, name, version) not in assets:
            return refusal(404, "UserError", f"{kind} {name}:{version} was not found.")
        return Answer(200, _resource(f"{kind}/{name}/versions/{version}", _asset(kind, assets[kind, name, version])))

    def _environment(self, path: str) -> Any:
        """The properties of an environment's version, None where there is none."""
        _, _, rest = path.partition("/environments/")
        name, _, version = rest.partition("/versions/")
        return self.state.assets.get(("environments", name, version))

    def _pending(self, name: str, version: str) -> Answer:
        from datetime import UTC, datetime, timedelta

        from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

        container = f"{name}-{version}"[:63]
        url = f"https://{loop.STORE}.blob.{loop.STORAGE}/{container}"
        self.make_container(container)
        sas = generate_container_sas(
            loop.STORE,
            container,
            account_key=self.store_key,
            permission=ContainerSasPermissions(read=True, write=True, list=True, create=True, add=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        del BlobServiceClient
        credential = {"credentialType": "SAS", "sasUri": f"{url}?{sas}"}
        reference = {"blobUri": url, "storageAccountArmId": "/x", "credential": credential}
        return Answer(
            200,
            {
                "pendingUploadId": str(uuid.uuid4()),
                "pendingUploadType": "TemporaryBlobReference",
                "blobReferenceForConsumption": reference,
            },
        )

    def make_container(self, name: str) -> None:
        """Set by the fixture: makes a container in the workspace's account."""
        raise NotImplementedError

    # ---- jobs ----

    def _job(self, request: Request, parts: list[str], action: str, body: Any) -> Answer:
        jobs = self.state.jobs
        if len(parts) == 1:
            return Answer(200, {"value": [self._shown_job(name) for name in reversed(jobs)]})
        name = parts[1]
        if request.method == "PUT":
            return self._submitted(name, body)
        if name not in jobs:
            return refusal(404, "UserError", f"Job {name} was not found.")
        if action == "cancel":
            if jobs[name].status not in ENDED:
                jobs[name].plan = ["CancelRequested", "Canceled"]
            return Answer(202, None, self._begun(202, None).headers)
        self._advance(name)
        return Answer(200, self._shown_job(name))

    def _submitted(self, name: str, body: dict[str, Any]) -> Answer:
        properties = body["properties"]
        if not re.fullmatch(JOB, name):
            return refusal(400, "UserError", f"The job name {name} is invalid.")
        there = self.state.jobs.get(name)
        if there is not None:
            mutable = ("tags", "displayName", "description", "properties", "isArchived")
            if _without(there.body, mutable) != _without(properties, mutable):
                return refusal(
                    400,
                    "UserError",
                    "A job with this name already exists. If you are trying to submit a new job, use a different name.",
                )
            return Answer(200, self._shown_job(name))
        if wrong := self._unresolved(properties):
            return refusal(400, "UserError", wrong)
        self.state.jobs[name] = Job(
            properties, list(self.plan), steps=dict.fromkeys(properties.get("jobs") or {}, "NotStarted")
        )
        self.on_created(name, self.state.jobs[name])
        return Answer(201, self._shown_job(name))

    def _unresolved(self, properties: dict[str, Any]) -> str:
        """What a pipeline refers to and the workspace does not have."""
        targets = [properties.get("settings", {}).get("default_compute")]
        for node in (properties.get("jobs") or {}).values():
            targets.append(node.get("computeId"))
            component = node.get("componentId", "").split("/components/")[-1].split("/versions/")
            if tuple(component) not in {(n, v) for k, n, v in self.state.assets if k == "components"}:
                return f"Component {component} was not found."
        for target in filter(None, targets):
            if target.rpartition("/computes/")[2] not in self.state.computes:
                return f"Compute {target} was not found."
        store = properties.get("settings", {}).get("default_datastore", "")
        if store and store.rpartition("/")[2].removeprefix("azureml:") not in self.state.datastores:
            return f"Could not find datastore: {store}"
        return ""

    def _advance(self, name: str) -> None:
        job = self.state.jobs[name]
        if job.status in ENDED or not job.plan:
            return
        job.status = job.plan.pop(0)
        waiting = [step for step, status in job.steps.items() if status != "Completed"]
        if job.status == "Running" and waiting:
            job.steps[waiting[0]] = "Completed"
        if job.status in ENDED:
            job.steps = {step: "Completed" if job.status == "Completed" else s for step, s in job.steps.items()}
            if job.status == "Completed":
                self.on_completed(name, job)

    def _shown_job(self, name: str) -> dict[str, Any]:
        job = self.state.jobs[name]
        outputs = {
            key: {**output, "uri": output["uri"].replace("${{name}}", name)} if output.get("uri") else output
            for key, output in (job.body.get("outputs") or {}).items()
        }
        studio = f"https://ml.azure.{loop.SUFFIX}/runs/{name}?wsid={loop.WORKSPACE_ID}"
        services = {
            "Studio": {"jobServiceType": "Studio", "endpoint": studio, "status": None},
            "Tracking": {"jobServiceType": "Tracking", "endpoint": f"azureml://{loop.API}", "status": None},
        }
        return _resource(f"jobs/{name}", job.body | {"status": job.status, "services": services, "outputs": outputs})

    def _api(self, request: Request) -> Answer:
        """The workspace's own endpoints beside ARM: where to find them, and the steps of a job."""
        if request.path == "/discovery":
            return Answer(200, {"api": loop.API, "history": loop.API})
        if refused := self._unauthorized(request, loop.ARM, loop.ML):
            return refused
        if request.path.startswith(mlflow := f"/mlflow/v2.0{loop.WORKSPACE_ID}/api/2.0/mlflow/"):
            return self._permitted(request, "mlflow") or tracked.answer(
                self.state.experiments, request, request.path.removeprefix(mlflow), self.wrong
            )
        match = re.fullmatch(r"/history/v1\.0/subscriptions/.*/runs/([^/]+)/children", request.path)
        if match is None or match[1] not in self.state.jobs:
            return refusal(404, "UserError", request.path)
        job = self.state.jobs[match[1]]
        return Answer(200, {"value": [_run(match[1], step, status) for step, status in job.steps.items()]})


STORAGE = f"/subscriptions/{loop.SUBSCRIPTION}/resourceGroups/{loop.GROUP}/providers/Microsoft.Storage/storageAccounts"
METADATA = {
    "name": loop.CLOUD,
    "portal": f"https://portal.azure.{loop.SUFFIX}",
    "resourceManager": f"{loop.ARM}/",
    "authentication": {"loginEndpoint": f"{loop.LOGIN}/", "audiences": [loop.ARM]},
    "suffixes": {"storage": loop.STORAGE},
}


def _workspace(tracking_uri: str) -> dict[str, Any]:
    return {
        "id": loop.WORKSPACE_ID,
        "name": loop.WORKSPACE,
        "type": "Microsoft.MachineLearningServices/workspaces",
        "location": loop.LOCATION,
        "identity": {"type": "SystemAssigned"},
        "properties": {
            "workspaceId": "44444444-4444-4444-4444-444444444444",
            "friendlyName": loop.WORKSPACE,
            "discoveryUrl": f"{loop.API}/discovery",
            "provisioningState": "Succeeded",
            "mlFlowTrackingUri": tracking_uri,
            "storageAccount": f"{STORAGE}/{loop.STORE}",
        },
    }


def _resource(path: str, properties: dict[str, Any]) -> dict[str, Any]:
    kind = "/".join(path.split("/")[::2])
    return {
        "id": f"{loop.WORKSPACE_ID}/{path}",
        "name": path.rpartition("/")[2],
        "type": f"Microsoft.MachineLearningServices/workspaces/{kind}",
        "location": loop.LOCATION,
        "systemData": {"createdAt": "2026-11-25T00:00:00.0+00:00", "createdBy": "loop", "createdByType": "Application"},
        "properties": {key: value for key, value in properties.items() if key != "made"},
    }


def _asset(kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    return {"flavors": {}, **properties} if kind == "models" else properties


def _shown(compute: dict[str, Any]) -> dict[str, Any]:
    """A compute as it is read back: the service keeps its secrets to itself."""
    inner = dict(compute.get("properties") or {})
    account = inner.get("administratorAccount") or {}
    if account:
        inner["administratorAccount"] = {k: v for k, v in account.items() if k not in ("password", "privateKeyData")}
    return compute | {"properties": inner}


def _run(job: str, step: str, status: str) -> dict[str, Any]:
    studio = f"https://ml.azure.{loop.SUFFIX}/runs/{job}-{step}?wsid={loop.WORKSPACE_ID}"
    return {
        "runId": f"{job}-{step}",
        "runUuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{job}/{step}")),
        "parentRunId": job,
        "rootRunId": job,
        "displayName": step,
        "status": status,
        "runType": "azureml.StepRun",
        "properties": {"azureml.pipelinerunid": job},
        "tags": {},
        "services": {"Studio": {"endpoint": studio, "jobServiceType": "Studio"}},
        "createdUtc": "2026-11-25T00:00:00.0+00:00",
        "experimentId": "55555555-5555-5555-5555-555555555555",
    }


def _denied(error: str, description: str) -> Answer:
    return Answer(401, {"error": error, "error_description": description})


def _without(properties: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in properties.items() if key not in keys}


def _jwt(claims: dict[str, Any]) -> str:
    """A token that anybody can read and nobody should trust."""
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    return ".".join([base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts] + ["bm9uZQ"])


def _claims(token: str) -> dict[str, Any]:
    try:
        part = token.split(".")[1]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims
