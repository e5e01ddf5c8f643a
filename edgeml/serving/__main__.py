"""`python -m edgeml.serving`: serve the model that EDGEML_SERVE_MODEL names, until SIGTERM."""

from __future__ import annotations

import os
import sys
import time


def main() -> int:
    """0: ended as asked; 2: could not start, told by one sentence."""
    began = time.perf_counter()
    from edgeml.serving.settings import Unusable, read

    try:
        _serve(began, read(os.environ))
    except Unusable as reason:
        print(f"edgeml: {reason}", file=sys.stderr)
        return 2
    return 0


def _serve(began: float, settings: Settings) -> None:
    import uvloop

    from edgeml.serving.app import App
    from edgeml.serving.log import Log
    from edgeml.serving.model import Model
    from edgeml.serving.server import Server, bind

    listening = bind(settings)
    app = App(Model(settings), settings)
    log = Log()

    async def run() -> None:
        def ready() -> None:
            host, port = listening.getsockname()[:2]
            took = round(time.perf_counter() - began, 3)
            model = {"name": app.model.name, "version": app.model.version, "sha256": app.model.sha256}
            log.add("ready", host=host, port=port, seconds=took, **model)
            log.flush()

        await Server(app, settings, log).serve(listening, ready)

    uvloop.run(run())
    log.close()


if __name__ == "__main__":
    sys.exit(main())


from typing import TYPE_CHECKING  # noqa: E402

if TYPE_CHECKING:
    from edgeml.serving.settings import Settings
