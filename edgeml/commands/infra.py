"""`edgeml infra`: the edge VM, the cloud side and the repository as code."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.infra.target import Target
    from edgeml.settings import Settings

HELP = (
    "Compare what infra/ says with what is there, make it so, or take it away: the edge VM on Azure Stack Hub, the\n"
    "workspace and its identities in Azure, the environments and rules of the repository on GitHub.\n"
    "`plan` and `destroy` show first; only `apply`, and `destroy` with the name, change anything."
)
EXAMPLES = [
    "edgeml infra plan --target stack-hub               # what would change; exit code 3 if something would",
    "edgeml infra plan --target stack-hub --rows 12GiB  # is the VM large enough for these rows?",
    "edgeml infra apply --target stack-hub              # make it so, wait, hand address and host key to edgeml.toml",
    "edgeml infra apply --target azure",
    "edgeml infra apply --target github",
    "edgeml infra destroy --target stack-hub            # asks for the name; the private rows stay",
]
TARGETS = ("stack-hub", "azure", "github")
DIFFERENT = 3
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="plan|apply|destroy")
    plan = actions.add_parser("plan", help="show what would change; changes nothing")
    apply = actions.add_parser("apply", help="show it, make it so, wait, and hand over what came out")
    destroy = actions.add_parser("destroy", help="show what would go, ask for the name, and take it away")
    for action in (plan, apply, destroy):
        action.add_argument("--target", choices=TARGETS, required=True, help="which part of infra/")
        action.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="a parameter of the template, for this call",
        )
        action.add_argument("--json", action="store_true", help="print JSON")
    for action in (plan, apply):
        action.add_argument(
            "--rows", default="", metavar="SIZE", help="size of the private rows, as in 12GiB: is the VM enough?"
        )
    for action in (apply, destroy):
        action.add_argument("--minutes", type=float, default=60, help="how long to wait (default: 60)")
    apply.add_argument("--compute", default="edge-vm", help="target to write into edgeml.toml (default: edge-vm)")
    destroy.add_argument("--name", default="", help="the resource group's name, instead of being asked for it")
    destroy.add_argument("--private-rows", action="store_true", help="also the account in which the private rows lie")
    destroy.add_argument("--account", default="", help="with --private-rows: that account's name, the second time")


def execute(args: argparse.Namespace) -> int:
    from edgeml import settings
    from edgeml.infra import plan as planning
    from edgeml.infra import target as targets

    chosen = settings.load()
    if args.target == "github":
        from edgeml.infra.github import command

        return command(args)
    target = targets.of(args.target, chosen, _given(args.set))
    if args.action == "destroy":
        return _destroy(args, target)
    if args.target == "stack-hub":
        say(targets.holds(target, _bytes(args.rows)))
        targets.image_offered(target)
    changes = planning.plan(target)
    different = any(one.action != planning.SAME for one in changes)
    if args.action == "plan":
        if args.json:
            print(json.dumps(_facts(target, changes), indent=2, sort_keys=True))
        else:
            print("\n".join(planning.lines(changes)))
        return DIFFERENT if different else 0
    say("\n".join(planning.lines(changes)))
    return _apply(args, chosen, target, changes)


def _apply(args: argparse.Namespace, chosen: Settings, target: Target, changes: list[Any]) -> int:
    from edgeml.infra import deploy, handover

    outputs = deploy.apply(target, changes, say, args.minutes)
    if target.name == "stack-hub":
        name, url = chosen.storage.container, str(outputs["accountUrl"])
        if deploy.container(target, url, name, chosen.storage.ca_bundle):
            say(f"made the container {name}, which nobody but its key's holder may read")
        key = deploy.host_key(target)
        if not key:
            say("the VM's host key is not told; read /etc/ssh/ssh_host_ed25519_key.pub at its console and set host_key")
        sections = handover.of_stack_hub(outputs, key, args.compute, name)
    else:
        sections = handover.of_azure(outputs)
        say(f"image registry {outputs['registryServer']}, deploying identity {outputs['deployClientId']}")
    written = handover.write(project.root() / project.SETTINGS_FILE, sections)
    if args.json:
        print(json.dumps({"outputs": outputs, "settings": sections, "written": written}, indent=2, sort_keys=True))
    else:
        print(f"edgeml.toml: {', '.join(written) if written else 'as it was'}")
    return 0


def _destroy(args: argparse.Namespace, target: Target) -> int:
    from edgeml.infra import destroy

    account = str(target.values.get("storageAccount", ""))
    if args.private_rows and args.account != account:
        raise EdgemlError("--private-rows deletes every private row; say it twice, by --account and the account's name")
    found = destroy.doomed(target, rows_too=args.private_rows)
    going = [one for one in found if not one.kept]
    if args.json:
        print(json.dumps([{"id": one.id, "billed": one.billed, "kept": one.kept} for one in found], indent=2))
    else:
        print("\n".join(destroy.lines(found)) if found else "nothing of the template is there")
    if not going:
        return 0
    name = args.name or _asked(f"type '{target.place.group}' to delete {len(going)} of them: ")
    if name != target.place.group:
        raise EdgemlError(f"that is not the resource group's name, {target.place.group}; nothing was deleted", 1)
    destroy.destroy(target, found, say, args.minutes)
    return 0


def _asked(question: str) -> str:
    if not sys.stdin.isatty():
        raise EdgemlError("nobody can be asked here; give the resource group's name by --name")
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()


def _facts(target: Target, changes: list[Any]) -> dict[str, Any]:
    return {
        "deployment": target.deployment_name,
        "resources": [
            {
                "action": one.action,
                "differences": [str(difference) for difference in one.differences],
                "id": one.resource.id,
            }
            for one in changes
        ],
    }


def _given(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise EdgemlError(f"--set {word}: write it as NAME=VALUE")
        found[name] = value
    return found


def _bytes(text: str) -> int | None:
    import re

    if not text:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]iB)?", text)
    if not match:
        raise EdgemlError(f"--rows {text}: write a size like 12GiB")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def say(text: str) -> None:
    print(text, file=sys.stderr)
