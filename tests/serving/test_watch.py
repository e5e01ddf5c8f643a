"""Metrics, the log, and a few seconds at saturation."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from tests.serving.conftest import ROOT, Served, Start
from tests.serving.test_end import one_answer
from tests.serving.test_http import request
from tests.serving.test_score import ROW

SAMPLE = re.compile(r'[a-z_]+(\{[a-z0-9_]+="[^"]*"(,[a-z0-9_]+="[^"]*")*\})? [0-9.e+-]+')


def metrics(served: Served) -> dict[str, float]:
    """The samples of the exposition, each line checked to be one."""
    got = served.ask("GET", "/metrics")
    assert got.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for line in got.body.decode().splitlines():
        if not line.startswith("# "):
            assert SAMPLE.fullmatch(line), line
            name, _, value = line.rpartition(" ")
            assert name not in found
            found[name] = float(value)
    return found


def test_metrics_count_what_was_asked(start: Start, mixed_model: Path) -> None:
    served = start(mixed_model)
    for body in ([ROW], [ROW, ROW, ROW], [], [[7]]):
        served.score(body)
    served.ask("GET", "/nothing")
    served.ask("GET", "/v2/models/model/versions/2")
    found = metrics(served)
    assert found['edgeml_requests_total{route="score",status="200"}'] == 2
    assert found['edgeml_requests_total{route="score",status="400"}'] == 2
    assert found['edgeml_requests_total{route="other",status="404"}'] == 2
    assert found["edgeml_rows_total"] == 4
    assert found['edgeml_request_seconds_bucket{route="score",le="+Inf"}'] == 4
    assert found['edgeml_request_seconds_count{route="score"}'] == 4
    buckets = [value for name, value in found.items() if name.startswith('edgeml_request_seconds_bucket{route="score"')]
    assert buckets == sorted(buckets)
    assert 0 < found['edgeml_request_seconds_sum{route="score"}'] < 4
    assert found["process_resident_memory_bytes"] > 20e6
    info = next(name for name in found if name.startswith("edgeml_model_info"))
    assert 'name="model"' in info


def test_the_log_tells_each_request_and_nothing_of_what_it_held(start: Start, mixed_model: Path) -> None:
    served = start(mixed_model)
    secret = "Sibylle-4711"
    served.score([[123456.5, 1, True, secret]])
    served.score([[secret, 1, True, "Ulm"]])
    served.score([{secret: 1}])
    served.score({secret: 1})
    served.score({"input_data": {"columns": [secret], "data": []}})
    served.score(secret.encode())
    served.ask("GET", f"/{secret}?name={secret}", x_request_id="job-7")
    served.ask("POST", "/v2/models/model/infer", {"inputs": [], "id": secret})
    served.raw(f"{secret} / HTTP/1.1\r\n\r\n".encode())
    assert served.stop() == 0
    text = served.log.read_text()
    assert "Sibylle" not in text
    assert "123456" not in text
    lines = [line for line in served.lines() if line["event"] == "request"]
    assert [line["status"] for line in lines] == [200, 400, 400, 400, 400, 400, 404, 400, 400]
    assert lines[0].keys() == {"time", "event", "route", "status", "ms", "rows"}
    assert (lines[0]["route"], lines[0]["rows"]) == ("score", 1)
    assert lines[1]["field"] == "age"
    assert lines[6]["id"] == "job-7"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in served.lines())


def test_the_log_of_errors_has_errors_only(start: Start, mixed_model: Path) -> None:
    served = start(mixed_model, log="errors")
    served.score([ROW])
    served.score([])
    assert served.stop() == 0
    assert [line["event"] for line in served.lines()] == ["ready", "request", "stopping", "stopped"]
    assert served.lines()[1]["status"] == 400


def test_a_log_that_nobody_reads_stops_no_answer(mixed_model: Path) -> None:
    environment = {**os.environ, "EDGEML_SERVE_MODEL": str(mixed_model), "EDGEML_SERVE_PORT": "0"}
    command = [sys.executable, "-m", "edgeml.serving"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        served = Served(process, json.loads(process.stdout.readline())["port"], Path())
        ahead = request(b"{") * 200
        until = time.monotonic() + 20
        while not metrics(served)["edgeml_log_lines_dropped_total"]:
            assert time.monotonic() < until
            with socket.create_connection(("127.0.0.1", served.port)) as connection:
                connection.sendall(ahead)
                for _ in range(200):
                    assert connection.recv(1 << 16)
                    break
        assert served.score([ROW]).status == 200
        process.kill()


def test_at_saturation_with_malformed_requests_every_request_has_its_answer(start: Start, mixed_model: Path) -> None:
    served = start(mixed_model, log="errors")
    bad = [request(b"{"), request(b"[[1, 1, true, 7]]"), request(b'{"data": [[NaN]]}'), request(b"[[1]]")]
    seen: Counter[int] = Counter()
    wrong: list[tuple[int, int]] = []
    until = time.monotonic() + 3

    def client(seed: int) -> None:
        chance = random.Random(seed)
        good = request()
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            while time.monotonic() < until:
                malformed = chance.random() < 0.01
                connection.sendall(chance.choice(bad) if malformed else good)
                status, kept = one_answer(connection)
                seen[status] += 1
                if status != (400 if malformed else 200) or not kept:
                    wrong.append((status, malformed))
                    return

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert set(seen) == {200, 400}
    found = metrics(served)
    assert found['edgeml_requests_total{route="score",status="200"}'] == seen[200]
    assert found['edgeml_requests_total{route="score",status="400"}'] == seen[400]
