"""Which right a request to Azure Resource Manager needs, as Azure names it.

Azure derives an action from the type of the resource and the method: `Microsoft.Web/sites/slots/config/write` for a
PATCH of `.../sites/a/slots/b/config/web`. A POST names the action itself, by its last part.
"""

from __future__ import annotations

SCORE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action"
_VERBS = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete", "POST": "action"}


def action(method: str, path: str) -> str:
    """The action of one request, by the last provider that its path names."""
    provider, *parts = path.rpartition("/providers/")[2].split("/")
    return "/".join([provider, *parts[::2], _VERBS[method]])
