"""What is read from a script's source, held against the script itself: argparse, click and typer tell it at runtime."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.check import python, script
from edgeml.check.script import MANY, Files, Interface, Option

HEAD = "import argparse\nimport sys\nfrom pathlib import Path\nparser = argparse.ArgumentParser()\n"
TAIL = "\nargs = parser.parse_args()\n"


def read(tmp_path: Path, files: dict[str, str], entry: str = "s.py", function: str = "") -> Interface:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    paths = {name: str(tmp_path / name) for name in files}
    return script.read(entry, Files(paths, python.Module), ("",), function)


def told(interface: Interface) -> str:
    """An interface in one line: `--rate:float! depth:int{1,2}[1..2]`, without help."""
    parts = []
    for option in interface.options:
        if option.flags[:1] in (("-h",), ("--help",), ("--install-completion",)):
            continue
        if option.commands:
            inner = " ".join(f"{name}({told(one)})" for name, one in option.commands)
            parts.append(f"<{inner}>{'!' * option.required}")
            continue
        text = "|".join(option.flags) or option.name
        text += f":{option.type or '?'}" * (option.most > 0 and option.type != "str")
        text += "!" * option.required
        text += f"{{{','.join(option.choices)}}}" * bool(option.choices)
        if (option.fewest, option.most) not in ((1, 1), (0, 0)):
            text += f"[{option.fewest}..{'' if option.most == MANY else option.most}]"
        parts.append(text + "-" * (option.most == 0))
    return " ".join(parts)


# Bodies between HEAD and TAIL, with what is read of them; `?` at the end of a line for a reading that is not complete.
BODIES = {
    "plain": ('parser.add_argument("--rate", type=float, required=True)', "--rate:float!"),
    "types": (
        'parser.add_argument("--a", type=int)\nparser.add_argument("--b", type=str)\n'
        'parser.add_argument("--c", type=Path)\nparser.add_argument("--d", type=lambda text: text)\n'
        'parser.add_argument("--e", type=bool)',
        "--a:int --b --c:? --d:? --e:bool",
    ),
    "short and long": ('parser.add_argument("-n", "--number", type=int)', "-n|--number:int"),
    "single dash": ('parser.add_argument("-lr", type=float)', "-lr:float"),
    "store_true": ('parser.add_argument("--loud", action="store_true")', "--loud-"),
    "store_false": ('parser.add_argument("--quiet", action="store_false", default=True)', "--quiet-"),
    "count and version": (
        'parser.add_argument("-v", action="count")\nparser.add_argument("--version", action="version", version="1")',
        "-v- --version-",
    ),
    "append": ('parser.add_argument("--x", action="append", type=int)', "--x:int"),
    "boolean optional": ('parser.add_argument("--a", action=argparse.BooleanOptionalAction)', "--a|--no-a-"),
    "own action": (
        "class Own(argparse.Action):\n    def __call__(self, *args): pass\n"
        'parser.add_argument("--x", action=Own, nargs=0)',
        "--x[0..]",
    ),
    "choices": ('parser.add_argument("--a", choices=["x", "y"])', "--a{x,y}"),
    "choices of numbers": ('parser.add_argument("--a", type=int, choices=(1, 2))', "--a:int{1,2}"),
    "choices of a table": (
        'MODELS = {"a": min, "b": max}\nparser.add_argument("--m", choices=MODELS.keys())',
        "--m{a,b}",
    ),
    "choices that are sorted": ('M = {"a": 1}\nparser.add_argument("--m", choices=sorted(M))', "--m{a}"),
    "choices unknown": ('parser.add_argument("--a", choices=sys.path)', "--a"),
    "choices of a range": ('parser.add_argument("--a", type=int, choices=range(3))', "--a:int{0,1,2}"),
    "nargs": (
        'parser.add_argument("--a", nargs=2)\nparser.add_argument("--b", nargs="?")\n'
        'parser.add_argument("--c", nargs="*")\nparser.add_argument("--d", nargs="+", type=float)\n'
        'parser.add_argument("--e", nargs=argparse.ZERO_OR_MORE)',
        "--a[2..2] --b[0..1] --c[0..] --d:float[1..] --e[0..]",
    ),
    "remainder": ('parser.add_argument("rest", nargs=argparse.REMAINDER)', "?"),
    "positional": (
        'parser.add_argument("source")\nparser.add_argument("target", nargs="?")\nparser.add_argument("n", type=int)',
        "source! target[0..1] n:int!",
    ),
    "add renamed": ('add = parser.add_argument\nadd("--a", required=True)\nadd("--b")', "--a! --b"),
    "loop over names": ('for name in ("a", "b"):\n    parser.add_argument(f"--{name}", required=True)', "--a! --b!"),
    "loop over pairs": (
        'for name, kind in [("a", int), ("b", float)]:\n    parser.add_argument("--" + name, type=kind)',
        "--a:int --b:float",
    ),
    "loop over a table": (
        'for name, about in {"a_b": dict(type=int), "c": {"required": True}}.items():\n'
        '    parser.add_argument("--" + name.replace("_", "-"), **about)',
        "--a-b:int --c!",
    ),
    "loop over a constant": ('NAMES = ["x"]\nNAMES += ["y"]\nfor n in NAMES: parser.add_argument(f"--{n}")', "--x --y"),
    "loop over the unknown": ('for name in sys.path:\n    parser.add_argument(f"--{name}")', "?"),
    "comprehension": ('[parser.add_argument(f"--{n}") for n in ("a", "b")]', "--a --b"),
    "flag from elsewhere": ('parser.add_argument("--a")\nparser.add_argument(sys.argv[0])', "--a ?"),
    "keywords from elsewhere": ('parser.add_argument("--a", **vars(sys))', "--a:?[0..]"),
    "keywords of a table": (
        'common = {"type": int, "required": True}\nparser.add_argument("--a", **common)',
        "--a:int!",
    ),
    "group": ('group = parser.add_argument_group("data")\ngroup.add_argument("--a", required=True)', "--a!"),
    "exclusive group": (
        "group = parser.add_mutually_exclusive_group(required=True)\n"
        'group.add_argument("--a", action="store_true")\ngroup.add_argument("--b")',
        "--a- --b",
    ),
    "groups popped": (
        "optional = parser._action_groups.pop()\nrequired = parser.add_argument_group('required')\n"
        "required.add_argument('--a', required=True)\noptional.add_argument('--b')\n"
        "parser._action_groups.append(optional)",
        "--a! --b",
    ),
    "in a branch": ('if sys.platform == "linux":\n    parser.add_argument("--a", required=True)', "--a"),
    "in a branch that is known": ('DEBUG = False\nif DEBUG:\n    parser.add_argument("--a")', ""),
    "in a try": ('try:\n    parser.add_argument("--a", required=True)\nexcept ValueError:\n    pass', "--a!"),
    "required computed": ('parser.add_argument("--a", required="X" not in sys.path)', "--a"),
    "helper": (
        'def common(where, kind=int):\n    where.add_argument("--a", type=kind)\n    return where\n'
        "parser = common(parser)",
        "--a:int",
    ),
    "helper for flags": ('def flag(name):\n    return "--" + name\nparser.add_argument(flag("a"))', "--a"),
    "foreign helper": ("import somewhere\nsomewhere.add_arguments(parser)", "?"),
    "foreign method": ("parser.add_arguments_from(sys)", "?"),
    "given away in a list": ("sys.path.extend([parser])", "?"),
    "a lambda": ('add = lambda name: parser.add_argument(name)\nadd("--a")', "?"),
    "a partial": ('import functools\nadd = functools.partial(parser.add_argument)\nadd("--a")', "?"),
    "a function given away": ('def add(n): parser.add_argument(n)\nfor_each(["--a"], add)', "?"),
    "its actions changed": ("for action in parser._actions:\n    action.required = False", "?"),
    "a table of helpers": ('def add(p): p.add_argument("--a")\n{"a": add}[sys.argv[0]](parser)', "?"),
    "prefix characters": ("parser = argparse.ArgumentParser(prefix_chars='+')", "?"),
    "argv rewritten": ('parser.add_argument("--a")\nsys.argv.append("--a=1")', "--a ?"),
    "argv replaced": ('parser.add_argument("--a")\nsys.argv = ["s", "--a=1"]', "--a ?"),
    "defaults": ('parser.add_argument("--a", default=3)\nparser.set_defaults(a=4)', "--a"),
    "in a match": ('match sys.platform:\n    case "linux":\n        parser.add_argument("--l")', "--l"),
}


@pytest.mark.parametrize("name", BODIES)
def test_options_of_argparse(name: str, tmp_path: Path) -> None:
    body, expected = BODIES[name]
    interface = read(tmp_path, {"s.py": HEAD + body + TAIL})
    complete = not expected.endswith("?") or expected.endswith(":?")
    assert told(interface) == expected.removesuffix("?" if not complete else "").rstrip()
    assert interface.complete is complete
    assert interface.prefixes and not interface.lenient


PROGRAMS = {
    "in a function": (
        "from argparse import ArgumentParser as AP\n"
        "def options(argv=None):\n    p = AP()\n    p.add_argument('--a', required=True)\n"
        "    return p.parse_args(argv)\n"
        "def main():\n    print(options())\nif __name__ == '__main__':\n    main()\n",
        "--a!",
    ),
    "built and parsed apart": (
        "import argparse, sys\n"
        "def build():\n    p = argparse.ArgumentParser()\n    p.add_argument('a', type=int)\n    return p\n"
        "if __name__ == '__main__':\n    sys.exit(print(build().parse_args(sys.argv[1:])))\n",
        "a:int!",
    ),
    "in a class": (
        "import argparse\nclass App:\n    def __init__(self):\n        self.parser = argparse.ArgumentParser()\n"
        "        self._add()\n    def _add(self):\n        self.parser.add_argument('--a', required=True)\n"
        "    def run(self):\n        return self.parser.parse_args()\nApp().run()\n",
        "--a!",
    ),
    "a static method": (
        "import argparse\nclass M:\n    @staticmethod\n    def add(p):\n        p.add_argument('--m')\n"
        "        return p\n"
        "p = argparse.ArgumentParser()\nM.add(p)\np.parse_args()\n",
        "--m",
    ),
    "parents": (
        "import argparse\nbase = argparse.ArgumentParser(add_help=False)\nbase.add_argument('--a', required=True)\n"
        "p = argparse.ArgumentParser(parents=[base])\np.add_argument('--b')\np.parse_args()\n",
        "--a! --b",
    ),
    "commands": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--v', action='store_true')\n"
        "s = p.add_subparsers(dest='c', required=True)\na = s.add_parser('train', aliases=['t'])\n"
        "a.add_argument('--rate', type=float, required=True)\nb = s.add_parser('test')\nb.add_argument('model')\n"
        "p.parse_args()\n",
        "--v- <train(--rate:float!) t(--rate:float!) test(model!)>!",
    ),
    "unknown arguments let through": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\nargs, rest = p.parse_known_args()\n",
        "--a ~",
    ),
    "known first, then all": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\nargs, _ = p.parse_known_args()\n"
        "p.add_argument('--b')\np.parse_args()\n",
        "--a --b",
    ),
    "no abbreviations": (
        "import argparse\np = argparse.ArgumentParser(allow_abbrev=False)\np.add_argument('--a')\np.parse_args()\n",
        "--a =",
    ),
    "parsed from a list": (
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--a')\np.parse_args(['--a', '1'])\n",
        "?",
    ),
    "parsed from elsewhere": (
        "import argparse, shlex\np = argparse.ArgumentParser()\np.add_argument('--a')\np.parse_args(shlex.split(''))\n",
        "--a ?",
    ),
    "a class above": (
        "import argparse\nclass B:\n    def add(self):\n        self.p.add_argument('--a')\n"
        "class A(B):\n    def run(self):\n        self.p = argparse.ArgumentParser()\n        super().add()\n"
        "        self.p.parse_args()\nA().run()\n",
        "?",
    ),
    "a foreign class above": (
        "import argparse\nfrom elsewhere import B\nclass A(B):\n    def run(self):\n"
        "        self.p = argparse.ArgumentParser()\n        self.add_more()\n        self.p.parse_args()\nA().run()\n",
        "?",
    ),
    "a method of a class above": (
        "import argparse\nclass B:\n    def add(self):\n        self.p.add_argument('--a')\n"
        "class A(B):\n    def run(self):\n        self.p = argparse.ArgumentParser()\n        self.add()\n"
        "        self.p.parse_args()\nA().run()\n",
        "--a",
    ),
    "two parsers": (
        "import argparse\np = argparse.ArgumentParser()\np.parse_known_args()\nq = argparse.ArgumentParser()\n"
        "q.add_argument('--b')\nq.parse_args()\n",
        "?",
    ),
    "a parser that is never used": (
        "import argparse\ndef other():\n    p = argparse.ArgumentParser()\n    p.add_argument('--x', required=True)\n"
        "    p.parse_args()\np = argparse.ArgumentParser()\np.add_argument('--a')\np.parse_args()\n",
        "--a",
    ),
    "a class of its own": (
        "import argparse\nclass P(argparse.ArgumentParser):\n    pass\np = P()\np.add_argument('--a')\n"
        "p.parse_args()\n",
        "--a ?",
    ),
    "either of two parsers": (
        "import argparse, sys\nif sys.platform:\n    p = argparse.ArgumentParser()\nelse:\n"
        "    p = argparse.ArgumentParser(add_help=False)\np.add_argument('--a')\np.parse_args()\n",
        "?",
    ),
    "after an early return": (
        "import argparse, sys\ndef add(p):\n    if sys.platform:\n        return\n"
        "    p.add_argument('--a', required=True)\n"
        "p = argparse.ArgumentParser()\nadd(p)\np.parse_args()\n",
        "--a",
    ),
    "a loop that calls itself": (
        "import argparse\ndef add(p):\n    p.add_argument('--a')\n    add(p)\n"
        "p = argparse.ArgumentParser()\nadd(p)\np.parse_args()\n",
        "...?",
    ),
    "no parser": ("import sys\nprint(sys.argv)\n", "?"),
    "another library": ("import fire\nfire.Fire(print)\n", "?"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_argparse(name: str, tmp_path: Path) -> None:
    text, expected = PROGRAMS[name]
    interface = read(tmp_path, {"s.py": text})
    assert interface.complete is not expected.endswith("?")
    if expected.startswith("..."):
        return
    assert told(interface) == expected.rstrip("?~= ")
    assert interface.lenient is expected.endswith("~")
    assert interface.prefixes is (interface.options != () and not expected.endswith("="))


ADD = "def add(p):\n    p.add_argument('--a', type=int)\n"


@pytest.mark.parametrize(
    "files",
    [
        {"s.py": "from common import add\n", "common.py": ADD},
        {"s.py": "import common as c\nadd = c.add\n", "common.py": ADD},
        {"s.py": "from common import *\n", "common.py": ADD},
        {"s.py": "import lib.common\nadd = lib.common.add\n", "lib/common.py": ADD},
        {"s.py": "from lib import add\n", "lib/__init__.py": "from .common import add\n", "lib/common.py": ADD},
        {"s.py": "from common import KIND, add\n", "common.py": f"KIND = int\n{ADD}".replace("=int", "=KIND")},
    ],
)
def test_helpers_in_other_files_are_followed(files: dict[str, str], tmp_path: Path) -> None:
    use = "import argparse\np = argparse.ArgumentParser()\nadd(p)\np.parse_args()\n"
    interface = read(tmp_path, files | {"s.py": files["s.py"] + use})
    assert (told(interface), interface.complete) == ("--a:int", True)


def test_an_imported_module_is_not_the_main_one(tmp_path: Path) -> None:
    text = "import argparse\nif __name__ == '__main__':\n    p = argparse.ArgumentParser()\n    p.parse_args()\n"
    files = {"s.py": f"import other\n{text}", "other.py": text.replace("p.parse", "p.add_argument('x')\n    p.parse")}
    assert told(read(tmp_path, files)) == ""


def test_the_entry_of_a_parallel_job_is_called(tmp_path: Path) -> None:
    text = (
        "import argparse\ndef init():\n    p = argparse.ArgumentParser()\n    p.add_argument('--a', required=True)\n"
        "    p.parse_known_args()\ndef run(batch):\n    return batch\n"
    )
    assert told(read(tmp_path, {"s.py": text}, function="init")) == "--a!"
    assert not read(tmp_path, {"s.py": text}).complete


CLICK = "import click\n@click.command()\n{}\ndef main(**given):\n    pass\nif __name__ == '__main__':\n    main()\n"
CLICKS = {
    "plain": ('@click.option("--rate", "-r", type=float, required=True)', "--rate|-r:float!"),
    "default types": ('@click.option("--a", default=3)\n@click.option("--b", default=0.5)', "--a:int --b:float"),
    "flags": ('@click.option("--a", is_flag=True)\n@click.option("--b/--no-b")', "--a- --b|--no-b-"),
    "arguments": ('@click.argument("a", type=int)\n@click.argument("b", nargs=-1)', "a:int! b[0..]"),
    "choices": ('@click.option("--a", type=click.Choice(["x", "y"]))', "--a{x,y}"),
    "from the environment": ('@click.option("--a", required=True, envvar="A")', "--a"),
    "pairs": ('@click.option("--a", nargs=2, type=int)', "--a:int[2..2]"),
    "ranges": ('@click.option("--a", type=click.IntRange(0, 9))\n@click.version_option("1")', "--a:int --version-"),
    "a name of its own": ('@click.option("--out-folder", "target")', "--out-folder"),
    "foreign decorators": ('@with_options\n@click.option("--a")', "--a ?"),
}


@pytest.mark.parametrize("name", CLICKS)
def test_options_of_click(name: str, tmp_path: Path) -> None:
    body, expected = CLICKS[name]
    interface = read(tmp_path, {"s.py": CLICK.format(body)})
    assert told(interface) == expected.rstrip("? ")
    assert interface.complete is not expected.endswith("?")


@pytest.mark.parametrize(
    "text",
    [
        CLICK.format('@click.option("--a")').replace("@click.command()", "@click.group()"),
        CLICK.format('@click.option("--a")').replace("    main()", "    pass"),
        CLICK.format('@click.option("--a")').replace("command()", "command(context_settings=dict(a=1))"),
    ],
)
def test_what_click_makes_beyond_one_command_is_not_complete(text: str, tmp_path: Path) -> None:
    assert not read(tmp_path, {"s.py": text}).complete


TYPERS = {
    "run": ("def main(name: str, depth: int = 3, loud: bool = False):\n    pass\ntyper.run(main)\n",
            "name! --depth:int --loud|--no-loud-"),
    "options": ("def main(rate: float = typer.Option(...), n: int = typer.Option(1, '--number', '-n')):\n    pass\n"
                "typer.run(main)\n", "--rate:float! --number|-n:int"),
    "annotated": ("from typing import Annotated, Optional\n"
                  "def main(a: Annotated[int, typer.Option('--a-b')], b: Annotated[str, typer.Argument()] = 'x',\n"
                  "         c: Optional[float] = None):\n    pass\ntyper.run(main)\n", "--a-b:int! b[0..1] --c:float"),
    "application": ("app = typer.Typer()\n@app.command()\ndef main(folder: str, to: list[str] = typer.Option([])):\n"
                    "    pass\nif __name__ == '__main__':\n    app()\n", "folder! --to"),
    "two commands": ("app = typer.Typer()\n@app.command()\ndef a(x: int):\n    pass\n@app.command()\ndef b(): pass\n"
                     "app()\n", "?"),
    "a callback": ("app = typer.Typer()\n@app.command()\ndef a(x: int):\n    pass\n@app.callback()\ndef b(): pass\n"
                   "app()\n", "?"),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPERS)
def test_options_of_typer(name: str, tmp_path: Path) -> None:
    text, expected = TYPERS[name]
    interface = read(tmp_path, {"s.py": "import typer\n" + text})
    assert told(interface) == expected.rstrip("? ")
    assert interface.complete is not expected.endswith("?")


def test_argparse_itself_says_the_same(tmp_path: Path) -> None:
    """The scripts are run with their parser looked at in place of parsing: flags, requirements and counts agree."""
    whole = [name for name, (_, expected) in BODIES.items() if not expected.endswith("?") and ":?" not in expected]
    assert len(whole) > 30
    for number, name in enumerate(whole):
        (tmp_path / f"{number}.py").write_text(HEAD + BODIES[name][0] + TAIL)
    (tmp_path / "probe.py").write_text(
        "import argparse, json\n"
        "def show(self, *a, **k):\n"
        "    told = {'|'.join(a.option_strings) or a.dest: [a.required, str(a.nargs)] for a in self._actions}\n"
        "    print(json.dumps(told))\n"
        "argparse.ArgumentParser.parse_args = show\n"
        f"for number in range({len(whole)}):\n"
        "    exec(compile(open(f'{number}.py').read(), 's.py', 'exec'), {'__name__': '__main__'})\n"
    )
    done = subprocess.run([sys.executable, "probe.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    for number, line in enumerate(done.stdout.splitlines()):
        actual = json.loads(line)
        found = script.read(
            f"{number}.py", Files({f"{number}.py": str(tmp_path / f"{number}.py")}, python.Module), ("",)
        )
        options = {"|".join(option.flags) or option.name: option for option in found.options}
        assert options.keys() >= actual.keys(), whole[number]  # it has those of branches not taken, too
        for flags, (required, nargs) in actual.items():
            assert required or not options[flags].required, whole[number]
            assert _agrees(options[flags], nargs), (whole[number], options[flags], nargs)


def _agrees(option: Option, nargs: str) -> bool:
    least, most = {"None": (1, 1), "?": (0, 1), "*": (0, MANY), "+": (1, MANY)}.get(nargs, (0, 0))
    if nargs.isdigit():
        least = most = int(nargs)
    return option.fewest <= least and most <= option.most


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "(" * 5000 + ")" * 5000,
        "x = " + "-" * 20_000 + "1",
        "x = " + "+".join(["1"] * 20_000),
        "def f():\n  return f()\nf()\nimport argparse\np = argparse.ArgumentParser()\np.parse_args()\n",
        "\0",
        "print 'python 2'",
        "import argparse\np = argparse.ArgumentParser()\n"
        + "for a in 'abcdefghij':\n" * 1
        + " p.add_argument(a * 10**9)\n",
        "import argparse\nl = list(range(10**12))\nfor i in l:\n  argparse.ArgumentParser().parse_args()\n",
        "import s\n",
        "a = a.b.c.d()()[0]\nlambda: (yield)\n",
        "class A(A): pass\nA().x().y\n",
    ],
    ids=range(11),
)
def test_a_hostile_script_ends_the_reading_and_no_more(text: str, tmp_path: Path) -> None:
    assert read(tmp_path, {"s.py": text}).complete in (True, False)


def test_a_large_script_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("x = 1\n" * 200_000)
    module = python.Module(str(tmp_path / "s.py"))
    assert module.tree is None and module.problem is not None and "MiB" in module.problem.message


def test_nothing_is_imported_or_run(tmp_path: Path) -> None:
    files = {
        "s.py": "import other\nopen('owned', 'w')\n" + HEAD + 'parser.add_argument("--a")' + TAIL,
        "other.py": "import pathlib\npathlib.Path('owned').touch()\n",
    }
    assert read(tmp_path, files).complete
    assert "other" not in sys.modules and not (tmp_path / "owned").exists() and not Path("owned").exists()


def test_abbreviations_are_those_of_argparse() -> None:
    interface = Interface(
        (Option("learning", ("--learning-rate",)), Option("lead", ("--lead",)), Option("l", ("-l", "--long"))),
        complete=True,
        prefixes=True,
    )
    parser = argparse.ArgumentParser()
    for option in interface.options:
        parser.add_argument(*option.flags, dest=option.name)
    for flag in ("--learning-rate", "--lear", "--lea", "--le", "--lead", "--lo", "--l", "-l"):
        found = interface.flag(flag)
        try:
            named = vars(parser.parse_args([flag, "1"]))
        except SystemExit:
            assert found is None, flag
        else:
            assert found is not None and named[found.name] == "1", flag
