"""One HTML page and its plots, from what a run recorded and released.

The face of this room is `write(run, out)`, which returns the path of the page. Only `run.json` and the verified
release are read: the logs and the edge zone may hold private values, and a page is meant to be passed on.
"""

from edgeml.report.page import write

__all__ = ["write"]
