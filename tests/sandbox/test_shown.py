"""What is shown of what a private step printed: its author's words, never a value."""

from __future__ import annotations

import random
import string
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.engine.sandbox.words import HIDDEN, LINES, Words, filtered, keys_of, of
from tests.sandbox.private import SECRET, Private

CODE = '''
"""This document names Margaret and Oyelaran."""
import argparse
class Refusal(Exception): "No words of Margaret's either."
def main(table, column, rule, count, error):
    """Margaret again."""
    print(f"{len(table)} rows, {column} columns: valid")
    print("rows:", count, "of", table)
    print("%d of %s left" % (count, table))
    print("took {} seconds".format(count))
    print(f"  {column}: {rule} ({count})")
    print(f"main: {error}")
    print(f"{column}")
    raise Refusal(f"the table breaks its contract in column {column}: gradient_boosting")
'''


@pytest.fixture
def words(tmp_path: Path) -> Words:
    (tmp_path / "main.py").write_text(CODE)
    (tmp_path / "contract.yml").write_text("columns: {mean_radius: {type: number, values: [Margaret, Oyelaran]}}\n")
    keys = set(keys_of(str(tmp_path / "contract.yml")))
    return of({"main.py": str(tmp_path / "main.py")}, 'python main.py; echo "done with ${{inputs.x}}"', keys)


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("569 rows, 32 columns: valid", "# rows, # columns: valid"),
        ("Margaret rows, 32 columns: valid", f"{HIDDEN} rows, # columns: valid"),
        ("rows: 12 of Margaret Ann, 94", f"rows: # of {HIDDEN}"),
        ("12 of Margaret left", f"# of {HIDDEN} left"),
        ("took 0.1931 seconds", "took # seconds"),
        ("  mean_radius: contract (3)", "  mean_radius: contract (#)"),
        ("main: the table breaks its contract in column mean_radius: gradient_boosting",) * 2,
        ("main: Margaret, 94", f"main: {HIDDEN}"),
        ("done with 12", "done with #"),
    ],
)
def test_the_steps_own_words_are_shown(words: Words, printed: str, shown: str) -> None:
    assert filtered([printed], words) == ([shown], 0)


@pytest.mark.parametrize(
    "printed",
    [
        "Margaret",
        "mean_radius,Margaret,94",
        "8670 13.2 0.1 94",
        "{'name': 'Margaret', 'age': 94}",
        "Margaret: 94 (3)",
        "main Margaret",
        "  name  age\n0 Margaret  94",
        "TWFyZ2FyZXQ=",
        "4d6172676172657420416e6e",
        "M a r g a r e t",
        "ｒｏｗｓ: 1",
        "This document names Margaret and Oyelaran.",
        "rows",
    ],
)
def test_anything_else_is_withheld_and_counted(words: Words, printed: str) -> None:
    lines = printed.split("\n")
    shown, withheld = filtered(lines, words)
    assert (shown, withheld) == ([], len(lines)) or not any("Marg" in line or "94" in line for line in shown)


def test_no_value_of_any_row_is_shown_whatever_is_printed(words: Words) -> None:
    """Rows of random cells in every text that the script has, and beside it."""
    chance = random.Random(1)
    letters = string.ascii_letters + string.digits + "éß-_.@"
    formats = ["{} rows, {} columns: valid", "rows: {} of {}", "  {}: {} ({})", "main: {}", "{} {}", "{},{},{}", "{}"]
    formats += ["main: the table breaks its contract in column {}: gradient_boosting", "Traceback {}", "{}Error: {}"]
    for _ in range(500):
        cells = ["".join(chance.choices(letters, k=chance.randint(4, 12))) for _ in range(3)]
        line = chance.choice(formats).format(*cells)
        shown, _ = filtered(["Traceback (most recent call last):"] * chance.randint(0, 1) + [line], words)
        assert not any(cell in text for cell in cells for text in shown if cell not in words.names), (line, shown)


def test_a_script_that_means_to_speak_says_little(words: Words) -> None:
    """A vocabulary in the code and a format of many gaps: four words a line, and no more than so many lines."""
    vocabulary = sorted(words.names)
    template = " ".join(["{}"] * 60)
    loud = words._replace(templates=(tuple(("say " + template).split("{}")), *words.templates))
    line = "say " + " ".join(vocabulary[i % len(vocabulary)] for i in range(60))
    shown, _ = filtered([line] * 1000, loud)
    assert len(shown) == LINES
    assert all(text.count(HIDDEN) == 56 for text in shown)


def test_a_traceback_is_shown_without_its_values(private: Private, tmp_path: Path) -> None:
    private.write(
        "src/trainer.py",
        """
        import sys
        import numpy

        class Refusal(Exception):
            pass

        def parse(cell):
            return float(cell)

        def main(path):
            rows = open(path).read().splitlines()
            print(f"{len(rows)} rows were read")
            print(rows)
            try:
                parse(rows[-1])
            except ValueError as error:
                raise Refusal(f"row {rows[-1]} cannot be read; mend it") from error

        main(sys.argv[1])
        """,
    )
    told = private.go(check=1).stderr
    log = (tmp_path / "out/jobs/train/log.txt").read_text()
    assert log.splitlines() == [
        "# rows were read",
        "Traceback (most recent call last):",
        '  File "trainer.py", line 16, in main',
        "    parse(rows[-1])",
        '  File "trainer.py", line 9, in parse',
        "    return float(cell)",
        f"ValueError: could not convert string to float: {HIDDEN}",
        "The above exception was the direct cause of the following exception:",
        "Traceback (most recent call last):",
        '  File "trainer.py", line 20, in <module>',
        "    main(sys.argv[1])",
        '  File "trainer.py", line 18, in main',
        '    raise Refusal(f"row {rows[-1]} cannot be read; mend it") from error',
        f"Refusal: row {HIDDEN} cannot be read; mend it",
        "(1 line is withheld: not the step's own words)",
    ]
    assert all(f"  | {line}" in told for line in log.splitlines())
    assert "out/quarantine/train/log.txt" in told
    kept = tmp_path / "out/quarantine/train/log.txt"
    assert SECRET in kept.read_text() and kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.parent.stat().st_mode & 0o777 == 0o700
    shown = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and "quarantine" not in p.parts]
    assert not any(SECRET.encode() in path.read_bytes() for path in shown)


def test_an_exceptions_name_is_shown_only_where_somebody_wrote_it(tmp_path: Path) -> None:
    script = tmp_path / "work/main.py"
    script.parent.mkdir()
    script.write_text(
        "import sys, yaml\n"
        "kind = sys.argv[1]\n"
        "if kind == 'made': raise type('MargaretError', (Exception,), {})('94')\n"
        "if kind == 'library': yaml.safe_load('{')\n"
        "if kind == 'posing': raise type('Margaret', (Exception,), {'__module__': 'yaml'})('x')\n"
    )
    words = of({"main.py": str(script)})

    def last(kind: str) -> list[str]:
        done = subprocess.run([sys.executable, str(script), kind], capture_output=True, text=True)
        assert "Margaret" in done.stderr or kind == "library"
        return filtered(done.stderr.splitlines(), words)[0]

    assert last("made")[-1] == f"{HIDDEN}: {HIDDEN}"
    assert last("posing")[-1] == f"{HIDDEN}: {HIDDEN}"
    library = last("library")
    assert any(line.startswith("yaml.parser.ParserError: ") for line in library)
    assert any(line.startswith('  File "yaml/') for line in library)


def test_forged_tracebacks_name_no_file_and_quote_no_line(words: Words) -> None:
    lines = [
        "Traceback (most recent call last):",
        '  File "/Margaret/site-packages/Ann/x.py", line 94, in Oyelaran',
        "    Margaret Ann Oyelaran",
        '  File "main.py", line 3, in Oyelaran',
        "    Margaret Ann Oyelaran",
        '  File "main.py", line 1931, in main',
        "MargaretError: 94",
    ]
    shown, _ = filtered(lines, words)
    assert shown == [
        "Traceback (most recent call last):",
        f'  File "{HIDDEN}"',
        '  File "main.py", line 3',
        f'  File "{HIDDEN}"',
        f"{HIDDEN}: {HIDDEN}",
    ]


def test_hostile_code_and_logs_only_withhold(tmp_path: Path) -> None:
    for name, content in (("a.py", b"\xff\xfe"), ("b.py", b"(" * 5000), ("c.py", b"print('a'"), ("d.sh", b"echo 'x")):
        (tmp_path / name).write_bytes(content)
    words = of({name: str(tmp_path / name) for name in ("a.py", "b.py", "c.py", "d.sh", "gone.py")})
    assert filtered(["\x1b[31m" + "x" * 100_000, "", "\u202e", "echo"], words) == ([], 3)


def test_without_a_sandbox_the_streams_are_quarantined_all_the_same(private: Private, tmp_path: Path) -> None:
    private.trainer("print(secret); print('all is said')")
    private.go("--no-sandbox")
    assert (tmp_path / "out/jobs/train/log.txt").read_text().startswith("all is said\n(1 line is withheld")
    assert SECRET in (tmp_path / "out/quarantine/train/log.txt").read_text()
