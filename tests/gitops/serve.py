"""The API of a `Hub` over HTTP. An answer that GitHub's description does not allow, or a request, is a breach."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.gitops.api import Api, BreachError, R
from tests.gitops.hub import MAIN, NAME, OWNER, Hub, Pull

TOKEN = "ghs_" + "t" * 36
Answer = tuple[int, Any]


@contextmanager
def serving(hub: Hub, api: Api) -> Iterator[str]:
    """The base URL of the API while the block lasts."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = (
            -1
        )  # head and body in one packet: else each answer waits for the other side's delayed acknowledgement
        disable_nagle_algorithm = True

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            with lock:
                self.reply(*_answer(hub, api, self.command, self.path, dict(self.headers), raw))

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_one  # noqa: N815

        def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            if status == 0:
                self.close_connection = True
                self.connection.close()
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(hub: Hub, api: Api, method: str, target: str, headers: dict[str, str], raw: bytes) -> tuple[Any, ...]:
    address = urlsplit(target)
    path, query = address.path, dict(parse_qsl(address.query))
    hub.requests.append((method, path))
    for fault in hub.faults:
        if (broken := fault(method, path)) is not None:
            return tuple(broken)
    sent = {key.lower(): value for key, value in headers.items()}
    if sent.get("authorization") not in (f"token {TOKEN}", f"Bearer {TOKEN}"):
        return 401, {"message": "Bad credentials"}
    try:
        if sent.get("x-github-api-version") != "2022-11-28":
            raise BreachError("the request names no version of the API, or another")
        name, values = api.match(method, path)
        body = json.loads(raw) if raw else None
        api.check_request(method, name, query, body)
        if "owner" in values and (values["owner"].lower(), values["repo"].lower()) != (OWNER, NAME):
            return 404, {"message": "Not Found"}
        try:
            status, partial = ROUTES[method, name](hub, values, query, body)
        except KeyError as error:
            return 404, {"message": f"Not Found ({error})"}
        if status == 422:
            return 422, partial
        return status, api.answer(method, name, status, _paged(partial, query) if method == "GET" else partial)
    except BreachError as error:
        hub.breaches.append(str(error))
        return 599, {"message": str(error)}


def _paged(partial: Any, query: dict[str, str]) -> Any:
    size, page = int(query.get("per_page", 30)), int(query.get("page", 1))
    part = slice((page - 1) * size, page * size)
    if isinstance(partial, list):
        return partial[part]
    for key in ("check_runs", "statuses"):
        if isinstance(partial, dict) and key in partial:
            return partial | {key: partial[key][part]}
    return partial


# --- what things look like ---------------------------------------------------------------------------


def user(name: str) -> dict[str, Any]:
    return {"login": name, "type": "Bot" if name.endswith("[bot]") else "User"}


def repository(owner: str = OWNER, name: str = NAME) -> dict[str, Any]:
    return {"name": name, "full_name": f"{owner}/{name}", "default_branch": MAIN, "owner": user(owner)}


def pull_request(pull: Pull) -> dict[str, Any]:
    base = {"ref": MAIN, "sha": pull.base, "repo": repository(), "user": user(OWNER)}
    head = {"ref": pull.ref, "sha": pull.head, "repo": repository(*pull.repo), "user": user(pull.repo[0])}
    return {
        "number": pull.number,
        "id": pull.number,
        "state": pull.state,
        "title": pull.title,
        "body": pull.body,
        "user": user(pull.author),
        "merged_at": pull.merged_at,
        "merge_commit_sha": pull.merge_commit,
        "html_url": f"https://github.example/{OWNER}/{NAME}/pull/{pull.number}",
        "base": base,
        "head": head,
    }


def git_object(hub: Hub, sha: str) -> dict[str, Any]:
    return {"type": hub.git("cat-file", "-t", sha), "sha": sha, "url": "https://github.example/x"}


def reference(hub: Hub, ref: str) -> dict[str, Any]:
    return {"ref": ref, "object": git_object(hub, hub.sha(ref))}


def commit(hub: Hub, sha: str) -> dict[str, Any]:
    parents = hub.git("rev-list", "--parents", "-n", "1", sha).split()[1:]
    tree = hub.sha(f"{sha}^{{tree}}")
    return {"sha": sha, "parents": [{"sha": parent} for parent in parents], "commit": {"tree": {"sha": tree}}}


# --- operations --------------------------------------------------------------------------------------


def get_repository(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    return 200, repository()


def get_ref(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    return 200, reference(hub, f"refs/{values['ref']}")


def create_ref(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    try:
        hub.sha(body["ref"])
    except KeyError:
        hub.point(body["ref"], body["sha"], hub.token)
        return 201, reference(hub, body["ref"])
    return 422, {"message": "Reference already exists"}


def update_ref(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    ref = f"refs/{values['ref']}"
    try:
        before = hub.sha(ref)
    except KeyError:
        return 422, {"message": "Reference does not exist"}
    if not body.get("force") and hub.git("merge-base", before, body["sha"]) != before:
        return 422, {"message": "Update is not a fast forward"}
    hub.point(ref, body["sha"], hub.token)
    return 200, reference(hub, ref)


def get_tag(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    target = hub.git("cat-file", "-p", values["tag_sha"]).split("\n")[0].split()[1]
    return 200, {"sha": values["tag_sha"], "object": git_object(hub, target)}


def get_tree(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    sha = hub.sha(f"{values['tree_sha']}^{{tree}}")
    rows = [line.split(maxsplit=3) for line in hub.git("ls-tree", sha).splitlines()]
    tree = [{"mode": mode, "type": kind, "sha": blob, "path": path} for mode, kind, blob, path in rows]
    return 200, {"sha": sha, "truncated": False, "tree": tree}


def create_tree(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    files = {entry["path"]: hub.git("cat-file", "blob", entry["sha"]) + "\n" for entry in body["tree"]}
    return 201, {"sha": hub.write(files, body["base_tree"]), "truncated": False, "tree": []}


def get_blob(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    text = hub.git("cat-file", "blob", values["file_sha"]) + "\n"
    content = base64.encodebytes(text.encode()).decode()
    return 200, {"sha": values["file_sha"], "encoding": "base64", "content": content, "size": len(text)}


def create_blob(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    return 201, {"sha": hub.git("hash-object", "-w", "--stdin", given=body["content"])}


def get_commit(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    return 200, commit(hub, hub.sha(f"{values['commit_sha']}^{{commit}}"))


def create_commit(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    parents = [word for parent in body["parents"] for word in ("-p", parent)]
    return 201, commit(hub, hub.git("commit-tree", body["tree"], *parents, "-m", body["message"]))


def get_content(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    name = f"{query.get('ref', MAIN)}:{values['path']}"
    sha, text = hub.sha(name), hub.git("show", name) + "\n"
    content = base64.b64encode(text.encode()).decode()
    file = {"type": "file", "encoding": "base64", "size": len(text), "path": values["path"], "sha": sha}
    return 200, {**file, "name": values["path"].rpartition("/")[2], "content": content}


def list_commits(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    options = ["--", query["path"]] if "path" in query else []
    most = query.get("per_page", "30")
    shas = hub.git("log", "--format=%H", f"--max-count={most}", query.get("sha", MAIN), *options).split()
    return 200, [commit(hub, sha) for sha in shas]


def pulls_of_commit(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    sha = values["commit_sha"]
    merged = [pull for pull in hub.pulls if sha in pull.brought]
    if merged:
        return 200, [pull_request(pull) for pull in merged]
    opened = [p for p in hub.pulls if p.state == "open" and sha in hub.git("rev-list", f"{MAIN}..{p.head}").split()]
    return 200, [pull_request(pull) for pull in opened]


def check_runs(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    runs = [{**run, "id": 1 + i, "head_sha": values["ref"]} for i, run in enumerate(hub.checks.get(values["ref"], []))]
    return 200, {"total_count": len(runs), "check_runs": runs}


def combined_status(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    statuses = hub.statuses.get(values["ref"], [])
    states = {status["state"] for status in statuses}
    state = "failure" if states & {"failure", "error"} else "success" if states == {"success"} else "pending"
    return 200, {"state": state, "sha": values["ref"], "total_count": len(statuses), "statuses": statuses}


def compare(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    base, head = (hub.sha(f"{name}^{{commit}}") for name in values["basehead"].split("..."))
    root = hub.git("merge-base", base, head)
    behind, ahead = map(int, hub.git("rev-list", "--left-right", "--count", f"{base}...{head}").split())
    status = "diverged" if ahead and behind else "ahead" if ahead else "behind" if behind else "identical"
    files = [{"filename": name} for name in hub.git("diff", "--name-only", root, head).splitlines()]
    counts = {"ahead_by": ahead, "behind_by": behind, "total_commits": ahead, "commits": []}
    return 200, {"status": status, "merge_base_commit": commit(hub, root), "files": files, **counts}


def list_pulls(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    found = [pull for pull in hub.pulls if query.get("state", "open") in ("all", pull.state)]
    head = query.get("head", "")
    return 200, [pull_request(p) for p in found if not head or head == f"{p.repo[0]}:{p.ref}"]


def create_pull(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    if any(pull.state == "open" and pull.ref == body["head"] for pull in hub.pulls):
        return 422, {"message": "Validation Failed", "errors": [{"message": "A pull request already exists"}]}
    pull = hub.open(hub.token, body["head"], body["title"], body["body"])
    return 201, pull_request(pull)


def update_pull(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    pull = _pull(hub, values)
    pull.title, pull.body = body.get("title", pull.title), body.get("body", pull.body)
    return 200, pull_request(pull)


def list_reviews(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    listed = hub.reviews.get(_pull(hub, values).number, [])
    return 200, [{**review, "id": 1 + i, "user": user(review["user"])} for i, review in enumerate(listed)]


def list_files(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    pull = _pull(hub, values)
    return 200, [
        {"filename": name} for name in hub.git("diff", "--name-only", f"{pull.base}...{pull.head}").splitlines()
    ]


def permission(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    level = hub.access[values["username"]]
    return 200, {"permission": level, "role_name": level, "user": None}


def activity(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    found = [each for each in hub.activities if query.get("ref", each["ref"]) == each["ref"]]
    return 200, [{**each, "id": 1 + i, "actor": user(each["actor"])} for i, each in enumerate(found)]


def list_deployments(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    wanted = [d for d in hub.deployments if all(query.get(key, d[key]) == d[key] for key in ("environment", "task"))]
    return 200, wanted[::-1]


def create_deployment(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    number = hub.deployed(body["environment"], body["ref"], task=body["task"])
    hub.states[number] = []
    return 201, hub.deployments[-1] | {"payload": body["payload"]}


def list_states(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    return 200, [{"state": state} for state in hub.states[int(values["deployment_id"])][::-1]]


def create_state(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    hub.states[int(values["deployment_id"])].append(body["state"])
    return 201, {"state": body["state"], "description": body["description"]}


def environment(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    reviewers = [{"type": "User", "reviewer": user(name)} for name in hub.environments[values["environment_name"]]]
    rule = {"id": 1, "type": "required_reviewers", "prevent_self_review": True, "reviewers": reviewers}
    return 200, {"name": values["environment_name"], "protection_rules": [rule]}


def membership(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    if values["username"] not in hub.teams[f"{values['org']}/{values['team_slug']}"]:
        raise KeyError(values["username"])
    return 200, {"state": "active", "role": "member"}


def dispatch(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    path = f".github/workflows/{values['workflow_id']}"
    text = hub.show(hub.sha(f"refs/heads/{body['ref']}"), path)
    if text is None:
        raise KeyError(path)
    if "workflow_dispatch:" not in text:
        return 422, {"message": "Workflow does not have 'workflow_dispatch' trigger"}
    hub.dispatched.append((values["workflow_id"], body["ref"], body.get("inputs", {})))
    return 204, None


def list_issues(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    wanted = [issue for issue in hub.issues if query.get("state", "open") in ("all", issue["state"])]
    return 200, [issue for issue in wanted if query.get("labels", issue["labels"][0]) in issue["labels"]]


def create_issue(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    made = {**body, "number": len(hub.issues) + 1, "state": "open", "user": user(hub.token)}
    hub.issues.append(made)
    return 201, made


def update_issue(hub: Hub, values: Any, query: Any, body: Any) -> Answer:
    issue = next((each for each in hub.issues if str(each["number"]) == values["issue_number"]), None) or _missing()
    issue.update(body)
    return 200, issue


def _pull(hub: Hub, values: dict[str, str]) -> Pull:
    return next((pull for pull in hub.pulls if str(pull.number) == values["pull_number"]), None) or _missing()


def _missing() -> Any:
    raise KeyError("pull request")


ROUTES = {
    ("GET", R): get_repository,
    ("GET", f"{R}/git/ref/{{ref}}"): get_ref,
    ("POST", f"{R}/git/refs"): create_ref,
    ("PATCH", f"{R}/git/refs/{{ref}}"): update_ref,
    ("GET", f"{R}/git/tags/{{tag_sha}}"): get_tag,
    ("GET", f"{R}/git/trees/{{tree_sha}}"): get_tree,
    ("POST", f"{R}/git/trees"): create_tree,
    ("GET", f"{R}/git/blobs/{{file_sha}}"): get_blob,
    ("POST", f"{R}/git/blobs"): create_blob,
    ("GET", f"{R}/git/commits/{{commit_sha}}"): get_commit,
    ("POST", f"{R}/git/commits"): create_commit,
    ("GET", f"{R}/contents/{{path}}"): get_content,
    ("GET", f"{R}/commits"): list_commits,
    ("GET", f"{R}/commits/{{commit_sha}}/pulls"): pulls_of_commit,
    ("GET", f"{R}/commits/{{ref}}/check-runs"): check_runs,
    ("GET", f"{R}/commits/{{ref}}/status"): combined_status,
    ("GET", f"{R}/compare/{{basehead}}"): compare,
    ("GET", f"{R}/pulls"): list_pulls,
    ("POST", f"{R}/pulls"): create_pull,
    ("PATCH", f"{R}/pulls/{{pull_number}}"): update_pull,
    ("GET", f"{R}/pulls/{{pull_number}}/reviews"): list_reviews,
    ("GET", f"{R}/pulls/{{pull_number}}/files"): list_files,
    ("GET", f"{R}/collaborators/{{username}}/permission"): permission,
    ("GET", f"{R}/activity"): activity,
    ("GET", f"{R}/deployments"): list_deployments,
    ("POST", f"{R}/deployments"): create_deployment,
    ("GET", f"{R}/environments/{{environment_name}}"): environment,
    ("GET", f"{R}/deployments/{{deployment_id}}/statuses"): list_states,
    ("POST", f"{R}/deployments/{{deployment_id}}/statuses"): create_state,
    ("POST", f"{R}/actions/workflows/{{workflow_id}}/dispatches"): dispatch,
    ("GET", f"{R}/issues"): list_issues,
    ("POST", f"{R}/issues"): create_issue,
    ("PATCH", f"{R}/issues/{{issue_number}}"): update_issue,
    ("GET", "/orgs/{org}/teams/{team_slug}/memberships/{username}"): membership,
}
