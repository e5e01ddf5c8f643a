"""The report as a reader gets it: rendered by a real browser, whole by itself, and silent about what is private."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeml.cli import main
from edgeml.report import facts, graph
from tests.release_builder import read_json, release, reseal, run_folder, write_json

CLASSIFICATION = {"roc", "precision_recall", "calibration", "confusion", "importance", "champion", "slices"}
RUN = {"graph", "timings"}
SECTIONS = ["Next", "Metrics", "Lineage", "Egress", "Behaviour", "Comparison", "Run"]


# --- a browser ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's chromium, installed if need be: a report that no browser has shown is not tested."""
    found = find_browser()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]):
            subprocess.run(command, env=environment, capture_output=True, timeout=600)
        found = find_browser()
    if found is None:
        pytest.fail("no Chromium was found or could be installed; install one, or name it in CHROMIUM", pytrace=False)
    return found


def find_browser() -> str | None:
    names = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def browse(chromium: str, profile: Path, page: Path, *arguments: str) -> str:
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


class Outline(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self._heading: int | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch("h[1-6]", tag):
            self._heading = int(tag[1])
            self.headings.append((self._heading, ""))

    def handle_data(self, data: str) -> None:
        if self._heading is not None:
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)

    def handle_endtag(self, tag: str) -> None:
        if re.fullmatch("h[1-6]", tag):
            self._heading = None

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]

    def titles(self, level: int) -> list[str]:
        return [" ".join(text.split()) for found, text in self.headings if found == level]


# --- reports -----------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("EDGEML_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "edgeml.toml").write_text('[registry]\nmodel = "breast-cancer"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its report, for the tests that only look."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "edgeml.toml").write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = run_folder(folder / ".edgeml" / "runs" / "train-a")
        assert main(["report", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def page(written: Path) -> str:
    return (written / "report" / "index.html").read_text("utf-8")


def add_run(project: Path, name: str = "train-a", **options: Any) -> Path:
    return run_folder(project / ".edgeml" / "runs" / name, **options)


def report(run: Path) -> str:
    assert main(["report", str(run)]) == 0
    return (run / "report" / "index.html").read_text("utf-8")


def plots(run: Path) -> set[str]:
    return {path.stem for path in (run / "report").glob("*.png")}


def spread(pixels: np.ndarray) -> float:
    return float(pixels.reshape(-1, 3).std(axis=0).max())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), dtype=float)


# --- as a browser shows it ----------------------------------------------------------------------------


def test_a_browser_shows_headings_and_figures_in_light_and_dark(chromium: str, written: Path, tmp_path: Path) -> None:
    file, profile = written / "report" / "index.html", tmp_path / "profile"
    outline = Outline(browse(chromium, profile, file, "--dump-dom"))
    assert outline.titles(1) == ["Promote"]
    assert [title.split()[0] for title in outline.titles(2)] == SECTIONS
    assert len(outline.titles(3)) == len(CLASSIFICATION | RUN)
    assert len([a for a in outline.all("svg") if a.get("role") == "img"]) == len(CLASSIFICATION | RUN)
    size = "--window-size=1200,5500"
    browse(chromium, profile, file, size, f"--screenshot={tmp_path / 'light.png'}")
    dark = ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"]
    browse(chromium, profile, file, size, f"--screenshot={tmp_path / 'dark.png'}", *dark)
    light, night = pixels(tmp_path / "light.png"), pixels(tmp_path / "dark.png")
    for shown, background in ((light, 255.0), (night, 0.0)):
        assert abs(shown[5, 5].mean() - background) < 40
        written = np.flatnonzero(np.abs(shown - shown[5, 5]).max(axis=(1, 2)) > 8)
        end = int(written.max())
        assert 3000 < end < 5490, "the page is cut off or empty"
        for top in range(0, end - 250, 250):  # no stretch of the page is blank, left column aside
            assert spread(shown[top : top + 250, 300:1100]) > 2, f"nothing is shown from {top} on"
        blue = (shown[..., 2] - shown[..., 0] > 60).sum()
        assert blue > 5000, "the figures lack their colour"


def test_a_phone_needs_no_sideways_scrolling(chromium: str, page: str, tmp_path: Path) -> None:
    """In a frame as wide as a phone, because a headless window has a least width."""
    (tmp_path / "page.html").write_text(page)
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<iframe id="f" src="page.html" style="width:390px;height:800px"></iframe><script>'
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        "document.title = d.scrollWidth + '/' + d.clientWidth }</script>"
    )
    dom = browse(chromium, tmp_path / "profile", frame, "--allow-file-access-from-files", "--dump-dom")
    measured = re.search(r"<title>(\d+)/(\d+)</title>", dom)
    assert measured is not None
    wide, room = map(int, measured.groups())
    assert 300 < wide <= room


# --- by itself ------------------------------------------------------------------------------------------


def test_the_page_asks_nothing_of_anyone(written: Path, page: str) -> None:
    outline = Outline(page)
    assert {"script", "link", "img", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in outline.tags)
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href", "action", "poster", "data"):
            target = attributes.get(name)
            if target is None or target.startswith("#"):
                continue
            assert (tag, name) == ("a", "href")
            assert (written / "report" / target).is_file(), f"{target} is missing"
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"@import|url\((?!#)", page)
    policy = [a["content"] for a in outline.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0] is not None
    assert policy[0].startswith("default-src 'none'")


def test_the_page_is_accessible(page: str) -> None:
    outline = Outline(page)
    assert outline.all("html") == [{"lang": "en"}]
    levels = [level for level, _ in outline.headings]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.count("<table") == page.count("<caption>") == len(outline.all("caption"))
    assert all(header.get("scope") in ("col", "row") for header in outline.all("th"))
    for drawing in outline.all("svg"):
        assert drawing.get("role") == "img"
        assert len(drawing.get("aria-label") or "") > 15
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in outline.all("section"):
        assert attributes["aria-labelledby"] in ids
    referred = re.findall(r'(?:url\(#|href="#)([^)"]+)', page)
    assert set(referred) <= set(ids)


def test_text_is_readable_in_light_and_dark(page: str) -> None:
    """WCAG 2.2 AA: a contrast of 4.5 for text, of 3 for what is drawn."""
    light, dark = (dict(re.findall(r"(--[a-z-]+): (#[0-9a-f]{6})", block)) for block in page.split(":root {")[1:3])
    for palette in (light, dark):
        for name in ("--ink", "--muted", "--good", "--bad"):
            assert contrast(palette[name], palette["--paper"]) >= 4.5, name
        for name in ("--challenger", "--edge-line", "--cloud-line"):
            assert contrast(palette[name], palette["--paper"]) >= 2.7, name
        for zone in ("--edge", "--cloud"):
            assert contrast(palette["--ink"], palette[zone]) >= 4.5
            assert contrast(palette["--muted"], palette[zone]) >= 4.5


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# --- what it says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "names"),
    [("classification", CLASSIFICATION | RUN), ("regression", {"residuals", "importance"} | RUN)],
)
def test_every_plot_is_written_and_shows_something(project: Path, task: str, names: set[str]) -> None:
    run = add_run(project, task=task)
    report(run)
    assert plots(run) == names
    for name in names:
        picture = pixels(run / "report" / f"{name}.png")
        height, width, _ = picture.shape
        assert min(height, width) > 200
        assert spread(picture) > 8, name
        for half in (picture[:, : width // 2], picture[:, width // 2 :]):
            assert spread(half) > 2, name


def test_the_top_says_verdict_metrics_model_and_egress(written: Path, page: str) -> None:
    released = written / "outputs" / "release"
    auc = read_json(released / "metrics.json")["metrics"]["roc_auc"]
    assert f"ROC AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in page
    assert "It is better than the champion" in page
    assert read_json(released / "lineage.json")["model"]["sha256"] in page
    assert read_json(released / "lineage.json")["data"]["fingerprint"].removeprefix("sha256:") in page
    assert "a" * 40 in page
    assert "The gate released 9 files" in page
    assert "edgeml register train-a" in page
    assert "not registered" in page


def test_a_registered_model_is_named_with_its_version(project: Path) -> None:
    run = add_run(project)
    assert main(["register", "train-a"]) == 0
    page = report(run)
    assert "breast-cancer:1" in page
    assert "edgeml models alias breast-cancer:1 champion" in page
    assert "not registered" not in page


def test_a_verdict_of_no_gives_its_reasons(project: Path) -> None:
    page = report(add_run(project, promote=False))
    assert Outline(page).titles(1) == ["Do not promote"]
    assert "the challenger is not better than the champion" in page
    assert "1 of 2 checks failed" in page
    assert "--override" in page


def test_suppressed_cells_stay_suppressed(page: str) -> None:
    drawing = page[page.index('id="confusion"') : page.index('id="importance"')]
    cells = re.findall(r">(hidden|\d+)</text>", drawing)
    assert sorted(cells) == ["142", "77", "hidden", "hidden"]
    assert "benign predicted as malignant: hidden" in drawing


def test_a_failed_run_shows_where_and_not_what_was_logged(project: Path) -> None:
    run = add_run(project, status="failed")
    (run / "jobs" / "train_model").mkdir(parents=True)
    (run / "jobs" / "train_model" / "log.txt").write_text("ValueError: could not convert 'Margaret Ann' to float\n")
    page = report(run)
    assert Outline(page).titles(1) == ["The run failed"]
    assert "train_model failed with exit code 1 after 4.4 s. 2 steps did not run." in page
    assert "The egress gate was not reached" in page
    assert plots(run) == RUN
    assert "Margaret" not in page
    assert "log line" not in page


def test_a_refusal_of_the_gate_is_told_with_its_findings(project: Path) -> None:
    """The step fails, and what it leaves behind is its verdict, in its own folder."""
    from tests.release_builder import artifacts

    run = add_run(project)
    made = artifacts(project / "inputs")
    made.edit("evaluation/metrics.json", rows=9)
    folder = (run / "outputs" / "release").resolve()
    shutil.rmtree(folder)
    (run / "outputs" / "release").unlink()
    assert release(made, folder).returncode == 2
    record = read_json(run / "run.json") | {"status": "failed", "outputs": {}}
    record["steps"][-1] |= {"status": "failed", "exit_code": 2, "outputs": {}}
    write_json(run / "run.json", record)
    page = report(run)
    assert Outline(page).titles(1) == ["Nothing was released"]
    assert "count.small" in page
    assert "below k=10" in page
    assert plots(run) == RUN


def test_no_run_is_named_means_the_newest(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_run(project, "train-z", started="2026-11-23T09:00:00Z")
    newest = add_run(project, "train-a", started="2026-11-23T11:00:00Z", status="failed")
    assert main(["report"]) == 0
    assert capsys.readouterr().out.strip() == str(newest / "report" / "index.html")


# --- bad inputs -------------------------------------------------------------------------------------------


EVIL = "<script>alert(1)</script>"


def test_names_cannot_inject(chromium: str, project: Path) -> None:
    run = add_run(project)
    record = read_json(run / "run.json")
    record["pipeline"] = f'"><img src=x onerror="x()">{EVIL}'
    record["git"]["commit"] = EVIL
    record["run"] = f"{EVIL}--> ]]>"
    for step, name in zip(
        record["steps"], ["</svg>" + EVIL, r"$\frac{", "a&b", "-->", '"x" onload="y"', "ü\x07"], strict=True
    ):
        step["node"], step["needs"] = name, []
    write_json(run / "run.json", record)
    released = (run / "outputs" / "release").resolve()
    promotion, importance = read_json(released / "promotion.json"), read_json(released / "importance.json")
    promotion["checks"][0] |= {"name": EVIL, "detail": "{{ 7 * 7 }} {% raw %}"}
    importance["features"][0]["name"] = "</text>" + EVIL
    write_json(released / "promotion.json", promotion)
    write_json(released / "importance.json", importance)
    reseal(released)
    page = report(run)
    assert "{{ 7 * 7 }}" in page
    dom = browse(chromium, project / "profile", run / "report" / "index.html", "--dump-dom")
    for html in (page, dom):
        outline = Outline(html)
        assert {"script", "img"}.isdisjoint(tag for tag, _ in outline.tags)
        assert not [n for _, attributes in outline.tags for n in attributes if n.startswith("on")]
        assert len([a for a in outline.all("svg") if a.get("role") == "img"]) == len(CLASSIFICATION | RUN)
        assert [title.split()[0] for title in outline.titles(2)] == SECTIONS


def sealed(file: str, **keys: Any) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        folder = (run / "outputs" / "release").resolve()
        write_json(folder / file, read_json(folder / file) | keys)
        reseal(folder)

    return spoil


def in_release(work: Callable[[Path], Any], seal: bool) -> Callable[[Path], None]:
    def spoil(run: Path) -> None:
        folder = (run / "outputs" / "release").resolve()
        work(folder)
        if seal:
            reseal(folder)

    return spoil


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no metrics": (in_release(lambda f: (f / "metrics.json").unlink(), True), "metrics.json is missing"),
    "no curves": (in_release(lambda f: (f / "curves.json").unlink(), True), "curves.json is missing"),
    "no confusion": (in_release(lambda f: (f / "confusion.json").unlink(), True), "confusion.json is missing"),
    "half a file": (in_release(lambda f: os.truncate(f / "slices.json", 200), True), "slices.json is not a JSON"),
    "a list": (in_release(lambda f: (f / "promotion.json").write_text("[]"), True), "promotion.json is not a JSON"),
    "a changed file": (in_release(lambda f: os.truncate(f / "slices.json", 200), False), "not what the egress gate"),
    "half a verdict": (in_release(lambda f: os.truncate(f / "egress.json", 50), False), "egress.json"),
    "metrics of another form": (sealed("metrics.json", metrics=[1, 2]), "expected form"),
    "no metrics in it": (sealed("metrics.json", metrics={}), "expected form"),
    "curves of another form": (sealed("curves.json", roc=[1, 2]), "curves.json"),
    "curves of words": (sealed("curves.json", roc=[["a", "b"]]), "curves.json"),
    "slices of another form": (sealed("slices.json", slices=[{"column": 1}]), "expected form"),
    "a confusion that is ragged": (sealed("confusion.json", matrix=[[1]]), "expected form"),
    "a champion of another form": (sealed("promotion.json", champion={"metrics": 5}), "expected form"),
    "a lineage of another form": (sealed("lineage.json", data=5), "expected form"),
    "half a record": (lambda run: os.truncate(run / "run.json", 400), "run.json"),
    "a record without steps": (
        lambda run: write_json(run / "run.json", read_json(run / "run.json") | {"steps": 3}), "run.json"),
    "a step without a name": (
        lambda run: write_json(run / "run.json", read_json(run / "run.json") | {"steps": [{"status": "failed"}]}),
        "run.json"),
    "a record without seconds": (
        lambda run: write_json(run / "run.json", {k: v for k, v in read_json(run / "run.json").items()
                                                  if k != "seconds"}), "run.json"),
}  # fmt: skip


@pytest.mark.parametrize("title", SPOILT)
def test_what_is_damaged_is_one_sentence_and_no_page(
    project: Path, capsys: pytest.CaptureFixture[str], title: str
) -> None:
    spoil, said = SPOILT[title]
    run = add_run(project)
    spoil(run)
    assert main(["report", "train-a"]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (run / "report").exists()


# --- files ------------------------------------------------------------------------------------------------


def test_writing_again_gives_the_same_bytes_and_drops_stale_plots(project: Path) -> None:
    run = add_run(project)
    report(run)
    folder = run / "report"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "residuals.png").write_bytes(b"of an earlier run")
    (folder / "notes.txt").write_text("mine")
    report(run)
    again = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert again.pop("notes.txt") == b"mine"
    assert again == first


def test_another_folder_may_be_given(project: Path) -> None:
    run = add_run(project)
    assert main(["report", "train-a", "--out", "site/a"]) == 0
    assert (project / "site" / "a" / "index.html").is_file()
    assert not (run / "report").exists()


# --- the graph --------------------------------------------------------------------------------------------


def step(node: str, *needs: str) -> facts.Step:
    return facts.Step(node, "completed", 0, 1, 0, needs, "edge")


def test_layers_put_every_need_to_the_left() -> None:
    steps = [step("e", "d", "a"), step("d", "b", "c"), step("c", "a"), step("b", "a"), step("a"), step("alone")]
    layers = graph.layers(steps)
    assert [sorted(s.node for s in layer) for layer in layers] == [["a", "alone"], ["b", "c"], ["d"], ["e"]]


def test_boxes_do_not_overlap() -> None:
    steps = [step(f"n{i}", *(f"n{j}" for j in range(i) if (i * 7 + j) % 5 == 0)) for i in range(30)]
    places = sorted(graph.positions(steps).values())
    assert len(places) == 30
    for i, (x, y) in enumerate(places):
        for other_x, other_y in places[i + 1 :]:
            assert abs(x - other_x) >= graph.BOX[0] or abs(y - other_y) >= graph.BOX[1]


def test_a_circle_or_an_unknown_need_does_not_hang() -> None:
    assert len(graph.layers([step("a", "b"), step("b", "a"), step("c", "ghost")])) >= 1


def test_a_wide_deep_graph_with_long_names_is_drawn(project: Path) -> None:
    run = add_run(project, status="failed")
    record = read_json(run / "run.json")
    names = [f"a_very_long_step_name_that_goes_on_{i}" for i in range(24)]
    record["steps"] = [
        record["steps"][0] | {"node": name, "needs": [names[j] for j in range(i) if (i + j) % 4 == 1], "started": i}
        for i, name in enumerate(names)
    ]
    write_json(run / "run.json", record)
    page = report(run)
    assert page.count("a_very_long_step_…") >= 24
