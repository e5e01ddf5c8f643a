"""What a run is made of is named exactly: forms that one corpus tree each would not be worth, and `--fix`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.check import Finding, check

ROOT = Path(__file__).parents[2]
POLICY = "private: [stackhub]\nregistries: [docker.io]\ncomputes: [edge-vm]\n"
SCHEMA = "$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json\n"
COMMIT = "a" * 40
SHA = "b" * 64


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "contracts/residency.yml", POLICY)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def found() -> list[Finding]:
    return check(["."])


@pytest.mark.parametrize(
    ("asked", "exact"),
    [
        ("numpy==2.0.1", True),
        ("numpy===2.0.1", True),
        ("numpy[extra]==2.0.1", True),
        ("numpy == 2.0.1 ; python_version < '3.13'", True),
        (f"tools @ https://files.example.org/t.whl#sha256={SHA}", True),
        (f"git+https://git.example.org/tools@{COMMIT}#egg=tools", True),
        ("./wheels/tools.whl", True),
        ("-e .", True),
        ("-r other.txt", True),
        ("--index-url https://packages.example.org/simple", True),
        ("# numpy", True),
        ("", True),
        ("numpy", False),
        ("numpy>=2", False),
        ("numpy==2.*", False),
        ("numpy==2.0,<3", False),
        ("numpy~=2.0", False),
        ("numpy[extra]", False),
        ("tools @ https://files.example.org/t.whl", False),
        ("git+https://git.example.org/tools@main", False),
        ("git+https://git.example.org/tools", False),
        ("-e git+https://git.example.org/tools@v1#egg=tools", False),
        ("n" * 5000 + "==1", False),
    ],
)
def test_what_a_list_of_requirements_asks_for(here: Path, asked: str, exact: bool) -> None:
    write(here / "requirements.txt", f"{asked}\n")
    assert [finding.rule for finding in found()] == ([] if exact else ["unpinned-package"])


@pytest.mark.parametrize(
    ("command", "packages"),
    [
        ("pip install numpy pandas==2", ["numpy"]),
        ("python -m pip install -q --upgrade pip", ["pip"]),
        ("pip3.11 --no-input install 'numpy>=2'|tee log", ["numpy>=2"]),
        ('bash -c "pip install numpy"', ["numpy"]),
        ("cd x&&pip install numpy;echo pandas", ["numpy"]),
        ("uv pip install --index-url https://packages.example.org/simple -c constraints.txt numpy", ["numpy"]),
        ("pip install $PACKAGES", ["$PACKAGES"]),
        ('pip install "torch==$TORCH"', []),
        ("pip install --no-deps -r requirements.lock ./tools", []),
        ("pip download numpy; pip check; echo install pip install", []),
        ("pip install 'numpy", []),
    ],
)
def test_what_a_command_installs(here: Path, command: str, packages: list[str]) -> None:
    write(here / "c.yml", "name: c\nversion: 1\ntype: command\ncommand: |\n  " + command + "\n")
    findings = [finding for finding in found() if finding.rule == "unpinned-package"]
    assert [finding.message.split("'")[1] for finding in findings] == packages
    assert all(finding.line == 5 for finding in findings)


@pytest.mark.parametrize(
    ("dockerfile", "lines"),
    [
        ("from python\n", [1]),
        ("FROM scratch\n", []),
        ("FROM python:3.11 AS Base\nFROM base\nCOPY --from=BASE a b\n", []),
        ("ARG A\nFROM ${A:-python:3.11}\n", []),
        ("ARG A=${A}\nFROM $A\n", [2]),
        ("ARG A=1 B=python\nFROM $B:$A\n", []),
        ("FROM python:3.11\nARG A=x:latest\nFROM $A\n", [3]),
        ("FROM python:3.11\nRUN echo $((1<<X))\nFROM python\n", [3]),
        ("FROM python:3.11\nRUN <<X\nFROM python\nX\nFROM alpine\n", [5]),
        ("FROM \\\n  # why\n  python\n", [1]),
        ("FROM\n", []),
        ("\x00\x01 FROM\n", []),
    ],
)
def test_which_images_a_dockerfile_names(here: Path, dockerfile: str, lines: list[int]) -> None:
    write(here / "Dockerfile", dockerfile)
    assert [finding.line for finding in found() if finding.rule == "unpinned-image"] == lines


@pytest.mark.parametrize(
    "hostile",
    [
        "RUN x <<A\n" * 20_000,
        "RUN x \\\n" * 100_000,
        "FROM " + "$A" * 100_000,
        "RUN " + "pip install " * 20_000,
        "RUN pip install " + "=" * 200_000,
        "RUN pip install a=0" + "." * 200_000 + "*",
    ],
    ids=range(6),
)
def test_a_hostile_dockerfile_ends(here: Path, hostile: str) -> None:
    write(here / "Dockerfile", hostile)
    done = subprocess.run([sys.executable, "-m", "edgeml", "check", "."], capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr


def test_a_message_holds_no_credential(here: Path) -> None:
    write(here / "requirements.txt", "git+https://user:s3cret@git.example.org/tools@main\n")
    (finding,) = found()
    assert finding.rule == "unpinned-package" and "s3cret" not in finding.message


def test_a_finding_in_a_dockerfile_is_silenced_there(here: Path) -> None:
    reason = "# edgeml: allow unpinned-image, because the mirror of this site has only this tag\n"
    write(here / "Dockerfile", f"{reason}FROM python\n")
    assert found() == []
    write(here / "Dockerfile", f"{reason}FROM python:3.11\n")
    assert [finding.rule for finding in found()] == ["unused-silencer"]


def environment(folder: Path, version: str) -> None:
    write(
        folder / "environment.yml",
        f"{SCHEMA}name: training\nversion: {version}  # of the content\nbuild: {{path: .}}\n",
    )


def training(here: Path) -> None:
    environment(here / "environments/training", "1")
    write(here / "environments/training/Dockerfile", "FROM python:3.11.14\n")
    write(
        here / "components/c/component.yml",
        "# c\nname: c\nversion: 1\nenvironment: azureml:training:1\ncommand: echo\n",
    )
    job = "type: command\r\ncompute: edge-vm\r\nenvironment: 'azureml:training:1'  # kept\r\ncommand: echo\r\n"
    (here / "pipelines").mkdir()
    (here / "pipelines/job.yml").write_bytes(job.encode())


def edgeml(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgeml", "check", *args], capture_output=True, text=True, timeout=60)


def test_the_version_of_an_environment_follows_its_content(here: Path) -> None:
    training(here)
    assert {finding.rule for finding in found()} == {"environment-version"}
    fixed = edgeml("--fix")
    assert fixed.returncode == 0 and fixed.stderr.count("rewrote") == 3, fixed.stderr
    before = (here / "components/c/component.yml").read_text()
    assert (
        before.startswith("# c\nname: c\nversion: 1\nenvironment: azureml:training:") and "training:1\n" not in before
    )
    assert "  # of the content\n" in (here / "environments/training/environment.yml").read_text()
    job = (here / "pipelines/job.yml").read_bytes()
    assert job.count(b"\r\n") == 4 and b"'  # kept" in job
    again = edgeml("--fix")
    assert (again.returncode, again.stderr) == (0, "nothing found\n")

    write(here / "environments/training/requirements.lock", "numpy==2.0.1\n")
    assert [finding.rule for finding in found()] == ["environment-version"], "a changed lock cannot keep its version"
    assert edgeml("--fix").returncode == 0 and (here / "components/c/component.yml").read_text() != before
    (here / "environments/training/requirements.lock").unlink()
    assert edgeml("--fix").returncode == 0
    assert (here / "components/c/component.yml").read_text() == before, "the same content has the same version"


def test_a_version_does_not_depend_on_times_or_on_what_python_leaves_behind(here: Path) -> None:
    training(here)
    assert edgeml("--fix").returncode == 0
    write(here / "environments/training/__pycache__/x.pyc", "x")
    os.utime(here / "environments/training/Dockerfile", (1, 1))
    assert found() == []


def test_content_that_cannot_be_read_is_a_finding(here: Path) -> None:
    training(here)
    os.mkfifo(here / "environments/training/pipe")
    done = edgeml()
    assert done.returncode == 1 and "the content of this environment cannot be read" in done.stdout, done.stdout
    (here / "environments/training/pipe").unlink()
    with (here / "environments/training/large").open("wb") as stream:
        stream.truncate(65 << 20)
    assert "or its build folder holds more than 64 MiB" in edgeml().stdout


def test_without_a_policy_nobody_is_asked_for_pins(here: Path) -> None:
    training(here)
    write(here / "Dockerfile", "FROM python\nRUN pip install numpy\n")
    (here / "contracts/residency.yml").unlink()
    assert found() == []


def test_a_changed_lock_of_this_repository_is_found(checkout: Path) -> None:
    lock = checkout / "environments/training/requirements.lock"
    lock.write_text(lock.read_text() + "\n# changed\n")
    command = [sys.executable, "-m", "edgeml", "check", "--format", "json"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "environment-version" in done.stdout
    assert subprocess.run([*command, "--fix"], cwd=checkout, capture_output=True, timeout=60).returncode == 0
