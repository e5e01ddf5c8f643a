"""The repository itself: what a fork would trip over, the command's manners, the settings."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

from edgeml import cli, settings
from edgeml.errors import EdgemlError

ROOT = Path(__file__).resolve().parent.parent


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        try:
            found.append((path, path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    assert len(found) > 50
    return found


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    hosts = "|".join(
        ["pypi" + r"\.org", "pythonhosted" + r"\.org", r"registry\.npmjs" + r"\.org", "deb" + r"\.debian\.org"]
    )
    forbidden = re.compile(rf"{hosts}|/root/[a-z]|/home/(?!edgeml|trainer)[a-z]|\.\./sha" + "red/")
    assert [f"{path.relative_to(ROOT)}: {m[0]}" for path, text in texts() if (m := forbidden.search(text))] == []


def test_python_files_stay_readable_in_length() -> None:
    long = [str(path) for path, text in texts() if path.suffix == ".py" and text.count("\n") > 600]
    assert long == []


def locked(path: str) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (ROOT / path).read_text(), re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    assert pins
    return pins


@pytest.mark.parametrize("lock", ["requirements/runtime.lock", "environments/training/requirements.lock"])
def test_the_locks_agree(lock: str) -> None:
    everything = locked("requirements/dev.lock")
    differing = {
        name: versions for name, versions in locked(lock).items() if not versions <= everything.get(name, set())
    }
    assert differing == {}


@pytest.mark.parametrize("lock", ["runtime", "dev", "installer"])
def test_every_locked_package_has_hashes(lock: str) -> None:
    text = (ROOT / f"requirements/{lock}.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_every_dependency_says_why_it_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[\[=<>~ ]", item)[0] for item in listed} - {"edgeml"}
    explained = (ROOT / "docs/dependencies.md").read_text()
    assert {name for name in names if name not in explained and not name.startswith("types-")} == set()


@pytest.mark.parametrize("verb", cli.VERBS)
def test_each_verb_explains_itself_with_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([verb, "--help"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert f"  edgeml {verb}" in text


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {verb} " in shown for verb in cli.VERBS)
    assert cli.main(["--version"]) == 0
    assert cli.main(["rum"]) == 2
    assert "did you mean 'run'?" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "p.yml").write_text("jobs:\n" + "".join(f"  n{i}: {{command: echo}}\n" for i in range(3000)))
    script = f"{sys.executable} -m edgeml run p.yml --dry-run | head -1"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stderr, done.stdout.startswith("p  (p.yml")) == ("", True)


def test_settings_come_from_the_file_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgeml.toml").write_text('[storage]\ncontainer = "rows"\naccount_url = "https://a.blob.r.f"\n')
    monkeypatch.setenv("EDGEML_STORAGE_ACCOUNT_URL", "https://b.blob.r.f")
    monkeypatch.setenv("EDGEML_STORAGE_ACCOUNT_KEY", "aHVzaA==")
    loaded = settings.load()
    assert (loaded.storage.container, loaded.storage.account_url) == ("rows", "https://b.blob.r.f")
    assert "aHVzaA" not in repr(loaded), "a secret never prints"
    assert settings.tracking_uri(loaded) == f"sqlite:///{tmp_path}/.edgeml/mlflow.db"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[storage]\ncontianer = 'x'\n", "storage.contianer"),
        ("[storage]\naccount_key = 'x'\n", "holds the secret storage.account_key; remove it"),
        ("[storage\n", "is not valid TOML"),
        ("[storage]\ncontainer = 3\n", "storage.container"),
    ],
)
def test_wrong_settings_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgeml.toml").write_text(content)
    with pytest.raises(EdgemlError, match=re.escape(message)):
        settings.load()


def test_what_make_setup_installs_can_do_all_that_the_workflows_call() -> None:
    """`edgeml submit` in train.yml runs after it: an extra that `all` leaves out is missed there, and in no test."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (everything,) = (line.partition("[")[2].rstrip("]").split(",") for line in extras["all"])
    assert sorted(everything) == sorted(set(extras) - {"all", "dev"})
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/runtime.lock").read_text(), re.MULTILINE))
    named = {
        re.match(r"[a-z0-9-]+", line)[0]  # type: ignore[index]
        for extra in everything
        for line in extras[extra]
    }
    assert named - {"edgeml"} - locked == set()


def test_every_peer_of_the_benchmarks_is_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import airlock_peers
    import chain as peers
    import serve
    import serve_libraries
    import venvs

    named = {make().lock for make in peers.PEERS.values()} | {peer.lock for peer in serve.PEERS.values()}
    named |= {serve_libraries.LOCK, *airlock_peers.SCANNERS}
    assert [name for name in sorted(named - {""}) if not venvs.lock_of(name).is_file()] == []
