"""A fork under a name of its own: which files get what, and what the team has changed already and keeps.

A value is the team's once it is neither empty nor what the template brought; so this can be run again at any time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from edgeml.engine.files import write_atomically
from edgeml.errors import EdgemlError
from edgeml.fork import answers as questions
from edgeml.fork import record as records
from edgeml.fork.git import Git
from edgeml.fork.record import Version

SETTINGS, OWNERS, README = "edgeml.toml", ".github/CODEOWNERS", "README.md"
CLOUD, EDGE = "infra/azure/parameters.json", "infra/stack-hub/parameters.json"

Action = Literal["made", "changed", "same", "kept", "later"]


class Done(NamedTuple):
    """What became of one file, and which of its values: `changed` has those that were set, `kept` those of the team."""

    path: str
    action: Action
    what: str = ""


class _Values(NamedTuple):
    """The values of a file that were set, and those that the team has given already."""

    set: dict[str, str]
    kept: list[str]


def begin(git: Git, answers: Mapping[str, str]) -> list[Done]:
    """Write what the answers say. Raises EdgemlError for one that will not do, before anything is written."""
    questions.checked(answers)
    named = questions.named(answers["name"])
    brought = records.first(git) if git.is_top() else ""
    done = [_record(git, brought, answers.get("template", ""))]
    owner, _, repository = answers.get("repository", "").partition("/")
    cloud = {"location": answers.get("location", ""), "owner": owner, "repository": repository}
    cloud |= {key: named[key] for key in ("workspace", "storageAccount", "vault", "registry")}
    done.append(_parameters(git, brought, CLOUD, cloud))
    done.append(_parameters(git, brought, EDGE, {"storageAccount": named["rows"]}))
    done.append(_settings(git, brought, named["workspace"], answers))
    done.append(_owners(git, brought, answers))
    done.append(_readme(git, brought, answers["name"]))
    return [*done, *_deployments(git)]


def given(git: Git) -> dict[str, str]:
    """The answers that the fork's files hold already, so that nothing is asked twice."""
    brought = records.first(git) if git.is_top() else ""
    values = _json_values(_text(git, CLOUD))
    theirs = _json_values(_brought(git, brought, CLOUD))
    own = {key: value for key, value in values.items() if value and (not theirs or value != theirs.get(key))}
    found = {"name": own.get("workspace", ""), "location": own.get("location", "")}
    for key, pattern in (("owner", "*"), ("data-officer", "/contracts/")):
        owner = re.search(rf"^{re.escape(pattern)}\s+(@\S+)", _text(git, OWNERS), re.MULTILINE)
        found[key] = owner[1] if owner else ""
    if own.get("owner") and own.get("repository"):
        found["repository"] = f"{own['owner']}/{own['repository']}"
    return {key: value for key, value in found.items() if value and not questions.judge(key, value)}


def _record(git: Git, brought: str, source: str) -> Done:
    """Which version the fork began with. One of the template's own, where that is itself a fork, is none of ours."""
    if not brought:
        return Done(
            records.FILE, "later", "no commit yet; commit the template's files as they are, then run this again"
        )
    text = _text(git, records.FILE)
    before = records.parse(text) if text and text != _brought(git, brought, records.FILE) else None
    version = Version(before.tree if before else brought, source or (before.source if before else ""))
    if version == before:
        return Done(records.FILE, "same")
    _write(git, records.FILE, version.text())
    return Done(records.FILE, "changed" if before else "made", f"the version that this fork has, {version.tree[:12]}")


def _settings(git: Git, brought: str, workspace: str, answers: Mapping[str, str]) -> Done:
    import tomllib

    from edgeml.infra import handover

    wanted = {
        "azure.tenant_id": answers.get("tenant", ""),
        "azure.subscription_id": answers.get("subscription", ""),
        "azure.resource_group": answers.get("resource-group", ""),
        "azure.workspace": workspace,
        "stackhub.arm_url": answers.get("stack-hub", ""),
    }
    try:
        now, before = (tomllib.loads(text) for text in (_text(git, SETTINGS), _brought(git, brought, SETTINGS)))
    except tomllib.TOMLDecodeError as error:
        raise EdgemlError(f"{SETTINGS} is not valid TOML ({error}); mend it or restore it with git") from None
    values = _choose(wanted, _flat(now), _flat(before))
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.set.items():
        section, _, key = name.partition(".")
        sections.setdefault(section, {})[key] = value
    handover.write(git.root / SETTINGS, sections)
    return _done(SETTINGS, values)


def _parameters(git: Git, brought: str, path: str, wanted: dict[str, str]) -> Done:
    """Values of an ARM parameter file, each changed in its own place: the file's form is the team's."""
    text = _text(git, path)
    if not text:
        return Done(path, "kept", "removed")
    values = _choose(wanted, _json_values(text, path), _json_values(_brought(git, brought, path)))
    for key, value in values.set.items():
        text = _with(text, key, json.dumps(value))
    if values.set:
        _json_values(text, path)
        _write(git, path, text)
    return _done(path, values)


def _with(text: str, key: str, value: str) -> str:
    """The text of a parameter file with a value, which is JSON; a key that it has not comes first."""
    text, count = re.subn(
        rf'("{key}"\s*:\s*\{{\s*"value"\s*:\s*)"[^"\\]*"', lambda match: match[1] + value, text, count=1
    )
    if count:
        return text
    return re.sub(r'"parameters"\s*:\s*\{', lambda match: f'{match[0]}\n    "{key}": {{ "value": {value} }},', text)


def _owners(git: Git, brought: str, answers: Mapping[str, str]) -> Done:
    owner = answers["owner"]
    officer = answers.get("data-officer") or owner
    text = (
        "# Who must approve a change, of whatever is theirs; GitHub takes the last line that matches, and so does\n"
        "# `edgeml gate`.\n"
        f"* {owner}\n"
        f"/contracts/ {officer}\n"
    )
    now = _text(git, OWNERS)
    if now == text:
        return Done(OWNERS, "same")
    if now and now != _brought(git, brought, OWNERS):
        return Done(OWNERS, "kept", "it is yours")
    _write(git, OWNERS, text)
    return Done(OWNERS, "made", owner if officer == owner else f"{owner}, contracts {officer}")


def _readme(git: Git, brought: str, name: str) -> Done:
    """The fork's name as the title, where that is still the template's; the rest is for the team to write."""
    text, title = _text(git, README), f"# {name}"
    now, _, rest = text.partition("\n")
    if now == title:
        return Done(README, "same")
    if not now or now != _brought(git, brought, README).partition("\n")[0]:
        return Done(README, "kept", "it is yours")
    _write(git, README, f"{title}\n{rest}")
    return Done(README, "changed", "title")


def _deployments(git: Git) -> Iterator[Done]:
    """A site's record begins with its first promotion: before, there is no evidence that it could hold."""
    from edgeml import settings
    from edgeml.gitops import record

    for site in settings.load().sites.order:
        path = record.path_of(site)
        if (git.root / path).exists():
            yield Done(path, "same")
        else:
            yield Done(path, "later", f"nothing yet; the first `edgeml promote --site {site}` proposes it")


def _choose(wanted: Mapping[str, str], now: Mapping[str, Any], before: Mapping[str, Any]) -> _Values:
    """Which values to set: those that are empty, or as the template brought them."""
    values = _Values({}, [])
    for key, value in wanted.items():
        there = now.get(key, "")
        if not value or there == value:
            continue
        if there in ("", before.get(key)):
            values.set[key] = value
        else:
            values.kept.append(key)
    return values


def _done(path: str, values: _Values) -> Done:
    kept = f"yours: {', '.join(values.kept)}" if values.kept else ""
    if values.set:
        return Done(path, "changed", "; ".join(filter(None, (", ".join(values.set), kept))))
    return Done(path, "kept", kept) if kept else Done(path, "same")


def _json_values(text: str, path: str = "") -> dict[str, Any]:
    """The values of a parameter file by name. Raises EdgemlError where `path` names it and it is none."""
    try:
        parameters = json.loads(text or "{}")["parameters"]
        return {key: one.get("value", "") for key, one in parameters.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        if path:
            raise EdgemlError(f"{path} is no file of ARM parameters; mend it or restore it with git") from None
        return {}


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    tables = {section: values for section, values in document.items() if isinstance(values, dict)}
    return {f"{section}.{key}": value for section, values in tables.items() for key, value in values.items()}


def _brought(git: Git, tree: str, path: str) -> str:
    """A file as the template brought it, empty where it had none or nothing is known of that."""
    return (git.text_at(tree, path) or "") if tree else ""


def _text(git: Git, path: str) -> str:
    file = git.root / path
    try:
        return file.read_text("utf-8") if file.is_file() else ""
    except UnicodeDecodeError:
        raise EdgemlError(f"{path} is no UTF-8 text; mend it or restore it with git") from None


def _write(git: Git, path: str, text: str) -> None:
    file = Path(git.root, path)
    os.makedirs(file.parent, exist_ok=True)
    write_atomically(str(file), text)
