"""A team's repository on the loopback GitHub, with everything that its settings name really there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeml.airlock.keeping import seal
from edgeml.cli import main
from edgeml.image import signature
from edgeml.storage import blob_client, sample, transfer
from edgeml.storage.sas import container_sas
from tests.conftest import ROOT, RunningStorage
from tests.deploy.conftest import free_port
from tests.edge.vm import ID, Vm, machine
from tests.engine.daemon import Daemon, started
from tests.gitops.api import Api
from tests.gitops.hub import MAIN, NAME, OWNER, Hub, Pull
from tests.gitops.serve import TOKEN, serving
from tests.images import Running
from tests.story.act import Ran, Runner, furnish

SITES = ("staging", "production")
BASE = "rollout: {health_seconds: 1}\n"
SMALL_TEST = "-n 0 -q tests/edge/test_said.py"  # what `make test` runs inside of `make test`
SETTINGS = """\
[storage]
account_url = "{url}"
account_name = "{account}"
container = "private"
ca_bundle = "stamp.pem"

[registry]
model = "breast-cancer"
tracking_uri = "sqlite:///{lasting}/mlflow.db"

[airlock]
public_keys = ["{gate}"]

[image]
registry = "{registry}"

[sites]
order = ["staging", "production"]

[site.staging]
serve_port = {staging}

[site.production]
serve_port = {production}

[compute.edge-vm]
kind = "edge"
address = "127.0.0.1"
port = {port}
host_key = "{host_key}"
"""


class Said(NamedTuple):
    code: int
    out: str
    err: str


@dataclass
class Fork:
    """The repository, who works on it, and the machines around it."""

    folder: Path
    hub: Hub
    runner: Runner
    vm: Vm
    daemon: Daemon
    registry: Running
    ports: dict[str, int]
    github: str
    ran: list[Ran] = field(default_factory=list)

    # --- git ---------------------------------------------------------------------------------------

    def checkout(self, ref: str) -> Path:
        """What a runner gets of a branch or tag."""
        folder = self.folder / f"checkout-{len(list(self.folder.glob('checkout-*')))}"
        git(self.folder, "clone", "-q", "--shared", str(self.hub.folder), str(folder))
        git(folder, "checkout", "-q", ref)
        git(folder, "remote", "set-url", "origin", f"https://github.com/{OWNER}/{NAME}.git")
        furnish(folder, self.runner, ROOT / ".edgeml")
        return folder

    def propose(self, who: str, files: dict[str, str | None], branch: str) -> Pull:
        """A person's pull request."""
        self.hub.push(who, files, branch)
        return self.hub.open(who, branch, branch)

    def text(self, path: str, ref: str = MAIN) -> str:
        found = self.hub.show(ref, path)
        assert found is not None, f"{ref} has no {path}"
        return found

    # --- workflows ---------------------------------------------------------------------------------

    def act(self, workflow: str, event: str, ref: str, edit: tuple[str, str, str] | None = None, **more: Any) -> Ran:
        """What GitHub does when an event comes. `edit` replaces a figure that no test can wait for in a workflow."""
        kind = "tags" if ref.startswith("v") else "heads"
        whole = {"full_name": f"{OWNER}/{NAME}", "name": NAME, "default_branch": MAIN, "owner": {"login": OWNER}}
        payload = {"ref": f"refs/{kind}/{ref}", "repository": whole, **more}
        checkout = self.checkout(ref)
        if edit is not None:
            file = checkout / ".github/workflows" / edit[0]
            assert edit[1] in file.read_text()
            file.write_text(file.read_text().replace(edit[1], edit[2]))
        ran = self.runner.run(checkout, workflow, event, payload, GITHUB_API_URL=self.github, PYTEST_ARGS=SMALL_TEST)
        self.ran.append(ran)
        return ran

    def check(self, pull: Pull, ran: Ran) -> None:
        """What GitHub keeps of a run of the check on a pull request."""
        for job, result in ran.jobs.items():
            self.hub.check(pull, job, result)

    # --- people ------------------------------------------------------------------------------------

    def edgeml(self, *arguments: str, ref: str = MAIN) -> Said:
        """A command of a person with a token, in a checkout of a branch."""
        environment = {"GITHUB_TOKEN": TOKEN, "GITHUB_API_URL": self.github, "GITHUB_REPOSITORY": f"{OWNER}/{NAME}"}
        out, error = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            patch.chdir(self.checkout(ref))
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
                code = main(list(arguments))
        return Said(code, out.getvalue(), error.getvalue())

    def refusals(self, site: str, tag: str) -> dict[str, str]:
        """The gate's reasons to refuse, with their causes."""
        said = self.edgeml("gate", site, "--ref", tag, "--json")
        decision = json.loads(said.out)
        assert said.code == (1 if decision["reasons"] else 0)
        return {each["reason"]: each["cause"] for each in decision["reasons"]}

    def agree(self, pull: Pull, *people: str, tag: str = "") -> None:
        """The good way of a pull request: checked, approved, merged, and tagged where it is to be released."""
        self.hub.check(pull)
        for person in people:
            self.hub.review(person, pull)
        self.hub.merge(pull)
        if tag:
            self.hub.tag(tag)

    # --- what serves -------------------------------------------------------------------------------

    def serving(self, site: str) -> str:
        """The digest of the image that answers through a site's port; empty where none does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[site]}/v2/health/ready", timeout=5):
                pass
        except OSError:
            return ""
        form = '--format={{.Label "edgeml.site"}} {{.Image}}'
        rows = [row.split() for row in self.daemon.docker("ps", "--no-trunc", form).splitlines()]
        (image,) = [image for where, image in rows if where == site]
        return image.partition("@")[2]


@contextmanager
def made(folder: Path, storage: RunningStorage, api: Api, registry: Running) -> Iterator[Fork]:
    """The fork with its machines, all up."""
    with ExitStack() as stack:
        vm = stack.enter_context(machine())
        confined(stack)
        daemon = stack.enter_context(started())
        hub = Hub(folder / "hub.git")
        github = stack.enter_context(serving(hub, api))
        ports = {site: free_port(3) for site in SITES}
        key = signing_key(folder)
        runner = Runner(
            folder / "runner",
            environment={
                **daemon.environment,
                "EDGEML_TRUSTED": str(folder / "trusted"),
                "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache"),
                "RUFF_CACHE_DIR": str(ROOT / ".ruff_cache"),
            },
            secrets={
                "EDGEML_SSH_KEY": vm.key.read_text(),
                "EDGEML_STORAGE_SAS_TOKEN": token(storage),
                "EDGEML_IMAGE_SIGNING_KEY": key,
                "GITHUB_TOKEN": TOKEN,
            },
            variables={"EDGEML_TARGET": "edge-vm"},
        )
        settings = SETTINGS.format(
            url=storage.environment["EDGEML_STORAGE_ACCOUNT_URL"],
            account=storage.environment["EDGEML_STORAGE_ACCOUNT_NAME"],
            lasting=folder,
            gate=gate_key(vm),
            registry=registry.host,
            port=vm.port,
            host_key=vm.host_key,
            **ports,
        )
        push_rows(folder, storage)
        commit(folder, hub, settings, Path(storage.environment["EDGEML_STORAGE_CA_BUNDLE"]))
        fork = Fork(folder, hub, runner, vm, daemon, registry, ports, github)
        try:
            yield fork
        finally:
            clear(fork)


def commit(folder: Path, hub: Hub, settings: str, authority: Path) -> None:
    """The first commit: this checkout, as the template that it is, with a team's settings."""
    begun = folder / "begun"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (begun / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, begun / name)
    (begun / "edgeml.toml").write_text(settings)
    shutil.copy(authority, begun / "stamp.pem")
    (begun / "deployments/trusted").mkdir(parents=True)
    shutil.copy(folder / "trusted/release.pub", begun / "deployments/trusted/release.pub")
    git(begun, "init", "-q", "-b", MAIN)
    git(begun, "add", "-A")
    git(begun, "-c", "user.name=cleo", "-c", "user.email=cleo@clinic.example", "commit", "-qm", "Begin")
    git(begun, "push", "-q", str(hub.folder), f"HEAD:refs/heads/{MAIN}")


def push_rows(folder: Path, storage: RunningStorage) -> None:
    sample.write(folder / "sample")
    with blob_client.container("private", storage.environment) as client:
        transfer.push(client, transfer.sources([folder / "sample"], "patients/"))


def token(storage: RunningStorage) -> str:
    """A signature that may list and read the container, as an operator gives it to a workflow."""
    given = storage.environment
    expires = datetime.now(UTC) + timedelta(hours=2)
    name, key = given["EDGEML_STORAGE_ACCOUNT_NAME"], given["EDGEML_STORAGE_ACCOUNT_KEY"]
    return container_sas(name, key, "private", expires=expires)


def gate_key(vm: Vm) -> str:
    """The public key of the VM's egress gate, made by its operator."""
    state = vm.home / "edgeml/state/airlock"
    state.mkdir(parents=True)
    public = seal.public(seal.key_of(state))
    for path in (vm.home / "edgeml", *(vm.home / "edgeml").rglob("*")):
        os.chown(path, ID, ID)
        if path.is_dir():
            path.chmod(0o700)
    return public


def signing_key(folder: Path) -> str:
    """The key that signs images, as PEM; its public half becomes what the sites on this machine trust."""
    line = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    key = subprocess.run(line, capture_output=True, check=True, text=True).stdout
    (folder / "trusted").mkdir()
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=key, capture_output=True, check=True, text=True)
    (folder / "trusted/release.pub").write_text(public.stdout)
    assert signature.trusted(public.stdout)
    return key


def deploy_key(folder: Path) -> str:
    """A private SSH key, as a workflow's secret holds it."""
    line = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / "deploy_key")]
    subprocess.run(line, check=True, stdin=subprocess.DEVNULL)
    return (folder / "deploy_key").read_text()


def confined(stack: ExitStack) -> None:
    """The VM's network security group: its user reaches this machine and nothing else, the names' server included."""
    if not shutil.which("nft"):
        install = ["apt-get", "install", "--yes", "--no-install-recommends", "nftables"]
        subprocess.run(install, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, capture_output=True)
    if not shutil.which("nft"):
        pytest.skip("nftables is not installed, and apt-get cannot install it")
    table = f"edgeml_vm_{os.getpid()}"
    rules = (
        f"table inet {table} {{\nchain output {{\ntype filter hook output priority 0; policy accept;\n"
        f'meta skuid {ID} oifname != "lo" reject\nmeta skuid {ID} udp dport 53 reject\n}}\n}}\n'
    )
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    stack.callback(subprocess.run, ["nft", "delete", "table", "inet", table], capture_output=True)


def clear(fork: Fork) -> None:
    names = fork.daemon.docker("ps", "--all", "--quiet", "--filter=label=edgeml.site").split()
    if names:
        fork.daemon.docker("rm", "--force", *names)
    for site in SITES:
        subprocess.run(["nft", "delete", "table", "ip", f"edgeml_{site}"], capture_output=True)


def git(folder: Path, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(["git", "-C", str(folder), *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
