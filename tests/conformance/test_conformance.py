"""edgeml's resolver beside azure-ai-ml's `load_job`, over a corpus of small pipelines; then the pipelines are run.

A case is a folder of corpus/ with `pipeline.yml` and
- `expected.yml`, where it can run here: paths in the run's folder and their content;
- `map.yml`, where its data is remote: a local path for each reference;
- `assets.yml`, where data-asset YAML lies beside it: what each reference stands for, told to the oracle alone;
- `refusal.yml`, where it must be refused: the place, some words of the sentence, and what the SDK makes of it;
- `lenient.yml`, where edgeml takes on purpose what the SDK refuses or reads otherwise: why, and what the SDK says.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeml.pipeline import PipelineError, resolve
from tests.conformance import oracle
from tests.conformance.shape import shape

# azure-ai-ml warns hundreds of times about its own use of marshmallow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*:Warning:marshmallow|azure.*")

ROOT = Path(__file__).parents[2]
CORPUS = Path(__file__).parent / "corpus"
CASES = sorted(path.parent.name for path in CORPUS.glob("*/pipeline.yml"))
BAD = [name for name in CASES if (CORPUS / name / "refusal.yml").exists()]
LENIENT = [name for name in CASES if (CORPUS / name / "lenient.yml").exists()]
GOOD = [name for name in CASES if name not in BAD + LENIENT]
RUNNABLE = [name for name in CASES if (CORPUS / name / "expected.yml").exists()]


def content(name: str, file: str) -> dict[str, Any]:
    path = CORPUS / name / file
    return yaml.safe_load(path.read_text()) if path.exists() else {}


def maps(name: str) -> dict[str, str]:
    """Local sources of a case's remote data, absolute."""
    return {reference: str(CORPUS / name / path) for reference, path in content(name, "map.yml").items()}


def test_the_corpus_is_whole() -> None:
    assert len(CASES) >= 65 and len(GOOD) >= 48 and len(BAD) >= 17 and len(RUNNABLE) >= 35
    assert set(LENIENT) < set(RUNNABLE)


@pytest.mark.parametrize("name", GOOD)
def test_edgeml_sees_what_azure_ml_sees(name: str, tmp_path: Path) -> None:
    path = CORPUS / name / "pipeline.yml"
    assert oracle.problems(path) == []
    expected = oracle.shape(path, {**maps(name), **content(name, "assets.yml")})
    assert shape(resolve(str(path), maps=maps(name)), tmp_path) == expected


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").rglob("*.yml")), ids=lambda path: path.name)
def test_edgeml_sees_the_repository_s_own_pipelines_as_azure_ml_does(path: Path, tmp_path: Path) -> None:
    assert shape(resolve(str(path)), tmp_path) == oracle.shape(path)


@pytest.mark.parametrize("name", RUNNABLE)
def test_what_runs_writes_what_it_should(name: str, tmp_path: Path) -> None:
    for folder in (name, "common"):
        shutil.copytree(CORPUS / folder, tmp_path / folder)
    mapped = [f"--map={reference}={path}" for reference, path in content(name, "map.yml").items()]
    done = subprocess.run(
        [sys.executable, "-m", "edgeml", "run", "pipeline.yml", "--output-dir", "run", *mapped],
        cwd=tmp_path / name,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = content(name, "expected.yml")
    assert {path: (tmp_path / name / "run" / path).read_text() for path in expected} == expected


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_run_is_refused_with_its_place(name: str) -> None:
    refusal = content(name, "refusal.yml")
    with pytest.raises(PipelineError) as caught:
        resolve(str(CORPUS / name / "pipeline.yml"))
    file, _, line = refusal["at"].partition(":")
    assert (Path(caught.value.file), caught.value.line) == ((CORPUS / name / file).resolve(), int(line))
    assert refusal["says"] in caught.value.message


@pytest.mark.parametrize("name", BAD + LENIENT)
def test_what_azure_ml_says_of_it_is_noted(name: str) -> None:
    """Its offline validation takes much that cannot run, so a refusal of ours needs none of its own."""
    found = oracle.problems(CORPUS / name / "pipeline.yml")
    noted = (content(name, "refusal.yml") or content(name, "lenient.yml"))["sdk"]
    assert (noted == "accepts") == (found == []), found
    assert noted == "accepts" or noted in " ".join(found)
