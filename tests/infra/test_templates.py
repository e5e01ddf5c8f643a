"""The templates keep every rule, and each rule has a template that breaks it."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeml.infra import names, rules, template
from edgeml.infra.template import Place, TemplateError
from tests.infra.conftest import GIVEN, ROOT

PLACE = Place("11111111-1111-1111-1111-111111111111", "edge", "local")
TARGETS = ("stack-hub", "azure")
Edit = Callable[[dict[str, Any]], object]


def read(target: str) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = ROOT / "infra" / target
    values = template.values_of(folder / "parameters.json") | GIVEN[target]
    if target == "stack-hub":
        values |= {"bootstrap": "#!/bin/sh\n", "serveSources": ["10.0.0.0/8"]}
    return template.load(folder / "main.json"), values


def judged(target: str, document: dict[str, Any], values: dict[str, Any]) -> list[str]:
    return rules.findings(target, document, template.evaluate(document, values, PLACE))


def one(document: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in document["resources"] if one["type"].endswith(kind))


@pytest.mark.parametrize("target", TARGETS)
def test_our_templates_break_no_rule(target: str) -> None:
    document, values = read(target)
    assert judged(target, document, values) == []
    assert len(template.evaluate(document, values, PLACE).resources) >= 8


def test_without_public_address_and_sources_it_still_breaks_none() -> None:
    document, values = read("stack-hub")
    assert judged("stack-hub", document, values | {"publicAddress": False, "sshSources": [], "serveSources": []}) == []


@pytest.mark.parametrize(
    ("more", "made"),
    [
        ({}, set()),
        ({"endpointAuth": "aad_token"}, {"workspaces/edgeml", "userAssignedIdentities/edgeml-pull"}),
        ({"webApps": ["ward", "night"]}, {"sites/ward", "sites/night"}),
    ],
)
def test_who_deploys_has_rights_where_its_sites_are_and_nowhere_else(more: dict[str, Any], made: set[str]) -> None:
    document, values = read("azure")
    values |= {"workspace": "edgeml", **more}
    assert judged("azure", document, values) == []
    by_deploy = {
        one.id.partition("/providers/Microsoft.Authorization/")[0]
        for one in template.evaluate(document, values, PLACE).resources
        if one.type.endswith("/roleAssignments") and one.body["properties"]["principalId"].of.endswith("/edgeml-deploy")
    }
    assert {"/".join(scope.split("/")[-2:]) for scope in by_deploy} == {"registries/edgemlacr"} | made


def test_every_description_of_an_api_version_is_used() -> None:
    for target in TARGETS:
        document, _ = read(target)
        assert {one["type"] for one in document["resources"]} == set(names.VERSIONS[target])


def _rule(document: dict[str, Any]) -> dict[str, Any]:
    return document["variables"]["sshRules"][0]["properties"]


MUTATIONS: list[tuple[str, str, Edit, str]] = [
    (
        "stack-hub",
        "version",
        lambda d: one(d, "/disks").update(apiVersion="2023-01-02"),
        "must be of version 2019-07-01",
    ),
    ("stack-hub", "type", lambda d: one(d, "/disks").update(type="Microsoft.Compute/galleries"), "none of the types"),
    (
        "stack-hub",
        "misspelt",
        lambda d: one(d, "virtualMachines")["properties"]["osProfile"]["linuxConfiguration"].update(
            disablePasswort=True
        ),
        "has no 'properties.osProfile.linuxConfiguration.disablePasswort'",
    ),
    ("stack-hub", "unordered", lambda d: one(d, "virtualMachines").update(dependsOn=[]), "without waiting for it"),
    (
        "stack-hub",
        "circle",
        lambda d: one(d, "/disks").update(dependsOn=["[resourceId('Microsoft.Compute/virtualMachines', 'edge')]"]),
        "it waits for itself",
    ),
    (
        "stack-hub",
        "foreign",
        lambda d: one(d, "/disks").update(dependsOn=["[resourceId('Microsoft.Compute/disks', 'other')]"]),
        "which the template does not make",
    ),
    (
        "stack-hub",
        "dangling",
        lambda d: d["outputs"].update(
            x={"type": "string", "value": "[reference(resourceId('Microsoft.Compute/disks', 'gone'), '2019-07-01').id]"}
        ),
        "there is no /subscriptions/",
    ),
    ("stack-hub", "unused", lambda d: d["variables"].update(idle="x"), "variables/idle: nothing asks for it"),
    (
        "stack-hub",
        "password-default",
        lambda d: d["parameters"].update(adminPassword={"type": "securestring", "defaultValue": "Subscription#1"}),
        "a secret has no default",
    ),
    (
        "stack-hub",
        "password-in-clear",
        lambda d: d["parameters"].update(adminPassword={"type": "string", "defaultValue": ""}),
        "must be of type securestring",
    ),
    (
        "stack-hub",
        "password",
        lambda d: one(d, "virtualMachines")["properties"]["osProfile"].update(adminPassword="Hunter2!Hunter2!"),
        "adminPassword must go",
    ),
    (
        "stack-hub",
        "password-login",
        lambda d: one(d, "virtualMachines")["properties"]["osProfile"]["linuxConfiguration"].update(
            disablePasswordAuthentication=False
        ),
        "disablePasswordAuthentication must be true",
    ),
    ("stack-hub", "any-source", lambda d: _rule(d).update(sourceAddressPrefix="*"), "'*' is no IPv4 range"),
    ("stack-hub", "no-source", lambda d: _rule(d).pop("sourceAddressPrefixes"), "states no source"),
    ("stack-hub", "all-ports", lambda d: _rule(d).update(destinationPortRange="*"), "opens more than one port"),
    ("stack-hub", "not-closed", lambda d: d["variables"].update(closed=[]), "no rule denies the rest"),
    (
        "stack-hub",
        "http",
        lambda d: one(d, "storageAccounts")["properties"].update(supportsHttpsTrafficOnly=False),
        "rows would travel in clear",
    ),
    (
        "azure",
        "public-blobs",
        lambda d: one(d, "storageAccounts")["properties"].update(allowBlobPublicAccess=True),
        "allowBlobPublicAccess must be false",
    ),
    (
        "azure",
        "old-tls",
        lambda d: one(d, "storageAccounts")["properties"].update(minimumTlsVersion="TLS1_0"),
        "minimumTlsVersion must be TLS1_2",
    ),
    ("azure", "admin", lambda d: one(d, "registries")["properties"].update(adminUserEnabled=True), "adminUserEnabled"),
    ("azure", "policies", lambda d: one(d, "vaults")["properties"].pop("enableRbacAuthorization"), "access policies"),
    (
        "azure",
        "compute-keys",
        lambda d: one(d, "roleDefinitions")["properties"]["permissions"][0]["actions"].append(
            "Microsoft.MachineLearningServices/workspaces/computes/*"
        ),
        "may list the keys of computes",
    ),
    (
        "azure",
        "rights",
        lambda d: one(d, "roleDefinitions")["properties"]["permissions"][0]["actions"].append(
            "Microsoft.Authorization/roleAssignments/write"
        ),
        "may give rights",
    ),
    (
        "azure",
        "owner",
        lambda d: one(d, "roleAssignments")["properties"].update(
            roleDefinitionId="[subscriptionResourceId('Microsoft.Authorization/roleDefinitions',"
            " '8e3af657-a8ff-443c-a75c-2fe8c4bcb635')]"
        ),
        "neither the template's own nor AcrPush or AcrPull",
    ),
    ("azure", "whole-group", lambda d: one(d, "roleAssignments").pop("scope"), "granted on the whole resource group"),
    (
        "azure",
        "deploy-pushes",
        lambda d: d["resources"][-1]["properties"].update(
            roleDefinitionId="[subscriptionResourceId('Microsoft.Authorization/roleDefinitions',"
            " '8311e382-0749-4cb8-b61a-304f252e45ec')]"
        ),
        "more than one identity may push images",
    ),
    (
        "azure",
        "wildcard",
        lambda d: one(d, "federatedIdentityCredentials")["properties"].update(subject="repo:Acme/train:*"),
        "is no subject of a GitHub environment",
    ),
    (
        "azure",
        "branch",
        lambda d: one(d, "federatedIdentityCredentials")["properties"].update(subject="repo:Acme/train:pull_request"),
        "is no subject of a GitHub environment",
    ),
    (
        "azure",
        "audience",
        lambda d: one(d, "federatedIdentityCredentials")["properties"].update(audiences=["api://other"]),
        "audiences must be",
    ),
]


@pytest.mark.parametrize(("target", "name", "edit", "sentence"), MUTATIONS, ids=[one[1] for one in MUTATIONS])
def test_each_rule_finds_the_template_that_breaks_it(target: str, name: str, edit: Edit, sentence: str) -> None:
    document, values = read(target)
    edit(document)
    assert any(sentence in finding for finding in judged(target, document, values)), name


# The names with which the pattern's published deployment could not run: hyphens where Azure takes none.
@pytest.mark.parametrize(
    ("target", "values", "sentence"),
    [
        ("azure", {"registry": "edgetraining-acr2019"}, "'edgetraining-acr2019' is no name for Microsoft.ContainerReg"),
        ("stack-hub", {"storageAccount": "edge-data2019"}, "'edge-data2019' is no name for Microsoft.Storage"),
        ("azure", {"storageAccount": "EdgeData"}, "'EdgeData' is no name for Microsoft.Storage"),
        ("azure", {"vault": "1edgeml"}, "'1edgeml' is no name for Microsoft.KeyVault/vaults"),
        ("azure", {"vault": "edge--ml"}, "'edge--ml' is no name for Microsoft.KeyVault/vaults"),
        ("azure", {"workspace": "edge.ml"}, "'edge.ml' is no name for Microsoft.MachineLearningServices/workspaces"),
        ("stack-hub", {"name": "edge_vm"}, "'edge_vm' is no name for Microsoft.Compute/virtualMachines"),
        ("stack-hub", {"name": "edge vm"}, "'edge vm' is no name for Microsoft.Compute/virtualMachines"),
        ("azure", {"owner": "Acme:*"}, "is no subject of a GitHub environment"),
        ("azure", {"siteEnvironments": ["staging", "training:*"]}, "is no subject of a GitHub environment"),
        ("azure", {"siteEnvironments": ["s1", "s2"], "issuer": "http://x"}, "the issuer must be an https address"),
    ],
)
def test_names_that_azure_does_not_take_are_found(target: str, values: dict[str, Any], sentence: str) -> None:
    document, given = read(target)
    assert any(sentence in finding for finding in judged(target, document, given | values))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("plain", "plain"),
        ("[[text]", "[text]"),
        ("[concat('a', 'it''s', 1)]", "ait's1"),
        ("[format('{0}-{1}-{0}', 'a', 2)]", "a-2-a"),
        ("[if(equals(1, 1), 'yes', parameters('name'))]", "yes"),
        ("[resourceId('Microsoft.Compute/disks', 'd')]", f"/subscriptions/{PLACE.subscription}/resourceGroups/edge"
         "/providers/Microsoft.Compute/disks/d"),
        ("[guid('a', 'b')]", str(uuid.uuid5(uuid.UUID("11fb06fb-712d-4ddd-98c7-e71bbd588830"), "a-b"))),
        ("[variables('v').list[1]]", "two"),
        ("[toLower('ABC')]", "abc"),
        ("[empty(json('[]'))]", True),
    ],
)  # fmt: skip
def test_expressions_are_evaluated(expression: str, value: Any) -> None:
    assert _output(expression) == value


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("[concat('a']", "it ends where"),
        ("[concat('a'))]", "is too much"),
        ("[newGuid()]", "the function newGuid() is not known"),
        ("[parameters('gone')]", "there is no parameter 'gone'"),
        ("[if(equals(1, 1), 'a', variables('gone'))]", "there is nothing named 'gone'"),
        ("[if('true', 'a', 'b')]", "needs a condition"),
        ("[variables('circle')]", "is made of itself"),
        ("[variables('v').list[7]]", "there is no '7' in it"),
        ("[resourceId('Microsoft.Compute/disks', 'a', 'b')]", "needs 1 name(s), not 2"),
        ("[copyIndex()]", "copyIndex() is for what is copied"),
        ("[a b]", "'b' stands where '(' is missing"),
        ("[concat('a', \"b\")]", "is not of the template language"),
        ("[" + "concat(" * 3000 + "'a'" + ")" * 3000 + "]", "nested too deeply"),
        ("['" + "a" * 30000 + "']", "characters; Resource Manager takes"),
    ],
)
def test_expressions_that_resource_manager_refuses_are_refused(expression: str, sentence: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(sentence)):
        _output(expression)


def _output(expression: str) -> Any:
    document = {
        "$schema": template.SCHEMA,
        "contentVersion": "1.0.0.0",
        "parameters": {"name": {"type": "string", "defaultValue": "n"}},
        "variables": {"v": {"list": ["one", "two"]}, "circle": "[variables('circle')]"},
        "resources": [{"type": "Microsoft.Compute/disks", "apiVersion": "2019-07-01", "name": "d"}],
        "outputs": {"out": {"type": "string", "value": expression}},
    }
    return template.evaluate(document, {}, PLACE).outputs["out"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[]", "does not hold an object"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_files_that_are_no_templates_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "main.json"
    file.write_text(text)
    with pytest.raises(TemplateError, match=sentence):
        template.load(file)


def test_reference_is_refused_where_it_is_not_known_yet() -> None:
    document, values = read("stack-hub")
    broken = copy.deepcopy(document)
    one(broken, "/disks")["name"] = "[reference(resourceId('Microsoft.Compute/disks', 'x'), '2019-07-01').id]"
    with pytest.raises(TemplateError, match="reference\\(\\) is for properties and outputs"):
        template.evaluate(broken, values, PLACE)


def test_nothing_of_the_templates_is_of_one_site() -> None:
    for target in TARGETS:
        text = json.dumps(template.load(ROOT / "infra" / target / "main.json"))
        assert not re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b(?!/24)", text.replace("1.0.0.0", ""))
