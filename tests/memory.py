"""The peak memory of a piece of Python code, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A child's ru_maxrss begins with what its parent had when it forked; VmHWM begins with the program.
_TELL = """
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
sys.exit(globals().get('exit_code', 0))
"""


def peak_of(code: str, *arguments: str, folder: Path) -> tuple[int, subprocess.CompletedProcess[bytes]]:
    """Its peak in KiB and the finished process; `sys.argv[1:]` are the arguments, `exit_code` its exit code."""
    command = [sys.executable, "-c", f"import sys\n{code}{_TELL}", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    return int(done.stdout.split()[-1]), done
