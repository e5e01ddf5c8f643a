"""A process measured from outside: its seconds from start to exit and its peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_UNIT = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # of ru_maxrss in a MB


class Failed(Exception):  # noqa: N818 - an outcome to report, not a defect
    """A process that ended with an error, or a package that could not be installed."""


@dataclass(frozen=True)
class Measured:
    """Seconds from start to exit, the peak resident MB of the process or of the largest that it waited for, and the
    processor's seconds of all of them."""

    seconds: float
    peak: float
    cpu: float = 0.0


def measure(command: Sequence[str], cwd: Path, environment: Mapping[str, str], log: Path) -> Measured:
    """Run a process to its end, its output in `log`; raises Failed with the end of it."""
    with log.open("wb") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        told = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise Failed(f"`{' '.join(command)[:200]}` ended with {process.returncode}: " + " / ".join(told[-3:])[-600:])
    return Measured(seconds, usage.ru_maxrss / _UNIT, usage.ru_utime + usage.ru_stime)


def edgeml() -> str:
    """The console script beside this interpreter, as a user calls it; compiled already, as an installer leaves it."""
    import compileall

    import edgeml as package

    assert package.__file__
    compileall.compile_dir(str(Path(package.__file__).parent), quiet=1)
    script = Path(sys.executable).with_name("edgeml")
    if not script.exists():
        raise SystemExit(f"{script} is not there; run `make setup`")
    return str(script)


def plain_environment(**more: str) -> dict[str, str]:
    """What a fresh login would have, and `more`: no setting of this benchmark's own Python reaches the measured one.

    PYTHONPATH alone is kept for edgeml where it is set, because it names the checkout that is to be measured.
    """
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    return kept | {"PATH": "/usr/local/bin:/usr/bin:/bin", "USER": "bench", "USERNAME": "bench"} | more


def checkout() -> dict[str, str]:
    """The variable by which `edgeml` finds another checkout than the one that its environment was made from."""
    return {"PYTHONPATH": os.environ["PYTHONPATH"]} if os.environ.get("PYTHONPATH") else {}


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
