"""GitHub's REST API on loopback, as far as a repository's protection goes: environments, rulesets, variables, secrets.

githubkit's models, made from GitHub's published description, read every answer, and read every body here: an answer or
a request of another form fails the test. Secrets are opened with the private half of the key that is handed out.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import githubkit_schemas.v2022_11_28.models as models
from nacl.public import PrivateKey, SealedBox

TIME = "2026-11-25T00:00:00Z"
TOKEN = "ghp_a-token-of-a-person"


class HubServer:
    """The repository acme/train with its state; `asked` has every request as `METHOD path`."""

    def __init__(self) -> None:
        self.workflows = {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": True}
        self.environments: dict[str, dict[str, Any]] = {}
        self.policies: dict[str, list[dict[str, Any]]] = {}
        self.variables: dict[str, dict[str, str]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.rulesets: dict[int, dict[str, Any]] = {}
        self.refused: dict[str, tuple[int, str]] = {}
        self.asked: list[str] = []
        self.key = PrivateKey.generate()
        self.number = 100
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_one(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(size)) if size else None
                status, answer = server.answer(self.command, self.path.partition("?")[0], body)
                data = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_one  # noqa: N815

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def writes(self) -> list[str]:
        return [one for one in self.asked if not one.startswith("GET ")]

    def next(self) -> int:
        self.number += 1
        return self.number

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.asked.append(f"{method} {path}")
        for pattern, (status, message) in self.refused.items():
            if re.fullmatch(pattern, f"{method} {path}"):
                return status, {"message": message, "documentation_url": "https://docs.github.com/rest"}
        for pattern, route in ROUTES:
            match = re.fullmatch(pattern, f"{method} {path.removeprefix('/repos/acme/train')}")
            if match:
                return route(self, body, *match.groups())
        return 404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}


def _workflows(hub: HubServer, body: Any) -> tuple[int, Any]:
    if body is None:
        return 200, hub.workflows
    models.ActionsSetDefaultWorkflowPermissions.model_validate(body)
    hub.workflows |= body
    return 204, None


def _environments(hub: HubServer, _: Any) -> tuple[int, Any]:
    found = [_environment(hub, name) for name in hub.environments]
    return 200, {"total_count": len(found), "environments": found}


def _environment(hub: HubServer, name: str) -> dict[str, Any]:
    given = hub.environments[name]
    rules: list[dict[str, Any]] = [{"id": 2, "node_id": "b", "type": "branch_policy"}]
    if given.get("wait_timer"):
        rules.append({"id": 3, "node_id": "w", "type": "wait_timer", "wait_timer": given["wait_timer"]})
    if given.get("reviewers"):
        reviewers = [{"type": one["type"], "reviewer": _user(one["id"])} for one in given["reviewers"]]
        held = {"prevent_self_review": given["prevent_self_review"], "reviewers": reviewers}
        rules.append({"id": 4, "node_id": "r", "type": "required_reviewers", **held})
    return {
        "id": 1,
        "node_id": "e",
        "name": name,
        "url": f"{hub.url}/e",
        "html_url": f"{hub.url}/e",
        "created_at": TIME,
        "updated_at": TIME,
        "protection_rules": rules,
        "deployment_branch_policy": given.get("deployment_branch_policy"),
    }


def _user(number: int) -> dict[str, Any]:
    keys = "html_url followers_url following_url gists_url starred_url subscriptions_url organizations_url repos_url "
    keys += "events_url received_events_url url avatar_url"
    facts = dict.fromkeys(keys.split(), "https://example.org/u")
    kind = {"type": "User", "site_admin": False, "gravatar_id": "", "node_id": "u"}
    return {"login": {7: "ada"}[number], "id": number, **facts, **kind}


def _put_environment(hub: HubServer, body: Any, name: str) -> tuple[int, Any]:
    models.ReposOwnerRepoEnvironmentsEnvironmentNamePutBody.model_validate(body)
    hub.environments[name] = body
    return 200, _environment(hub, name)


def _policies(hub: HubServer, body: Any, name: str) -> tuple[int, Any]:
    held = hub.policies.setdefault(name, [])
    if body is None:
        return 200, {"total_count": len(held), "branch_policies": held}
    models.DeploymentBranchPolicyNamePatternWithType.model_validate(body)
    held.append({"id": hub.next(), "node_id": "p", **body})
    return 200, held[-1]


def _no_policy(hub: HubServer, _: Any, name: str, number: str) -> tuple[int, Any]:
    hub.policies[name] = [one for one in hub.policies[name] if one["id"] != int(number)]
    return 204, None


def _variables(hub: HubServer, body: Any, name: str) -> tuple[int, Any]:
    held = hub.variables.setdefault(name, {})
    if body is None:
        listed = [{"name": k, "value": v, "created_at": TIME, "updated_at": TIME} for k, v in held.items()]
        return 200, {"total_count": len(held), "variables": listed}
    models.ReposOwnerRepoEnvironmentsEnvironmentNameVariablesPostBody.model_validate(body)
    held[body["name"]] = body["value"]
    return 201, {}


def _variable(hub: HubServer, body: Any, environment: str, name: str) -> tuple[int, Any]:
    hub.variables[environment][name] = body["value"]
    return 204, None


def _secrets(hub: HubServer, _: Any, name: str) -> tuple[int, Any]:
    held = hub.secrets.get(name, {})
    listed = [{"name": one, "created_at": TIME, "updated_at": TIME} for one in held]
    return 200, {"total_count": len(held), "secrets": listed}


def _key(hub: HubServer, _: Any, __: str) -> tuple[int, Any]:
    return 200, {"key_id": "k1", "key": base64.b64encode(bytes(hub.key.public_key)).decode()}


def _secret(hub: HubServer, body: Any, environment: str, name: str) -> tuple[int, Any]:
    models.ReposOwnerRepoEnvironmentsEnvironmentNameSecretsSecretNamePutBody.model_validate(body)
    assert body["key_id"] == "k1"
    opened = SealedBox(hub.key).decrypt(base64.b64decode(body["encrypted_value"])).decode()
    hub.secrets.setdefault(environment, {})[name] = opened
    return 201, {}


def _rulesets(hub: HubServer, body: Any) -> tuple[int, Any]:
    if body is None:
        return 200, [_ruleset_of(hub, number) for number in hub.rulesets]
    models.ReposOwnerRepoRulesetsPostBody.model_validate(body)
    number = hub.next()
    hub.rulesets[number] = body
    return 201, _ruleset_of(hub, number)


def _ruleset_of(hub: HubServer, number: int) -> dict[str, Any]:
    return {"id": number, "source_type": "Repository", "source": "acme/train", **hub.rulesets[number]}


def _ruleset(hub: HubServer, body: Any, number: str) -> tuple[int, Any]:
    if body is not None:
        models.ReposOwnerRepoRulesetsRulesetIdPutBody.model_validate(body)
        hub.rulesets[int(number)] = body
    return 200, _ruleset_of(hub, int(number))


def _who(hub: HubServer, _: Any, login: str) -> tuple[int, Any]:
    if login != "ada":
        return 404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest"}
    more = {"name": None, "company": None, "blog": None, "location": None, "email": None, "hireable": None, "bio": None}
    counts = {"public_repos": 0, "public_gists": 0, "followers": 0, "following": 0}
    return 200, {**_user(7), **more, **counts, "created_at": TIME, "updated_at": TIME}


E = "/environments/([^/]+)"
ROUTES: tuple[tuple[str, Callable[..., tuple[int, Any]]], ...] = (
    (r"(?:GET|PUT) /actions/permissions/workflow", _workflows),
    (r"GET /environments", _environments),
    (rf"PUT {E}", _put_environment),
    (rf"(?:GET|POST) {E}/deployment-branch-policies", _policies),
    (rf"DELETE {E}/deployment-branch-policies/(\d+)", _no_policy),
    (rf"(?:GET|POST) {E}/variables", _variables),
    (rf"PATCH {E}/variables/(\w+)", _variable),
    (rf"GET {E}/secrets", _secrets),
    (rf"GET {E}/secrets/public-key", _key),
    (rf"PUT {E}/secrets/(\w+)", _secret),
    (r"(?:GET|POST) /rulesets", _rulesets),
    (r"(?:GET|PUT) /rulesets/(\d+)", _ruleset),
    (r"GET /users/(\w+)", _who),
)
