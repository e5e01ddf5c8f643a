"""The base image: the one that settings name by digest, or one like distroless, made here of Debian's packages.

The second is for machines with no hub. `environments/scoring/base.lock` names its packages with version and SHA-256;
apt fetches them from wherever this machine's apt is told to. Nothing of them is run: they are unpacked, what a scoring
process has no use for is left out, and their records are kept where scanners look for those of distroless.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edgeml import project
from edgeml.errors import EdgemlError
from edgeml.image import oci, parts, python, tree
from edgeml.image.layout import Layout
from edgeml.image.remote import Remote

ENVIRONMENT = os.path.join("environments", "scoring")
LOCK = os.path.join(ENVIRONMENT, "base.lock")
NAME = "edgeml/base"  # of the base that is made here
USER = 10001
_STATUS = "var/lib/dpkg/status.d"
_LEFT_OUT = (  # programs, documentation and tables that nothing in the image reads; licences stay
    *("usr/share/doc/*/[!c]*", "usr/share/doc/*/changelog*", "usr/share/lintian", "usr/share/man", "usr/share/gcc"),
    *("usr/share/bug", "usr/share/menu", "usr/share/base-files", "usr/share/info", "usr/lib/*-linux-gnu/gconv"),
    *("usr/sbin", "sbin", "etc/ld.so.conf.d/fakeroot*", "usr/lib/*-linux-gnu/lib*expatw*", "usr/share/dict"),
    *(f"usr/bin/{name}" for name in ("[!p]*", "pldd", "p[!y]*", "py[!t]*", "python3.11-*", "pdb*")),
    *(
        f"usr/lib/python3.11/{name}"
        for name in ("test", "pydoc_data", "distutils", "turtle.py", "lib-dynload/_sqlite3*")
    ),
    *("boot", "home", "media", "mnt", "opt", "srv", "usr/games", "usr/src", "usr/include", "usr/local/*", "bin"),
    *("etc/init.d", "etc/default", "etc/dpkg", "etc/update-motd.d", "etc/profile*", "etc/skel", "etc/bindresvport*"),
)
_FILES = {
    "etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\nedgeml:x:{USER}:{USER}:edgeml:/:/sbin/nologin\n",
    "etc/group": f"root:x:0:\nedgeml:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_CONFIG = {"Env": ["PATH=/usr/bin:/bin"], "User": "0:0", "WorkingDir": "/"}
_SECONDS = 300


class Package(NamedTuple):
    """One Debian package of the base; `sha256` is that of its archive, empty where the base came from a registry."""

    name: str
    version: str
    architecture: str
    sha256: str = ""


class Base(NamedTuple):
    """A base that lies in the layout. `reference` is its name with its digest, `root` the folder of its files."""

    reference: str
    digest: str
    root: str
    packages: list[Package]


def of(reference: str, layout: Layout, say: Callable[[str], None]) -> Base:
    """The base that is named, or made here where `reference` is empty, with its blobs in the layout."""
    if reference:
        return _pulled(reference, layout, say)
    packages = locked()

    def make(folder: str) -> None:
        say(f"making the base of {len(packages)} Debian packages (once)")
        _make(packages, folder)

    place = parts.of("base", [packages, parts.digest(__file__), made_by()], make)
    with open(os.path.join(place, "config.json"), "rb") as stream:
        config = oci.add(layout, oci.CONFIG, stream.read())
    layer = layout.adopt(os.path.join(place, "layer.tar.gz"), oci.LAYER)
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "config": config.document(),
        "layers": [layer.document()],
    }
    digest = layout.add_manifest(oci.encode(manifest), "base")
    return Base(f"{NAME}@{digest}", digest, os.path.join(place, "root"), packages)


def locked() -> list[Package]:
    """The packages of the lock. Raises EdgemlError for a line that is none."""
    found = []
    path = os.path.join(project.root_folder(), LOCK)
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            fields = line.split()
            if fields and not line.startswith("#"):
                if len(fields) != 4 or not re.fullmatch(r"sha256:[0-9a-f]{64}", fields[3]):
                    raise EdgemlError(f"{LOCK}:{number}: write NAME VERSION ARCHITECTURE sha256:DIGEST")
                name, version, machine, digest = fields
                found.append(Package(name, version, machine, digest.removeprefix("sha256:")))
    return found


def renew() -> list[Package]:
    """Write into the lock the versions that apt offers today; returns the packages."""
    import tempfile

    names = [package.name for package in locked()]
    path = os.path.join(project.root_folder(), LOCK)
    with tempfile.TemporaryDirectory() as folder:
        _download(names, folder)
        found = [_described(file) for file in sorted(glob.glob(f"{folder}/*.deb"))]
    with open(path, encoding="utf-8") as stream:
        head = [line for line in stream if line.startswith("#")]
    lines = [f"{p.name} {p.version} {p.architecture} sha256:{p.sha256}\n" for p in found]
    from edgeml.engine.files import write_atomically

    write_atomically(path, "".join([*head, *lines]))
    return found


def _make(packages: Sequence[Package], folder: str) -> None:
    archives, root = os.path.join(folder, "archives"), os.path.join(folder, "root")
    os.makedirs(archives)
    _download([f"{package.name}={package.version}" for package in packages], archives)
    found = {_described(file): file for file in glob.glob(f"{archives}/*.deb")}
    if missing := [package for package in packages if package not in found]:
        raise EdgemlError(f"what apt fetched as {missing[0].name} is not what {LOCK} records; it is refused", 1)
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", found[package], root], check=True, capture_output=True)
        control = subprocess.run(["dpkg-deb", "--field", found[package]], check=True, capture_output=True).stdout
        os.makedirs(os.path.join(root, _STATUS), exist_ok=True)
        with open(os.path.join(root, _STATUS, package.name), "wb") as stream:
            stream.write(control.replace(b"\n", b"\nStatus: install ok installed\n", 1))
    shutil.rmtree(archives)
    for pattern in _LEFT_OUT:
        for path in glob.glob(os.path.join(root, pattern)):
            tree.remove(path)
    for name, text in _FILES.items():
        with open(os.path.join(root, name), "w", encoding="utf-8") as stream:
            stream.write(text)
    link = os.path.join(root, python.PROGRAM)
    if not os.path.lexists(link):
        os.symlink(f"python{python.VERSION}", link)
    library = f"usr/lib/python{python.VERSION}"
    python.run(root, script(), "compile", os.path.join(root, library), library)
    config: dict[str, Any] = {"architecture": architecture(), "os": "linux", "config": _CONFIG}
    config["history"] = [{"created_by": "edgeml"}]
    config["rootfs"] = {"type": "layers", "diff_ids": [layer(tree.of_folder(root), root, folder)]}
    with open(os.path.join(folder, "config.json"), "wb") as writing:
        writing.write(oci.encode(config))


def layer(entries: Any, root: str, folder: str) -> str:
    """Write entries as `layer.tar.gz` into a folder, compressed by a base's zlib; returns the digest of its content."""
    archive = os.path.join(folder, "layer.tar")
    with open(archive, "wb") as stream:
        diff = tree.write(entries, stream)
    python.compress(root, archive, archive + ".gz")
    os.unlink(archive)
    return diff


def script() -> str:
    return os.path.join(project.root_folder(), ENVIRONMENT, "layers.py")


def architecture() -> str:
    """This machine's, as container images call it."""
    import platform

    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def made_by() -> list[str]:
    """The digests of what makes layers: another way of making them makes other bytes."""
    return [parts.digest(path) for path in (script(), tree.__file__, python.__file__)]


def _download(wanted: list[str], folder: str) -> None:
    program = shutil.which("apt-get")
    if program is None or not shutil.which("dpkg-deb"):
        raise EdgemlError("a base can be made only where apt is; name one by digest in image.base of edgeml.toml")
    # apt would drop to a user of its own, which may not write here.
    options = ["-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]
    try:
        done = subprocess.run([program, *options, "download", *wanted], cwd=folder, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=_SECONDS,
                              env={**os.environ, "LC_ALL": "C"})  # fmt: skip
    except subprocess.TimeoutExpired:
        raise EdgemlError("apt did not fetch the packages of the base in time; check the network", 1) from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr[-200:]]
        raise EdgemlError(
            f"apt cannot fetch the packages of the base ({said[0][:200]}); call `apt-get update`, let "
            "`edgeml package --renew-base` take the versions of today, or name a base in image.base of edgeml.toml", 1
        )  # fmt: skip


def _described(file: str) -> Package:
    shown = subprocess.run(
        ["dpkg-deb", "--show", "--showformat=${Package} ${Version} ${Architecture}", file],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    name, version, machine = shown.split()
    return Package(name, version, machine, parts.digest(file))


def _pulled(reference: str, layout: Layout, say: Callable[[str], None]) -> Base:
    """A base of a registry, by its digest; of one for several machines, the image for this one."""
    name, _, digest = reference.partition("@")
    host, _, path = name.partition("/")
    if not oci.is_digest(digest) or not path:
        raise EdgemlError(f"image.base is '{reference}'; name it by digest: HOST/PATH@sha256:…")
    remote = Remote(host, path)
    data = layout.manifest(digest) or remote.manifest(digest)
    if data is None:
        raise EdgemlError(f"{remote.name} has no image {digest}; correct image.base in edgeml.toml", 1)
    document = oci.parse(data, reference)
    if document.get("mediaType") in (oci.INDEX, oci.DOCKER_INDEX):
        oci.add(layout, oci.INDEX, data)
        digest = _for_here(document, reference)
        data = layout.manifest(digest) or remote.manifest(digest)
    if layout.manifest(digest) is None or not oci.complete(layout, digest):
        say(f"pulling the base {reference}")
        oci.copy(remote, layout, digest)

    def make(folder: str) -> None:
        os.makedirs(os.path.join(folder, "root"))
        layers = oci.descriptors(oci.parse(data or b"", reference))[1:]
        tree.unpack((layout.open(entry.digest) for entry in layers), os.path.join(folder, "root"))

    root = os.path.join(parts.of("base", digest, make), "root")
    return Base(f"{name}@{digest}", digest, root, _recorded(root))


def _for_here(index: dict[str, Any], reference: str) -> str:
    for entry in index.get("manifests") or []:
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", architecture()):
            return str(oci.descriptor(entry).digest)
    raise EdgemlError(f"{reference} is not for linux/{architecture()}; name another base in image.base", 1)


def _recorded(root: str) -> list[Package]:
    """The Debian packages that a base says it consists of."""
    found = []
    for file in sorted([*glob.glob(f"{root}/{_STATUS}/*"), f"{root}/var/lib/dpkg/status"]):
        if os.path.isfile(file) and not file.endswith(".md5sums"):
            with open(file, encoding="utf-8", errors="replace") as stream:
                for block in stream.read().split("\n\n"):
                    fields = dict(re.findall(r"^(Package|Version|Architecture): (\S+)", block, re.MULTILINE))
                    if len(fields) == 3:
                        found.append(Package(fields["Package"], fields["Version"], fields["Architecture"]))
    return found
