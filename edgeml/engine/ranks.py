"""Runs a shell command as several processes that know their rank; executed as `python ranks.py N COMMAND`.

The variables are those that PyTorch's `env://` initialisation and Open MPI's programs read. The first process that
fails ends the others, and its exit code is the result. It must not import anything of edgeml.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def main(argv: list[str]) -> int:
    count, command = int(argv[0]), argv[1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    started = [
        subprocess.Popen(["bash", "-c", command], env={**os.environ, **variables(rank, count, port)})
        for rank in range(count)
    ]
    left = dict.fromkeys(process.pid for process in started)
    while left:
        pid, status = os.wait()
        if pid not in left:
            continue
        del left[pid]
        code = os.waitstatus_to_exitcode(status)
        if code:
            for process in started:
                if process.pid in left:
                    process.terminate()
            return code if code > 0 else 128 - code
    return 0


def variables(rank: int, count: int, port: int) -> dict[str, str]:
    """What the process of one rank finds in its environment."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(count),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
