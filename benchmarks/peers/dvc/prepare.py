"""Writes dvc.yaml: five stages, each `python -c`."""

import json
import os
from pathlib import Path

step, python = os.environ["STEP"], os.environ["STEP_PYTHON"]
stages = {}
for i in range(1, 6):
    source = f"{i - 1}.txt" if i > 1 else "-"
    stages[f"s{i}"] = {"cmd": f'{python} -c "{step}" {source} {i}.txt', "outs": [f"{i}.txt"]}
    if i > 1:
        stages[f"s{i}"]["deps"] = [source]
Path("dvc.yaml").write_text(json.dumps({"stages": stages}, indent=1))
