"""The benchmark's step as a script, the same text that the others give to `python -c`."""

import os

exec(os.environ["STEP"])
