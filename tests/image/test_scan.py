"""What becomes of a scanner's word. No scanner can be had from a registry here: a stand-in reads what they get."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.image import scan
from edgeml.image.packaging import Packaged, layout

SCANNER = """#!/bin/sh
for word in "$@"; do
    case "$word" in oci-dir:*) word=${{word#oci-dir:}};; esac
    test ! -f "$word/index.json" || grep -o 'sha256:[0-9a-f]*' "$word/index.json" > {seen}
done
echo "{said}"
exit {code}
"""


def scanned(name: str, said: str, code: int, digest: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a scan says with one scanner on the path, which must have seen the image."""
    program = folder / name
    program.write_text(SCANNER.format(seen=folder / "seen", said=said, code=code))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    try:
        return scan.image(layout(), digest)
    finally:
        assert digest in (folder / "seen").read_text().split()


@pytest.mark.parametrize("name", ["trivy", "grype"])
def test_a_scanner_decides_over_the_very_image(
    name: str, here: Path, packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert scanned(name, "nothing", 0, packaged.digest, tmp_path, monkeypatch) == name
    with pytest.raises(EdgemlError, match=rf"{name} finds critical vulnerabilities \(CVE-1 libx Critical\)"):
        scanned(name, "CVE-1 libx Critical", 9, packaged.digest, tmp_path, monkeypatch)
    with pytest.raises(EdgemlError, match=rf"{name} failed"):
        scanned(name, "no database", 1, packaged.digest, tmp_path, monkeypatch)


def test_without_a_scanner_it_says_so(here: Path, packaged: Packaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert scan.image(layout(), packaged.digest) == scan.NONE
