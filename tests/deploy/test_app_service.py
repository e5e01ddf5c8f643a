"""A site that is a web app of App Service: signed images in a real registry, scoring servers, the loopback Azure."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeml.azure.arm import Arm
from edgeml.gitops import deploy as deployments
from edgeml.gitops import gate, remote, running
from edgeml.gitops import record as records
from tests.azure.web import PROVIDER, App, Place
from tests.deploy.conftest import AzureSite, InAzure, granted
from tests.images import Released

SITE, NAME, ROLE = "portal", "cancer", "deploys to web apps of"


class Site(AzureSite):
    """A project whose site is a web app of the loopback Azure."""

    name, kind = SITE, "app-service"

    def __init__(self, world: InAzure, released: Released, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(world, released, capsys)
        self.azure = world.service.state.web
        self.azure.servers = world.servers

    @property
    def app(self) -> App:
        return self.azure.apps[NAME]

    def held(self) -> tuple[str, str]:
        """What callers get, and what the slot holds."""
        return self.app.places[""].image, self.app.places["staging"].image

    def writes(self) -> list[str]:
        asked = self.world.cloud.requests
        return [f"{r.method} {r.path}" for r in asked if r.method != "GET" and r.path.startswith(PROVIDER)]


@pytest.fixture
def site(
    in_azure: InAzure, released: Released, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Site:
    for name in ("GRACE_SECONDS", "START_SECONDS"):
        monkeypatch.setattr(f"edgeml.gitops.sites.app_service.{name}", 0.2)
    place(f'resource_id = "{PROVIDER}{NAME}"')
    site = Site(in_azure, released, capsys)
    site.azure.make(NAME)
    in_azure.service.granted = granted(ROLE, webApps=[NAME])
    return site


def place(line: str) -> None:
    Path("edgeml.toml").write_text(f'[sites]\norder = ["{SITE}"]\n[site.{SITE}]\n{line}\n')


def test_the_slot_takes_the_new_image_is_asked_and_swapped_and_again_changes_nothing(site: Site) -> None:
    site.azure.slow = 2
    code, told, said = site.deploy(site.first, "{health_seconds: 1}")
    assert (code, told["outcome"], told["reason"]) == (0, "deployed", ""), said
    assert site.held() == (site.first.reference, "nginx:1")
    order = [line.rpartition("/")[2] for line in site.writes()]
    assert order == ["stop", "web", "start", "slotsswap", "default"]
    assert all("/slots/staging/" in line for line in site.writes()[:4]), "callers' app is touched by the swap alone"
    assert site.app.tags == {"team": "ward", "edgeml.site": SITE, "edgeml.good": site.first.digest}
    site.world.cloud.clear()
    code, told, _ = site.edgeml("deploy", SITE, "--ungated")
    assert (code, told["outcome"], site.writes()) == (0, "unchanged", [])
    code, told, _ = site.edgeml("status", SITE)
    assert code == 0 and told["sites"][0]["state"] == "in step"


def test_the_template_gives_the_deploying_identity_what_is_asked_for_and_no_more(site: Site) -> None:
    site.azure.slow = 2
    for image in (site.first, site.second):
        assert site.deploy(image)[1]["outcome"] == "deployed"
    assert site.edgeml("status", SITE)[0] == 0
    assert site.world.service.used == site.world.service.granted
    site.world.service.granted = granted(ROLE)
    code, _, said = site.deploy(site.first)
    assert (code, site.world.service.granted) == (1, frozenset()) and "may not do Microsoft.Web/sites/read" in said


def test_the_slot_then_holds_the_last_known_good(site: Site) -> None:
    for image in (site.first, site.second):
        assert site.deploy(image)[1]["outcome"] == "deployed"
    assert site.held() == (site.second.reference, site.first.reference)
    site.world.cloud.clear()
    assert site.deploy(site.first)[1]["outcome"] == "deployed"
    assert site.held() == (site.first.reference, site.second.reference)
    assert [line.rpartition("/")[2] for line in site.writes()] == ["slotsswap", "default"], "it only has to be swapped"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong-answer", "in the slot, the golden request got another answer"),
        ("no-start", "in the slot, the golden request was not answered (HTTP 502)"),
        ("wrong-later", "got another answer"),
        ("no-swap", "this identity may not do"),
    ],
)
def test_what_fails_is_taken_back_by_itself(site: Site, case: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    site.deploy(site.first)
    site.app.places["staging"] = Place("nginx:1")
    if case == "wrong-answer":
        site.azure.spoiled = {site.second.reference}
    elif case == "no-start":
        site.azure.servers = {site.first.reference: site.azure.servers[site.first.reference]}
    elif case == "no-swap":
        site.azure.denied = "slotsswap"
    else:  # all is well until it is swapped
        whole = site.azure._now

        def swapped() -> None:
            site.azure.spoiled = {site.second.reference}
            whole()

        monkeypatch.setattr(site.azure, "_now", swapped)
    code, told, said = site.deploy(site.second)
    assert (code, told["outcome"]) == (1, "rolled back"), (told["reason"], said)
    assert words in told["reason"]
    assert site.held() == (site.first.reference, "nginx:1")
    assert site.app.tags["edgeml.good"] == site.first.digest
    told = site.edgeml("status", SITE)[1]["sites"][0]
    assert (told["state"], told["running"]) == ("differs", site.first.reference)


def test_the_first_one_that_fails_leaves_what_was_there(site: Site) -> None:
    site.azure.spoiled = {site.first.reference}
    code, told, _ = site.deploy(site.first)
    assert (code, told["outcome"], site.held()) == (1, "failed", ("nginx:1", "nginx:1"))


def test_a_known_good_that_no_longer_answers_is_told_and_not_moved(site: Site) -> None:
    site.deploy(site.first)
    site.azure.spoiled = {site.first.reference}
    code, told, _ = site.edgeml("deploy", SITE, "--ungated")
    assert (code, told["outcome"]) == (1, "failed") and "the known good does not answer" in told["reason"]
    assert site.held() == (site.first.reference, "nginx:1")
    assert site.edgeml("status", SITE)[1]["sites"][0]["state"] == "does not answer"


def test_what_was_put_there_by_hand_comes_back_where_the_new_one_fails(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.deploy(site.first)
    site.app.places[""] = Place("by-hand:1")
    assert site.edgeml("status", SITE)[1]["sites"][0]["state"] == "differs"
    whole = site.azure._now
    monkeypatch.setattr(site.azure, "_now", lambda: (site.azure.spoiled.add(site.second.reference), whole()))
    assert site.deploy(site.second)[1]["outcome"] == "rolled back"
    assert site.held()[0] == "by-hand:1"


class Killed(BaseException):
    pass


def test_killed_before_any_write_the_next_run_converges(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Arm.ask
    for kill in range(5):  # stop, image, start, swap, tags
        site.app.places = {"": Place(site.first.reference), "staging": Place("nginx:1")}
        site.app.tags = {"edgeml.site": SITE, "edgeml.good": site.first.digest}
        left = kill

        def ask(self: Arm, method: str, *arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= method != "GET"
            if left < 0:
                raise Killed
            return whole(self, method, *arguments, **more)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Arm, "ask", ask)
            site.deploy(site.second)
        code, told, _ = site.edgeml("deploy", SITE, "--ungated")
        assert (code, told["reason"]) == (0, ""), kill
        assert site.held() == (site.second.reference, site.first.reference)
        assert site.app.tags["edgeml.good"] == site.second.digest


@pytest.mark.parametrize("when", ["watched", "staged"])
def test_killed_and_then_found_bad_it_goes_back(site: Site, when: str) -> None:
    site.app.tags = {"edgeml.site": SITE, "edgeml.good": site.first.digest}
    places = [Place(site.second.reference), Place(site.first.reference)]
    site.app.places = dict(zip(["", "staging"] if when == "watched" else ["staging", ""], places, strict=True))
    site.azure.spoiled = {site.second.reference}
    assert site.deploy(site.second)[1]["outcome"] == "rolled back"
    assert site.held()[0] == site.first.reference
    site.app.places = {"": Place(site.second.reference), "staging": Place("nginx:1")}
    code, told, _ = site.deploy(site.second)
    assert (code, told["outcome"]) == (1, "failed") and "does not hold the last known good" in told["reason"]


def test_a_swap_whose_answer_is_lost_is_not_made_twice(site: Site) -> None:
    site.azure.slow = 2
    site.world.cloud.fail("lost", lambda request: request.path.endswith("/slotsswap"))
    assert site.deploy(site.first)[1]["outcome"] == "deployed"
    assert (site.azure.swaps, site.held()[0]) == (1, site.first.reference)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no-app", "there is no web app cancer"),
        ("windows", "is of kind app and runs no Linux container"),
        ("no-slot", "az webapp deployment slot create --name cancer --slot staging"),
        ("another-site", "is of ward; give portal one of its own"),
        ("no-id", "is no ARM id of a web app"),
        ("no-place", "add [site.portal] with resource_id"),
    ],
)
def test_what_cannot_serve_is_refused_before_anything_changes(site: Site, case: str, words: str) -> None:
    if case == "no-app":
        site.azure.apps.clear()
    elif case == "windows":
        site.app.kind = "app"
    elif case == "no-slot":
        del site.app.places["staging"]
    elif case == "another-site":
        site.app.tags["edgeml.site"] = "ward"
    elif case == "no-id":
        place('resource_id = "cancer"')
    else:
        Path("edgeml.toml").write_text("")
    code, told, said = site.deploy(site.first)
    assert code != 0 and words in said and told == {}
    assert site.writes() == []


def test_without_an_app_the_model_is_exported_and_said_not_to_be_deployed(site: Site) -> None:
    place("")
    code, told, _ = site.deploy(site.first)
    assert (code, told["outcome"]) == (0, "exported") and "not deployed" in told["reason"]
    file = Path(told["details"]["file"])
    first = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    model = {f"model/{name}" for name in ("model.onnx", "signature.json", "lineage.json", "curves.json")}
    assert set(files) == {"README.md", "golden.json", "manifest.json", *model}
    assert b"**Nothing is deployed.**" in files["README.md"]
    manifest = json.loads(files["manifest.json"])
    assert manifest["record"]["image"] == site.first.reference
    assert all(hashlib.sha256(files[name]).hexdigest() == digest for name, digest in manifest["sha256"].items())
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(files["model/model.onnx"])
    golden = json.loads(files["golden.json"])
    (given,) = golden["inputs"]
    found = session.run(None, {given["name"]: np.array(given["data"], dtype="float32").reshape(given["shape"])})
    wanted = next(output for output in golden["outputs"] if output["name"] == "probabilities")
    assert np.allclose(found[1].ravel(), wanted["data"], atol=golden["tolerance"])
    _, text, _ = site.edgeml("deploy", SITE, "--ungated", json_too=False)
    assert text.startswith(f"{SITE}  exported: breast-cancer:1; not deployed") and file.read_bytes() == first
    code, told, _ = site.edgeml("status", SITE)
    assert (code, told["sites"][0]["state"], told["sites"][0]["running"]) == (0, "exported", "")
    assert site.world.cloud.requests == []


def test_no_gate_takes_an_export_for_a_deployment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    place("")
    site.wants(site.first)
    record, told = records.read(".", SITE), []
    decision = gate.Decision(SITE, "v1.0.0", facts={"commit": "a" * 40})
    monkeypatch.setattr(deployments, "connect", lambda: None)
    monkeypatch.setattr(gate, "decide", lambda *_: decision)
    monkeypatch.setattr(remote, "record_at", lambda *_: remote.Held(record, {}))
    monkeypatch.setattr(running, "begin", lambda *_: 1)
    monkeypatch.setattr(running, "finish", lambda _, number, state, why: told.append((number, state)))
    assert deployments.deploy(SITE, "v1.0.0", print)[1].outcome == "exported"
    assert told == [(1, "inactive")], "what runs there nobody knows: neither success nor failure"
