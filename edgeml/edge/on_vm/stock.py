"""Code, inputs and packages on the VM, kept by content: what is there is not sent again, what is damaged is refused."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from typing import Any, BinaryIO

from edgeml.edge.on_vm.rim import Refused, hexadecimal, locked, text, write


def hello(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """What must be known before anything is sent."""
    os.makedirs(root, mode=0o700, exist_ok=True)
    key = os.path.join(root, "state", "airlock", "key.pub")
    return {
        "python": list(sys.version_info[:2]),
        "machine": os.uname().machine,
        "free": shutil.disk_usage(root).free,
        "gate": text(key).strip() if os.path.isfile(key) else "",
        "ready": os.path.isfile(environment_of(root, question["environment"]) + ".ready"),
    }


def missing(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Which of the blobs or wheels are not here."""
    return {"missing": [name for name in question["names"] if not os.path.isfile(_stored(root, name))]}


def put(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Keep what is sent: for each piece a JSON line with its name and size, then its bytes. Wrong bytes are refused."""
    while True:
        line = sys.stdin.buffer.readline()
        if not line:
            return {}
        head = json.loads(line)
        path = _stored(root, head["name"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        unfinished = f"{path}.{os.getpid()}"
        try:
            with open(unfinished, "wb") as stream:
                made = _receive(stream, head["name"], head["size"])
            if made != head["name"].split("/")[0]:
                raise Refused("damaged", head["name"])
            os.replace(unfinished, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(unfinished)


def _receive(stream: BinaryIO, name: str, size: int) -> str:
    made = _hash(name, size)
    left = size
    while left:
        block = sys.stdin.buffer.read(min(left, 1 << 20))
        if not block:
            raise Refused("damaged", name)
        made.update(block)
        stream.write(block)
        left -= len(block)
    return str(made.hexdigest())


def _hash(name: str, size: int) -> Any:
    """A wheel is named by its SHA-256 and its name, a blob by what Git calls it."""
    if "/" in name:
        return hashlib.sha256()
    made = hashlib.sha1() if len(name) == 40 else hashlib.sha256()  # noqa: S324 - Git's
    made.update(b"blob %d\0" % size)
    return made


def _stored(root: str, name: str) -> str:
    identity, _, wheel = name.partition("/")
    hexadecimal(identity)
    if wheel and os.path.basename(wheel) != wheel:
        raise Refused("name", name)
    return (
        os.path.join(root, "wheels", identity, wheel) if wheel else os.path.join(root, "blobs", identity[:2], identity)
    )


def tree(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Lay out the files of a tree from the blobs, each compared with its digest, and take away what is not of it."""
    top = os.path.join(root, question["kind"], hexadecimal(question["tree"]))
    with locked(root, "tree"):
        wanted = {}
        for path, mode, blob in question["files"]:
            if os.path.isabs(path) or ".." in path.split("/") or path.split("/")[0] == ".edgeml":
                raise Refused("name", path)
            wanted[os.path.join(top, path)] = (mode, blob)
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                path = os.path.join(folder, name)
                if path not in wanted and not os.path.islink(path):
                    os.unlink(path)
        for path, (mode, blob) in wanted.items():
            if not _is(path, blob):
                os.makedirs(os.path.dirname(path), exist_ok=True)
                shutil.copyfile(_stored(root, blob), path + ".part")
                if not _is(path + ".part", blob):
                    os.unlink(path + ".part")
                    os.unlink(_stored(root, blob))
                    raise Refused("damaged", blob)
                os.replace(path + ".part", path)
            os.chmod(path, 0o755 if mode == "100755" else 0o644)
        state = os.path.join(root, "state")
        os.makedirs(state, mode=0o700, exist_ok=True)
        if question["kind"] == "code" and not os.path.islink(os.path.join(top, ".edgeml")):
            os.symlink(state, os.path.join(top, ".edgeml"))
    return {}


def _is(path: str, blob: str) -> bool:
    """Whether a file holds a blob. A tree's files are few and small."""
    try:
        with open(path, "rb") as stream:
            content = stream.read()
    except FileNotFoundError:
        return False
    made = _hash(blob, len(content))
    made.update(content)
    return bool(made.hexdigest() == blob)


def environment(root: str, question: dict[str, Any]) -> dict[str, Any]:
    """Install a lock from the wheels that are here, once; every wheel is compared with the lock's hashes by pip."""
    target = environment_of(root, question["environment"])
    with locked(root, "environment"):
        if os.path.isfile(target + ".ready"):
            return {}
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        lock = target + ".lock"
        with open(lock, "w", encoding="utf-8") as stream:
            stream.write(question["lock"])
        _tool("venv", [sys.executable, "-m", "venv", target])
        wheels = sorted({os.path.dirname(_stored(root, name)) for name in question["wheels"]})
        links = [word for folder in wheels for word in ("--find-links", folder)]
        pip = [os.path.join(target, "bin", "python"), "-I", "-m", "pip", "install", "--quiet", "--no-index"]
        _tool("pip", [*pip, "--disable-pip-version-check", "--no-cache-dir", "--require-hashes", *links, "-r", lock])
        write(target + ".ready", {})
    return {}


def _tool(what: str, command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        said = done.stdout.decode("utf-8", "replace")
        if "No space left" in said:
            raise OSError(errno.ENOSPC, "")
        last = [line for line in said.strip().splitlines() if not line.startswith("[notice]")][-1:]
        raise Refused(what, (last or [""])[0][:300])


def environment_of(root: str, key: str) -> str:
    return os.path.join(root, "environments", hexadecimal(key))
