"""`edgeml demo`: the whole loop on this machine, what `make demo` calls."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from edgeml.demo import Demo

HELP = (
    "The whole loop on this machine: private rows lie in a container, one pipeline trains on them, the model that may\n"
    "leave is judged, registered, packaged, served and shown. What did not change since then is not done again."
)
EXAMPLES = ["edgeml demo", "edgeml demo --json | jq .seconds", "edgeml demo --target edge"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="", metavar="NAME", help="run the pipeline on this edge VM of edgeml.toml")
    parser.add_argument("--json", action="store_true", help="print metrics, model, report and seconds by stage as JSON")


def execute(args: argparse.Namespace) -> int:
    from edgeml import demo

    done = demo.loop(lambda line: print(line, file=sys.stderr), args.target)
    print(json.dumps(done._asdict() | {"score": done.score._asdict()}, indent=2) if args.json else summary(done))
    return 0


def summary(done: Demo) -> str:
    """What a person wants to know at the end, and what to do next."""
    lines = ["", "metrics on the test part, with 95 % intervals"]
    lines += [
        f"  {name.replace('_', ' '):<18} {metric['value']:.3f}  [{metric['low']:.3f}, {metric['high']:.3f}]"
        for name, metric in done.metrics.items()
    ]
    state = "registered just now" if done.created else "the same model as before"
    took = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in done.seconds.items())
    return "\n".join(
        [
            *lines,
            "",
            f"model   {done.model}  ({state})",
            f"report  {os.path.relpath(done.report)}",
            f"run     {os.path.relpath(done.run)}",
            f"image   {done.image or 'none could be made here, see above'}",
            f"score   {json.dumps(done.score.answer['predictions'][0])}",
            f"        by {done.score.served_by}",
            f"took    {sum(done.seconds.values()):.1f} s: {took}",
            "",
            "next    open the report, then edit components/train_model/train_model.py and run `make demo` again:",
            "        only what changed runs. docs/your-own-data.md: your rows and your model in three edits.",
            "        Or serve the model and ask it yourself:",
            f"        EDGEML_SERVE_MODEL={os.path.relpath(done.score.model)} \\",
            f"            {os.path.relpath(sys.executable)} -m edgeml.serving",
            f"        curl http://127.0.0.1:8080/score --json @{os.path.relpath(done.score.request)}",
        ]
    )
