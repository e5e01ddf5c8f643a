"""Answers one question that comes by standard input, on the edge VM.

<folder>/blobs/                 files of commits, by Git's own digest
<folder>/wheels/<sha256>/       packages
<folder>/environments/<key>/    what a lock says, installed; <key>.ready beside it once it is whole
<folder>/code/<tree>/           a commit's files; .edgeml in it leads to state/
<folder>/inputs/<tree>/         files that were handed in as inputs
<folder>/state/                 cache, gate and MLflow store, common to all commits
<folder>/sites/<site>/          state.json of a site that this machine serves
<folder>/sites/restore.pyz      this program, for the machine's next start
<folder>/jobs/<name>/           job.json, run/ (the run's folder), progress.jsonl, result.json, engine.log, lock
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any

from edgeml.edge.on_vm import boot, jobs, probe, rollout, stock
from edgeml.edge.on_vm.rim import Refused, say

_VERBS = {
    verb.__name__: verb
    for verb in (
        *(stock.hello, stock.missing, stock.put, stock.tree, stock.environment),
        *(jobs.start, jobs.follow, jobs.cancel, jobs.collect, jobs.release),
        *(rollout.deploy, rollout.restore, rollout.status),
        probe.facts,
    )
}


def main(program: bytes) -> None:
    """Read the question and say the answer; `program` is what was sent, a job's supervisor is made of it again."""
    question: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    root = os.path.join(os.path.expanduser("~"), question["folder"])
    if question["verb"] == "supervise":
        jobs.supervise(root, question)
        return
    jobs.PROGRAM = program
    try:
        if question["verb"] in ("deploy", "restore"):
            boot.keep(root, program)
        answer = _VERBS[question["verb"]](root, question)
    except Refused as refusal:
        answer = {"refused": refusal.args[0], "what": refusal.args[1]}
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        answer = {"refused": "disk-full", "what": ""}
    say({**answer, "done": True})
