"""A site on this machine: one container that serves behind one port, and the last one that is known to be good.

A request comes to the site's port and a rule of nftables leads it to the port of the container that serves: replacing
the rule is one atomic step, and connections that stand keep their container until it has answered them. So a new
container is started beside the old one, must give the golden answer there, gets the traffic, and is watched; the old
one ends when the new one has proven itself, or gets the traffic back.

What serves is what `state.json` says, which is replaced whole and names a new container only once it is proven.
Whatever happens before that, power loss included, the next `restore` or `deploy` finds the old one in it.

<folder>/sites/<site>/state.json   what serves, what served before, what failed and why
/etc/edgeml/trusted/*.pub          keys whose signature lets an image run here; nothing that is sent adds to them
"""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import math
import os
import re
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from edgeml.edge.on_vm import rim
from edgeml.edge.on_vm.rim import Refused

TRUSTED = os.environ.get("EDGEML_TRUSTED", "/etc/edgeml/trusted")
_SITE = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_IMAGE = re.compile(r"[a-z0-9.:/_-]{1,255}@sha256:[0-9a-f]{64}")
_READY_SECONDS = 60.0
_DRAIN_SECONDS = 30
_MOST = 16  # signatures that are looked at
_DOCUMENT = 1 << 20  # bytes of an answer
_GOLDEN = "edgeml-golden"  # the id by which the server knows a request that is of no patient
_PREDICTIONS = "edgeml_predictions"  # what metrics are called that say how often which prediction is given
_SERVED = ("current", "previous", "trial")  # parts of a state that are containers
_PARTS = {*_SERVED, "failed"}
_CONTAINER = {"container", "image", "slot", "port", "memory_mb", "cpus"}
_NET_ADMIN = 12  # the number of the capability
_TABLE = """\
table ip {table}
delete table ip {table}
table ip {table} {{
  chain outside {{
    type nat hook prerouting priority -100; policy accept;
    tcp dport {port} redirect to :{to}
  }}
  chain inside {{
    type nat hook output priority -100; policy accept;
    oifname "lo" tcp dport {port} redirect to :{to}
  }}
  chain closed {{
    type filter hook input priority 0; policy accept;
    iifname != "lo" tcp dport {{ {slots} }} ct status and dnat == 0 drop
  }}
}}
"""


def deploy(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Make an image serve at a site, or leave what serves as it is and say why.

    `image` is NAME@sha256:DIGEST; `signatures` are payloads and signatures in cosign's form, `labels` what it must
    bear, `golden` a request and its answer, `port` where the site is called, `login` the entry of the registry in
    docker's configuration. The limits are those of the record.
    """
    site, image = _named(question)
    with _site(root, site) as folder:
        state = _state(folder)
        _settle(site, state, folder)
        if state["current"] and _same(state["current"], question):
            return {"outcome": "unchanged", **_shown(state)}
        _tell("verify")
        _verify(image, question)
        _tell("pull")
        _pull(image, question["login"])
        _check_labels(image, question["labels"])
        reason = _try(site, image, question, state, folder)
        if reason:
            state["failed"] = {"image": image, "reason": reason, "at": time.time()}
            rim.write(_file(folder), state)
            return {"outcome": "rolled back" if state["current"] else "failed", "reason": reason, **_shown(state)}
        return {"outcome": "deployed", **_shown(state)}


def restore(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Bring every site of this machine to what its state says, after whatever went wrong."""
    known = [site for site in sites(root) if os.path.exists(_file(os.path.join(root, "sites", site)))]
    return {"sites": {site: bring_back(root, site) for site in known}}


def sites(root: str) -> list[str]:
    """The sites of this machine, by name, also those to which nothing was deployed yet."""
    return sorted(os.path.basename(os.path.dirname(path)) for path in glob.glob(os.path.join(root, "sites", "*", "")))


def bring_back(root: str, site: str) -> dict[str, Any]:
    """Make true what a site's state says, and tell it. Raises Refused where it has none, a damaged one, or it fails."""
    with _site(root, site) as folder:
        if not os.path.exists(_file(folder)):
            raise Refused("no-state", _file(folder))
        state = _state(folder)
        if state["current"]:
            _settle(site, state, folder)
        return _shown(state)


def status(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """What serves at a site, and whether it answers."""
    site, _ = _named({**question, "image": "none@sha256:" + "0" * 64})
    folder = os.path.join(root, "sites", site)
    state = _state(folder)
    current = state["current"]
    ready = bool(current) and _is_ready(current["slot"])
    through = bool(current) and _is_ready(current["port"])
    return {
        "ready": ready,
        "through": through,
        "predictions": _predictions(current["port"]) if through else "",
        **_shown(state),
    }


def _tell(stage: str, **more: Any) -> None:
    """Say how far it is, to whoever still listens: a rollout does not end with the connection that began it."""
    with contextlib.suppress(OSError):
        rim.say({"stage": stage, **more})


# ---- what a site is ----


def _named(question: dict[str, Any]) -> tuple[str, str]:
    site, image, port = question.get("site"), question.get("image"), question.get("port", 1024)
    if not isinstance(site, str) or not _SITE.fullmatch(site):
        raise Refused("name", str(site)[:200])
    if not isinstance(image, str) or not _IMAGE.fullmatch(image):
        raise Refused("image", str(image)[:300])
    if not isinstance(port, int) or not 1 <= port <= 65533:
        raise Refused("port", str(port)[:20])
    return site, image


@contextlib.contextmanager
def _site(root: str, site: str) -> Iterator[str]:
    """The folder of a site, for one process at a time; a second one waits."""
    folder = os.path.join(root, "sites", site)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with rim.locked(folder, "site"):
        yield folder


def _file(folder: str) -> str:
    return os.path.join(folder, "state.json")


def _state(folder: str) -> dict[str, Any]:
    path = _file(folder)
    state = rim.read(path)
    if state is None and not os.path.exists(path):
        return {"version": 1, "current": None, "previous": None, "trial": None, "failed": None}
    if not isinstance(state, dict) or state.get("version") != 1 or not state.keys() >= _PARTS:
        raise Refused("state", path)
    for served in (state[part] for part in _SERVED):
        if served is not None and not (isinstance(served, dict) and served.keys() >= _CONTAINER):
            raise Refused("state", path)
    return state


def _same(current: dict[str, Any], question: dict[str, Any]) -> bool:
    return all(current[key] == question[key] for key in ("image", "port", "memory_mb", "cpus"))


def _shown(state: dict[str, Any]) -> dict[str, Any]:
    return {key: state[key] for key in ("current", "previous", "failed")}


# ---- from one container to the next ----


def _settle(site: str, state: dict[str, Any], folder: str) -> None:
    """Make true what the state says: its container runs and has the traffic, and no trial is left over."""
    current = state["current"]
    if current:
        _resume(site, current)
        _lead(site, current["port"], current["slot"])
    keep = {kept["container"] for kept in (current, state["previous"]) if kept}
    for name in _containers(site):
        if name not in keep:
            _remove(name)
        elif not current or name != current["container"]:
            _stop(name)
    if state["trial"]:
        state["trial"] = None
        rim.write(_file(folder), state)


def _resume(site: str, current: dict[str, Any]) -> None:
    """Have the known good container run again, made anew where somebody removed it."""
    name = current["container"]
    if _runs(name):
        return
    if _inspect(name, "{{.Id}}"):
        _docker("start", name, word="start")
    else:
        _run(name, current["image"], current["slot"], {**current, "site": site})
    if problem := _wait_ready(current["slot"], name):
        raise Refused("known-good", problem)


def _try(site: str, image: str, question: dict[str, Any], state: dict[str, Any], folder: str) -> str:
    """Start, ask, switch, watch, and keep it; or undo all of it and say why."""
    old = state["current"]
    port = question["port"]
    slot = port + 2 if old and old["slot"] == port + 1 else port + 1
    name = f"edgeml-{site}-{image[-12:]}-{slot}"
    new = {
        **{key: question[key] for key in ("image", "port", "memory_mb", "cpus", "labels", "tag")},
        "container": name,
        "slot": slot,
        "since": time.time(),
    }
    state["trial"] = new
    rim.write(_file(folder), state)
    _remove(name)
    switched = False
    try:
        _tell("start")
        _run(name, image, slot, question)
        golden = question["golden"]
        if problem := _wait_ready(slot, name) or _wrong(slot, golden):
            return problem
        _tell("switch")
        switched = True
        _lead(site, port, slot)
        _tell("watch", seconds=question["health_seconds"])
        if problem := _watch(port, name, golden, question["health_seconds"]):
            return problem
        switched = False
        state.update(current=new, previous=old, trial=None, failed=None)
        rim.write(_file(folder), state)
    except Refused as refusal:
        return f"{refusal.args[0]}: {refusal.args[1]}"
    finally:
        if switched and old:
            _lead(site, old["port"], old["slot"])
        elif switched:
            _close(site)
        if state["trial"]:
            state["trial"] = None
            rim.write(_file(folder), state)
            _remove(name)
    _tell("drain")
    if old:
        _stop(old["container"])
    _forget(site, state)
    return ""


def _watch(port: int, name: str, golden: dict[str, Any], seconds: float) -> str:
    """Ask through the site's own port until the window is over; the first wrong answer ends it."""
    deadline = time.monotonic() + seconds
    while True:
        if problem := _wrong(port, golden):
            return problem
        if _restarts(name):
            return "the container was restarted within the health window"
        if time.monotonic() >= deadline:
            return ""
        time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))


def _forget(site: str, state: dict[str, Any]) -> None:
    """Remove what is neither serving nor the last known good, with its image where nothing else needs it."""
    kept = [known for known in (state["current"], state["previous"]) if known]
    for name in _containers(site):
        if name not in {known["container"] for known in kept}:
            image = _inspect(name, "{{.Config.Image}}")
            _remove(name)
            if image not in {known["image"] for known in kept}:
                subprocess.run(["docker", "rmi", image], capture_output=True)  # refused where another site has it


# ---- asking a container ----


def _wait_ready(slot: int, name: str) -> str:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if _is_ready(slot):
            return ""
        if not _runs(name) or _restarts(name):
            return "the container ended before it was ready"
        time.sleep(0.05)
    return f"the container was not ready within {_READY_SECONDS:.0f} s"


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=3) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _predictions(port: int) -> str:
    """What the server tells of its predictions, in full windows and never below k; empty where it tells nothing."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=3) as answer:
            lines = answer.read(_DOCUMENT).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return ""
    return "\n".join(line for line in lines if line.startswith(_PREDICTIONS))


def _wrong(port: int, golden: dict[str, Any]) -> str:
    """Ask the golden request; empty where the answer is the golden one, else what is wrong with it."""
    address = f"http://127.0.0.1:{port}/v2/models/{golden['model']}/infer"
    body = json.dumps({"id": _GOLDEN, "inputs": golden["inputs"]}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json", "Connection": "close"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http, on loopback
            outputs = json.loads(answer.read(_DOCUMENT))["outputs"]
        found = {output["name"]: output["data"] for output in outputs}
        same = all(_close_to(found.get(output["name"]), output["data"]) for output in golden["outputs"])
    except urllib.error.HTTPError as error:
        return f"the golden request was answered with status {error.code}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"the golden request was not answered ({type(error).__name__})"
    return "" if same else "the golden request got another answer"


def _close_to(one: Any, other: Any) -> bool:
    if isinstance(other, list):
        return isinstance(one, list) and len(one) == len(other) and all(map(_close_to, one, other))
    if isinstance(other, (int, float)) and isinstance(one, (int, float)):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-5)
    return bool(one == other)


# ---- the image ----


def _verify(image: str, question: dict[str, Any]) -> None:
    """Refuse an image without a signature, by one of this site's keys, that is of this very digest."""
    keys = sorted(glob.glob(os.path.join(TRUSTED, "*.pub")))
    if not keys:
        raise Refused("no-trusted-key", TRUSTED)
    digest = image.partition("@")[2]
    for payload, signature in _signatures(question):
        try:
            signed = json.loads(payload)["critical"]["image"]["docker-manifest-digest"]
        except (ValueError, KeyError, TypeError):
            continue
        if signed == digest and any(_signed_by(key, payload, signature) for key in keys):
            return
    raise Refused("unsigned", image)


def _signatures(question: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    try:
        return [
            (base64.b64decode(payload, validate=True), base64.b64decode(signature, validate=True))
            for payload, signature in question["signatures"][:_MOST]
        ]
    except (ValueError, TypeError):
        raise Refused("unsigned", str(question["image"])) from None


def _signed_by(key: str, payload: bytes, signature: bytes) -> bool:
    with tempfile.NamedTemporaryFile() as file:
        file.write(signature)
        file.flush()
        command = ["openssl", "dgst", "-sha256", "-verify", key, "-signature", file.name]
        return subprocess.run(command, input=payload, capture_output=True).returncode == 0


def _pull(image: str, login: dict[str, str]) -> None:
    """Pull by digest, which docker recomputes; a login lies in a folder of memory for no longer than that."""
    if subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode == 0:
        return
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 - not on a disk
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        if login:
            with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as stream:
                json.dump({"auths": {image.partition("/")[0]: login}}, stream)
        _docker("--config", folder, "pull", "--quiet", image, word="pull")


def _check_labels(image: str, labels: dict[str, str]) -> None:
    found = json.loads(_inspect(image, "{{json .Config.Labels}}") or "null") or {}
    for name, value in labels.items():
        if found.get(name) != value:
            raise Refused("labels", name)


# ---- docker and nftables ----


def _run(name: str, image: str, slot: int, question: dict[str, Any]) -> None:
    limits = [f"--memory={int(question['memory_mb'])}m", f"--cpus={float(question['cpus'])}", "--pids-limit=128"]
    closed = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:size=16m,noexec"]
    serve = [f"--env=EDGEML_SERVE_PORT={slot}", f"--label=edgeml.site={question['site']}"]
    kept = ["--network=host", "--restart=unless-stopped", "--log-opt=max-size=10m", "--log-opt=max-file=3"]
    _docker("run", "--detach", f"--name={name}", *limits, *closed, *serve, *kept, image, word="start")


def _containers(site: str) -> list[str]:
    listed = _docker("ps", "--all", f"--filter=label=edgeml.site={site}", "--format={{.Names}}", word="docker")
    return listed.decode().split()


def _runs(name: str) -> bool:
    return _inspect(name, "{{.State.Running}}") == "true"


def _restarts(name: str) -> bool:
    return _inspect(name, "{{.RestartCount}}") not in ("", "0")


def _inspect(name: str, form: str) -> str:
    done = subprocess.run(["docker", "inspect", f"--format={form}", name], capture_output=True, text=True)
    return done.stdout.strip()


def _stop(name: str) -> None:
    """Let a container answer what it accepted, then end."""
    if _runs(name):
        _docker("stop", f"--time={_DRAIN_SECONDS}", name, word="stop")


def _remove(name: str) -> None:
    subprocess.run(["docker", "rm", "--force", name], capture_output=True)


def _docker(*arguments: str, word: str) -> bytes:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True)
    except FileNotFoundError:
        raise Refused("no-docker") from None
    if done.returncode:
        said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if "--help" not in line]
        raise Refused(word, " ".join(said)[:500])
    return done.stdout


def _lead(site: str, port: int, slot: int) -> None:
    """Lead the site's port to a container's, in one step; the containers' own ports are for this machine alone."""
    slots = f"{port + 1}, {port + 2}"
    _nft(_TABLE.format(table=_table(site), port=port, to=slot, slots=slots))


def _close(site: str) -> None:
    _nft(f"table ip {_table(site)}\ndelete table ip {_table(site)}\n")


def _table(site: str) -> str:
    return "edgeml_" + site.replace("-", "_")


def _nft(rules: str) -> None:
    command = ["nft", "-f", "-"] if _may_lead() else ["sudo", "-n", "nft", "-f", "-"]
    try:
        done = subprocess.run(command, input=rules.encode(), capture_output=True)
    except FileNotFoundError as error:
        raise Refused("no-nftables", str(error.filename)) from None
    if done.returncode:
        raise Refused("nftables", done.stderr.decode("utf-8", "replace").strip()[:500])


def _may_lead() -> bool:
    """Whether this process may set rules by itself, as root and the unit at start-up may."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", rim.text("/proc/self/status"), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> _NET_ADMIN & 1)
