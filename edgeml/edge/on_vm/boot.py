"""What a site's machine runs when it starts: docker brings the containers back, but the rule of nftables is gone.

Each deployment leaves its program in `<folder>/sites/restore.pyz`, which `edgeml-sites.service` executes as the site's
user, with no right of root's but to set the rule (docs/deployment.md).
"""

from __future__ import annotations

import os
import sys

from edgeml.edge.on_vm import rim, rollout
from edgeml.edge.on_vm.rim import Refused

_PROGRAM = "restore.pyz"
_CAUSES = {
    "state": "{what} is damaged; restore it from a backup, or remove it and deploy again",
    "no-state": "{what} is missing, so nothing was deployed or it was lost; deploy again",
}


def keep(root: str, program: bytes) -> None:
    """Leave the program that was sent where the unit finds it; whole, and only where it is another one."""
    path = os.path.join(root, "sites", _PROGRAM)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if not os.path.exists(path) or rim.content(path) != program:
        rim.replace(path, program)


def main() -> int:
    """Bring every site beside this program to what its state says. One that cannot be holds no other up; 1 then."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
    failed = False
    for site in rollout.sites(root):
        try:
            serves = rollout.bring_back(root, site)["current"]
        except (Refused, OSError) as error:
            word, what = error.args if isinstance(error, Refused) else ("system", str(error))
            cause = _CAUSES.get(word, "{word}: {what}").format(word=word, what=what)
            print(f"edgeml: {site} is not restored ({cause})", file=sys.stderr)
            failed = True
        else:
            print(f"edgeml: {site} serves {serves['image'] if serves else 'nothing'}", file=sys.stderr)
    return int(failed)
