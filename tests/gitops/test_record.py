"""Records: read by the rules of `edgeml check`, changed with a minimal diff, compared by value."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.errors import EdgemlError
from edgeml.gitops import record, remote, tag
from tests.gitops.conftest import record_text

COMMENTED = """\
# The ward. Ask Ada before you touch it.
base: base.yml
site: ward

# Two of them, since the night shift.
rollout: {replicas: 2, health_seconds: 60}  # agreed in May
model:
  name: breast-cancer
  version: '3'   # the old one
# The image comes from our own registry.
image: registry.example/scoring@sha256:3333333333333333333333333333333333333333333333333333333333333333
# The end.
"""


def read(**texts: str) -> record.Record:
    return remote.read({f"deployments/{name}.yml": text for name, text in texts.items()}, "ward")


def test_a_record_has_what_its_bases_have_and_its_own_wins() -> None:
    base = record_text("base", 3).replace("site: base\n", "")
    made = read(base=base, ward="base: base.yml\nsite: ward\nkind: kubernetes\nrollout: {replicas: 2, cpus: 0.5}\n")
    assert (made.site, made.kind, made.model, made.digest) == (
        "ward",
        "kubernetes",
        "breast-cancer:3",
        "sha256:" + "3" * 64,
    )
    assert made.rollout == {"replicas": 2, "cpus": 0.5}
    assert made.evidence["metrics"]["roc_auc"] == {"value": 0.99, "low": 0.98, "high": 1.0}
    assert made.files == ("deployments/ward.yml", "deployments/base.yml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("version: '3'", "version: latest"), r"deployments/ward.yml:3: 'version' is 'latest'.*\[record-version\]"),
        (("kind: edge-vm", "kind: toaster"), "none of edge-vm"),
        (("site: ward", "site: clinic"), "record-site"),
        (("job: train-3\n", "job: ${{parent.job}}\n"), "no plain value"),
        (("model: {name: breast-cancer, version: '3'}", "model: "), "is empty"),
        (("image:", "imgae:"), "has no 'image'"),
        (("value: 0.99", "value: 0.9"), "outside of its interval"),
        (("promote: true", "promote: false"), "record-evidence"),
        (("site: ward", "site: ward\nbase: ../../etc/passwd"), "name a file beside it"),
        (("site: ward", "site: ward\nbase: ward.yml"), "leads back"),
        (("site: ward", "site: !!python/name:os.system ward"), "yaml-tag"),
        (("site: ward", "site: ward\nsite: ward"), "yaml-duplicate-key"),
        (("site: ward", "\tsite: ward"), "yaml-syntax"),
    ],
)
def test_what_the_rules_refuse_cannot_be_read(change: tuple[str, str], said: str) -> None:
    with pytest.raises(EdgemlError, match=said):
        read(ward=record_text("ward", 3).replace(*change, 1))


@pytest.mark.parametrize("site", ["", "../ward", "Ward", "-x", "a/b", "w" * 64])
def test_a_site_is_a_plain_name(site: str, tmp_path: Path) -> None:
    with pytest.raises(EdgemlError, match="no name of a site"):
        record.read(str(tmp_path), site)


def test_a_change_leaves_every_other_line_and_its_remarks() -> None:
    base = record_text("base", 3).replace("site: base\n", "")
    before = read(base=base, ward=COMMENTED)
    image = before.image.replace("3", "4")
    model = {"name": "breast-cancer", "version": "4"}
    text = record.changed(COMMENTED, before, {"model": model, "image": image, "evidence": before.evidence})
    diff = list(difflib.unified_diff(COMMENTED.splitlines(), text.splitlines(), n=0, lineterm=""))[2:]
    assert [line for line in diff if not line.startswith("@@")] == [
        "-model:",
        "-  name: breast-cancer",
        "-  version: '3'   # the old one",
        "+model: {name: breast-cancer, version: '4'}",
        f"-image: {before.image}",
        f"+image: {image}",
    ]
    after = read(base=base, ward=text)
    assert after.differences(before) == {"model.version": ("3", "4"), "image": (before.image, image)}
    assert record.changed(text, after, after.values) == text, "nothing to change, nothing changed"


def test_a_new_record_is_of_the_one_form_and_reads_back() -> None:
    wanted = read(ward=record_text("ward", 7, rollout="{health_seconds: 60}"))
    text = record.changed("", None, wanted.values)
    assert text.splitlines()[0].startswith("# What must run at ward")
    assert "    roc_auc: {value: 0.99, low: 0.98, high: 1.0}\n  verdict: {promote: true}\n" in text
    assert read(ward=text) == wanted
    assert max(map(len, text.splitlines())) <= 120


words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).map(str.strip)
plain = words.filter(lambda text: text and "${{" not in text and text.lower() not in ("null", "~"))
numbers = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:.6g}"))


@settings(max_examples=40, deadline=None)
@given(plain, plain, st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), numbers, max_size=4))
def test_whatever_a_record_says_reads_back(job: str, why: str, metrics: dict[str, float]) -> None:
    before = read(ward=record_text("ward", 3))
    evidence = before.evidence | {
        "job": job,
        "metrics": {name: {"value": value, "low": value - 1, "high": value + 1} for name, value in metrics.items()},
        "verdict": {"promote": False, "override": why, "approver": job},
    }
    text = record.changed(record_text("ward", 3), before, {"evidence": evidence})
    assert read(ward=text).evidence == evidence


@given(st.tuples(*[st.integers(0, 999_999)] * 3), st.tuples(*[st.integers(0, 999_999)] * 3))
def test_tags_are_ordered_as_numbers(one: tuple[int, int, int], other: tuple[int, int, int]) -> None:
    first, second = tag.parse(str(tag.Tag(*one))), tag.parse(f"refs/tags/{tag.Tag(*other)}")
    assert first is not None
    assert second is not None
    assert (first < second) == (one < other)
