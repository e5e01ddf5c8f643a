"""Runs a shell command as several processes that know their rank; executed as `python ranks.py TYPE N COMMAND`.

The variables are those that PyTorch's `env://` initialisation, Open MPI's programs and TensorFlow's strategies
read. The first process that fails ends the others, and its exit code is the result. It must not import anything
of edgeml.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys


def main(argv: list[str]) -> int:
    kind, count, command = argv[0], int(argv[1]), argv[2]
    ports = free_ports(count)
    given = tensorflow_variables if kind == "tensorflow" else variables
    started = [
        subprocess.Popen(["bash", "-c", command], env={**os.environ, **given(rank, ports)}) for rank in range(count)
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


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def tensorflow_variables(rank: int, ports: list[int]) -> dict[str, str]:
    """What one of TensorFlow's workers finds in its environment."""
    workers = [f"127.0.0.1:{port}" for port in ports]
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": rank}})}


def variables(rank: int, ports: list[int]) -> dict[str, str]:
    """What the process of one rank finds in its environment."""
    count = len(ports)
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(ports[0]),
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(count),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
