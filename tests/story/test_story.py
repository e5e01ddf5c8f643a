"""The journey of a change, from a pull request to two sites and back, through the workflows that a fork would run.

Real are git, act, the SSH server, bubblewrap, Azurite, docker, the registry, nftables; GitHub is played (tests/gitops).
"""

from __future__ import annotations

import os
import re

import pytest
import yaml

from tests.conftest import ROOT
from tests.gitops.hub import BOT, MAIN, Pull
from tests.story.fork import BASE, Fork

PROMOTE = "edgeml/promote/staging"
OWN = "rollout: {health_seconds: 1, memory_mb: 384}\n"


@pytest.mark.skipif("EDGEML_TEST_STORY" not in os.environ, reason="takes 140 s of CPU; run it with make story")
def test_a_change_travels_to_production_and_a_bad_one_comes_back(fork: Fork) -> None:
    ran = fork.act("edge.yml", "workflow_dispatch", MAIN, inputs={"action": "check", "target": "edge-vm"})
    assert ran.jobs == {"edge": "success"}, ran.raw
    train(fork, rounds=40, check=True)
    first = approve_at_last(fork, fork.hub.pulls[-1])
    doubt_the_registry(fork, first)

    ran = fork.act("deploy.yml", "push", "v1.0.0")
    assert ran.jobs == {"sites": "success", "deploy/staging": "success"}, ran.raw
    assert (fork.serving("staging"), fork.serving("production")) == (first, "")

    said = fork.edgeml("promote", "--site", "production", "--check", "check.yml")
    assert said.code == 0, said.err
    fork.agree(fork.hub.pulls[-1], "ada", tag="v1.1.0")
    ran = fork.act("deploy.yml", "push", "v1.1.0")
    assert ran.jobs == {"sites": "success", "deploy/staging": "success", "deploy/production": "success"}, ran.raw
    assert "staging  unchanged" in ran.said("deploy/staging")
    assert fork.serving("production") == first
    assert set(fork.refusals("staging", "v1.0.0")) == {"tag-older"}

    train(fork, rounds=20, interrupted=True)
    second = release_badly(fork, fork.hub.pulls[-1])
    wrong_order(fork, second)
    go_back(fork, first)
    nothing_was_left_out(fork)


def train(fork: Fork, rounds: int, *, check: bool = False, interrupted: bool = False) -> None:
    """A scientist's change, up to the pull request that brings its model to the first site."""
    text = re.sub(r"max_iter: \d+", f"max_iter: {rounds}", fork.text("pipelines/train.yml"))
    pull = fork.propose("ben", {"pipelines/train.yml": text, "deployments/base.yml": BASE}, f"rounds-{rounds}")
    if check:
        ran = fork.act("check.yml", "pull_request", f"rounds-{rounds}")
        assert ran.jobs == dict.fromkeys(("lint", "test", "demo", "pass"), "success"), ran.raw
        fork.check(pull, ran)
    fork.agree(pull, "ada")
    fork.hub.dispatched.clear()
    if interrupted:
        ran = fork.act("train.yml", "push", MAIN, edit=("train.yml", "--deadline 330", "--deadline 0"))
        assert ran.jobs == {"submit": "success", "wait": "success"}, ran.raw
        ((file, ref, inputs),) = fork.hub.dispatched
        assert (file, ref) == ("train.yml", MAIN)
        ran = fork.act("train.yml", "workflow_dispatch", MAIN, inputs=inputs)
        assert "submit" not in " ".join(line for job, line in ran.lines() if job == "submit")
    else:
        ran = fork.act("train.yml", "push", MAIN)
    assert ran.jobs == dict.fromkeys(("submit", "wait", "release"), "success"), ran.raw
    opened = fork.hub.pulls[-1]
    assert (opened.author, opened.ref) == (BOT, PROMOTE)
    assert fork.hub.dispatched[-1] == ("check.yml", PROMOTE, {}), (
        "what a workflow's token opened is checked all the same"
    )
    for secret in ("EDGEML_SSH_KEY", "EDGEML_IMAGE_SIGNING_KEY"):
        assert fork.runner.secrets[secret].splitlines()[1] not in ran.raw


def approve_at_last(fork: Fork, pull: Pull) -> str:
    """A promotion is merged before anybody looked; the digest of its image once somebody has."""
    seen = pull.head
    record = fork.text("deployments/staging.yml", pull.head)
    fork.hub.push("ben", {"deployments/staging.yml": record + OWN}, PROMOTE)
    fork.agree(pull, tag="v1.0.0")
    assert set(fork.refusals("staging", "v1.0.0")) == {"not-approved"}, "unapproved"
    fork.hub.review("ada", pull, commit=seen)
    assert "ada approved an earlier commit" in fork.refusals("staging", "v1.0.0")["not-approved"]
    fork.hub.review("ben", pull)
    assert "ben pushed the last commit" in fork.refusals("staging", "v1.0.0")["not-approved"]
    ran = fork.act("deploy.yml", "push", "v1.0.0")
    assert ran.jobs == {"sites": "success", "deploy/staging": "failure"} and fork.serving("staging") == "", ran.raw
    fork.hub.review("cleo", pull)
    assert fork.refusals("staging", "v1.0.0") == {}
    fork.hub.tag("v9.0.0", fork.hub.push("cleo", {"README.md": "Not agreed on.\n"}, "aside"))
    assert set(fork.refusals("staging", "v9.0.0")) == {"tag-off-main"}
    return digest(record)


def doubt_the_registry(fork: Fork, image: str) -> None:
    """What the registry holds is asked each time, and not believed."""
    tags = fork.registry.folder / "docker/registry/v2/repositories/edgeml/breast-cancer/_manifests/tags"
    signature = tags / f"{image.replace(':', '-')}.sig"
    signature.rename(fork.folder / "signature")
    assert set(fork.refusals("staging", "v1.0.0")) == {"image-unsigned"}
    (fork.folder / "signature").rename(signature)
    kept = fork.registry.blob(image).read_bytes()
    fork.registry.blob(image).write_bytes(kept.replace(b'"schemaVersion":2', b'"schemaVersion": 2'))
    assert fork.registry.blob(image).read_bytes() != kept
    refused = fork.refusals("staging", "v1.0.0")
    assert refused and all("sha256" in cause or "digest" in cause for cause in refused.values()), refused
    fork.registry.blob(image).write_bytes(kept)
    assert fork.refusals("staging", "v1.0.0") == {}


def release_badly(fork: Fork, pull: Pull) -> str:
    """A release that everybody agreed on, and that cannot run: the site gives the traffic back by itself."""
    before = fork.serving("staging")
    record = fork.text("deployments/staging.yml", pull.head)
    assert digest(record) != before and "version: '2'" in record
    starved = re.sub(r"memory_mb: \d+", "memory_mb: 8", record)
    fork.hub.push("ben", {"deployments/staging.yml": starved}, PROMOTE)
    fork.agree(pull, "cleo", tag="v1.2.0")
    ran = fork.act("deploy.yml", "push", "v1.2.0")
    assert ran.jobs["deploy/staging"] == "failure" and "staging  rolled back" in ran.said("deploy/staging"), ran.raw
    assert fork.serving("staging") == before == fork.serving("production")
    ran = fork.act("monitor.yml", "schedule", MAIN)
    assert ran.jobs == {"sites": "failure"}, ran.raw
    (issue,) = fork.hub.issues
    assert issue["state"] == "open" and "`staging`" in issue["body"] and "production" not in issue["body"]
    return digest(record)


def wrong_order(fork: Fork, image: str) -> None:
    """What staging does not run does not reach production, by whatever hand; and nobody approves what is his own."""
    record = fork.text("deployments/staging.yml").replace("site: staging", "site: production")
    pull = fork.propose("ben", {"deployments/production.yml": record}, "at-once")
    fork.agree(pull, "ben", tag="v1.3.0")
    refused = fork.refusals("production", "v1.3.0")
    assert set(refused) == {"order", "not-approved"}
    assert "ben opened the pull request" in refused["not-approved"]
    fork.hub.review("ada", pull)
    assert set(fork.refusals("production", "v1.3.0")) == {"order"}
    assert image[:19] in fork.refusals("production", "v1.3.0")["order"]


def go_back(fork: Fork, image: str) -> None:
    for site in ("staging", "production"):
        said = fork.edgeml("rollback", site, "--check", "check.yml")
        assert said.code == 0, said.err
        fork.agree(fork.hub.pulls[-1], "ada")
    fork.hub.tag("v1.4.0")
    ran = fork.act("deploy.yml", "push", "v1.4.0")
    assert set(ran.jobs.values()) == {"success"}, ran.raw
    assert fork.serving("staging") == image == fork.serving("production")
    ran = fork.act("monitor.yml", "workflow_dispatch", MAIN)
    assert ran.jobs == {"sites": "success"}, ran.raw
    assert ran.said("sites").count("drift    unknown: too few requests") == 2, "the released distributions came along"
    assert [issue["state"] for issue in fork.hub.issues] == ["closed"]


def nothing_was_left_out(fork: Fork) -> None:
    """Every line of these workflows was executed, and did its work."""
    for workflow in ("check.yml", "train.yml", "deploy.yml", "monitor.yml"):
        jobs = yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text())["jobs"]
        lines = {(name, step["run"]) for name, job in jobs.items() for step in job["steps"] if "run" in step}
        done = {(job.partition("/")[0], line) for file, job, line in fork.runner.succeeded if file == workflow}
        assert lines - done == set(), f"{workflow} has lines that were never executed"


def digest(record: str) -> str:
    return str(yaml.safe_load(record)["image"]).partition("@")[2]
