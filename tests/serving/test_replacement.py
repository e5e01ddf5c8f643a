"""A pod is replaced as Kubernetes does it, under load: real servers, and what knows of them played here.

The new one has traffic once its readiness probe is answered. Then the old one is taken from the endpoints, which the
nodes learn a while later, and at the same moment told to end; it is killed when its grace is over.
"""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from edgeml.gitops.sites.manifests import PROPAGATION_SECONDS
from edgeml.serving.settings import PREFIX, Settings
from tests.serving.conftest import ROOT, Served, Start
from tests.serving.test_end import one_answer
from tests.serving.test_http import BODY, head, request

LAG = 0.5  # seconds until the nodes know that a pod is going
LONG = 1.5  # seconds that some clients take to send a request
QUICK, SLOW = 4, 16  # clients


class Service:
    """The endpoints as the nodes know them, and the clients that connect by them until it is over."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self.seen: Counter[str] = Counter()
        self.by_port: Counter[int] = Counter()
        self._over = threading.Event()
        self._clients = [threading.Thread(target=self._client, args=(0.0, number % 2)) for number in range(QUICK)]
        self._clients += [threading.Thread(target=self._client, args=(LONG, 0)) for _ in range(SLOW)]

    def begin(self) -> None:
        for client in self._clients:
            client.start()
            time.sleep(LONG / len(self._clients))  # so that at each moment some are in the middle of a request

    def end(self) -> None:
        self._over.set()
        for client in self._clients:
            client.join(30)

    def _client(self, pause: float, keeps: int) -> None:
        """Ask again and again, over a new connection or as long as the server keeps one; never tries twice."""
        connection: socket.socket | None = None
        port = 0
        while not self._over.is_set():
            try:
                if connection is None:
                    port = random.choice(self.ports)
                    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
                if pause:
                    connection.sendall(head(content_length=len(BODY), connection="close") + BODY[:-1])
                    time.sleep(pause)
                    connection.sendall(BODY[-1:])
                else:
                    connection.sendall(request() if keeps else request(connection="close"))
                    time.sleep(0.01)
                status, open_still = one_answer(connection)
            except OSError as error:
                self.seen[type(error).__name__] += 1
                status, open_still = -1, False
            if status >= 0:
                self.seen[str(status or "closed")] += 1
                self.by_port[port] += 1
            if not open_still and connection is not None:
                connection.close()
                connection = None


def is_ready(served: Served) -> bool:
    return served.raw(head("/v2/health/ready", "GET", connection="close")).startswith(b"HTTP/1.1 200")


def replaced(start: Start, model: Path, drain: int, grace: float) -> tuple[Service, Served, Served]:
    """Replace one server by another under load, and load the new one a while longer."""
    old = start(model, drain_seconds=drain, log="errors")
    service = Service()
    service.ports = [old.port]
    service.begin()
    new = start(model, drain_seconds=drain, log="errors")
    while not is_ready(new):
        time.sleep(0.05)
    service.ports = [old.port, new.port]
    time.sleep(0.3)
    old.process.send_signal(signal.SIGTERM)
    ended = threading.Timer(LAG, lambda: setattr(service, "ports", [new.port]))
    ended.start()
    with contextlib.suppress(subprocess.TimeoutExpired):
        old.process.wait(grace)
    old.process.kill()
    ended.join()
    time.sleep(LONG)
    service.end()
    return service, old, new


@pytest.mark.parametrize(
    ("drain", "grace", "lost"),
    [
        (2, 20, set()),  # as the base, in less time
        (0, 20, {"ConnectionRefusedError", "ConnectionResetError"}),  # no wait: the nodes still send requests there
        (1, 1, {"closed", "ConnectionResetError", "BrokenPipeError"}),  # killed after the wait, nothing is finished
    ],
    ids=["as-the-base", "no-wait", "no-time-to-finish"],
)
def test_a_replacement_loses_no_request_and_each_part_of_it_is_why(
    start: Start, mixed_model: Path, drain: int, grace: float, lost: set[str]
) -> None:
    service, old, new = replaced(start, mixed_model, drain, grace)
    seen = service.seen
    assert seen["200"] > 100 and service.by_port[old.port] > 20 and service.by_port[new.port] > 20, seen
    assert set(seen) <= {"200"} | lost, seen
    assert bool(set(seen) - {"200"}) == bool(lost), seen
    assert (old.process.returncode == 0) == (grace > drain)


def test_the_base_waits_and_leaves_time_to_finish() -> None:
    deployment = yaml.safe_load((ROOT / "deployments/kubernetes/base/deployment.yaml").read_text())
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    (wait,) = [int(each["value"]) for each in container["env"] if each["name"] == f"{PREFIX}DRAIN_SECONDS"]
    assert wait >= 2 * PROPAGATION_SECONDS
    assert pod["terminationGracePeriodSeconds"] > wait + Settings.stop_seconds
