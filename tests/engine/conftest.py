from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.daemon import Daemon, started
from tests.engine.project import CHAIN, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project."""
    return Project(tmp_path)


@pytest.fixture
def chain(project: Project) -> Project:
    """Two steps in a row and one aside."""
    project.write("pipeline.yml", CHAIN)
    project.write("start.txt", "zero\n")
    project.write(
        "second.yml",
        """
        name: second
        inputs: {src: {type: uri_file}}
        outputs: {dst: {type: uri_file}}
        code: ./src
        command: python upper.py ${{inputs.src}} ${{outputs.dst}}
        """,
    )
    project.write(
        "src/upper.py",
        "import sys\nfrom pathlib import Path\nPath(sys.argv[2]).write_text(Path(sys.argv[1]).read_text().upper())\n",
    )
    return project


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """A private docker daemon without a bridge network, and a base image in it."""
    with started() as running:
        yield running
