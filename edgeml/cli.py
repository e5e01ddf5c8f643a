"""The `edgeml` command: one verb per capability, each in a module of its own under `commands/`.

Only the module of the verb that was asked for is imported, so that `edgeml run` costs nothing of
what `edgeml report` needs. A verb's module has `HELP`, `EXAMPLES`, `add_arguments(parser)` and
`execute(args) -> exit code`.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from edgeml import __version__
from edgeml.errors import EdgemlError, nearest

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

VERBS = {
    "run": "run an Azure ML pipeline on this machine",
    "check": "find what is wrong with pipelines before anything runs",
    "compute": "attach, look at and detach the machines that pipelines run on",
    "submit": "let a compute target run a pipeline",
    "wait": "follow a job to its end, from any machine",
    "cancel": "end a job",
    "doctor": "test each thing that a workflow will need, in order",
    "runs": "list earlier runs, show one, compare two, remove old ones",
    "cache": "look at the cache of finished steps, or bound it",
    "storage": "start, stop or look at the embedded blob storage",
    "data": "push, list, pull or synthesize private data",
    "airlock": "decide what may leave, verify what left",
    "register": "register the model that a run released",
    "models": "list registered models and name the champion",
    "package": "build, test and publish the container image of a registered model",
    "promote": "open the pull request that brings a model to a site",
    "gate": "decide whether a release tag may deploy to a site",
    "deploy": "make a release serve at a site, or leave what serves as it is",
    "status": "what sites should run, and what they run",
    "rollback": "open the pull request that takes a site back",
    "serve": "score with a model over HTTP on this machine",
    "report": "write a run's report: one HTML page and its plots",
    "init": "begin a fork of this template under a name of its own",
    "upgrade": "merge a later version of the template into this fork",
    "infra": "the edge VM, the cloud side and the repository as code",
    "demo": "the whole loop on this machine, from private rows to a model that answers",
}

EXIT_INTERRUPTED = 130
COLLECT_AFTER = 50_000  # new objects; Python's own 700 are for processes that import little


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the process's exit code (0 done, 1 failed or refused, 2 not started)."""
    # What a command imports stays to its end: to look through it again and again is a fifth of the SDK's import.
    gc.set_threshold(COLLECT_AFTER)
    atexit.register(gc.freeze)  # and what dies with the process need not be looked through at its end
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if args[0] in ("-V", "--version"):
        print(f"edgeml {__version__}")
        return 0
    verb = args[0]
    if verb not in VERBS:
        near = nearest(verb, VERBS)
        hint = f"; did you mean '{near}'?" if near else ""
        return fail(f"'{verb}' is not a verb of edgeml{hint}; `edgeml --help` lists them", 2)
    try:
        command = import_module(f"edgeml.commands.{verb}")
        return int(command.execute(parser_of(verb, command).parse_args(args[1:])))
    except EdgemlError as error:
        return fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`edgeml runs list | head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "edgeml":
            raise
        return fail(f"`edgeml {verb}` needs the package '{error.name}', which is not installed; run `make setup`", 2)
    except OSError as error:
        if os.environ.get("EDGEML_DEBUG"):
            raise
        return fail(explain(error), 1)


def parser_of(verb: str, command: ModuleType) -> argparse.ArgumentParser:
    """The argument parser of one verb, its help ending in examples."""
    import argparse
    from functools import partial

    # Given no width, argparse asks for the terminal's at each argument, by an import that costs milliseconds.
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 120
    parser = argparse.ArgumentParser(
        prog=f"edgeml {verb}",
        description=command.HELP,
        epilog="examples:\n" + "\n".join(f"  {line}" for line in command.EXAMPLES),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=min(width, 120)),
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return parser


def overview() -> str:
    """What `edgeml --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return (
        "usage: edgeml VERB [arguments]\n\n"
        "Train machine-learning models beside data that may not leave.\n\n"
        f"{verbs}\n\n"
        "`edgeml VERB --help` explains one of them with examples."
    )


def fail(message: str, code: int) -> int:
    """Print one sentence on standard error and return the exit code."""
    print(f"edgeml: {message}", file=sys.stderr)
    return code


def explain(error: OSError) -> str:
    """One sentence for a failure of the operating system, with the fix where it is known."""
    where = f" at {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"no space is left on the disk{where}; free some and run the same command again, it goes on from there"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to write or read{where}; check who owns it"
    return f"{error.strerror or error}{where} (EDGEML_DEBUG=1 shows where)"
