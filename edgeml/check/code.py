"""The rules over what lies in `code:` folders: all of it is copied for every step and uploaded with every job."""

from __future__ import annotations

import os
from collections.abc import Iterator

from edgeml.check.context import Context
from edgeml.check.document import Document
from edgeml.check.finding import ERROR, WARNING, Finding, Place, Rule, found
from edgeml.check.listing import MAX_FILES, Listing
from edgeml.check.secret import secrets
from edgeml.check.units import Unit, units

MAX_CODE_BYTES = 1 << 20
_MAX_TEXT = 1 << 20
_MAX_SCANNED = 16 << 20  # bytes in all; a folder of more is too large anyway, and said to be
_MAX_NOTEBOOK = 8 << 20
_BULK = 10  # images that are no longer a logo and a drawing

_COMPONENT = "type: command\nname: train\nversion: 1\n{code}environment: azureml:e:1\ncommand: {command}\n"
_POLICY = "# --- contracts/residency.yml\nprivate: [stackhub]\n"
_PLAIN = _COMPONENT.format(code="code: src\n", command="ls")

WIDE = Rule(
    "code-too-wide",
    WARNING,
    "The code folder is the component's own, not a repository that happens to hold it",
    "The whole of it is uploaded for each job, other people's files among it, and any change anywhere makes every step "
    "run again, because its code has changed.",
    "# --- aml/components/bad.yml\n" + _PLAIN.replace("code: src", "code: ../.."),
    "# --- aml/components/good.yml\n" + _PLAIN + "# --- aml/components/src/train.sh\necho\n",
)
LARGE = Rule(
    "code-too-large",
    WARNING,
    f"A code folder holds less than {MAX_CODE_BYTES >> 20} MiB in {MAX_FILES} files",
    "Scripts are measured in kilobytes: a mebibyte is twenty thousand lines. What is larger is data or a model that "
    "strayed in, and it is copied for every step and every trial of a sweep.",
    _PLAIN + "# --- src/train.sh\necho\n# … and two hundred thousand lines more\n",
    _PLAIN + "# --- src/train.sh\necho\n",
)
DATA = Rule(
    "data-in-code",
    ERROR,
    "No data files in the code folder of a repository with a residency policy",
    "The code goes to Azure ML's own storage with the job, and the rows in it with the code, past every gate.",
    _POLICY + "# --- bad.yml\n" + _PLAIN + "# --- src/rows.csv\na,b\n1,2\n",
    _POLICY + "# --- good.yml\n" + _PLAIN + "# --- src/train.sh\necho\n",
)
SECRET = Rule(
    "secret-in-code",
    ERROR,
    "No credential stands in a pipeline, a component or a code folder, and no .env file lies there",
    "Everyone who may read the workspace reads it, and it stays in every snapshot. A step is given credentials by the "
    "environment it runs in.",
    _PLAIN + "# --- src/train.sh\nexport AZURE_STORAGE_CONNECTION_STRING='AccountKey=" + "A" * 86 + "=='\n",
    _PLAIN + "# --- src/train.sh\nexport AZURE_STORAGE_CONNECTION_STRING\n",
)
NOTEBOOK = Rule(
    "notebook-with-outputs",
    ERROR,
    "Notebooks in the code folder of a repository with a residency policy have no outputs",
    "Outputs are rows and pictures of rows, and they are uploaded with the code.",
    _POLICY + "# --- bad.yml\n" + _PLAIN + '# --- src/look.ipynb\n{"cells": [{"outputs": [{"text": "1"}]}]}\n',
    _POLICY + "# --- good.yml\n" + _PLAIN + '# --- src/look.ipynb\n{"cells": [{"outputs": []}]}\n',
)
LINK = Rule(
    "link-out-of-code",
    WARNING,
    "No symbolic link in the code folder leads out of it",
    "What it leads to is uploaded as if it stood there, whatever it is on the machine that submits; another machine's "
    "link leads elsewhere.",
    _PLAIN + "# --- shared.py\nx = 1\n# --- src/shared.py -> ../shared.py\n",
    _PLAIN.replace("code: src", "code: src\nadditional_includes: [shared.py]")
    + "# --- shared.py\nx = 1\n# --- src/train.sh\necho\n",
)
RULES = (WIDE, LARGE, DATA, SECRET, NOTEBOOK, LINK)

_ROWS = frozenset(
    [
        ".csv",
        ".tsv",
        ".parquet",
        ".feather",
        ".arrow",
        ".npz",
        ".npy",
        ".pkl",
        ".pickle",
        ".joblib",
        ".xlsx",
        ".xls",
        ".ods",
        ".sqlite",
        ".sqlite3",
        ".db",
        ".duckdb",
        ".h5",
        ".hdf5",
        ".avro",
        ".orc",
        ".jsonl",
        ".ndjson",
        ".sas7bdat",
        ".dta",
        ".sav",
        ".rds",
        ".rdata",
        ".mat",
        ".dcm",
        ".nii",
        ".zip",
        ".tar",
        ".tgz",
        ".gz",
        ".7z",
    ]
)
_IMAGES = frozenset([".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"])
_BINARY = _ROWS | _IMAGES | frozenset([".onnx", ".pt", ".pth", ".so", ".pyc", ".pdf", ".ipynb", ".whl"])
_HARMLESS_ENDS = (".example", ".sample", ".template", ".dist")


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings about the code of every component, job and node in a document, and about its own secrets."""
    yield from _secrets(document.path, "\n".join(document.lines))
    for unit in units(document):
        if "code" in unit.keys or "additional_includes" in unit.keys:
            yield from _unit(unit, context)


def _unit(unit: Unit, context: Context) -> Iterator[Finding]:
    code, includes = unit.code, unit.includes
    key = unit.keys["code" if "code" in unit.keys else "additional_includes"][1]
    place = unit.document.place(key)
    if includes is None or (code and not os.path.exists(code)):
        return
    reason = _too_wide(code, os.path.dirname(os.path.abspath(unit.document.path)))
    if reason:
        yield found(WIDE, place, f"the code folder {reason}; give each component a folder of its own")
        return
    listing = context.listing(code, includes)
    yield from _large(listing, place)
    yield from _links(listing, place)
    if context.is_governed:
        yield from _data(listing, place)
        yield from _notebooks(listing, place)
    left = _MAX_SCANNED
    for name, path in listing.files.items():
        if _is_dotenv(name):
            message = f"the settings file {name} is uploaded with the code; name it in .amlignore, or move it out"
            yield found(SECRET, place, message)
        elif left > 0 and os.path.splitext(name)[1].lower() not in _BINARY:
            left -= _size(path)
            yield from _secrets(os.path.relpath(path), _text(path))


def _too_wide(code: str, here: str) -> str:
    """Why a code folder is more than a component's own; empty where it is not."""
    if not code or not os.path.isdir(code):
        return ""
    if os.path.exists(os.path.join(code, ".git")):
        return "is a whole repository, with .git in it"
    inside = os.path.relpath(here, code).split(os.sep)
    if inside[0] in (os.curdir, os.pardir):
        return ""
    if len(inside) > 1:
        return f"lies {len(inside)} levels above this file and takes in all that is between"
    return "takes in the folder pipelines" if os.path.isdir(os.path.join(code, "pipelines")) else ""


def _large(listing: Listing, place: Place) -> Iterator[Finding]:
    if not listing.whole:
        yield found(LARGE, place, f"the code folder holds more than {MAX_FILES} files; leave out what no script reads")
        return
    sizes = {name: _size(path) for name, path in listing.files.items()}
    if (total := sum(sizes.values())) > MAX_CODE_BYTES:
        most = max(sizes, key=lambda name: sizes[name])
        message = f"the code folder holds {total / (1 << 20):.1f} MiB, most of it in {most}; name it in .amlignore"
        yield found(LARGE, place, f"{message}, or make it an input")


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _data(listing: Listing, place: Place) -> Iterator[Finding]:
    rows = sorted(name for name in listing.files if os.path.splitext(name)[1].lower() in _ROWS)
    images = sorted(name for name in listing.files if os.path.splitext(name)[1].lower() in _IMAGES)
    for names in (rows, images if len(images) >= _BULK else []):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            message = f"data lies in the code folder and would be uploaded with it: {names[0]}{others}"
            yield found(DATA, place, f"{message}; make it an input, or name it in .amlignore")


def _notebooks(listing: Listing, place: Place) -> Iterator[Finding]:
    for name, path in sorted(listing.files.items()):
        if name.endswith(".ipynb") and _has_outputs(path):
            message = f"the notebook {name} has outputs, or cannot be read; clear them, or name it in .amlignore"
            yield found(NOTEBOOK, place, message)


def _has_outputs(path: str) -> bool:
    """Whether a notebook has outputs; one that cannot be read counts as having some."""
    if _size(path) > _MAX_NOTEBOOK:
        return True
    import json

    try:
        with open(path, encoding="utf-8") as stream:
            cells = json.load(stream)["cells"]
        return any(bool(cell.get("outputs")) or bool(cell.get("attachments")) for cell in cells)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return True


def _links(listing: Listing, place: Place) -> Iterator[Finding]:
    code = os.path.realpath(listing.code) if listing.code else ""
    seen: set[str] = set()
    for name, path in sorted(listing.files.items()):
        if not path.startswith(listing.code + os.sep) or not os.path.isdir(code):
            continue
        parts = name.split("/")
        for count in range(1, len(parts) + 1):
            part = "/".join(parts[:count])
            if part in seen:
                continue
            seen.add(part)
            here = os.path.join(listing.code, part)
            if os.path.islink(here) and not os.path.realpath(here).startswith(code + os.sep):
                message = f"the link {part} leads out of the code folder; name its target in additional_includes"
                yield found(LINK, place, message)


def _is_dotenv(name: str) -> bool:
    base = name.rpartition("/")[2]
    return (base == ".env" or base.startswith(".env.")) and not base.endswith(_HARMLESS_ENDS)


def _text(path: str) -> str:
    try:
        if os.path.getsize(path) > _MAX_TEXT:
            return ""
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _secrets(path: str, text: str) -> Iterator[Finding]:
    for line, column, kind in secrets(text):
        message = f"{kind} stands here; revoke it, and read it from the environment of the step instead"
        yield found(SECRET, Place(path, line, column), message)
