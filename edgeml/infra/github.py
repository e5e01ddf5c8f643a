"""The repository's own protection as desired state: environments, rulesets, variables, secrets.

Compared with what GitHub says, shown, and made so step by step; each step is idempotent, so a second call goes on where
a first one was ended. What GitHub has and the file has not is named and left alone.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError
from edgeml.infra.plan import compare

if TYPE_CHECKING:
    import argparse

    from edgeml.gitops.github import Repository

FILE = "infra/github/repository.yml"
MAX_BYTES = 256 << 10
MAKE, CHANGE, NOTE = "+", "~", "!"
_TOP = {"workflows", "environments", "variables", "secrets", "rulesets"}
_ENVIRONMENT = {"branches", "tags", "wait_timer", "prevent_self_review", "reviewers"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Step:
    """One difference: a sign, what it is, and how it is made; a note is made by nobody."""

    sign: str
    what: str
    make: Callable[[], object] | None = None


def command(args: argparse.Namespace) -> int:
    """`edgeml infra plan|apply --target github`: 0 as written, 3 where a plan finds a difference."""
    from edgeml.gitops import github

    if args.action == "destroy":
        raise EdgemlError("what protects the repository is not destroyed; remove a rule from the file and on GitHub")
    wanted = load()
    repository = github.connect()
    steps = list(plan(repository, wanted, os.environ))
    todo = [step for step in steps if step.make]
    if args.action == "plan":
        if args.json:
            print(json.dumps([{"sign": step.sign, "what": step.what} for step in steps], indent=2))
        else:
            print("\n".join(f"{step.sign} {step.what}" for step in steps) or f"{repository.full_name} is as written")
        return 3 if any(step.sign != NOTE for step in steps if not _rewritten(step)) else 0
    for step in steps:
        print(f"{step.sign} {step.what}", file=sys.stderr)
        if step.make:
            step.make()
    print(json.dumps({"made": len(todo)}) if args.json else f"{repository.full_name}: {len(todo)} made")
    return 0


def _rewritten(step: Step) -> bool:
    """A secret that is there: nobody can compare it, so writing it anew is no difference."""
    return step.sign == CHANGE and step.what.startswith("secret ")


def load() -> dict[str, Any]:
    """The file, each part of it of its form. Raises EdgemlError naming the part at fault."""
    import yaml

    path = project.root() / FILE
    if not path.is_file():
        raise EdgemlError(f"there is no {FILE}; restore it with git")
    if path.stat().st_size > MAX_BYTES:
        raise EdgemlError(f"{FILE} is too large for what it holds; split nothing into it")
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EdgemlError(f"{FILE} is no valid YAML ({str(error).splitlines()[0]}); mend it") from None
    _of_keys(found, _TOP, "the file")
    environments = found.setdefault("environments", {})
    for name, one in environments.items():
        _of_keys(one, _ENVIRONMENT, f"environments.{name}")
        if not one.get("branches") and not one.get("tags"):
            raise EdgemlError(f"{FILE}: environments.{name} names no branches or tags; every ref could enter it")
        if any(pattern in ("*", "**", "**/*") for pattern in [*one.get("branches", []), *one.get("tags", [])]):
            raise EdgemlError(f"{FILE}: environments.{name} lets every ref in; name the ones that may enter")
    for section in ("variables", "secrets"):
        for environment, names in found.setdefault(section, {}).items():
            if environment not in environments:
                raise EdgemlError(f"{FILE}: {section}.{environment} is for an environment that is not declared; add it")
            for name in names:
                if not _NAME.fullmatch(str(name)) or str(name).upper().startswith("GITHUB_"):
                    raise EdgemlError(f"{FILE}: {section}.{environment}: '{name}' is no name that GitHub takes")
    _rulesets(found.setdefault("rulesets", []))
    return dict(found)


def _of_keys(value: Any, known: set[str], where: str) -> None:
    if not isinstance(value, dict):
        raise EdgemlError(f"{FILE}: {where} must be a mapping")
    strange = sorted(set(value) - known)
    if strange:
        raise EdgemlError(f"{FILE}: {where} has the key '{strange[0]}'; it takes {', '.join(sorted(known))}")


def _rulesets(rulesets: Any) -> None:
    from githubkit_schemas.v2022_11_28.models import ReposOwnerRepoRulesetsPostBody
    from pydantic import ValidationError

    for number, one in enumerate(rulesets):
        try:
            ReposOwnerRepoRulesetsPostBody.model_validate(one)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"][:4])
            raise EdgemlError(f"{FILE}: rulesets[{number}].{place}: {first['msg'].lower()}") from None


def plan(repository: Repository, wanted: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Step]:
    """The steps from what GitHub has to what is wanted, in an order in which each can be made. Reads only."""
    yield from _workflows(repository, wanted.get("workflows") or {})
    there = {one.name: _plain(one) for one in _environments(repository)}
    for name, one in wanted["environments"].items():
        yield from _environment(repository, name, one, there.get(name))
    for name in sorted(set(there) - set(wanted["environments"])):
        yield Step(NOTE, f"environment {name} is not in {FILE}; who made it?")
    for name, values in wanted["variables"].items():
        yield from _variables(repository, name, values, name in there)
    for name, names in wanted["secrets"].items():
        yield from _secrets(repository, name, names, name in there, environ)
    yield from _rules(repository, wanted["rulesets"])


def _plain(model: Any) -> Any:
    return model.model_dump(mode="json", exclude_unset=True)


def _workflows(repository: Repository, wanted: Mapping[str, Any]) -> Iterator[Step]:
    actions = repository.rest.actions
    if not wanted:
        return
    there = _plain(repository.ask(actions.get_github_actions_default_workflow_permissions_repository))
    for difference in compare(wanted, there):
        yield Step(
            CHANGE,
            f"workflows {difference}",
            _made(repository, actions.set_github_actions_default_workflow_permissions_repository, data=dict(wanted)),
        )


def _environments(repository: Repository) -> list[Any]:
    found = repository.ask(repository.rest.repos.get_all_environments, per_page=100)
    return list(found.environments or [])


def _environment(repository: Repository, name: str, wanted: Mapping[str, Any], there: Any) -> Iterator[Step]:
    """Who may enter an environment: refs, on every plan of GitHub, and reviewers, which not every plan has."""
    repos = repository.rest.repos
    rules = {rule["type"]: rule for rule in (there or {}).get("protection_rules", [])}
    reviewers = rules.get("required_reviewers", {})
    have = {
        "wait_timer": rules.get("wait_timer", {}).get("wait_timer", 0),
        "prevent_self_review": bool(reviewers.get("prevent_self_review")),
        "reviewers": sorted(_reviewer(one) for one in reviewers.get("reviewers", [])),
        "custom_branch_policies": bool(
            ((there or {}).get("deployment_branch_policy") or {}).get("custom_branch_policies")
        ),
    }
    want = {
        "wait_timer": wanted.get("wait_timer", 0),
        # Without reviewers GitHub keeps no such thing.
        "prevent_self_review": bool(wanted.get("prevent_self_review") and wanted.get("reviewers")),
        "reviewers": sorted(wanted.get("reviewers") or []),
        "custom_branch_policies": True,
    }
    differences = [str(one) for one in compare(want, have)]
    if there is None or differences:
        sign = MAKE if there is None else CHANGE
        yield Step(
            sign,
            f"environment {name}" + ("" if there is None else f": {'; '.join(differences)}"),
            lambda: _made(repository, repos.create_or_update_environment, name, data=_body(repository, want))(),
        )
    policies: dict[tuple[str, str], int] = {}
    if there is not None and have["custom_branch_policies"]:
        found = repository.ask(repos.list_deployment_branch_policies, name, per_page=100)
        policies = {(str(one.type or "branch"), str(one.name)): int(one.id) for one in found.branch_policies}
    allowed = [("branch", one) for one in wanted.get("branches", [])] + [("tag", one) for one in wanted.get("tags", [])]
    for kind, pattern in allowed:
        if (kind, pattern) not in policies:
            yield Step(MAKE, f"environment {name} lets {kind} {pattern} in", _let_in(repository, name, kind, pattern))
    for (kind, pattern), number in policies.items():
        if (kind, pattern) not in allowed:
            yield Step(
                CHANGE, f"environment {name} no longer lets {kind} {pattern} in", _shut(repository, name, number)
            )


def _let_in(repository: Repository, name: str, kind: str, pattern: str) -> Callable[[], object]:
    data = {"name": pattern, "type": kind}
    return _made(repository, repository.rest.repos.create_deployment_branch_policy, name, data=data)


def _shut(repository: Repository, name: str, number: int) -> Callable[[], object]:
    return _made(repository, repository.rest.repos.delete_deployment_branch_policy, name, number)


def _reviewer(entry: Mapping[str, Any]) -> str:
    who = entry.get("reviewer") or {}
    return str(who.get("login") or who.get("slug") or "")


def _body(repository: Repository, want: Mapping[str, Any]) -> dict[str, Any]:
    reviewers = [_found(repository, who) for who in want["reviewers"]]
    return {
        "wait_timer": want["wait_timer"],
        "prevent_self_review": want["prevent_self_review"],
        "reviewers": reviewers or None,
        "deployment_branch_policy": {"protected_branches": False, "custom_branch_policies": True},
    }


def _found(repository: Repository, who: str) -> dict[str, Any]:
    """A user or team as GitHub wants it: by number."""
    if "/" in who:
        owner, slug = who.split("/", 1)
        team = repository.ask(lambda *_: repository.rest.teams.get_by_name(owner, slug))
        return {"type": "Team", "id": team.id}
    user = repository.ask(lambda *_: repository.rest.users.get_by_username(who))
    return {"type": "User", "id": user.id}


def _variables(repository: Repository, environment: str, values: Mapping[str, Any], made: bool) -> Iterator[Step]:
    actions = repository.rest.actions
    there: dict[str, str] = {}
    if made:
        found = repository.ask(actions.list_environment_variables, environment, per_page=30)
        there = {str(one.name): str(one.value) for one in found.variables}
    for name, value in values.items():
        data = {"name": name, "value": str(value)}
        if value in ("", None):
            yield Step(NOTE, f"variable {environment}/{name} has no value in {FILE} yet")
        elif name not in there:
            yield Step(
                MAKE,
                f"variable {environment}/{name}",
                _made(repository, actions.create_environment_variable, environment, data=data),
            )
        elif there[name] != str(value):
            yield Step(
                CHANGE,
                f"variable {environment}/{name}: {there[name]} -> {value}",
                _made(repository, actions.update_environment_variable, name, environment, data=data),
            )


class _Done(NamedTuple):
    """An answer of which only the success counts: many a write is answered with nothing."""

    status_code: int
    parsed_data: None = None


def _made(repository: Repository, method: Any, *args: Any, **kwargs: Any) -> Callable[[], object]:
    """The write, to be done when its turn comes."""

    def ask(owner: str, name: str) -> Any:
        return _Done(method(owner, name, *args, **kwargs).status_code)

    return lambda: repository.ask(ask)


def _secrets(
    repository: Repository, environment: str, names: list[str], made: bool, environ: Mapping[str, str]
) -> Iterator[Step]:
    actions = repository.rest.actions
    there: set[str] = set()
    if made:
        found = repository.ask(actions.list_environment_secrets, environment, per_page=100)
        there = {str(one.name) for one in found.secrets}
    for name in names:
        value = environ.get(name, "")
        if value:
            sign = CHANGE if name in there else MAKE
            anew = ", which cannot be compared, anew" if name in there else ""
            yield Step(sign, f"secret {environment}/{name}{anew}", _sealed(repository, environment, name, value))
        elif name not in there:
            yield Step(NOTE, f"secret {environment}/{name} is not set; give its value as the variable {name} and apply")


def _sealed(repository: Repository, environment: str, name: str, value: str) -> Callable[[], object]:
    def make() -> object:
        actions = repository.rest.actions
        key = repository.ask(actions.get_environment_public_key, environment)
        data = {"encrypted_value": seal(str(key.key), value), "key_id": str(key.key_id)}
        return _made(repository, actions.create_or_update_environment_secret, environment, name, data=data)()

    return make


def seal(key: str, value: str) -> str:
    """`value` for the holder of a public key alone (libsodium's sealed box), in base64. Raises EdgemlError."""
    from nacl.exceptions import CryptoError
    from nacl.public import PublicKey, SealedBox

    try:
        box = SealedBox(PublicKey(base64.b64decode(key, validate=True)))
    except (ValueError, TypeError, CryptoError):
        raise EdgemlError("GitHub's public key is not one; nothing was sent, run again", 1) from None
    return base64.b64encode(box.encrypt(value.encode())).decode()


def _rules(repository: Repository, wanted: list[dict[str, Any]]) -> Iterator[Step]:
    repos = repository.rest.repos
    listed = repository.ask(repos.get_repo_rulesets, per_page=100, includes_parents=False)
    there = {str(one.name): int(one.id) for one in listed}
    for one in wanted:
        name = one["name"]
        if name not in there:
            yield Step(MAKE, f"ruleset {name}", _made(repository, repos.create_repo_ruleset, data=one))
            continue
        have = _plain(repository.ask(repos.get_repo_ruleset, there[name]))
        differences = [str(difference) for difference in compare(one, have)]
        if differences:
            what = f"ruleset {name}: {'; '.join(differences)}"
            yield Step(CHANGE, what, _made(repository, repos.update_repo_ruleset, there[name], data=one))
    for name in sorted(set(there) - {one["name"] for one in wanted}):
        yield Step(NOTE, f"ruleset {name} is not in {FILE}; who made it?")
