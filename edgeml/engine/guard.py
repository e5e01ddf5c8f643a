"""Ends the steps of an engine that is gone, whatever ended it.

SIGKILL leaves an engine no moment to end its steps, and they would go on writing beside the next run. So a shell
of a few lines waits on a pipe that the engine holds open: each step announces its process group there as its first
act, the engine takes it off when the step has ended, and when the pipe closes the groups that are left are killed.
The shell holds the run folder's lock meanwhile, so that a next run in the same folder waits for it. A process that left
its step's group (`setsid`) is out of reach.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

_WATCH = """
groups=' '
while read -r sign group; do
  case "$sign$groups" in
    +*) groups="$groups$group ";;
    -*" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}";;
  esac
done
for group in $groups; do kill -9 "-$group"; done
"""


class Guard:
    """The watch of one run. Nothing is started before the first step asks."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._watch: subprocess.Popen[bytes] | None = None
        self._ends = (-1, -1)

    def start(self) -> int:
        """The descriptor that a step must inherit to announce itself."""
        if self._watch is None:
            # The engine keeps the reading end too: should the shell be killed, no step dies of a broken pipe.
            self._ends = os.pipe()
            self._watch = subprocess.Popen(
                ["sh", "-c", _WATCH],
                cwd="/",
                stdin=self._ends[0],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(self._lock,),
            )
        return self._ends[1]

    def forget(self, group: int) -> None:
        """A step's group has ended."""
        with contextlib.suppress(OSError):
            os.write(self._ends[1], b"- %d\n" % group)

    def close(self) -> None:
        """Let the shell end, and with it what is left; nobody has to wait for that."""
        if self._watch is not None:
            ends, self._ends = self._ends, (-1, -1)  # first, so that a late `forget` writes nowhere
            for end in ends:
                os.close(end)


def announced(command: str, descriptor: int) -> str:
    """The command, at first announcing the group of its shell; on the same line, so that bash counts lines right."""
    return f'echo "+ $$" >&{descriptor}; exec {descriptor}>&-; {command}'
