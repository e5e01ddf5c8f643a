"""Promotion and rollback: one pull request, of one file, with the evidence; made by the Git data API alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from edgeml.cli import main
from edgeml.errors import EdgemlError
from edgeml.gitops import remote
from edgeml.gitops.images import Image
from edgeml.gitops.promote import promote
from edgeml.gitops.proposal import Outcome
from edgeml.gitops.rollback import rollback
from tests.gitops.conftest import Story, broken, record_text
from tests.gitops.hub import BOT, MAIN
from tests.release_builder import read_json

IMAGE = f"registry.example/scoring@sha256:{'9' * 64}"
OTHER = f"registry.example/scoring@sha256:{'8' * 64}"


@pytest.fixture
def here(story: Story, trained: Path) -> Story:
    """The story, told in a project that trained and registered two models."""
    shutil.rmtree(".edgeml")
    shutil.copytree(trained, ".edgeml", symlinks=True)
    return story


def labelled(story: Story, outcome: Outcome, site: str = "staging") -> None:
    """Put the image of a proposed record into the registry, as `edgeml package` does before."""
    story.shelf.put(remote.read({outcome.proposal.path: outcome.proposal.text}, site))


def promoted(story: Story, reference: str = "train-good", image: str = IMAGE) -> Outcome:
    labelled(story, promote(reference, image=image, dry_run=True))
    return promote(reference, image=image)


def test_a_run_becomes_one_pull_request_of_one_file(here: Story) -> None:
    outcome = promoted(here)
    pull = here.hub.pulls[0]
    assert (outcome.action, outcome.number, pull.author, pull.ref) == ("opened", 1, BOT, "edgeml/promote/staging")
    assert pull.title == "Promote breast-cancer:1 to staging"
    assert here.hub.git("diff", "--name-only", MAIN, pull.head) == "deployments/staging.yml"
    assert here.hub.git("rev-list", "--count", f"{MAIN}..{pull.head}") == "1"
    record = remote.read({outcome.proposal.path: here.hub.show(pull.head, outcome.proposal.path) or ""}, "staging")
    released = (Path(".edgeml/runs/train-good/outputs/release")).resolve()
    assert record.evidence["data"] == read_json(released / "lineage.json")["data"]["fingerprint"]
    assert record.evidence["metrics"] == read_json(released / "metrics.json")["metrics"]
    assert (record.image, record.model, record.evidence["commit"]) == (IMAGE, "breast-cancer:1", here.hub.sha(MAIN))
    made = [(method, path.split("/models")[1]) for method, path in here.hub.requests if method != "GET"]
    steps = [
        "/git/blobs",
        "/git/trees",
        "/git/commits",
        "/git/refs/heads/edgeml/promote/staging",
        "/git/refs",
        "/pulls",
    ]
    assert [path for _, path in made] == steps


def test_the_evidence_is_there_and_nothing_else(here: Story) -> None:
    body = promoted(here).proposal.body
    promotion = read_json(Path(".edgeml/runs/train-good/outputs/release/promotion.json"))
    for part in ("Champion against challenger", "Slices", "Data since the champion", "Gates", "Image", "Lineage"):
        assert f"### {part}" in body
    assert "| `ROC AUC` | 0.984 [0.970, 0.995] | 0.989 [0.974, 0.998] |" in body
    assert re.search(r"ROC AUC +0\.970 +0\.998\n  champion +├─+●─+┤\n  challenger +├─+●─+┤", body)
    assert "Difference in `ROC AUC` on the same test rows: **+0.0056 [+0.0006, +0.0116]**" in body
    assert all(f"`{check['name']}` | passed" in body for check in promotion["checks"])
    assert "mean_radius lowest quarter" in body
    assert here.hub.sha(MAIN) in body
    assert "egress | released | 9 files" in body
    assert len(body) < 10_000


def test_a_second_call_changes_nothing_and_a_changed_one_updates(here: Story) -> None:
    first = promoted(here)
    here.hub.review("ada", here.hub.pulls[0])
    before = len(here.hub.activities)
    again = promote("train-good", image=IMAGE)
    assert (again.action, again.number, again.commit) == ("unchanged", 1, first.commit)
    here.hub.push("cleo", {"README.md": "Something else.\n"})
    assert promote("train-good", image=IMAGE).action == "unchanged", "an approval is not made stale for nothing"
    assert len(here.hub.activities) == before + 1
    here.hub.pulls[0].title = "Renamed"
    assert promote("train-good", image=IMAGE).action == "updated"
    assert here.hub.pulls[0].title == "Promote breast-cancer:1 to staging"
    changed = promoted(here, image=OTHER)
    assert (changed.action, changed.number, len(here.hub.pulls)) == ("updated", 1, 1)
    assert changed.commit == here.hub.pulls[0].head != first.commit
    assert OTHER in here.hub.pulls[0].body


def test_what_others_did_to_the_branch_does_not_stay(here: Story) -> None:
    promoted(here)
    here.hub.push("mallory", {"edgeml.toml": "[sites]\norder = []\n"}, "edgeml/promote/staging")
    assert promote("train-good", image=IMAGE).action == "updated"
    assert here.hub.git("diff", "--name-only", MAIN, here.hub.pulls[0].head) == "deployments/staging.yml"


def test_it_is_killed_anywhere_and_called_again(here: Story) -> None:
    labelled(here, promote("train-good", image=IMAGE, dry_run=True))
    for step in ("/git/trees", "/git/commits", "/git/refs", "/pulls"):
        here.hub.faults.append(
            lambda method, path, step=step: (500, b"{}") if method == "POST" and path.endswith(step) else None
        )
        with pytest.raises(EdgemlError, match="answers 500"):
            promote("train-good", image=IMAGE)
        here.hub.faults.clear()
    assert promote("train-good", image=IMAGE).action == "opened"
    assert len(here.hub.pulls) == 1


def test_two_at_once_open_one(here: Story) -> None:
    """The other run opens the pull request between our look and our request."""
    labelled(here, promote("train-good", image=IMAGE, dry_run=True))

    def other(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/pulls") and not here.hub.pulls:
            here.hub.open(BOT, "edgeml/promote/staging", "Promote breast-cancer:1 to staging", "")

    here.hub.faults.append(other)
    assert (promote("train-good", image=IMAGE).action, len(here.hub.pulls)) == ("updated", 1)


def test_an_approved_promotion_goes_through_the_gate_and_on_to_the_next_site(here: Story) -> None:
    promoted(here)
    with pytest.raises(EdgemlError, match="staging runs nothing yet"):
        promote(site="production")
    pull = here.hub.pulls[0]
    here.hub.check(pull)
    here.hub.review("ada", pull)
    here.hub.merge(pull, "squash")
    assert promote("train-good", image=IMAGE).action == "none"
    here.hub.tag("v1.0.0")
    assert here.reasons("staging", "v1.0.0") == []
    here.hub.deployed("staging", "v1.0.0")
    with pytest.raises(EdgemlError, match="staging runs breast-cancer:1, not breast-cancer:2"):
        promote("breast-cancer:2", "production")
    on = promote(site="production", kind="kubernetes")
    assert (on.action, on.number, on.proposal.path) == ("opened", 2, "deployments/production.yml")
    assert "It is what `staging` runs" in on.proposal.body
    record = remote.read({on.proposal.path: on.proposal.text}, "production")
    assert (record.kind, record.image) == ("kubernetes", IMAGE)
    pull = here.hub.pulls[1]
    here.hub.check(pull)
    here.hub.review("ben", pull)
    here.hub.merge(pull)
    here.hub.tag("v1.1.0")
    assert here.reasons("production", "v1.1.0") == []


def test_a_registry_that_counts_anew_is_not_believed(here: Story) -> None:
    """The number of another release would be reviewed, and read later, as if it were that release."""
    here.hub.push("ben", {"deployments/staging.yml": record_text("staging", 1)}, MAIN)
    with pytest.raises(EdgemlError, match="staging has another breast-cancer:1 already") as refused:
        promote("train-good", image=IMAGE)
    assert refused.value.exit_code == 1
    assert here.hub.pulls == []


def test_a_record_keeps_what_is_the_sites_own(here: Story) -> None:
    here.hub.push("cleo", {"deployments/staging.yml": "# Ours.\n" + record_text("staging", 3, rollout="{cpus: 2}")})
    here.hub.push("cleo", {"deployments/base.yml": "rollout: {cpus: 1}\n"})
    shutil.rmtree("deployments", ignore_errors=True)
    labelled(here, promote("train-good", image=IMAGE, dry_run=True))
    outcome = promote("train-good", image=IMAGE)
    assert outcome.proposal.text.startswith(
        "# Ours.\nsite: staging\nkind: edge-vm\nmodel: {name: breast-cancer, version: '1'}"
    )
    assert outcome.proposal.text.endswith("rollout: {cpus: 2}\n")
    assert "in place of `breast-cancer:3`" in outcome.proposal.body


def test_a_new_site_takes_up_the_base(here: Story) -> None:
    here.hub.push("cleo", {"deployments/base.yml": "kind: kubernetes\nrollout: {replicas: 2}\n"})
    labelled(here, promote("train-good", image=IMAGE, dry_run=True))
    text = promote("train-good", image=IMAGE).proposal.text
    assert "base: base.yml\nsite: staging\nkind: kubernetes\n" in text


def test_an_override_is_shown_and_cannot_write_markdown(here: Story) -> None:
    outcome = promoted(here, "breast-cancer:2")
    assert "| override | **against the verdict** | by `" in outcome.proposal.body
    assert "`agreed with \\| the 'officer' @all`" in outcome.proposal.body
    assert "promote: false, override: agreed with | the `officer` @all, approver: " in outcome.proposal.text


def _unregistered(story: Story) -> str:
    shutil.rmtree(".edgeml/runs/train-poor")
    Path(".edgeml/mlflow.db").unlink()
    return "train-good"


def _dirty(story: Story) -> str:
    import sqlite3

    with sqlite3.connect(".edgeml/mlflow.db") as database:
        database.execute("UPDATE model_version_tags SET value = 'true' WHERE key = 'git.dirty'")
    return "train-good"


def _off_main(story: Story) -> str:
    commit = story.hub.push("ada", {"x": "y\n"}, "aside")
    import sqlite3

    with sqlite3.connect(".edgeml/mlflow.db") as database:
        database.execute("UPDATE model_version_tags SET value = ? WHERE key = 'git.commit'", (commit,))
    return "train-good"


def _no_release(story: Story) -> str:
    shutil.rmtree(Path(".edgeml/runs/train-good/outputs/release").resolve())
    return "train-good"


def _tampered(story: Story) -> str:
    file = next(Path(".edgeml/models").glob("*/metrics.json"))
    for each in Path(".edgeml/models").glob("*/metrics.json"):
        each.write_text(file.read_text().replace("0.9", "0.8"))
    return "breast-cancer:1"


@pytest.mark.parametrize(
    ("happened", "said"),
    [
        (_unregistered, "is not registered"),
        (_dirty, "was not trained from a clean commit"),
        (_off_main, "which is not on main; merge first"),
        (_no_release, "released nothing"),
        (_tampered, "is not what the egress gate released"),
        (lambda story: "breast-cancer:9", "has no version 9"),
        (lambda story: "train-nobody", "there is no run"),
    ],
)
def test_what_may_not_be_promoted(here: Story, happened: object, said: str) -> None:
    reference = happened(here)  # type: ignore[operator]
    with pytest.raises(EdgemlError, match=re.escape(said)):
        promote(reference, image=IMAGE)
    assert here.hub.pulls == []


def test_an_image_that_could_never_be_deployed_is_not_proposed(here: Story) -> None:
    with pytest.raises(EdgemlError, match="has no image yet"):
        promote("train-good")
    with pytest.raises(EdgemlError, match="the registry has no registry"):
        promote("train-good", image=IMAGE)
    here.shelf.images[IMAGE] = Image({}, 1)
    with pytest.raises(EdgemlError, match=r"its label org\.opencontainers\.image\.revision is missing"):
        promote("train-good", image=IMAGE)
    with pytest.raises(EdgemlError, match=r"'image' is 'registry.example/scoring:3'; name the image by digest"):
        promote("train-good", image="registry.example/scoring:3")
    assert here.hub.pulls == []


def test_what_packaging_pushed_and_measured_is_taken_up(here: Story) -> None:
    import sqlite3

    with sqlite3.connect(".edgeml/mlflow.db") as database:
        row = ("breast-cancer", 1, "image.reference", IMAGE)
        database.execute("INSERT INTO model_version_tags (name, version, key, value) VALUES (?, ?, ?, ?)", row)
    kept = {"layers": [{"bytes": 150_000_000}, {"bytes": 400_000}], "proof": {"p99_ms": 1.84}}
    Path(".edgeml/image").mkdir()
    Path(".edgeml/image/breast-cancer-1.json").write_text(json.dumps(kept))
    proposal = promote("train-good", dry_run=True).proposal
    assert f"image: {IMAGE}\n" in proposal.text
    assert "| size | 150.4 MB |\n| latency, one row, 99th percentile | 1.84 ms |" in proposal.body


def test_the_command_and_its_dry_run_without_a_token(
    here: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled(here, promote("train-good", image=IMAGE, dry_run=True))
    assert main(["promote", "train-good", "--image", IMAGE]) == 0
    assert capsys.readouterr().out.startswith("#1 opened: Promote breast-cancer:1 to staging\nhttps://")
    assert main(["promote", "--image", IMAGE, "breast-cancer:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["action"] == "unchanged"
    monkeypatch.delenv("GITHUB_TOKEN")
    assert main(["promote", "train-good", "--image", IMAGE, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "--- deployments/staging.yml\n# What must run at staging" in shown
    assert main(["promote", "train-good", "--image", IMAGE]) == 2
    assert "GITHUB_TOKEN is not set" in capsys.readouterr().err


def test_a_token_without_the_right_is_told_so(here: Story) -> None:
    labelled(here, promote("train-good", image=IMAGE, dry_run=True))
    here.hub.faults.append(broken(403, b'{"message": "Resource not accessible by integration"}', path="/git/blobs"))
    with pytest.raises(EdgemlError, match=r"may not do POST .*/git/blobs .*give it that permission"):
        promote("train-good", image=IMAGE)


# --- going back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["merge", "squash"])
def test_a_rollback_proposes_the_record_before(story: Story, method: str) -> None:
    story.release("staging", 3, "v1.0.0", method)
    story.release("staging", 4, "v1.1.0", method)
    outcome = rollback("staging")
    assert (outcome.action, story.hub.pulls[-1].title) == ("opened", "Roll staging back to breast-cancer:3")
    assert outcome.proposal.text == record_text("staging", 3)
    assert "| `model.version` | `4` | `3` |" in outcome.proposal.body
    assert rollback("staging").action == "unchanged"


def test_a_second_rollback_goes_further_back_and_not_to_the_fault(story: Story) -> None:
    for model in (2, 3, 4):
        story.release("staging", model, f"v1.{model}.0")
    for expected in ("3", "2"):
        rollback("staging")
        pull = story.hub.pulls[-1]
        story.hub.check(pull)
        story.hub.review("ada", pull)
        story.hub.merge(pull)
        tag = f"v2.{9 - int(expected)}.0"
        story.hub.tag(tag)
        decision = story.gate("staging", tag)
        assert (decision.refusals, decision.facts["model"]) == ([], f"breast-cancer:{expected}")
    with pytest.raises(EdgemlError, match="nothing to go back to"):
        rollback("staging")


def test_there_must_be_something_to_go_back_to(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollback", "staging"]) == 1
    assert "deployments/staging.yml does not exist" in capsys.readouterr().err
    story.release("staging", 3, "v1.0.0")
    assert main(["rollback", "staging"]) == 1
    assert "there is nothing to go back to" in capsys.readouterr().err
    story.release("staging", 4, "v1.1.0")
    assert main(["rollback", "staging", "--dry-run"]) == 0
    assert "Roll staging back to breast-cancer:3" in capsys.readouterr().out
    assert len(story.hub.pulls) == 2
