"""`python -m edgeml.serving`: serve the model that EDGEML_SERVE_MODEL names, until SIGTERM."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """0: ended as asked; 2: could not start, told by one sentence."""
    from edgeml.serving import run
    from edgeml.serving.settings import Unusable, read

    try:
        run(read(os.environ))
    except Unusable as reason:
        print(f"edgeml: {reason}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
