"""What an edge VM lacks: asked of the VM itself, told with cause and fix.

edgeml compute check TARGET
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.edge import session, sizing
from edgeml.edge.executor import reached, storage_of, target_of
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.settings import Edge, Storage

# What a machine with private rows has no business to reach: the open internet by number and by name (a name that is
# looked up is a message to whoever answers), and the platform's metadata service, which gives out identities.
FORBIDDEN = ("1.1.1.1:443", "8.8.8.8:53", "example.com", "169.254.169.254:80")
SKEW = 30.0  # seconds; signatures of storage and sign-ins are good for minutes
_PYTHON = (3, 11)
_UBUNTU = (22, 4)
_DEBIAN = (12,)
_STORAGE = {
    "certificate": ("its certificate is not trusted", "set storage.ca_bundle to the PEM file of the stamp's authority"),
    "tls": ("it does not speak TLS", "give the https:// endpoint in storage.account_url"),
    "name": ("its name cannot be looked up", "let the VM use the stamp's name server"),
    "unreachable": ("it does not answer", "open the way from the VM's network to the endpoint's port"),
    "credential": (
        "it refuses the credential",
        "renew EDGEML_STORAGE_SAS_TOKEN or EDGEML_STORAGE_ACCOUNT_KEY; see that the clocks agree",
    ),
    "container": ("the container does not exist", "make it, or correct storage.container"),
}


class Finding(NamedTuple):
    """One thing that was looked at. `cause` says what was seen; `fix`, empty where all is well, what to do."""

    name: str
    ok: bool
    cause: str
    fix: str = ""


def examine(
    target: str, *, data: int | None = None, cards: int = 0, forbidden: Sequence[str] = FORBIDDEN
) -> list[Finding]:
    """Everything that a run on the target will need, in order; the first that is wrong may be why others are.

    `data` are the bytes of the rows, measured in the container where they are not given; `cards` the graphics cards
    that the pipeline wants. `forbidden` are addresses, as `host:port` or as a name to look up, that the VM must not
    reach. Raises EdgemlError only where there is no such target.
    """
    edge = target_of(target)
    asked: dict[str, str] | None = None
    storage: list[Finding] = []
    try:
        asked = _storage_question()
    except EdgemlError as error:
        storage = [_of_error("storage", error)]
    try:
        with reached(target) as (host, _):
            found = _server(host, edge) if isinstance(host, session.Remote) else []
            before = time.time()
            question = {"verb": "facts", "folder": edge.folder, "storage": asked, "forbidden": list(forbidden)}
            facts = session.told(host, question, patience=10.0)[-1]
            after = time.time()
            hello = session.told(host, {"verb": "hello", "folder": edge.folder, "environment": "0" * 32})[-1]
    except EdgemlError as error:
        return [_of_error("ssh", error)]
    listed = facts.get("storage")
    if data is None and listed and not listed["problem"]:
        data = int(listed["bytes"])
    return [
        *found,
        *_machine(facts),
        _clock(float(facts["time"]), before, after),
        *storage,
        *_storage(listed),
        *_size(facts, data, cards),
        _network(facts["reached"], forbidden),
        _gate(str(hello["gate"]), target),
    ]


def show(findings: Sequence[Finding], say: Callable[[str], None] = print) -> bool:
    """Say each finding as one line; True where all is well."""
    width = max(len(finding.name) for finding in findings)
    for name, ok, cause, fix in findings:
        say(f"{'ok' if ok else 'wrong':<6} {name:<{width}}  {cause}{'' if ok else f'; {fix}'}")
    return all(finding.ok for finding in findings)


# --- the SSH server, as it behaves ------------------------------------------------------------------


def _server(host: session.Remote, edge: Edge) -> list[Finding]:
    """Whether the key gets in, whether a password would, and whether the server carries connections on."""
    import asyncssh

    try:
        connection = host.connection()
    except session.Lost as lost:
        raise EdgemlError(str(lost), 1) from None
    found = [Finding("ssh", True, f"the pinned host key, and the key of {edge.user} is let in")]
    try:
        methods = host.run(asyncssh.get_server_auth_methods(edge.address, edge.port, edge.user, config=None))
    except (OSError, asyncssh.Error):
        methods = ["unknown"]
    open_ = sorted({"password", "keyboard-interactive", "unknown"} & set(methods))
    found.append(
        Finding("passwords", True, "the server offers none")
        if not open_
        else Finding(
            "passwords",
            False,
            f"the server offers {', '.join(open_)}",
            "set PasswordAuthentication and KbdInteractiveAuthentication to `no` in its sshd_config and reload it",
        )
    )
    kinds = [kind for kind, tried in (("local", _forwards), ("remote", _listens)) if tried(host, connection)]
    found.append(
        Finding("forwarding", True, "the server carries no connections on")
        if not kinds
        else Finding(
            "forwarding",
            False,
            f"the server carries {' and '.join(kinds)} connections on, past every rule of the network",
            "set `DisableForwarding yes` in the VM's sshd_config and reload it",
        )
    )
    return found


def _forwards(host: session.Remote, connection: Any) -> bool:
    """A connection through the server that fails at its far end was still made by the server."""
    import asyncssh

    try:
        _, writer = host.run(connection.open_connection("127.0.0.1", 9))
        writer.close()
    except asyncssh.ChannelOpenError as error:
        return bool(error.code != asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED)
    return True


def _listens(host: session.Remote, connection: Any) -> bool:
    import asyncssh

    try:
        host.run(connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 9)).close()
    except (asyncssh.ChannelListenError, asyncssh.ChannelOpenError):
        return False
    return True


# --- the machine ------------------------------------------------------------------------------------


def _machine(facts: dict[str, Any]) -> list[Finding]:
    system = facts["os"]
    name, version = system.get("ID", "unknown"), system.get("VERSION_ID", "")
    known = {"ubuntu": _UBUNTU, "debian": _DEBIAN}
    digits = [int(part) for part in version.split(".") if part.isdigit()]
    python = tuple(facts["python"])
    tools = [tool for tool in ("bubblewrap", "docker") if facts[tool]]
    settings = facts["sshd"]
    # Where the server's settings may be read they must agree with how it behaved.
    risky = [key for key in ("passwordauthentication", "permitemptypasswords") if settings.get(key) == "yes"]
    found = [
        Finding("system", True, f"{name} {version} on {facts['machine']}")
        if name in known and tuple(digits) >= known[name]
        else Finding(
            "system", False, f"{name} {version}, which edgeml is not tried on", "use an image of Ubuntu 22.04 or later"
        ),
        Finding("python", True, f"Python {python[0]}.{python[1]} with venv")
        if python >= _PYTHON and facts["venv"]
        else Finding(
            "python",
            False,
            f"Python {python[0]}.{python[1]}{'' if facts['venv'] else ' without venv'}",
            "install Python 3.11 or later with venv as python3 (Ubuntu 24.04: apt install python3 python3-venv)",
        ),
        Finding("sandbox", True, f"usable by this user: {', '.join(tools)}")
        if tools
        else Finding(
            "sandbox",
            False,
            "neither bubblewrap nor docker works for this user, and private steps run in nothing less",
            "apt install bubblewrap, and allow user namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)",
        ),
    ]
    if risky:
        found.append(Finding("sshd", False, f"{', '.join(risky)} is on", "set it to `no` in sshd_config and reload it"))
    if facts["lingers"] != "yes":
        found.append(
            Finding(
                "sessions",
                False,
                "systemd ends a user's processes with the last session",
                "call `loginctl enable-linger` for this user",
            )
        )
    return found


def _clock(there: float, before: float, after: float) -> Finding:
    """The VM's clock against ours, of which it is only known that it was between two points in time."""
    skew = max(before - there, there - after, 0.0)
    if skew <= SKEW:
        return Finding("clock", True, "agrees with this machine's" + (f" to {skew:.0f} s" if skew >= 1 else ""))
    cause = f"is {skew:.0f} s off, so signatures look expired or unborn"
    return Finding("clock", False, cause, "let the VM ask a time server (apt install chrony)")


def _storage(found: dict[str, Any] | None) -> list[Finding]:
    if found is None:
        return []
    problem = str(found["problem"])
    if not problem:
        gib = found["bytes"] / sizing.GIB
        return [Finding("storage", True, f"answers from the VM under its certificate; {gib:.2f} GiB of rows")]
    cause, fix = _STORAGE.get(problem, (f"it answers with {problem}", "look at the storage account"))
    return [Finding("storage", False, f"asked from the VM, {cause}", fix)]


def _size(facts: dict[str, Any], data: int | None, cards: int) -> list[Finding]:
    need = sizing.need(data or 0, cards=cards)
    rows = "rows that were not measured (say --data-gib)" if data is None else f"{data / sizing.GIB:.2f} GiB of rows"
    wanted = f"{rows} want {need.memory / sizing.GIB:.1f} GiB of memory"
    larger = f"use {need.size.name} or larger" if need.size else "no size of one machine has that; train on a sample"
    memory = facts["memory"] / sizing.GIB
    # A size's memory is what is sold; some of it the system never sees.
    enough = facts["memory"] >= need.memory * 0.93
    found = [
        Finding("memory", enough, f"{memory:.1f} GiB; {wanted} ({larger}; rule: {sizing.RULE})", larger),
        Finding(
            "disk",
            facts["free"] >= need.disk,
            f"{facts['free'] / sizing.GIB:.1f} GiB are free, {need.disk / sizing.GIB:.1f} GiB are wanted",
            "free some (old runs: `edgeml cache`), or attach a larger disk",
        ),
    ]
    if cards:
        there = len(facts["gpus"])
        found.append(
            Finding(
                "gpu", there >= cards, f"{there} of {cards} graphics cards", f"{larger}, and install NVIDIA's driver"
            )
        )
    return found


def _network(reached_: Sequence[str], forbidden: Sequence[str]) -> Finding:
    if not reached_:
        return Finding("network", True, f"none of {len(forbidden)} places outside is reached")
    return Finding(
        "network",
        False,
        f"the VM reaches {', '.join(reached_)}",
        "deny outbound traffic in its network security group but for the storage endpoint",
    )


def _gate(key: str, target: str) -> Finding:
    from edgeml import settings

    if not key:
        return Finding("gate", True, "the egress gate has no key yet; it makes one when it first decides")
    if key in settings.load().airlock.public_keys:
        return Finding("gate", True, "the egress gate's key is one of airlock.public_keys")
    return Finding("gate", False, f"the key of {target}'s egress gate is not trusted here",
                   f'add "{key}" to airlock.public_keys in edgeml.toml, so that its releases are taken')  # fmt: skip


def _storage_question() -> dict[str, str] | None:
    """What the VM needs to list the container once: an address, and a token that does nothing else."""
    from datetime import UTC, datetime, timedelta

    from edgeml import settings
    from edgeml.storage import sas

    variables, authority = storage_of(needed=True)
    chosen: Storage = settings.load().storage
    url, token = variables["EDGEML_STORAGE_ACCOUNT_URL"], variables.get("EDGEML_STORAGE_SAS_TOKEN", "")
    if not token:
        account = variables.get("EDGEML_STORAGE_ACCOUNT_NAME") or url.partition("://")[2].partition(".")[0]
        now = datetime.now(UTC)
        token = sas.container_sas(
            account, variables["EDGEML_STORAGE_ACCOUNT_KEY"], chosen.container,
            expires=now + timedelta(minutes=10), permissions="l",
        )  # fmt: skip
    return {"url": url, "container": chosen.container, "token": token.lstrip("?"), "authority": authority}


def _of_error(name: str, error: EdgemlError) -> Finding:
    cause, _, fix = str(error).partition("; ")
    return Finding(name, False, cause, fix or "run the same command again")
