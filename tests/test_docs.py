"""The prose is tested like the code: every `sh` block of the README and of docs/ is run, tables are compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgeml.check.settings import TABLES
from edgeml.settings import ClusterSite, Edge, Kubernetes, Settings, VirtualMachine, VmSite

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# A fork has begun already: there the page's first commit would hold nothing.
if (ROOT / ".template.json").exists():
    PAGES.remove(ROOT / "docs/setup.md")
# These would run this very test again, or take longer than a test may; `.ci/run` and the reader run them.
ELSEWHERE = {"make test", "make lint", "make bench"}


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.split("  #")[0].strip() not in ELSEWHERE]


# The README's are run by tests/test_demo.py, in a folder where a demo was: a first one more would say nothing new.
@pytest.mark.parametrize("page", [page for page in PAGES[1:] if commands(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_its_order(page: Path, checkout: Path) -> None:
    run_commands(page, checkout)


def run_commands(page: Path, checkout: Path) -> None:
    """Run a page's `sh` blocks as one script, as somebody does who reads it from top to bottom."""
    script = "set -euo pipefail\n" + "\n".join(commands(page))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {
        f"GIT_{role}_{key}": "docs@edgeml.example" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")
    }
    done = subprocess.run(["bash", "-xc", script], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


def test_pages_have_commands() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text()
    linked = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in linked if not (page.parent / link).exists()] == []


def settings_table() -> str:
    rows = []
    for section, field in Settings.model_fields.items():
        if section not in TABLES:
            for key, spec in field.annotation.model_fields.items():  # type: ignore[union-attr]
                default = (
                    ""
                    if spec.description.startswith("environment only")
                    else _shown(spec.get_default(call_default_factory=True))
                )
                named = "environment only" if not default else f"`{section}.{key}`"
                meaning = spec.description.removeprefix("environment only: ")
                rows.append(f"| {named} | `EDGEML_{section.upper()}_{key.upper()}` | {meaning} | {default} |")
    return "\n".join(rows)


def table_of(kinds: dict[str, type[BaseModel]]) -> str:
    """One row for each key of a compute target or a site, with the kinds that have it."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for kind, model in kinds.items():
        for key, spec in model.model_fields.items():
            if key != "kind":
                default = "needed" if spec.is_required() else _shown(spec.default)
                rows.setdefault((key, str(spec.description), default), []).append(kind)
    return "\n".join(f"| `{k}` | {', '.join(kinds)} | {meaning} | {d} |" for (k, meaning, d), kinds in rows.items())


def _shown(default: object) -> str:
    return f'`"{default}"`' if isinstance(default, str) else f"`{default}`"


def test_the_settings_page_lists_every_key() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    assert settings_table() in page, f"docs/settings.md should hold:\n{settings_table()}"
    sites = {"edge-vm": VmSite, "kubernetes": ClusterSite}
    for kinds in ({"kubernetes": Kubernetes, "vm": VirtualMachine, "edge": Edge}, sites):
        assert table_of(kinds) in page, f"docs/settings.md should hold:\n{table_of(kinds)}"


def test_the_readme_shows_the_tree_as_it_is() -> None:
    tree = re.search(r"```text\n(pipelines/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert tree is not None
    shown = {line.split()[0].rstrip("/") for line in tree[1].splitlines() if line and not line.startswith(" ")}
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    present = {name.partition("/")[0] for name in listed}
    hidden = {".ci", ".gitignore", ".npmrc", ".pre-commit-config.yaml", ".template.json", "LICENSE", "README.md"}
    assert shown == present - hidden


def test_the_copy_is_of_this_checkout(checkout: Path) -> None:
    assert (checkout / "edgeml.toml").read_text() == (ROOT / "edgeml.toml").read_text()
    assert shutil.which("make")
