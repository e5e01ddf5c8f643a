"""`edgeml init`: a fork gets names of its own, keeps what its team changed, and is told what will not do."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.infra import names, target, template
from tests.conftest import ROOT
from tests.fork.button import git
from tests.fork.conftest import commit, write

Edgeml = Callable[..., tuple[int, str, str]]
ANSWERS = {
    "name": "ward-models",
    "owner": "@clinic/ml",
    "data-officer": "@dora",
    "location": "westeurope",
    "tenant": "11111111-1111-1111-1111-111111111111",
    "subscription": "22222222-2222-2222-2222-222222222222",
    "resource-group": "rg-ward",
    "stack-hub": "https://management.local.clinic.example",
    "template": "https://git.example/edgeml.git",
}
FLAGS = [word for key, value in ANSWERS.items() for word in (f"--{key}", value)]
SITES = ["deployments/staging.yml", "deployments/production.yml"]
WRITTEN = {
    ".template.json",
    "infra/azure/parameters.json",
    "infra/stack-hub/parameters.json",
    "edgeml.toml",
    ".github/CODEOWNERS",
    "README.md",
}


def parameters(root: Path, part: str) -> dict[str, object]:
    return template.values_of(root / "infra" / part / "parameters.json")


def left_over(root: Path) -> list[str]:
    """What of the template's own names, and which placeholders, a fork's own files still hold."""
    cloud = parameters(root, "azure")
    names_of_it = ("workspace", "storageAccount", "vault", "registry", "owner", "repository")
    found = [f"infra/azure/parameters.json: {key}" for key in names_of_it if cloud[key] in ("", "edgeml")]
    if parameters(root, "stack-hub")["storageAccount"] == "":
        found.append("infra/stack-hub/parameters.json: storageAccount")
    if (root / "README.md").read_text().startswith("# edgeml\n"):
        found.append("README.md: title")
    found += [path for path in (".github/CODEOWNERS", ".template.json") if not (root / path).is_file()]
    for path in ("edgeml.toml", ".github/CODEOWNERS", ".template.json", "infra/github/repository.yml"):
        text = re.sub(r"#.*", "", (root / path).read_text() if (root / path).is_file() else "")
        found += [f"{path}: {mark}" for mark in re.findall(r"<[^<>\n]+>|TODO|FIXME|CHANGE_?ME|\bx{3,}\b", text)]
    return found


def test_a_fork_begins_under_a_name_of_its_own(whole: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml) -> None:
    monkeypatch.chdir(whole)
    assert len(left_over(whole)) == 10, "the copy is the template's before"
    code, said, errors = edgeml("init", "--yes", *FLAGS, "--json")
    assert code == 0, errors
    done = {one["path"]: one["action"] for one in json.loads(said)}
    assert set(done) == WRITTEN | set(SITES) and all(done[site] == "later" for site in SITES)
    assert left_over(whole) == []

    cloud = parameters(whole, "azure")
    assert (cloud["owner"], cloud["repository"], cloud["location"]) == ("Clinic", "Ward", "westeurope")
    assert (cloud["workspace"], cloud["storageAccount"], cloud["registry"]) == (
        "ward-models",
        "wardmodelsml",
        "wardmodelsimages",
    )
    assert cloud["siteEnvironments"] == ["staging", "production"]
    settings = tomllib.loads((whole / "edgeml.toml").read_text())
    assert settings["azure"] == {
        "tenant_id": ANSWERS["tenant"],
        "client_id": "",
        "subscription_id": ANSWERS["subscription"],
        "resource_group": "rg-ward",
        "workspace": "ward-models",
    }
    assert settings["stackhub"]["arm_url"] == ANSWERS["stack-hub"]
    before = git(whole, "show", "HEAD:edgeml.toml")
    comments = re.findall(r"#.*", before)
    assert comments and comments == re.findall(r"#.*", (whole / "edgeml.toml").read_text()), "comments stay"
    owners = (whole / ".github/CODEOWNERS").read_text()
    assert "\n* @clinic/ml\n" in owners and "\n/contracts/ @dora\n" in owners
    assert json.loads((whole / ".template.json").read_text()) == {
        "tree": git(whole, "rev-parse", "HEAD^{tree}"),
        "source": ANSWERS["template"],
    }

    place = template.Place(ANSWERS["subscription"], "rg-ward", "westeurope", ANSWERS["tenant"])
    target.judge("azure", template.load(whole / "infra/azure/main.json"), cloud, place)
    assert edgeml("check")[::2] == (0, "nothing found\n")
    state = git(whole, "status", "--porcelain"), git(whole, "diff")
    done = {one["path"]: one["action"] for one in json.loads(edgeml("init", "--yes", *FLAGS, "--json")[1])}
    assert {done[path] for path in WRITTEN} == {"same"}, "again, and nothing is written"
    assert {one["action"] for one in json.loads(edgeml("init", "--yes", "--json")[1])} == {"same", "later"}, (
        "as it knows"
    )
    assert (git(whole, "status", "--porcelain"), git(whole, "diff")) == state


def test_this_repository_is_the_template_or_a_fork_that_has_begun() -> None:
    """In a fork this holds the fork's own files: `edgeml init` was run, and nothing of the template's name is left."""
    assert (ROOT / ".template.json").is_file() == (not left_over(ROOT)), left_over(ROOT)


def test_what_the_team_changed_is_kept(whole: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml) -> None:
    monkeypatch.chdir(whole)
    write(whole, "README.md", "# The ward's models\n")
    write(whole, ".github/CODEOWNERS", "* @somebody\n")
    file = whole / "infra/azure/parameters.json"
    file.write_text(
        file.read_text().replace('"vault": { "value": "" }', '"vault": {"value" :  "our-vault"}')
        .replace('"owner": { "value": "" }', '"owner":{\n"value":""}')
    )  # fmt: skip
    settings = whole / "edgeml.toml"
    settings.write_text(settings.read_text().replace('workspace = ""', "workspace = 'ours'  # since 2024"))
    commit(whole, "Changes before anything else")
    done = {one["path"]: one for one in json.loads(edgeml("init", "--yes", *FLAGS, "--json")[1])}
    assert (whole / "README.md").read_text() == "# The ward's models\n"
    assert (whole / ".github/CODEOWNERS").read_text() == "* @somebody\n"
    assert {done[path]["action"] for path in ("README.md", ".github/CODEOWNERS")} == {"kept"}
    assert (
        '"vault": {"value" :  "our-vault"}' in file.read_text() and '"owner":{\n"value":"Clinic"}' in file.read_text()
    )
    assert done["infra/azure/parameters.json"]["what"].endswith("yours: vault")
    assert "workspace = 'ours'  # since 2024" in settings.read_text()
    assert done["edgeml.toml"]["what"].endswith("yours: azure.workspace")
    assert json.loads((whole / ".template.json").read_text())["tree"] == git(whole, "rev-parse", "HEAD~1^{tree}")


REFUSED = [
    ("name", "Ward", "for 'W' at place 1"),
    ("name", "ward_7", "for '_' at place 5"),
    ("name", "wärd", "for 'ä' at place 2"),
    ("name", "ward-", "from a letter to a letter or digit"),
    ("name", "wa--rd", "single -"),
    ("name", "7ward", "from a letter"),
    ("name", "wa", "3 to 20"),
    ("name", "w" * 21, "3 to 20"),
    ("name", "", "--name is needed"),
    ("name", "ward\n", r"for '\n' at place 5"),
    ("owner", "clinic", "takes @NAME"),
    ("owner", "@clinic/ml team", "for ' ' at place 11"),
    ("owner", "@a @b", "for ' ' at place 3"),
    ("location", "West Europe", "for 'W' at place 1"),
    ("location", "west europe", "for ' ' at place 5"),
    ("tenant", "contoso", "for 'o' at place 2"),
    ("subscription", "1234", "a GUID"),
    ("resource-group", "rg.", "no . at its end"),
    ("resource-group", "rg/x", "for '/' at place 3"),
    ("repository", "ward", "OWNER/NAME"),
    ("stack-hub", "http://management.local.clinic.example", "https://management.REGION.FQDN"),
    ("template", "https://user:hush@git.example/x.git", "without a credential"),
    ("template", "ext::sh -c x", "for ' ' at place 8"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED, ids=[f"{key}={value}" for key, value, _ in REFUSED])
def test_a_name_that_will_not_do_is_refused_before_anything_is_written(
    seed: tuple[Path, Path], key: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml
) -> None:
    monkeypatch.chdir(seed[1])
    answers = {"name": "ward", "owner": "@clinic"} | {key: value}
    code, _, errors = edgeml("init", "--yes", *(word for item in answers.items() for word in (f"--{item[0]}", item[1])))
    assert (code, errors.count("\n")) == (2, 1) and message in errors, errors
    assert git(seed[1], "status", "--porcelain") == ""


def test_every_name_that_is_taken_makes_names_that_azure_takes() -> None:
    from edgeml.fork import answers

    for name in ("abc", "a-b", "w" * 20, "a1-b2-c3-d4-e5-f6-g7"):
        assert answers.judge("name", name) == ""
        made = answers.named(name)
        assert [names.wrong(answers.NAMED[key][0], made[key]) for key in made] == [""] * len(made)
    for text in ("My Ward.Models", "2024-ward", "Ünïcode_ward", "x" * 50):
        assert answers.judge("name", answers.slug(text)) == ""


def test_where_nobody_can_be_asked_the_flag_is_named(
    small: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml
) -> None:
    monkeypatch.chdir(small[1])
    assert edgeml("init", "--owner", "@clinic")[2].startswith("edgeml: --name is needed: name of the project")
    assert edgeml("init", "--yes")[2].startswith("edgeml: --owner is needed"), "no remote says whose it is"
    assert git(small[1], "status", "--porcelain") == ""
    git(small[1], "remote", "add", "origin", "git@github.com:clinic/Ward.git")
    assert edgeml("init", "--yes")[0] == 0
    assert "\n* @clinic\n" in (small[1] / ".github/CODEOWNERS").read_text()


def test_a_person_is_asked_in_a_terminal_and_again_where_it_will_not_do(small: tuple[Path, Path]) -> None:
    fork = small[1]
    keyboard, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "edgeml", "init", "--location", "westeurope"]
    with subprocess.Popen(
        command, cwd=fork, env=environment, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asked:
        os.write(keyboard, b"Ward\nward\n@clinic/ml\n\n\n\n\n\n\n\n")
        out, errors = asked.communicate(timeout=60)
    os.close(terminal)
    os.close(keyboard)
    assert asked.returncode == 0, errors
    assert "[fork]: " in errors and "for 'W' at place 1" in errors and "region in Azure" not in errors
    assert "\n* @clinic/ml\n" in (fork / ".github/CODEOWNERS").read_text()
    assert (fork / "README.md").read_text() == "# ward\n\nSample.\n"
    assert "made      .template.json" in out and "next    git diff" in out


def test_outside_of_a_fork_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml) -> None:
    monkeypatch.chdir(tmp_path)
    assert edgeml("init", "--yes", "--name", "ward")[2] == (
        "edgeml: there is no edgeml.toml here; run this in a fork of the template\n"
    )


def test_files_that_are_broken_are_named(whole: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml) -> None:
    monkeypatch.chdir(whole)
    write(whole, "infra/azure/parameters.json", "{")
    assert "infra/azure/parameters.json is no file of ARM parameters" in edgeml("init", "--yes", *FLAGS)[2]
    git(whole, "checkout", "--quiet", "infra")
    write(whole, "edgeml.toml", "[storage\n")
    assert "edgeml.toml is not valid TOML" in edgeml("init", "--yes", *FLAGS)[2]
    git(whole, "checkout", "--quiet", ".")
    assert edgeml("init", "--yes", *FLAGS)[0] == 0, "and once they are mended it goes on"
    assert left_over(whole) == []


def test_the_page_shows_what_it_prints(whole: Path, monkeypatch: pytest.MonkeyPatch, edgeml: Edgeml) -> None:
    monkeypatch.chdir(whole)
    page = (ROOT / "docs/setup.md").read_text()
    shown = re.search(r"```sh\nedgeml (init [^\n]*)\n```\n\n```text\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    said = edgeml(*shown[1].split())[1].partition("\n\n")[0]
    assert re.sub(r"(has, )[0-9a-f]{12}", r"\g<1>3f0c…", said) == shown[2].strip()
