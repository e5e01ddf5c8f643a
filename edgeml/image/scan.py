"""A scan for known vulnerabilities, where a scanner is installed: critical ones that a newer version mends are a no."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from edgeml.errors import EdgemlError
from edgeml.image import oci, parts
from edgeml.image.layout import Layout

NONE = "no scanner"
_FOUND = 9
_SECONDS = 900


def image(layout: Layout, digest: str) -> str:
    """The scanner that found nothing critical, or `NONE`. Raises EdgemlError where one finds something, or fails."""
    scanner = next((name for name in ("trivy", "grype") if shutil.which(name)), "")
    if not scanner:
        return NONE
    with tempfile.TemporaryDirectory(dir=parts.folder()) as folder:
        alone = os.path.join(folder, "image")
        oci.copy(layout, Layout(alone, "image"), digest, "image")
        line = {
            "trivy": ["trivy", "image", "--quiet", "--input", alone, "--severity", "CRITICAL", "--ignore-unfixed",
                      "--scanners", "vuln", "--exit-code", str(_FOUND)],
            "grype": ["grype", f"oci-dir:{alone}", "--quiet", "--only-fixed", "--fail-on", "critical"],
        }[scanner]  # fmt: skip
        try:
            done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            raise EdgemlError(f"{scanner} did not finish in {_SECONDS // 60} minutes; scan again later", 1) from None
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "CRITICAL" in line.upper()]
        what = f"finds critical vulnerabilities ({said[0][:200]})" if said else "failed"
        raise EdgemlError(f"{scanner} {what}; renew base and lock, or look at its own output", 1)
    return scanner
