"""Asks a server from within its own container. Runs under the image's Python, given as text, with nothing of edgeml.

Standard input: a JSON object with `start` (the words that start the server, empty where it runs), `port`, `path`,
`golden` and `single` (bodies of requests), `calls`, `seconds`. Standard output: what was found, as JSON.
"""

import http.client
import json
import os
import subprocess
import sys
import time
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    began = time.perf_counter()
    process = subprocess.Popen(asked["start"], stdout=sys.stderr) if asked["start"] else None
    found = {"uid": os.getuid(), "interfaces": interfaces(), "writable": writable(), "ready": False}
    while time.perf_counter() - began < asked["seconds"] and (process is None or process.poll() is None):
        try:
            if request(asked["port"], "GET", "/v2/health/ready")[0] == 200:
                found["ready"] = True
                break
        except OSError:
            time.sleep(0.01)
    found["ready_s"] = round(time.perf_counter() - began, 3)
    if found["ready"]:
        found["status"], found["answer"] = request(asked["port"], "POST", asked["path"], asked["golden"])
        found["latencies_ms"] = latencies(asked)
        with open(f"/proc/{process.pid if process else 1}/status") as stream:
            found["peak_mb"] = next(int(line.split()[1]) / 1024 for line in stream if line.startswith("VmHWM"))
    if process:
        process.terminate()
        found["exit_code"] = process.wait(60)
    json.dump(found, sys.stdout)


def request(port: int, method: str, path: str, body: object = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    return answer.status, data.decode()


def latencies(asked: dict[str, Any]) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", asked["port"], timeout=30)
    body, taken = json.dumps(asked["single"]), []
    for _ in range(asked["calls"]):
        began = time.perf_counter()
        connection.request("POST", asked["path"], body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        taken.append(round((time.perf_counter() - began) * 1000, 3))
    return sorted(taken)


def interfaces() -> list[str]:
    with open("/proc/net/dev") as stream:
        return [line.partition(":")[0].strip() for line in stream if ":" in line]


def writable() -> list[str]:
    found = []
    for folder in ("/", "/model", "/opt/edgeml", "/tmp", "/usr/lib"):  # noqa: S108
        try:
            with open(os.path.join(folder, ".probe"), "w"):
                found.append(folder)
        except OSError:
            pass
    return found


main()
