"""The gate: what may deploy, and every reason for which it may not, each over the loopback GitHub."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeml.cli import main
from edgeml.errors import EdgemlError
from edgeml.gitops import github, images, reasons, running
from edgeml.gitops.gate import decide
from tests.gitops.conftest import Story, broken, record_text
from tests.gitops.hub import MAIN

PATH = "deployments/staging.yml"


# --- what may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_an_approved_release_may_deploy_to_the_first_site(story: Story, method: str) -> None:
    story.release("staging", 3, "v1.0.0", method)
    decision = story.gate("staging", "v1.0.0")
    assert (decision.refusals, decision.facts["model"]) == ([], "breast-cancer:3")


def test_the_whole_way_of_a_digest_through_both_sites(story: Story) -> None:
    story.release("staging", 3, "v1.0.0")
    story.hub.deployed("staging", "v1.0.0")
    assert story.reasons("staging", "v1.0.0") == [], "what runs there already may be deployed again"
    story.release("production", 3, "v1.1.0")
    decision = story.gate("production", "refs/tags/v1.1.0")
    assert (decision.refusals, decision.facts["staging runs"][:6]) == ([], "v1.0.0")
    story.hub.deployed("production", "v1.1.0")
    story.release("staging", 4, "v1.2.0")
    assert story.reasons("staging", "v1.2.0") == []
    assert story.reasons("production", "v1.2.0") == [], "its record did not change: it stays what it is"


def test_a_site_may_go_back_to_what_it_ran_whatever_the_site_before_runs(story: Story) -> None:
    for number, model in enumerate((3, 4)):
        story.release("staging", model, f"v1.{number}.0")
        story.hub.deployed("staging", f"v1.{number}.0")
        story.release("production", model, f"v1.{number}.1")
        story.hub.deployed("production", f"v1.{number}.1")
    story.release("production", 3, "v1.2.0")
    assert story.reasons("production", "v1.2.0") == []


def test_a_tag_of_its_own_object_and_a_base_shared_by_sites_are_followed(story: Story) -> None:
    record = story.record("staging", 3)
    base = record_text("staging", 3).replace("site: staging\n", "")
    story.hub.push("ada", {PATH: "base: base.yml\nsite: staging\n", "deployments/base.yml": base}, "based")
    pull = story.hub.open("ada", "based")
    story.hub.check(pull)
    story.hub.review("ben", pull)
    story.hub.merge(pull)
    story.hub.tag("v1.0.0", annotated=True)
    decision = story.gate("staging", "v1.0.0")
    assert (decision.refusals, decision.facts["image"]) == ([], record.image)
    story.hub.push("ada", {"deployments/base.yml": base.replace("kind: edge-vm", "kind: kubernetes")})
    story.hub.tag("v1.0.1")
    assert story.reasons("staging", "v1.0.1") == ["record-outside-pull-request"], "a base is part of the record"


def test_a_person_may_open_it_too_and_post_merge_approval_counts(story: Story) -> None:
    pull = story.propose("staging", 3, author="ada")
    story.hub.merge(pull)
    story.hub.tag("v1.0.0")
    assert story.reasons("staging", "v1.0.0") == ["not-approved"]
    story.hub.review("ben", pull)
    assert story.reasons("staging", "v1.0.0") == []


# --- what may not: the tag -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["1.2.3", "v1.2", "v1.2.3-rc1", "v01.2.3", "v1.2.3 ", "main", "refs/heads/v1.2.3", "v1.2.३", ""]
)
def test_a_malformed_tag(story: Story, tag: str) -> None:
    assert story.reasons("staging", tag) == ["tag-form"]
    assert story.hub.requests == []


def test_a_tag_that_is_not_there(story: Story) -> None:
    assert story.reasons("staging", "v9.9.9") == ["tag-missing"]


def test_a_tag_off_the_default_branch(story: Story) -> None:
    pull = story.propose("staging", 3)
    story.hub.review("ada", pull)
    story.hub.tag("v1.0.0", pull.head)
    assert "tag-off-main" in story.reasons("staging", "v1.0.0")


def test_an_older_tag_an_equal_one_and_a_newer_one_on_an_older_commit(story: Story) -> None:
    story.release("staging", 3, "v1.9.0")
    old = story.hub.sha(MAIN)
    story.release("staging", 4, "v1.10.0")
    story.hub.deployed("staging", "v1.10.0")
    assert story.reasons("staging", "v1.9.0") == ["tag-older"]
    story.hub.tag("v1.11.0", old)
    assert story.reasons("staging", "v1.11.0") == ["tag-older"], "a larger number does not make a commit newer"
    story.release("staging", 5, "v1.11.1")
    story.hub.git("tag", "--force", "v1.10.0", MAIN)
    assert story.reasons("staging", "v1.10.0") == ["tag-older"], "a tag that was moved after it was deployed"


def test_a_deployment_that_failed_does_not_count_as_what_runs(story: Story) -> None:
    story.release("staging", 3, "v1.0.0")
    story.release("staging", 4, "v1.1.0")
    story.hub.deployed("staging", "v1.1.0", "in_progress", "failure")
    story.hub.deployed("staging", "v1.1.0", task="deploy")  # GitHub's own, of a job with an environment
    assert story.gate("staging", "v1.0.0").facts["runs now"] == "nothing"


# --- the record and its pull request ---------------------------------------------------------------


def test_no_record_and_a_wrong_one(story: Story) -> None:
    story.hub.tag("v1.0.0")
    assert story.reasons("staging", "v1.0.0") == ["record-missing"]
    text = record_text("staging", 3).replace("@sha256:", ":latest-").replace("version: '3'", "version: latest")
    pull = story.propose("staging", 3)
    story.hub.push("ada", {PATH: text}, pull.ref)
    story.hub.check(pull)
    story.hub.review("ben", pull)
    story.hub.merge(pull)
    story.hub.tag("v1.1.0")
    assert story.reasons("staging", "v1.1.0") == ["record-missing"]


def test_a_record_changed_outside_of_a_pull_request(story: Story) -> None:
    story.release("staging", 3, "v1.0.0")
    story.record("staging", 4)
    story.hub.push("ada", {PATH: record_text("staging", 4)})
    story.hub.tag("v1.1.0")
    assert story.reasons("staging", "v1.1.0") == ["record-outside-pull-request"]
    story.hub.push("ada", {PATH: record_text("staging", 3)})
    story.hub.tag("v1.2.0")
    assert story.reasons("staging", "v1.2.0") == ["record-outside-pull-request"], (
        "pushed back to what was approved once"
    )


def test_a_record_that_a_merge_changed_is_not_what_was_approved(story: Story) -> None:
    pull = story.propose("staging", 3)
    story.hub.review("ada", pull)
    story.record("staging", 4)
    story.hub.merge(pull, "squash", {PATH: record_text("staging", 4)})
    story.hub.tag("v1.0.0")
    assert story.reasons("staging", "v1.0.0") == ["record-not-as-approved"]


def test_a_link_is_no_record(story: Story) -> None:
    story.release("production", 3, "v1.0.0")
    link = story.hub.git("hash-object", "-w", "--stdin", given="production.yml")
    tree = story.hub.git("ls-tree", f"{MAIN}:deployments")
    folder = story.hub.git("mktree", given=f"{tree}\n120000 blob {link}\tstaging.yml\n")
    rows = [row for row in story.hub.git("ls-tree", MAIN).splitlines() if not row.endswith("\tdeployments")]
    root = story.hub.git("mktree", given="\n".join([*rows, f"040000 tree {folder}\tdeployments"]) + "\n")
    story.hub.point(f"refs/heads/{MAIN}", story.hub.git("commit-tree", root, "-p", MAIN, "-m", "Link"), "ada")
    story.hub.tag("v1.1.0")
    assert story.reasons("staging", "v1.1.0") == ["record-missing"]


# --- approval --------------------------------------------------------------------------------------


def _unapproved(story: Story, pull: Any) -> None:
    pass


def _by_its_author(story: Story, pull: Any) -> None:
    pull.author = "ada"
    story.hub.review("ada", pull)


def _by_its_last_pusher(story: Story, pull: Any) -> None:
    story.hub.push("ben", {"note.txt": "more\n"}, pull.ref)
    story.hub.check(pull)
    story.hub.review("BEN".lower(), pull)


def _without_write_access(story: Story, pull: Any) -> None:
    story.hub.review("eve", pull)


def _by_somebody_unknown(story: Story, pull: Any) -> None:
    story.hub.review("mallory", pull)


def _by_a_bot(story: Story, pull: Any) -> None:
    story.hub.access["helper[bot]"] = "write"
    story.hub.review("helper[bot]", pull)


def _of_an_earlier_commit(story: Story, pull: Any) -> None:
    story.hub.review("ada", pull)
    story.hub.push("edgeml-bot[bot]", {"note.txt": "more\n"}, pull.ref)
    story.hub.check(pull)


def _dismissed(story: Story, pull: Any) -> None:
    story.hub.review("ada", pull)["state"] = "DISMISSED"


def _only_commented(story: Story, pull: Any) -> None:
    story.hub.review("ada", pull, "COMMENTED")


def _last_pusher_unknown(story: Story, pull: Any) -> None:
    story.hub.activities.clear()
    story.hub.review("ada", pull)


@pytest.mark.parametrize(
    ("happened", "said"),
    [
        (_unapproved, "0 of 1 approvals"),
        (_by_its_author, "ada opened the pull request"),
        (_by_its_last_pusher, "ben pushed the last commit"),
        (_without_write_access, "eve has no write access"),
        (_by_somebody_unknown, "mallory has no write access"),
        (_by_a_bot, "is no person"),
        (_of_an_earlier_commit, "ada approved an earlier commit"),
        (_dismissed, "0 of 1 approvals"),
        (_only_commented, "0 of 1 approvals"),
        (_last_pusher_unknown, "1 of 2 approvals (one more than usual"),
    ],
)
def test_an_approval_that_does_not_count(story: Story, happened: Callable[[Story, Any], None], said: str) -> None:
    pull = story.propose("staging", 3)
    happened(story, pull)
    story.hub.merge(pull)
    story.hub.tag("v1.0.0")
    refusals = story.gate("staging", "v1.0.0").refusals
    assert [refusal.reason for refusal in refusals] == ["not-approved"]
    assert said in refusals[0].cause
    story.hub.review("cleo", pull)
    story.hub.review("ada" if pull.author != "ada" else "ben", pull)
    assert story.reasons("staging", "v1.0.0") == [], "others may still approve it"


def test_changes_that_were_asked_for_later_stand_until_they_are_taken_back(story: Story) -> None:
    pull = story.release("staging", 3, "v1.0.0")
    review = story.hub.review("ben", pull, "CHANGES_REQUESTED")
    story.hub.review("ben", pull, "COMMENTED")
    assert story.reasons("staging", "v1.0.0") == ["changes-requested"]
    review["state"] = "DISMISSED"
    assert story.reasons("staging", "v1.0.0") == []
    story.hub.review("eve", pull, "CHANGES_REQUESTED")
    assert story.reasons("staging", "v1.0.0") == [], "who may not write cannot hold it up"
    story.hub.review("ada", pull, "CHANGES_REQUESTED")
    assert story.reasons("staging", "v1.0.0") == ["changes-requested", "not-approved"]


def test_more_than_one_approval_where_the_settings_ask_for_it(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_SITES_APPROVALS", "2")
    pull = story.release("staging", 3, "v1.0.0")
    story.hub.review("ada", pull)
    assert story.reasons("staging", "v1.0.0") == ["not-approved"]
    story.hub.review("cleo", pull)
    assert story.reasons("staging", "v1.0.0") == []


# --- owners ----------------------------------------------------------------------------------------


def test_an_owner_must_be_among_those_who_approve(story: Story) -> None:
    owners = "* @clinic/all\n/deployments/ @cleo @clinic/release  # both may\n"
    story.hub.push("cleo", {".github/CODEOWNERS": owners})
    pull = story.release("staging", 3, "v1.0.0")
    refusals = story.gate("staging", "v1.0.0").refusals
    assert [refusal.reason for refusal in refusals] == ["owner-missing"]
    assert refusals[0].cause == "none of @cleo, @clinic/release approved deployments/staging.yml in #1"
    story.hub.teams["clinic/release"] = {"ada"}
    assert story.reasons("staging", "v1.0.0") == [], "a member of the team is an owner"
    story.hub.teams.clear()
    story.hub.review("cleo", pull)
    assert story.reasons("staging", "v1.0.0") == []


def test_a_pull_request_cannot_take_its_own_owners_away(story: Story) -> None:
    story.hub.push("cleo", {"docs/CODEOWNERS": "deployments/ @cleo\n"})
    pull = story.propose("staging", 3, **{"docs/CODEOWNERS": "deployments/ @ada\n"})
    story.hub.review("ada", pull)
    story.hub.merge(pull)
    story.hub.tag("v1.0.0")
    assert story.reasons("staging", "v1.0.0") == ["owner-missing"]


@pytest.mark.parametrize("line", ["deployments/ ada", "!deployments/ @ada", "deployments/[a-z]* @ada"])
def test_owners_that_cannot_be_read_are_a_no(story: Story, line: str) -> None:
    story.hub.push("cleo", {"CODEOWNERS": f"{line}\n"})
    story.release("staging", 3, "v1.0.0")
    refusals = story.gate("staging", "v1.0.0").refusals
    assert [refusal.reason for refusal in refusals] == ["no-answer"]
    assert "CODEOWNERS line 1" in refusals[0].cause


# --- checks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], ["checks-missing"]),
        ([("lint", "success")], ["checks-missing"]),
        ([("pass", "skipped")], ["checks-missing"]),
        ([("pass", "failure")], ["checks-red"]),
        ([("pass", "success"), ("lint", "cancelled")], ["checks-red"]),
        ([("pass", "success"), ("lint", "timed_out"), ("scan", None)], ["checks-red", "checks-pending"]),
        ([("pass", None)], ["checks-pending"]),
        ([("pass", "success"), *((f"more-{i}", "success") for i in range(120)), ("last", "failure")], ["checks-red"]),
        ([("pass", "success"), ("docs", "neutral"), ("other", "skipped")], []),
    ],
    ids=lambda value: ",".join(f"{v[0]}-{v[1]}" if isinstance(v, tuple) else v for v in value[:3]) or "none",
)
def test_checks(story: Story, runs: list[tuple[str, str | None]], expected: list[str]) -> None:
    pull = story.release("staging", 3, "v1.0.0")
    story.hub.checks.clear()
    for name, conclusion in runs:
        story.hub.check(pull, name, conclusion)
    assert story.reasons("staging", "v1.0.0") == expected


@pytest.mark.parametrize(
    ("state", "expected"), [("failure", ["checks-red"]), ("pending", ["checks-pending"]), ("success", [])]
)
def test_commit_statuses_count_too(story: Story, state: str, expected: list[str]) -> None:
    pull = story.release("staging", 3, "v1.0.0")
    story.hub.statuses[pull.head] = [{"context": "ci/other", "state": state}]
    assert story.reasons("staging", "v1.0.0") == expected


# --- the image: the other reasons are in test_images.py --------------------------------------------


def test_without_a_way_to_verify_images_the_gate_is_closed(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> images.Images:
        raise EdgemlError("this edgeml cannot verify images; install it with its image parts", 1)

    story.release("staging", 3, "v1.0.0")
    monkeypatch.setattr(images, "default", absent)
    assert [refusal.reason for refusal in decide("staging", "v1.0.0").refusals] == ["no-answer"]


# --- the environment -----------------------------------------------------------------------------


def test_reviewers_of_an_environment_are_told_of_and_not_relied_on(story: Story) -> None:
    pull = story.release("staging", 3, "v1.0.0")
    assert story.gate("staging", "v1.0.0").facts["environment"] == "GitHub asks nobody besides"
    story.hub.environments["staging"] = ["ada", "ben"]
    assert story.gate("staging", "v1.0.0").facts["environment"] == "GitHub asks its reviewers besides"
    story.hub.reviews[pull.number].clear()
    assert story.reasons("staging", "v1.0.0") == ["not-approved"]


# --- the order -------------------------------------------------------------------------------------


def test_the_order_of_sites(story: Story) -> None:
    story.release("staging", 3, "v1.0.0")
    story.release("production", 3, "v1.0.1")
    assert story.reasons("production", "v1.0.1") == ["order"], "staging runs nothing yet"
    story.hub.deployed("staging", "v1.0.0", "in_progress")
    assert story.reasons("production", "v1.0.1") == ["order"], "it began, and did not succeed"
    story.hub.deployed("staging", "v1.0.0")
    assert story.reasons("production", "v1.0.1") == []
    story.release("production", 4, "v1.0.2")
    assert story.reasons("production", "v1.0.2") == ["order"], "staging runs another digest"


def test_a_deployment_off_the_default_branch_proves_nothing(story: Story) -> None:
    story.release("production", 3, "v1.0.0")
    story.hub.push("ada", {PATH: record_text("staging", 3)}, "aside")
    story.hub.tag("v0.9.9", "aside")
    story.hub.deployed("staging", "v0.9.9")
    assert story.reasons("production", "v1.0.0") == ["order"]


def test_a_site_that_is_not_declared_cannot_be_asked_about(story: Story) -> None:
    with pytest.raises(EdgemlError, match="'ward' is none of the sites"):
        story.gate("ward", "v1.0.0")


# --- GitHub itself ---------------------------------------------------------------------------------

LIMITED = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 1800)}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (broken(503, b"{}"), "answers 503"),
        (broken(403, b'{"message": "API rate limit exceeded"}', LIMITED), "rate limit is used up"),
        (broken(429, b'{"message": "slow down"}', {"Retry-After": "90"}), "rate limit is used up"),
        (broken(401, b'{"message": "Bad credentials"}'), "does not accept GITHUB_TOKEN"),
        (broken(403, b'{"message": "Resource not accessible"}'), "may not do GET"),
        (broken(200, b'{"hello": 1}'), "not of the published form"),
        (broken(200, b"<html>"), "not of the published form"),
        (broken(302, b"", {"Location": "https://elsewhere.example/"}), "moved"),
        (broken(0), "does not answer"),
    ],
    ids=["down", "limited", "slow-down", "bad-token", "forbidden", "other-form", "no-json", "redirected", "cut-off"],
)
def test_whatever_goes_wrong_with_github_is_a_no(story: Story, fault: Any, said: str) -> None:
    story.release("staging", 3, "v1.0.0")
    story.hub.faults.append(fault)
    refusals = story.gate("staging", "v1.0.0").refusals
    assert [refusal.reason for refusal in refusals] == ["no-answer"]
    assert said in refusals[0].cause


@pytest.mark.parametrize(
    "path",
    ["/compare/", "/deployments", "/git/trees/", "/git/blobs/", "/commits", "/reviews", "/activity", "/permission",
     "/contents/", "/check-runs", "/status"],
)  # fmt: skip
def test_no_question_may_go_unanswered(story: Story, path: str) -> None:
    story.release("staging", 3, "v1.0.0")
    story.hub.faults.append(broken(500, b"{}", path=path))
    assert "no-answer" in story.reasons("staging", "v1.0.0")


def test_a_short_failure_is_asked_again(story: Story) -> None:
    story.release("staging", 3, "v1.0.0")
    failures = [broken(502, b"{}")(*[""] * 2)] * 2
    story.hub.faults.append(lambda method, path: failures.pop() if failures else None)
    assert story.reasons("staging", "v1.0.0") == []


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GITHUB_TOKEN", "", "GITHUB_TOKEN is not set"),
        ("GITHUB_API_URL", "http://github.example", "is not https"),
        ("GITHUB_API_URL", "http://127.0.0.1.evil.example", "is not https"),
        ("GITHUB_REPOSITORY", "models", "no GitHub repository is named"),
    ],
)
def test_nothing_is_asked_without_a_safe_way(
    story: Story, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(EdgemlError, match=re.escape(said)):
        story.gate("staging", "v1.0.0")
    assert story.hub.requests == []


# --- the command, and the deployments --------------------------------------------------------------


def test_the_command_prints_reasons_and_returns_them(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    pull = story.propose("staging", 3)
    story.hub.merge(pull)
    story.hub.tag("v1.0.0")
    assert main(["gate", "staging", "--ref", "v1.0.0"]) == 1
    shown = capsys.readouterr().out
    assert "v1.0.0 may not deploy to staging" in shown
    assert "not-approved: #1 has 0 of 1 approvals\n    have it approved by somebody else" in shown
    story.hub.review("ada", pull)
    assert main(["gate", "staging", "--ref", "v1.0.0", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["allowed"], document["reasons"], document["facts"]["pull requests"]) == (True, [], "#1")


def test_what_runs_is_kept_as_deployments(story: Story) -> None:
    story.release("staging", 3, "v1.0.0")
    repository = github.connect()
    assert running.at(repository, "staging") is None
    number = running.begin(repository, "staging", "v1.0.0", story.record("staging", 3))
    assert running.at(repository, "staging") is None
    running.finish(repository, number, "success", "serves")
    now = running.at(repository, "staging")
    assert now is not None
    assert (now.tag, now.commit) == ("v1.0.0", story.hub.sha("v1.0.0"))


def test_every_reason_is_tested_and_documented() -> None:
    here = "".join(Path(__file__).with_name(name).read_text() for name in ("test_gate.py", "test_images.py"))
    assert [reason.id for reason in reasons.REASONS if f'"{reason.id}"' not in here] == []
    page = (Path(__file__).parents[2] / "docs/promotion.md").read_text()
    assert reasons.table() in page, f"docs/promotion.md should hold:\n{reasons.table()}"
