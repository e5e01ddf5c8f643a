"""A rollout on a real machine: real images from a real registry, in real containers, behind a real rule of nftables."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from edgeml.edge import session
from edgeml.image import signature, verification
from tests.deploy.conftest import ROOT, World, free_port

NOBODY = 65534


class Site:
    """A site of its own on this machine, asked as `edgeml deploy` asks it."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.port = world, name, free_port(3)

    def question(self, image: str, **more: Any) -> dict[str, Any]:
        name, _, digest = image.partition("@")
        pairs = signature.collected(verification.store(name), digest)
        return {
            "verb": "deploy",
            "folder": "edgeml",
            "site": self.name,
            "image": image,
            "tag": "v1.0.0",
            "signatures": [[base64.b64encode(part).decode() for part in pair] for pair in pairs],
            "labels": {},
            "golden": self.world.golden.get(image, self.world.golden[self.world.first]),
            "login": {},
            "port": self.port,
            "health_seconds": 0.5,
            "memory_mb": 256,
            "cpus": 1.0,
            **more,
        }

    def deploy(self, image: str, **more: Any) -> dict[str, Any]:
        return session.told(session.Here(), self.question(image, **more))[-1]

    def status(self) -> dict[str, Any]:
        return session.told(session.Here(), {"verb": "status", "folder": "edgeml", "site": self.name})[-1]

    def answers(self) -> str:
        """The image that answers golden requests through the site's port; empty where none does."""
        for image, golden in self.world.golden.items():
            try:
                if self.ask(golden) == [output["data"] for output in golden["outputs"]]:
                    return image
            except OSError:
                continue
        return ""

    def ask(self, golden: dict[str, Any]) -> list[Any]:
        address = f"http://127.0.0.1:{self.port}/v2/models/{golden['model']}/infer"
        body = json.dumps({"inputs": golden["inputs"]}).encode()
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=10) as answer:
            return [output["data"] for output in json.load(answer)["outputs"]]

    @property
    def folder(self) -> Path:
        return Path(os.environ["HOME"]) / "edgeml/sites" / self.name

    def state(self) -> dict[str, Any]:
        return json.loads((self.folder / "state.json").read_text())

    def found(self) -> list[str]:
        """What is there of the site: its containers, when they were started, and its rules."""
        docker = self.world.daemon.docker
        names = docker("ps", "--all", "--format={{.Names}}", f"--filter=label=edgeml.site={self.name}").split()
        form = "--format={{.Id}} {{.State.Status}} {{.State.StartedAt}} {{.RestartCount}}"
        rules = subprocess.run(["nft", "list", "table", "ip", f"edgeml_{self.name}"], capture_output=True, text=True)
        return [*(docker("inspect", form, name) for name in sorted(names)), rules.stdout]

    def clear(self) -> None:
        names = self.world.daemon.docker("ps", "--all", "--quiet", f"--filter=label=edgeml.site={self.name}").split()
        if names:
            self.world.daemon.docker("rm", "--force", *names)
        table = "edgeml_" + self.name.replace("-", "_")
        subprocess.run(["nft", "delete", "table", "ip", table], capture_output=True)
        # Else `restore` in a later test would bring its rule back, to lead other tests' requests astray.
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def site(world: World, request: pytest.FixtureRequest) -> Iterator[Site]:
    made = Site(world, f"t{abs(hash(request.node.name)) % 10**8}")
    yield made
    made.clear()


@pytest.fixture
def other(world: World) -> Iterator[Site]:
    made = Site(world, "other")
    yield made
    made.clear()


def test_the_first_image_serves_and_again_changes_nothing(site: Site) -> None:
    done = site.deploy(site.world.first)
    assert done["outcome"] == "deployed", done
    assert site.answers() == site.world.first
    before = site.state()
    assert site.deploy(site.world.first)["outcome"] == "unchanged"
    assert site.state() == before
    status = site.status()
    assert status["ready"] and status["through"] and status["predictions"].startswith("edgeml_predictions_expected{")


@pytest.mark.skipif(shutil.which("ip") is None, reason="a cable to the outside needs iproute2")
def test_the_outside_reaches_the_site_and_never_a_container_by_its_own_port(site: Site) -> None:
    site.deploy(site.world.first)
    with subprocess.Popen(["unshare", "--net", "sh", "-c", "echo up; exec sleep 60"], stdout=subprocess.PIPE) as space:
        try:
            assert space.stdout is not None
            space.stdout.readline()
            outside = ["nsenter", f"--net=/proc/{space.pid}/ns/net"]
            for line in (
                ["ip", "link", "add", "edgeml-t", "type", "veth", "peer", "name", "plug", "netns", str(space.pid)],
                ["ip", "address", "add", "10.79.0.1/24", "dev", "edgeml-t"],
                ["ip", "link", "set", "edgeml-t", "up"],
                [*outside, "ip", "address", "add", "10.79.0.2/24", "dev", "plug"],
                [*outside, "ip", "link", "set", "plug", "up"],
            ):
                subprocess.run(line, check=True)
            code = "import sys; from urllib.request import urlopen; urlopen(sys.argv[1], timeout=3)"
            reached = [
                subprocess.run([*outside, "python3", "-c", code, f"http://10.79.0.1:{port}/v2/health/ready"])
                for port in (site.port, site.port + 1)
            ]
        finally:
            space.kill()
    assert [done.returncode == 0 for done in reached] == [True, False]


def test_traffic_moves_without_losing_a_request(site: Site) -> None:
    site.deploy(site.world.first)
    stop, lost, seen = threading.Event(), [], set()

    def call() -> None:
        while not stop.is_set():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{site.port}/v2/health/ready", timeout=10) as answer:
                    seen.add(answer.status)
            except OSError as error:
                lost.append(repr(error))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    done = site.deploy(site.world.second)
    stop.set()
    for caller in callers:
        caller.join()
    assert done["outcome"] == "deployed" and site.answers() == site.world.second
    assert lost == [] and seen == {200}
    assert done["previous"]["image"] == site.world.first, "the last known good is kept"


@pytest.mark.parametrize(
    ("image", "more", "reason"),
    [
        ("second", {"golden": "first"}, "golden request"),
        ("dies", {}, "ended before it was ready"),
        ("second", {"memory_mb": 8}, "ended before it was ready"),
    ],
    ids=["wrong-answer", "dies", "too-little-memory"],
)
def test_what_does_not_work_never_gets_the_traffic(site: Site, image: str, more: dict[str, Any], reason: str) -> None:
    site.deploy(site.world.first)
    if "golden" in more:
        more = {"golden": site.world.golden[getattr(site.world, more["golden"])]}
    done = site.deploy(getattr(site.world, image), **more)
    assert done["outcome"] == "rolled back" and reason in done["reason"], done
    assert site.answers() == site.world.first and site.state()["trial"] is None
    assert site.state()["failed"]["image"] == getattr(site.world, image)


def test_what_stops_answering_within_its_window_gives_the_traffic_back(site: Site) -> None:
    site.deploy(site.world.first)
    watching = threading.Event()
    question = site.question(site.world.second, health_seconds=30)

    def heard(answer: dict[str, Any]) -> None:
        if answer.get("stage") == "watch":
            watching.set()

    with ThreadPoolExecutor(1) as pool:
        rollout = pool.submit(session.told, session.Here(), question, heard=heard)
        assert watching.wait(120)
        site.world.daemon.docker("kill", site.state()["trial"]["container"])
        done = rollout.result(120)[-1]
    assert done["outcome"] == "rolled back" and site.answers() == site.world.first


def test_power_loss_in_the_middle_leaves_the_known_good(site: Site) -> None:
    """The program is killed while the new container has the traffic, and the machine loses its rules and containers."""
    site.deploy(site.world.first)
    host = session.Here()
    answers = host.ask(site.question(site.world.second, health_seconds=60))
    for answer in answers:
        if answer.get("stage") == "watch":
            break
    assert site.answers() == site.world.second
    answers.close()  # kills the program
    trial = site.state()["trial"]["container"]
    site.world.daemon.docker("kill", trial, site.state()["current"]["container"])
    subprocess.run(["nft", "delete", "table", "ip", f"edgeml_{site.name}"], check=True)
    session.told(session.Here(), {"verb": "restore", "folder": "edgeml"})
    assert site.answers() == site.world.first and site.state()["trial"] is None
    assert trial not in site.world.daemon.docker("ps", "--all", "--format={{.Names}}")
    assert site.deploy(site.world.second)["outcome"] == "deployed" and site.answers() == site.world.second


def test_a_site_comes_back_when_its_machine_starts(site: Site) -> None:
    site.deploy(site.world.first)
    site.deploy(site.world.second)
    state = site.state()
    site.world.daemon.docker("stop", "--time=0", state["current"]["container"])
    subprocess.run(["nft", "delete", "table", "ip", f"edgeml_{site.name}"], check=True)
    assert site.answers() == ""
    done = started(site.world)
    assert done.returncode == 0, done.stderr
    assert f"{site.name} serves {site.world.second}" in done.stderr and site.answers() == site.world.second
    found = site.found()
    assert started(site.world).returncode == 0
    assert site.found() == found and site.state() == state


def test_a_site_whose_state_is_lost_or_torn_starts_nothing_and_holds_no_other_up(site: Site, other: Site) -> None:
    for each in (site, other):
        each.deploy(site.world.first)
        subprocess.run(["nft", "delete", "table", "ip", f"edgeml_{each.name}"], check=True)
    site.world.daemon.docker("stop", "--time=0", site.state()["current"]["container"])
    found, state = site.found(), site.folder / "state.json"
    for content in (b"", state.read_bytes()[:99], b"{}", b"[1]", b'{"version": 1, "current": {}}', None):
        if content is None:
            state.unlink()
        else:
            state.write_bytes(content)
        done = started(site.world)
        cause = "is missing" if content is None else "is damaged"
        (line,) = [line for line in done.stderr.splitlines() if site.name in line]
        assert done.returncode == 1 and f"{site.name} is not restored" in line and cause in line, content
        assert site.found() == found and (state.read_bytes() if state.exists() else None) == content
        assert other.answers() == site.world.first


def started(world: World) -> subprocess.CompletedProcess[str]:
    """What systemd does with the unit of docs/deployment.md: its line, as its user in docker's group, with its one
    capability and no way to another. The user's home and docker's socket lie where they are on a site, for it alone."""
    text = (ROOT / "docs/deployment.md").read_text().partition("```ini\n")[2].partition("```")[0]
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    home, socket = Path(os.environ["HOME"]), world.daemon.folder / "docker.sock"
    assert (home / "edgeml/sites/restore.pyz").is_file()
    right = "-all,+" + unit["AmbientCapabilities"].removeprefix("CAP_").lower()
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", f"--groups={socket.stat().st_gid}", "--no-new-privs"]
    rights = [f"--inh-caps={right}", f"--ambient-caps={right}", f"--bounding-set={right}"]
    at = f"/home/{unit['User']}"
    script = (
        f"set -e; mount -t tmpfs none /home; mkdir -p {at}/edgeml; mount --bind {home}/edgeml {at}/edgeml; "
        f"chown -R {NOBODY} {at}/edgeml; "
        f"mount -t tmpfs none /run; touch /run/docker.sock; mount --bind {socket} /run/docker.sock; "
        f"exec setpriv {' '.join([*user, *rights])} {unit['ExecStart']}"
    )
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": at},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_two_at_once_take_turns(site: Site) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(site.deploy, [site.world.first] * 2))
    assert sorted(answer["outcome"] for answer in done) == ["deployed", "unchanged"]


def test_the_way_back_is_the_image_before(site: Site) -> None:
    for image in (site.world.first, site.world.second, site.world.first):
        assert site.deploy(image)["outcome"] == "deployed"
        assert site.answers() == image
    names = site.world.daemon.docker("ps", "--all", "--quiet", f"--filter=label=edgeml.site={site.name}").split()
    assert len(names) == 2, "only what serves and the last known good are kept"


@pytest.mark.parametrize("case", ["unsigned", "signature-of-another", "foreign-key", "no-key", "label"])
def test_what_the_site_cannot_believe_is_refused_before_anything_is_pulled(
    site: Site, case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image, more, word = site.world.second, {}, "unsigned"
    if case == "unsigned":
        image = site.world.unsigned
    elif case == "signature-of-another":
        more = {"signatures": site.question(site.world.first)["signatures"]}
    elif case == "foreign-key":
        pair = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        made = subprocess.run(pair, capture_output=True, check=True).stdout
        public = subprocess.run(["openssl", "pkey", "-pubout"], input=made, capture_output=True, check=True).stdout
        (tmp_path / "other.pub").write_bytes(public)
        monkeypatch.setenv("EDGEML_TRUSTED", str(tmp_path))
    elif case == "no-key":
        monkeypatch.setenv("EDGEML_TRUSTED", str(tmp_path))
        word = "no-trusted-key"
    else:
        more, word = {"labels": {"edgeml.model.version": "77"}}, "labels"
    answer = site.deploy(image, **more)
    assert answer["refused"] == word and site.answers() == ""


@pytest.mark.parametrize(
    "more",
    [{"site": "../up"}, {"image": "latest"}, {"image": "x; rm -rf /@sha256:" + "a" * 64}, {"port": 0}, {"port": "80"}],
)
def test_questions_that_are_none_are_refused(site: Site, more: dict[str, Any]) -> None:
    answer = session.told(session.Here(), {**site.question(site.world.first), **more})[-1]
    assert answer["refused"] in ("name", "image", "port")
