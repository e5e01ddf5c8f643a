"""Generated pipelines of trivial shell steps, and the same processes without a runner.

A graph is made of groups of ten: a chain of five, then five beside each other that all read the chain's end. The next
group's first step reads all five of those. A chain is a graph whose every step reads the one before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

WIDTH = 5
Graph = dict[str, list[str]]  # the steps that each step reads, in an order in which they can run

# `step.sh TARGET SOURCE ...`: how long the longest way here is. Builtins of the shell alone.
_STEP = """\
target=$1; most=0; shift
for source in "$@"; do read -r count < "$source"; [ "$count" -gt "$most" ] && most=$count; done
echo $((most + 1)) > "$target"
"""
_COMMAND = "bash step.sh ${{outputs.dst}}"  # the input `number` is not read: it makes each step another one


def chain(size: int) -> Graph:
    return {f"n{i}": [f"n{i - 1}"] if i else [] for i in range(size)}


def mixed(size: int) -> Graph:
    made: Graph = {}
    ends: list[str] = []
    while len(made) < size:
        for _ in range(WIDTH):
            name = f"n{len(made)}"
            made[name] = ends
            ends = [name]
        fan = [f"n{len(made) + i}" for i in range(WIDTH)]
        made |= {name: list(ends) for name in fan}
        ends = fan
    return dict(list(made.items())[:size])


def write_pipeline(folder: Path, graph: Graph) -> None:
    """The graph as an Azure ML pipeline with a component file for each number of inputs."""
    (folder / "src").mkdir(parents=True)
    (folder / "src/step.sh").write_text(_STEP)
    for count in sorted({len(read) for read in graph.values()}):
        names = [f"src{i}" for i in range(count)]
        component = {
            "type": "command",
            "name": f"reads_{count}",
            "version": "1",
            "inputs": {"number": {"type": "integer"}} | {name: {"type": "uri_file"} for name in names},
            "outputs": {"dst": {"type": "uri_file"}},
            "code": "./src",
            "command": " ".join([_COMMAND, *("${{inputs." + name + "}}" for name in names)]),
            "environment": "azureml:local:1",
        }
        (folder / f"reads_{count}.yml").write_text(json.dumps(component, indent=1))  # JSON is YAML
    jobs = [
        f"  {name}:\n    type: command\n    component: ./reads_{len(read)}.yml\n    inputs:\n      number: {name[1:]}\n"
        + "".join(f"      src{i}: ${{{{parent.jobs.{other}.outputs.dst}}}}\n" for i, other in enumerate(read))
        for name, read in graph.items()
    ]
    head = "type: pipeline\nsettings:\n  default_compute: azureml:cpu-cluster\njobs:\n"
    (folder / "pipeline.yml").write_text(head + "".join(jobs))


def run_bare(graph: Graph, script: Path, folder: Path, limit: int) -> None:
    """The floor: start the same shell for each step as soon as what it reads is there, `limit` at once."""
    waiting = {name: len(read) for name, read in graph.items()}
    followers: Graph = {name: [] for name in graph}
    for name, read in graph.items():
        for other in read:
            followers[other].append(name)
    ready = [name for name, count in waiting.items() if not count]
    running: dict[int, tuple[str, subprocess.Popen[bytes]]] = {}
    while ready or running:
        while ready and len(running) < limit:
            name = ready.pop()
            command = " ".join(["bash", str(script), *(str(folder / part) for part in (name, *graph[name]))])
            process = subprocess.Popen(["bash", "-c", command], stdin=subprocess.DEVNULL)
            running[process.pid] = name, process
        pid, status = os.wait()
        name, process = running.pop(pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"step {name} failed")
        for follower in followers[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)


if __name__ == "__main__":  # python graphs.py chain|mixed SIZE SCRIPT FOLDER LIMIT
    kind, size, script, folder, limit = sys.argv[1:]
    Path(folder).mkdir()
    run_bare({"chain": chain, "mixed": mixed}[kind](int(size)), Path(script), Path(folder), int(limit))
