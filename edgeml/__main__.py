"""`python -m edgeml` is the `edgeml` command."""

import sys

from edgeml.cli import main

sys.exit(main())
