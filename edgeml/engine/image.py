"""Images of declared environments: found, pulled or built, and named by content so that none is built twice."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable

from edgeml.engine.environment import Declared
from edgeml.engine.fingerprint import Fingerprints, digest, walk
from edgeml.errors import EdgemlError

_NAME = "edgeml/environment"
_PREFIX = "/opt/edgeml-environment"
_FIND_CONDA = "command -v conda || command -v micromamba || command -v mamba"
_RECIPE = """\
FROM {base}
USER 0
COPY environment.yml {prefix}.yml
RUN CONDA_ALWAYS_YES=true MAMBA_ALWAYS_YES=true {tool} {create} --prefix {prefix} --file {prefix}.yml
ENV PATH={prefix}/bin:$PATH CONDA_PREFIX={prefix} CONDA_DEFAULT_ENV={prefix}
"""


class Images:
    """Images on one daemon. `logs` is the folder for what builds print, `say` is told of what takes time."""

    def __init__(self, docker: str, bridge: bool, logs: str, say: Callable[[str], None]) -> None:
        self.docker = docker
        self.logs = logs
        self.say = say
        # Building fetches packages. Without a bridge only the host's network does; no private row is there yet.
        self.network = [] if bridge else ["--network", "host"]

    def of(self, declared: Declared) -> str:
        """The id of the image that an environment stands for. Raises EdgemlError where it cannot be had."""
        if declared.build:
            return self._built(declared)
        if not declared.image:
            raise declared.refusal(
                f"the environment of step '{declared.step}' has no image for --env docker; add image"
            )
        return self._with_conda(declared) if declared.conda else self._present(declared)

    def _present(self, declared: Declared) -> str:
        found = self._id(declared.image)
        if not found:
            self.say(f"pulling {declared.image} for step '{declared.step}'")
            pulled = ask(self.docker, "pull", "--quiet", declared.image)
            found = self._id(declared.image)
            if pulled.returncode or not found:
                raise declared.refusal(
                    f"the image {declared.image} of step '{declared.step}' is not on this machine "
                    f"and cannot be pulled: {last_line(pulled.stderr)}"
                )
        return found

    def _built(self, declared: Declared) -> str:
        try:
            content = _context_digest(declared.build)
        except OSError as error:
            raise declared.refusal(f"the build context of step '{declared.step}' cannot be read: {error}") from None
        tag = _tag(content, declared.dockerfile)
        file = os.path.join(declared.build, declared.dockerfile)
        return self._id(tag) or self._build(declared, tag, declared.build, file)

    def _with_conda(self, declared: Declared) -> str:
        base = self._present(declared)
        tag = _tag(base, declared.conda, _RECIPE)
        if found := self._id(tag):
            return found
        asked = ask(self.docker, "run", "--rm", "--network", "none", "--entrypoint", "sh", base, "-c", _FIND_CONDA)
        tool = asked.stdout.strip()
        if asked.returncode or not tool:
            raise declared.refusal(
                f"the image {declared.image} of step '{declared.step}' has no conda, mamba or micromamba "
                "for its conda_file; name an image that has, or give a build with a Dockerfile"
            )
        create = "env create" if tool.endswith("/conda") else "create"
        with tempfile.TemporaryDirectory() as context:
            file = os.path.join(context, "Dockerfile")
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(_RECIPE.format(base=declared.image, prefix=_PREFIX, tool=tool, create=create))
            with open(os.path.join(context, "environment.yml"), "w", encoding="utf-8") as stream:
                stream.write(declared.conda)
            return self._build(declared, tag, context, file)

    def _build(self, declared: Declared, tag: str, context: str, dockerfile: str) -> str:
        os.makedirs(self.logs, exist_ok=True)
        log = os.path.join(self.logs, tag.rpartition(":")[2][:16] + ".log")
        self.say(f"building the image of step '{declared.step}' (log: {os.path.relpath(log)})")
        command = [self.docker, "build", "--force-rm", *self.network, "--tag", tag, "--file", dockerfile, context]
        with open(log, "wb") as stream:
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream).returncode
        found = "" if code else self._id(tag)
        if not found:
            with open(log, encoding="utf-8", errors="replace") as written:
                why = last_line(written.read())
            raise declared.refusal(
                f"the image of step '{declared.step}' cannot be built: {why}; the whole log is {os.path.relpath(log)}"
            )
        return found

    def _id(self, reference: str) -> str:
        asked = ask(self.docker, "image", "inspect", "--format", "{{.Id}}", reference)
        return asked.stdout.strip() if asked.returncode == 0 else ""


def ask(docker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a short command of the client prints and returns."""
    try:
        return subprocess.run(
            [docker, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise EdgemlError(f"{docker} cannot be run ({error}); mend the installation of docker") from None


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it does not say why")


def _tag(*parts: str) -> str:
    return f"{_NAME}:{digest(json.dumps(parts).encode()).partition(':')[2]}"


def _context_digest(folder: str) -> str:
    """The content of a build context; file modes count, because COPY keeps them."""
    entries = walk(folder)
    modes = [[name, os.stat(path).st_mode & 0o111] for name, kind, path in sorted(entries) if kind == "file"]
    return Fingerprints(os.devnull).of(folder) + json.dumps(modes)
