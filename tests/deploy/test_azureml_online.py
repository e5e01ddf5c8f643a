"""A site that is an online endpoint: signed images in a real registry, real scoring servers, the loopback Azure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeml.azure.arm import Arm
from tests.azure import loop
from tests.azure.server import BEFORE, Request, refusal
from tests.deploy.conftest import AzureSite, InAzure, granted
from tests.images import Released

SITE, NAME, ROLE = "cloud", "cancer", "deploys to endpoints of"
# What Microsoft's article on MLOps gives who deploys, beside what requests to Resource Manager name: the workspace may
# ask for the environment itself. And the endpoint is written with the identity that pulls, which is a right on that.
BEYOND = {
    "Microsoft.MachineLearningServices/workspaces/environments/read",
    "Microsoft.MachineLearningServices/workspaces/environments/write",
    "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
}


class Site(AzureSite):
    """A project whose site is an endpoint of the loopback Azure."""

    name, kind = SITE, "azureml-online"

    def __init__(self, world: InAzure, released: Released, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__(world, released, capsys)
        self.azure = world.service.state.online
        self.azure.servers = world.servers

    def serves(self) -> str:
        """The image that all traffic goes to; empty for none."""
        traffic = self.azure.endpoints[NAME]["properties"].get("traffic") or {}
        led = [name for name, share in traffic.items() if share]
        assert len(led) < 2
        return str(self.azure.deployments[NAME, led[0]]["environment"]["image"]) if led else ""

    def images(self) -> list[str]:
        return [each["environment"]["image"] for each in self.azure.deployments.values()]

    def writes(self) -> list[Request]:
        return [each for each in self.world.cloud.requests if is_write(each.method, each.host)]


def is_write(method: str, host: str) -> bool:
    return method in ("PUT", "DELETE", "PATCH") and host == loop.ARM.removeprefix("https://")


@pytest.fixture
def site(
    in_azure: InAzure, released: Released, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Site:
    monkeypatch.setattr("edgeml.gitops.sites.azureml_online.GRACE_SECONDS", 0.05)
    Path("edgeml.toml").write_text(f'[sites]\norder = ["{SITE}"]\n[site.{SITE}]\nendpoint = "{NAME}"\n')
    site = Site(in_azure, released, capsys)
    site.azure.make(NAME)
    in_azure.service.granted = granted(ROLE, endpointAuth="aad_token")
    return site


def test_a_release_serves_and_again_changes_nothing(site: Site) -> None:
    site.azure.slow = 2
    code, told, _ = site.deploy(site.first, "{health_seconds: 1, replicas: 2, instance_type: Standard_F4s_v2}")
    assert (code, told["outcome"], told["reason"]) == (0, "deployed", "")
    assert site.serves() == site.first.reference
    (key,) = site.azure.deployments
    deployment, endpoint = site.azure.deployments[key], site.azure.endpoints[NAME]
    assert site.first.digest[7:23] in key[1]
    assert deployment["sku"]["capacity"] == 2 and deployment["properties"]["instanceType"] == "Standard_F4s_v2"
    route = deployment["environment"]["inferenceConfig"]
    assert route["scoringRoute"] == {"path": "/score", "port": 8080}
    assert (route["livenessRoute"]["path"], route["readinessRoute"]["path"]) == ("/v2/health/live", "/v2/health/ready")
    assert endpoint["tags"]["team"] == "ward" and endpoint["properties"]["description"] == "the ward's"
    assert endpoint["identity"] == {"type": "UserAssigned", "userAssignedIdentities": {"/id/puller": {}}}
    assert site.azure.scored[0] == (key[1], key[1]), "asked by its name before it has any traffic"
    assert site.azure.scored[-1] == ("", key[1]), "and then as callers ask"
    site.world.cloud.clear()
    code, told, _ = site.edgeml("deploy", SITE, "--ungated")
    assert (code, told["outcome"], site.writes()) == (0, "unchanged", [])
    code, told, _ = site.edgeml("status", SITE)
    assert code == 0 and told["sites"][0]["state"] == "in step"


def test_the_new_one_comes_beside_the_old_and_only_the_last_known_good_is_kept(site: Site) -> None:
    for image in (site.first, site.second, site.first):
        assert site.deploy(image)[1]["outcome"] == "deployed"
        assert site.serves() == image.reference
    assert sorted(site.images()) == sorted([site.first.reference, site.second.reference])
    site.azure.deployments[NAME, "old"] = json.loads(json.dumps(next(iter(site.azure.deployments.values()))))
    assert site.edgeml("deploy", SITE, "--ungated")[1]["outcome"] == "deployed"
    assert len(site.images()) == 2, "older ones are deleted, by whatever run"
    assert site.deploy(site.first, "{health_seconds: 0, instance_type: Standard_F8s_v2}")[1]["outcome"] == "deployed"
    assert site.images() == [site.first.reference] * 2, "another machine is another deployment"
    before = list(site.azure.deployments)
    _, told, _ = site.deploy(site.first, "{health_seconds: 0, instance_type: Standard_F8s_v2, replicas: 3}")
    assert told["outcome"] == "deployed" and list(site.azure.deployments) == before, "a size is not"
    assert [each["sku"]["capacity"] for each in site.azure.deployments.values()] == [1, 3]


def test_the_traffic_moves_in_percents_where_the_record_says_so(site: Site) -> None:
    site.deploy(site.first)
    site.world.cloud.clear()
    assert site.deploy(site.second, "{health_seconds: 0, traffic_percent: 10}")[0] == 0
    sent = [each.json()["properties"]["traffic"] for each in site.writes() if each.path.endswith(f"/{NAME}")]
    assert [sorted(each.values()) for each in sent] == [[10, 90], [100], [100]]  # the last writes the tags


@pytest.mark.parametrize("mode", ["AADToken", "Key"])
def test_the_template_gives_the_deploying_identity_what_is_asked_for_and_no_more(site: Site, mode: str) -> None:
    site.azure.make(NAME, mode)
    rights = site.world.service.granted = granted(ROLE, endpointAuth="key" if mode == "Key" else "aad_token")
    site.world.service.used = set()
    for image in (site.first, site.second):
        assert site.deploy(image)[1]["outcome"] == "deployed"
    site.azure.deployments[NAME, "old"] = json.loads(json.dumps(next(iter(site.azure.deployments.values()))))
    assert site.edgeml("deploy", SITE, "--ungated")[1]["outcome"] == "deployed"
    assert site.edgeml("status", SITE)[0] == 0
    assert site.world.service.used == rights - BEYOND


def test_without_the_parameter_there_is_no_role(site: Site) -> None:
    site.world.service.granted = granted(ROLE)
    code, _, said = site.deploy(site.first)
    assert (code, site.world.service.granted) == (1, frozenset())
    assert "may not do Microsoft.MachineLearningServices/workspaces/onlineEndpoints/read" in said


def test_a_change_by_hand_does_not_last(site: Site) -> None:
    site.deploy(site.first)
    (deployment,) = site.azure.deployments.values()
    path = f"{loop.WORKSPACE_ID}/environments/by-hand/versions/1"
    by_hand = {"image": site.second.reference, "inferenceConfig": deployment["environment"]["inferenceConfig"]}
    site.world.service.state.assets["environments", "by-hand", "1"] = by_hand
    deployment["properties"]["environmentId"], deployment["environment"] = path, by_hand
    assert site.edgeml("status", SITE)[1]["sites"][0]["running"] == site.second.reference, "whatever its tags say"
    code, told, _ = site.edgeml("deploy", SITE, "--ungated")
    assert (code, told["outcome"], site.serves()) == (0, "deployed", site.first.reference)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("wrong-answer", "got another answer"),
        ("provisioning", "ended in Failed (The image could not be pulled: no AcrPull.)"),
        ("wrong-later", "got another answer"),
        ("no-traffic", "Azure refused"),
    ],
)
def test_what_fails_gives_the_traffic_back_by_itself(
    site: Site, case: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.deploy(site.first)
    if case == "wrong-answer":
        site.azure.spoiled = {site.second.reference}
    elif case == "provisioning":
        site.azure.slow = 1
        site.azure.failing = {site.second.reference: "The image could not be pulled: no AcrPull."}
    elif case == "wrong-later":  # all is well until it has the traffic
        whole = site.azure.score

        def score(request: Request, *, by_token: bool) -> Any:
            if "azureml-model-deployment" not in request.headers:
                site.azure.spoiled = {site.second.reference}
            return whole(request, by_token=by_token)

        monkeypatch.setattr(site.azure, "score", score)
    else:
        monkeypatch.setitem(BEFORE, "500", lambda: refusal(400, "BadArgument", "The traffic cannot be moved."))
        site.world.cloud.fail("500", lambda request: request.method == "PUT" and request.path.endswith(f"/{NAME}"))
    code, told, said = site.deploy(site.second)
    assert (code, told["outcome"]) == (1, "rolled back"), said
    assert words in told["reason"]
    assert site.serves() == site.first.reference and site.images() == [site.first.reference]
    code, told, _ = site.edgeml("status", SITE)
    assert code == 1 and told["sites"][0]["state"] == "differs" and told["sites"][0]["running"] == site.first.reference


def test_why_it_failed_may_be_hidden_but_not_that_it_failed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.azure.failing = {site.first.reference: "The image could not be pulled."}
    refused = refusal(403, "AuthorizationFailed", "no authorization to perform action 'mfeOperationsStatus/read' over")
    monkeypatch.setattr(site.azure, "operation", lambda _: refused)
    code, told, _ = site.deploy(site.first)
    assert (code, told["outcome"], site.images()) == (1, "failed", [])
    assert "ended in Failed (asking why it failed: this identity may not do mfeOperationsStatus/read" in told["reason"]


def test_the_first_one_that_fails_leaves_nothing(site: Site) -> None:
    site.azure.spoiled = {site.first.reference}
    code, told, _ = site.deploy(site.first)
    assert (code, told["outcome"], site.serves(), site.images()) == (1, "failed", "", [])
    assert site.edgeml("status", SITE)[1]["sites"][0]["state"] == "nothing runs"


def test_a_known_good_that_no_longer_answers_is_told_and_not_moved(site: Site) -> None:
    site.deploy(site.first)
    site.azure.spoiled = {site.first.reference}
    code, told, _ = site.edgeml("deploy", SITE, "--ungated")
    assert (code, told["outcome"]) == (1, "failed") and "the known good does not answer" in told["reason"]
    assert site.serves() == site.first.reference
    assert site.edgeml("status", SITE)[1]["sites"][0]["state"] == "does not answer"


class Killed(BaseException):
    pass


def test_killed_before_any_write_the_next_run_converges(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.deploy(site.first)
    deployments, endpoint = json.dumps(list(site.azure.deployments.values())), json.dumps(site.azure.endpoints[NAME])
    (key,) = site.azure.deployments
    assets = dict(site.world.service.state.assets)
    whole = Arm.ask
    for kill in range(4):  # environment, deployment, traffic, tags
        site.azure.deployments = dict(zip([key], json.loads(deployments), strict=True))
        site.azure.endpoints = {NAME: json.loads(endpoint)}
        site.world.service.state.assets = dict(assets)
        left = kill

        def ask(self: Arm, method: str, *arguments: Any, **more: Any) -> Any:
            nonlocal left
            left -= method in ("PUT", "DELETE")
            if left < 0:
                raise Killed
            return whole(self, method, *arguments, **more)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(Arm, "ask", ask)
            site.deploy(site.second)
        code, told, _ = site.edgeml("deploy", SITE, "--ungated")
        assert (code, told["reason"], site.serves()) == (0, "", site.second.reference), kill
        assert sorted(site.images()) == sorted([site.first.reference, site.second.reference])
    assert site.edgeml("deploy", SITE, "--ungated")[1]["outcome"] == "unchanged"


def test_a_bad_network_changes_nothing_in_the_end(site: Site) -> None:
    site.deploy(site.first)
    site.world.cloud.fail("lost", lambda request: is_write(request.method, request.host), times=2)
    assert site.deploy(site.second)[1]["outcome"] == "deployed"
    assert site.serves() == site.second.reference and len(site.images()) == 2


def test_keys_are_used_where_the_endpoint_has_them_and_are_told_to_nobody(site: Site) -> None:
    site.azure.make(NAME, "Key")
    site.world.service.granted = granted(ROLE, endpointAuth="key")
    code, told, said = site.deploy(site.first)
    assert code == 0 and f"key-of-{NAME}" not in said + json.dumps(told)


def test_an_endpoint_on_kubernetes_compute_gets_deployments_of_its_kind(site: Site) -> None:
    site.azure.make(NAME, "Key", compute=f"{loop.WORKSPACE_ID}/computes/edge-vm")
    site.world.service.granted = granted(ROLE, endpointAuth="key")
    assert site.deploy(site.first, "{health_seconds: 0, memory_mb: 512, cpus: 0.5}")[0] == 0
    (deployment,) = site.azure.deployments.values()
    assert deployment["properties"]["endpointComputeType"] == "Kubernetes"
    limits = deployment["properties"]["containerResourceRequirements"]["containerResourceLimits"]
    assert limits == {"cpu": "0.5", "memory": "512Mi"} and "instanceType" not in deployment["properties"]
    site.azure.endpoints[NAME]["properties"]["scoringUri"] = "http://10.0.0.1/score"
    assert "is not https" in site.edgeml("deploy", SITE, "--ungated")[1]["reason"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no-endpoint", "az ml online-endpoint create --name cancer --auth-mode aad_token"),
        ("aml-token", "has auth mode AMLToken"),
        ("somebody-else", "blue is of somebody else"),
        ("another-site", "endpoint is of ward"),
        ("unsigned", "trusted here"),
        ("no-place", "add [site.cloud] with endpoint"),
        ("no-right", "may not do Microsoft.MachineLearningServices/workspaces/onlineEndpoints/read"),
        ("no-workspace", "there is no workspace"),
    ],
)
def test_what_cannot_be_believed_is_refused_before_anything_changes(site: Site, case: str, words: str) -> None:
    if case == "no-endpoint":
        site.azure.endpoints.clear()
    elif case == "aml-token":
        site.azure.make(NAME, "AMLToken")
    elif case == "somebody-else":
        site.azure.deployments[NAME, "blue"] = {"properties": {"provisioningState": "Succeeded"}}
    elif case == "another-site":
        site.azure.endpoints[NAME]["tags"]["edgeml.site"] = "ward"
    elif case == "unsigned":
        import subprocess

        made = subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1"], capture_output=True, check=True)
        public = subprocess.run(["openssl", "ec", "-pubout"], input=made.stdout, capture_output=True, check=True).stdout
        Path("deployments/trusted/key.pub").write_bytes(public)
    elif case == "no-place":
        Path("edgeml.toml").write_text("")
    elif case == "no-right":
        site.world.service.denied = ("GET", "onlineEndpoints")
    else:
        site.world.service.gone = True
    code, told, said = site.deploy(site.first)
    assert code != 0 and words in said and told == {}
    assert site.writes() == []


def test_no_right_to_deploy_is_told_and_the_old_one_serves_on(site: Site) -> None:
    site.deploy(site.first)
    site.world.service.denied = ("PUT", "deployments")
    code, told, _ = site.deploy(site.second)
    assert (code, told["outcome"], site.serves()) == (1, "rolled back", site.first.reference)
    assert "this identity may not do Microsoft.MachineLearningServices/workspaces/deployments/write" in told["reason"]


def test_what_is_sent_is_what_the_sdk_would_send(site: Site) -> None:
    from azure.ai.ml.entities import Environment, ManagedOnlineDeployment, OnlineRequestSettings

    site.deploy(site.first, "{health_seconds: 0, replicas: 2}")
    sent = {each.path.removeprefix(loop.WORKSPACE_ID): each.json() for each in site.writes()}
    name, ours = next((path.rpartition("/")[2], body) for path, body in sent.items() if "/deployments/" in path)
    routes = {f"{key}_route": {"port": 8080, "path": path} for key, path in (
        ("liveness", "/v2/health/live"), ("readiness", "/v2/health/ready"), ("scoring", "/score"))}  # fmt: skip
    environment = Environment(name="e", version="1", image=site.first.reference, inference_config=routes)
    ours_environment = next(body for path, body in sent.items() if "/environments/" in path)
    theirs = environment._to_rest_object().as_dict()["properties"]
    assert {k: ours_environment["properties"][k] for k in ("image", "inferenceConfig")} == {
        k: theirs[k] for k in ("image", "inferenceConfig")
    }
    deployment = ManagedOnlineDeployment(
        name=name,
        endpoint_name=NAME,
        environment=ours["properties"]["environmentId"],
        instance_type="Standard_DS3_v2",
        instance_count=2,
        tags=ours["tags"],
        request_settings=OnlineRequestSettings(max_concurrent_requests_per_instance=100, request_timeout_ms=10_000),
    )
    wanted = deployment._to_rest_object(location=loop.LOCATION).as_dict()
    known = {key: value for key, value in wanted["properties"].items() if key in ours["properties"]}
    assert {**wanted, "properties": known} == ours
