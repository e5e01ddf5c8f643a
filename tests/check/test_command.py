"""Commands, their scripts and code folders: what the shell will start, where findings stand, and hostile folders."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeml.check import Finding, check
from edgeml.check.code import RULES as CODE
from edgeml.check.command import RULES as COMMAND
from edgeml.check.secret import secrets
from edgeml.check.shell import invocations, split
from edgeml.check.tracking import RULES as TRACKING

ROOT = Path(__file__).parents[2]
MINE = {rule.id for rule in (*COMMAND, *CODE, *TRACKING)}
HEAD = "type: command\nname: train\nversion: 1\nenvironment: azureml:e:1\n"
SCRIPT = (
    "import argparse\np = argparse.ArgumentParser()\np.add_argument('--rate', type=float, required=True)\n"
    "p.add_argument('--loud', action='store_true')\np.parse_args()\n"
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text(SCRIPT)
    return tmp_path


def found(here: Path, command: str, more: str = "", code: str = "src") -> list[Finding]:
    (here / "component.yml").write_text(f"{HEAD}{more}code: {code}\ncommand: {command}\n")
    return check(["component.yml"])


STARTED = {
    "python x.py": ["x.py"],
    "python3.11 -u -W ignore x.py --a 1": ["x.py --a 1"],
    "A=1 B='2 3' time python x.py": ["x.py"],
    "python -m pack.mod --a": ["-m pack.mod --a"],
    "python -um pack.mod": ["-m pack.mod"],
    "cd src && python x.py": ["src/x.py"],
    "cd a; cd ../b && python x.py": ["b/x.py"],
    "cd $WHERE && python x.py": [],
    "cd /tmp && python x.py": [],
    "python x.py; python y.py || python z.py & python w.py": ["x.py", "y.py", "z.py", "w.py"],
    "python x.py | tee log > out 2>&1": ["x.py"],
    "python x.py >log --a <in 2> err --b": ["x.py --a --b"],
    "python x.py \\\n  --a \\\n  1\n\n# python y.py\npython z.py # --c": ["x.py --a 1", "z.py"],
    "torchrun --nproc_per_node 2 x.py --a": ["x.py --a"],
    "torchrun -m pack.mod": [],
    "python -m torch.distributed.run --nnodes 2 x.py --a": ["x.py --a"],
    "accelerate launch --config_file c.yaml x.py --a": ["x.py --a"],
    "mpirun -n 2 python x.py": ["x.py"],
    "uv run x.py --a": ["x.py --a"],
    "conda run -n e python x.py": ["x.py"],
    "python -c 'print(1)' && python - < x.py": [],
    "for a in b; do python x.py; done": [],
    "if true; then python x.py; fi": [],
    "(cd a && python x.py)": [],
    "python x.py <<END\npython y.py\nEND": [],
    "python 'x.py": [],
    'echo "python x.py" && echo python x.py': [],
    "bash run.sh && ./run.sh": [],
    "pip install -r r.txt && python -m pip install a && python x.py": ["x.py"],
    "python \"x.py\" 'a b' c\\ d \"e'f\" ''": ["x.py 'a b' 'c d' 'e'\"'\"'f' ''"],
}


@pytest.mark.parametrize("command", STARTED)
def test_what_a_command_starts(command: str) -> None:
    told = []
    for one in invocations(command):
        words = [word.text for word in one.words]
        assert None not in words
        script = os.path.normpath(os.path.join(one.folder, one.script.text or ""))
        told.append(shlex.join((["-m"] if one.module else []) + [script] + [word or "" for word in words]))
    assert told == STARTED[command]


@pytest.mark.parametrize(
    "command",
    [
        "python x.py a  b\tc 'd e' \"f g\" h\\ i j\\\n k",
        "python x.py 'a\\b' \"a\\\"b\\c\\$d\" a'b'c\"d\" '' --x=1 -1",
        "python x.py a#b c # d",
        "python x.py 1 > o 2>/dev/null a 3",
        "python x.py a && python x.py b; python x.py c || python x.py d",
    ],
)
def test_words_are_split_as_bash_splits_them(command: str, tmp_path: Path) -> None:
    """bash runs the command with a `python` that writes down what it was given."""
    (tmp_path / "python").write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word" >> all; done\n')
    (tmp_path / "python").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, check=True)
    actual = (tmp_path / "all").read_text().splitlines()
    read = [word.text for one in invocations(command) for word in (one.script, *one.words)]
    parts = command.count("||") + 1  # what follows is not run
    assert read[: len(actual)] == actual and (parts == 2 or len(read) == len(actual))


def test_placeholders_and_groups_are_kept_whole() -> None:
    (words,) = split('python x.py --a ${{ inputs.a }}/b "${{inputs.c}}" $[[--d ${{inputs.d}}]] $E "$F" *.csv')
    told = [(word.text, str(word.binding or ""), word.many, word.bare, bool(word.group)) for word in words[3:]]
    assert told == [
        (None, "", False, True, False),
        (None, "${{inputs.c}}", False, False, False),
        ("--d", "", False, False, True),
        (None, "${{inputs.d}}", False, True, True),
        (None, "", True, False, False),
        (None, "", False, False, False),
        (None, "", True, False, False),
    ]


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("python train.py --rate 1 --rte 2", (6, 35)),
        (">-\n  python train.py\n  --rate 1\n  --rte 2", (9, 3)),
        ("|\n  echo --rte && \\\n  python train.py --rate 1 \\\n    --rte 2", (9, 5)),
        ('"python train.py --rate 1 \\\n  --rte 2"', (7, 3)),
        ("'python train.py --rate 1\n  --rte 2'", (7, 3)),
        ("echo --rte; python train.py --rate 1 --rte 2", (6, 47)),
        ('"python train.py \\u002d-rate 1 \\u002d-rte 2"', (6, 10)),
    ],
)
def test_a_finding_stands_at_the_word(here: Path, command: str, place: tuple[int, int]) -> None:
    (finding,) = found(here, command)
    assert (finding.rule, finding.line, finding.column) == ("unknown-argument", *place)
    assert "did you mean --rate?" in finding.message


def test_a_message_names_cause_and_fix_and_no_value(here: Path) -> None:
    told = " ".join(finding.message for finding in found(here, "python train.py --rate hunter2 --loud=hunter2 hunter2"))
    assert "--rate of the script is of type float" in told and "--loud takes no value" in told
    assert "hunter2" not in told


def test_the_same_folder_is_seen_through_every_kind_of_document(here: Path) -> None:
    def node(*above: str) -> str:
        """The node below the lines `above`, each deeper than the one before, the first at the margin."""
        lines = ["command: python train.py --rte 1", "code: src", "environment: azureml:e:1"]
        head = "".join(f"{'  ' * depth}{line}\n" for depth, line in enumerate(above))
        return head + "".join(f"{'  ' * len(above)}{line}\n" for line in lines)

    sweep = "type: sweep\nobjective: {goal: maximize, primary_metric: auc}\nlimits: {max_total_trials: 1}\n"
    documents = {
        "job.yml": node(),
        "inline.yml": node("jobs:", "a:"),
        "component.yml": node("jobs:", "a:", "component:"),
        "nested.yml": node("jobs:", "a:", "jobs:", "b:"),
        "sweep.yml": sweep + "search_space: {x: {type: choice, values: [1]}}\n" + node("trial:"),
    }
    for name, text in documents.items():
        (here / name).write_text(text)
        rules = {finding.rule for finding in check([name])}
        assert {"unknown-argument", "missing-argument"} <= rules, name


def test_parallel_jobs_are_read_by_their_init(here: Path) -> None:
    (here / "src/batch.py").write_text(SCRIPT.replace("p.parse_args()", "").replace("\np", "\n    p").replace(
        "import argparse\n", "import argparse\ndef init():\n") + "    p.parse_args()\n")  # fmt: skip
    task = "task: {type: run_function, code: src, entry_script: batch.py, program_arguments: --rte 1}\n"
    (here / "batch.yml").write_text(f"type: parallel\nname: batch\nversion: 1\n{task}")
    assert {finding.rule for finding in check(["batch.yml"])} == {"unknown-argument", "missing-argument"}


def test_a_silencer_in_yaml_and_in_python_is_honoured(here: Path) -> None:
    (here / "contracts").mkdir()
    (here / "contracts/residency.yml").write_text("private: [stackhub]\n")
    (here / "edgeml.toml").write_text("")
    (here / "src/train.py").write_text(
        "import mlflow\nmlflow.autolog()  # edgeml: allow mlflow-autolog, because the rows are public\n"
        "# edgeml: allow logged-files, because the drawing is of the sample\nmlflow.log_figure(1, 'a')\n"
        "mlflow.log_figure(1, 'b')\n"
    )
    assert [(one.path, one.line, one.rule) for one in found(here, "python train.py")] == [
        ("src/train.py", 5, "logged-files")
    ]
    assert found(here, "python trian.py  # edgeml: allow script-missing, because the image has it")[0].line == 5


def test_tracking_is_nobodys_business_without_a_policy(here: Path) -> None:
    (here / "src/train.py").write_text("import mlflow\nmlflow.autolog()\n")
    assert found(here, "python train.py") == []


def test_nothing_is_said_of_a_script_that_cannot_be_found_here(here: Path) -> None:
    for command in ("python /opt/x.py", "python $X", "python ${{inputs.x}}/y.py", "git clone a && python a/x.py"):
        more = "inputs: {x: {type: uri_folder}}\n" if "inputs" in command else ""
        assert found(here, command, more) == [], command
    for code in ("azureml:code:1", "git+https://example.org/a.git"):
        assert {one.rule for one in found(here, "python x.py --any", code=code)} <= {"cannot-run"}  # by edgeml run


def test_other_peoples_pipelines_are_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the benchmarks, and what the conformance corpus has beside its cases, which another test goes over."""
    monkeypatch.chdir(shutil.copytree(ROOT / "benchmarks", tmp_path / "benchmarks"))  # our policy is not theirs
    assert check(["."]) == []
    monkeypatch.chdir(ROOT)
    found = {(one.path.partition("corpus/")[2], one.rule) for one in check(["tests/conformance/corpus"])}
    assert {one for one in found if one[1] in MINE} == {
        ("bad-undeclared-placeholder/pipeline.yml", "port-not-passed"),  # it is misspelt in the command
        ("common/trial.yml", "port-not-passed"),  # it declares rows, and its script reads none
    }


def test_hostile_folders_end_in_findings(here: Path) -> None:
    source = here / "src"
    (source / "again").symlink_to(source)
    (source / "up").symlink_to(here)
    (source / "gone").symlink_to(here / "absent")
    os.mkfifo(source / "pipe")
    (source / "binary.py").write_bytes(bytes(range(256)))
    (source / "deep.py").write_text("x = " + "(" * 3000 + ")" * 3000)
    (source / "name\nwith break.py").write_text("")
    (source / ".amlignore").write_bytes(b"\xff\xfe[[[\n")
    rules = {finding.rule for finding in found(here, "python deep.py && python binary.py && python train.py --rate 1")}
    assert rules == {"script-unreadable", "link-out-of-code"}


@pytest.mark.parametrize("piece", ["a", "python x.py;", "$[[", "$[[]]", "${", "${{", "$(", '"a" ', "--a ", "\\", "> "])
def test_a_hostile_command_ends_in_findings_or_none(here: Path, piece: str) -> None:
    flags = " ".join(f"--a{number}" for number in range(2000))
    for command in (piece * (200_000 // len(piece)), f"python train.py {flags}"):
        (here / "job.yml").write_text(f"command: |\n  {command}\ncode: src\nenvironment: azureml:e:1\n")
        assert sum(one.rule in MINE for one in check(["job.yml"])) <= 110


def test_a_folder_of_very_many_files_is_not_walked_to_its_end(here: Path) -> None:
    for number in range(2100):
        (here / f"src/{number}.txt").touch()
    (finding,) = found(here, "python absent.py")
    assert finding.rule == "code-too-large" and "2000 files" in finding.message


SECRETS = {
    "an access key of AWS": "AKIA" + "A" * 16,
    "a storage account's key": "AccountKey=" + "A" * 86 + "==",
    "a shared access signature": "?sv=2019-07-07&sig=" + "A" * 43 + "%3D",
    "a shared access key": "SharedAccessKey=" + "A" * 43 + "=",
    "a private key": "-----BEGIN OPENSSH " + "PRIVATE KEY-----",
    "a signed token (JWT)": ".".join(["eyJ" + "A" * 20, "eyJ" + "A" * 20, "A" * 20]),
    "a client secret of Entra ID": "abc8Q~" + "A" * 34,
    "a token of GitHub": "ghp_" + "A" * 36,
    "a token of GitLab": "glpat-" + "A" * 20,
    "a token of Slack": "xoxb-" + "1" * 12,
    "a key of Google": "AIza" + "A" * 35,
    "a token of Hugging Face": "hf_" + "A" * 34,
    "a key of a model service": "sk-" + "a1" * 20,
    "a token of Databricks": "dapi" + "0" * 32,
    "a password in an address": "postgres://anna:" + "hunter22@db/x",
    "a password or secret written out": 'client_secret = "' + 'correct1horse2"',
}


@pytest.mark.parametrize("kind", SECRETS)
def test_credentials_are_known_by_their_form(kind: str) -> None:
    text = f"first\n  x = {SECRETS[kind]}\n"
    (line, column, told) = next(iter(secrets(text)))
    assert told == kind and line == 2 and column >= 3
    assert list(secrets(text.replace(SECRETS[kind], SECRETS[kind][: len(SECRETS[kind]) // 2]))) == []


@pytest.mark.parametrize(
    "text",
    [
        "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
        'password = "your-password-1"',
        'password = os.environ["PASSWORD1"]',
        'api_key: "${{ secrets.KEY1 }}"',
        "https://example.org/path:1@2",
        "sha256:" + "0" * 64,
        'API_KEY_NAME = "storage-key"',
        "postgres://user:password@host/table",
        "models/sk-learn-based-classification-of-many-classes",
    ],
)
def test_what_is_no_credential_is_let_pass(text: str) -> None:
    assert list(secrets(text)) == []


@pytest.mark.parametrize("kind", SECRETS)
def test_a_hostile_text_takes_no_more_than_linear_time(kind: str) -> None:
    """Beginnings of credentials without end; patterns that look back and forth would take hours."""
    start = SECRETS[kind][:6]
    for piece in (start, f"-{start}", f" {start}", "a", "eyJ-", "password", 'password"'):
        assert len(list(secrets(SECRETS[kind] + "\n" + piece * (60_000 // len(piece))))) >= 1


def test_a_secret_is_never_shown(here: Path) -> None:
    token = "ghp_" + "B" * 36
    (here / "src/train.py").write_text(f"TOKEN = '{token}'\n")
    (finding,) = found(here, "python train.py")
    assert (finding.path, finding.line, finding.column) == ("src/train.py", 1, 10)
    assert token not in finding.message and "a token of GitHub" in finding.message
