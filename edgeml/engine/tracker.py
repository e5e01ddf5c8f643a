"""The runs of a sweep's trials in MLflow: started before a trial, read after it.

Executed by the interpreter that the trials use, so that it is their MLflow that answers; it must not import
anything of edgeml. One JSON object a line, and one for an answer:
{"start": name, "parent": id, "tags": {…}}                            {"run": id}
{"log": id, "params": {…}, "metrics": [[name, value, step], …]}       {}
{"end": id, "metric": name, "failed": bool}                           {"value": number or null, "logged": [names]}
The arguments are the experiment's name and, for a store that keeps artifacts in files, their location.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(argv: list[str]) -> int:
    try:
        from mlflow import MlflowClient
    except ImportError:
        print(json.dumps({"error": "mlflow is not installed there"}), flush=True)
        return 1
    client = MlflowClient()
    try:
        experiment = experiment_id(client, *argv)
        print(json.dumps({"ready": experiment}), flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(client, experiment, json.loads(line))), flush=True)
    except Exception as error:
        print(json.dumps({"error": f"MLflow's store refused: {str(error).splitlines()[0][:300]}"}), flush=True)
        return 1
    return 0


def experiment_id(client: Any, name: str, location: str = "") -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=location or None))


def answer(client: Any, experiment: str, asked: dict[str, Any]) -> dict[str, Any]:
    if "start" in asked:
        tags = {**asked["tags"], **({"mlflow.parentRunId": asked["parent"]} if asked["parent"] else {})}
        return {"run": client.create_run(experiment, run_name=asked["start"], tags=tags).info.run_id}
    if "log" in asked:
        from mlflow.entities import Metric, Param

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for name, value, step in asked["metrics"]]
        params = [Param(name, value) for name, value in asked["params"].items()]  # type: ignore[no-untyped-call]
        client.log_batch(asked["log"], metrics, params)
        return {}
    run = asked["end"]
    metrics = client.get_run(run).data.metrics if asked["metric"] else {}
    client.set_terminated(run, "FAILED" if asked["failed"] else "FINISHED")
    return {"value": metrics.get(asked["metric"]), "logged": sorted(metrics)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
