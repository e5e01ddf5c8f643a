"""What a team answers when it begins a fork: a few names, and the names of resources that follow from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from edgeml.errors import EdgemlError
from edgeml.infra import names

_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_OWNER = r"@[A-Za-z0-9][A-Za-z0-9-]*(?:/[A-Za-z0-9._-]+)?"


class Question(NamedTuple):
    """One answer: its key and flag, how a person is asked, its form, and what to say of that."""

    key: str
    asks: str
    form: str
    characters: str
    """Those that an answer may hold anywhere, as a class of characters."""
    takes: str
    needed: bool = False


# The longest name that follows from `name` is that of the rows' account, four characters more of at most 24.
QUESTIONS = (
    Question(
        "name",
        "name of the project; resources in Azure are named after it",
        r"(?=.{3,20}$)[a-z](?:-?[a-z0-9])+",
        "[a-z0-9-]",
        "3 to 20 small letters, digits and single -, from a letter to a letter or digit",
        needed=True,
    ),
    Question(
        "owner",
        "who must approve changes, a user or team on GitHub: @NAME or @ORGANISATION/TEAM",
        _OWNER,
        r"[\w@/.-]",
        "@NAME or @ORGANISATION/TEAM",
        needed=True,
    ),
    Question(
        "data-officer",
        "who must approve contracts and what may leave, likewise; empty: the same",
        _OWNER,
        r"[\w@/.-]",
        "@NAME or @ORGANISATION/TEAM",
    ),
    Question(
        "repository",
        "the repository on GitHub, OWNER/NAME",
        r"[A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+",
        r"[\w/.-]",
        "OWNER/NAME",
    ),
    Question(
        "location",
        "region in Azure, such as westeurope",
        r"[a-z][a-z0-9]{2,39}",
        "[a-z0-9]",
        "small letters and digits, as `az account list-locations` names it",
    ),
    Question("tenant", "Microsoft Entra tenant", _GUID, "[0-9a-fA-F-]", "a GUID"),
    Question("subscription", "subscription in Azure", _GUID, "[0-9a-fA-F-]", "a GUID"),
    Question("resource-group", "resource group in Azure", names.GROUP[0], r"[\w.()-]", names.GROUP[1]),
    Question(
        "stack-hub",
        "Resource Manager of the Azure Stack Hub",
        r"https://management\.[a-z0-9-]+(?:\.[a-z0-9-]+)+",
        "[a-z0-9:/.-]",
        "https://management.REGION.FQDN",
    ),
    Question(
        "template",
        "address of the template's repository, for `edgeml upgrade`",
        r"(?:https://|ssh://git@)[A-Za-z0-9.-]+(?::\d+)?/[\w./~-]+|git@[A-Za-z0-9.-]+:[\w./~-]+",
        r"[\w:/.@~-]",
        "https://HOST/PATH, ssh://git@HOST/PATH or git@HOST:PATH, without a credential",
    ),
)

# By type of resource, what is called after the project, and how.
NAMED: dict[str, tuple[str, Callable[[str], str]]] = {
    "workspace": ("Microsoft.MachineLearningServices/workspaces", lambda name: name),
    "storageAccount": ("Microsoft.Storage/storageAccounts", lambda name: f"{_plain(name)}ml"),
    "vault": ("Microsoft.KeyVault/vaults", lambda name: f"{name}-kv"),
    "registry": ("Microsoft.ContainerRegistry/registries", lambda name: f"{_plain(name)}images"),
    "rows": ("Microsoft.Storage/storageAccounts", lambda name: f"{_plain(name)}rows"),
}


def judge(key: str, value: str) -> str:
    """Why an answer will not do, naming the character at fault where it is one; empty where it will."""
    question = next(one for one in QUESTIONS if one.key == key)
    if not value:
        return f"--{key} is needed: {question.asks}" if question.needed else ""
    if re.fullmatch(question.form, value, re.ASCII):
        return ""
    return f"--{key} {value!r} will not do{_culprit(question, value)}: it takes {question.takes}"


def _culprit(question: Question, value: str) -> str:
    """The first character with which no answer could be right, however it goes on."""
    for place, character in enumerate(value, start=1):
        if not re.fullmatch(question.characters, character, re.ASCII):
            return f", for {character!r} at place {place}"
    return ""


def named(name: str) -> dict[str, str]:
    """The resources' names that follow from a project's. Raises EdgemlError for one that Azure would refuse."""
    found = {}
    for key, (kind, of) in NAMED.items():
        found[key] = of(name)
        if reason := names.wrong(kind, found[key]):
            raise EdgemlError(f"'{name}' makes a name that Azure refuses: {reason}; choose another --name")
    return found


def checked(answers: Mapping[str, str]) -> None:
    """Raises EdgemlError with the first answer that will not do."""
    for question in QUESTIONS:
        if reason := judge(question.key, answers.get(question.key, "")):
            raise EdgemlError(reason)


def slug(text: str) -> str:
    """A name for the project out of a folder's or a repository's, empty where it has no letter."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-0123456789")[:20].strip("-")


def _plain(name: str) -> str:
    return name.replace("-", "")
