"""kfp starts a Python process for each task, so the task's body is the step."""

from pathlib import Path

from kfp import dsl, local


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def first(dst: dsl.OutputPath(str)):
    import os

    with open(dst, "w") as target, open(os.environ["TRACE"], "a") as trace:
        target.write("1")
        trace.write(dst + "\n")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def then(n: int, src: str, dst: dsl.OutputPath(str)):
    import os

    with open(dst, "w") as target, open(os.environ["TRACE"], "a") as trace:
        target.write(str(int(src) + 1))
        trace.write(dst + "\n")


@dsl.pipeline
def chain() -> str:
    task = first()
    for n in range(2, 6):
        task = then(n=n, src=task.outputs["dst"])
    return task.outputs["dst"]


local.init(runner=local.SubprocessRunner(use_venv=False), enable_caching=True)
Path("result.txt").write_text(chain().output)
