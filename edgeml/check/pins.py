"""The rules of reproducibility: what a run is made of is named exactly, so that it is the same tomorrow.

They hold only where the repository has a residency policy: the public pipelines of other people ask for `@latest`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatch

from edgeml.check import environments, image, kinds
from edgeml.check.context import Context
from edgeml.check.document import Document, entries, scalar, walk
from edgeml.check.finding import ERROR, Finding, Place, Rule, found
from edgeml.check.places import value
from edgeml.pipeline import PipelineError, load
from edgeml.pipeline.libyaml import yaml
from edgeml.policy import POLICY_FILE, Policy

_POLICY = f"# --- {POLICY_FILE}\nprivate: [stackhub]\nregistries: [docker.io]\ncomputes: [edge-vm]\n"


def _job(rest: str) -> str:
    return f"{_POLICY}# --- pipelines/train.yml\ntype: command\ncompute: azureml:edge-vm\n{rest}"


def _docker(content: str) -> str:
    return f"{_POLICY}# --- environments/training/Dockerfile\n{content}# --- pipelines/train.yml\n{_TRAIN}"


def _environment(version: str, named: str) -> str:
    return (
        f"{_POLICY}# --- environments/training/environment.yml\n"
        "$schema: https://azuremlschemas.azureedge.net/latest/environment.schema.json\n"
        f'name: training\nversion: "{version}"\nimage: python:3.11.14\n'
        f"# --- pipelines/train.yml\n{_TRAIN.replace('other:1', named)}"
    )


_TRAIN = "type: command\ncompute: azureml:edge-vm\nenvironment: azureml:other:1\ncommand: echo train\n"
REFERENCE = Rule(
    "unpinned-reference",
    ERROR,
    "Components, data, models and environments are named with their version",
    "`@latest`, and a name alone, are whatever somebody registered last: the same commit gives another model tomorrow, "
    "and nobody can say which one serves.",
    _job("environment: azureml:training@latest\ncommand: echo train\n"),
    _job("environment: azureml:training:7\ncommand: echo train\n"),
)
IMAGE = Rule(
    "unpinned-image",
    ERROR,
    "Images are named by digest, or by a tag that names a version",
    "An image without a tag, or with one that moves, is another image after the next pull.",
    _docker("FROM python:latest\n"),
    _docker("FROM python:3.11.14-slim\n"),
)
REGISTRY = Rule(
    "registry-outside",
    ERROR,
    "Images come from registries that the policy names",
    "Whoever serves the image decides what runs beside the private rows.",
    _docker("FROM quay.example.org/python:3.11.14\n"),
    _docker("FROM python:3.11.14\n"),
)
PACKAGE = Rule(
    "unpinned-package",
    ERROR,
    "Packages are installed by exact version",
    "A range takes whatever was released this morning, into the container that reads the private rows.",
    _job("environment: azureml:training:7\ncommand: pip install 'pandas>=2' && echo train\n"),
    _job("environment: azureml:training:7\ncommand: pip install pandas==2.3.3 && echo train\n"),
)
VERSION = Rule(
    "environment-version",
    ERROR,
    "The version of an environment is the digest of its content",
    "A version of an environment stands for one image, so a lock that changes under an old version may have no effect. "
    "The first 12 digits of the digest of build folder, image and conda file say what is in it; `edgeml check --fix` "
    "writes them.",
    _environment("1", "training:1"),
    _environment("848094749290", "training:848094749290"),
)
UNDEFINED = Rule(
    "undefined-environment",
    ERROR,
    "A version of an environment that the repository defines is the one that it defines",
    "Another version is an image that nobody can build from this commit.",
    _environment("848094749290", "training:1"),
    _environment("848094749290", "training:848094749290"),
)
RULES = (REFERENCE, IMAGE, REGISTRY, PACKAGE, VERSION, UNDEFINED)

_DOCKERFILES = ("Dockerfile", "Dockerfile.*", "*.Dockerfile")
_REQUIREMENTS = ("requirements*.txt", "requirements*.lock", "*-requirements.txt", "*_requirements.txt")
_REFERRING = frozenset({"environment", "component", "trial", "path", "default"})
_PINNED = re.compile(r"azureml:[^:@/]+:[^:@/]+|azureml:/.*/versions/(?!latest$)[^/]+")
_LOCAL_ENVIRONMENT = re.compile(r"azureml:(?P<name>[^:@/]+):(?P<version>[^:@/]+)")


def is_source(path: str) -> bool:
    """Whether a file is, by its name, a Dockerfile or a list of requirements."""
    return any(fnmatch(os.path.basename(path), pattern) for pattern in (*_DOCKERFILES, *_REQUIREMENTS))


def check_source(path: str, context: Context) -> Iterator[Finding]:
    """The findings of a Dockerfile or of a list of requirements."""
    policy = _policy(context)
    if policy.file:
        dockerfiles = any(fnmatch(os.path.basename(path), pattern) for pattern in _DOCKERFILES)
        yield from (_dockerfile if dockerfiles else _requirements)(path, context, policy)


def check(document: Document, context: Context) -> Iterator[Finding]:
    """The findings of a pipeline, component, environment, data asset or conda file; none of any other."""
    policy = _policy(context)
    if not policy.file:
        return
    root = document.root
    if kinds.kind_of(document) is None and not is_conda(document):
        return
    if is_conda(document):
        yield from _conda(document, root)
        return
    if environments.is_asset(document):
        yield from _environment_of(document, root, context, policy)
        yield from _version(document)
    for node in walk(root):
        for name, (_, given) in entries(node).items():
            text = scalar(given)
            if name == "environment" and isinstance(given, yaml.MappingNode):
                yield from _environment_of(document, given, context, policy)
            elif name == "environment" and text is not None and not load.is_remote(text):
                yield from _environment_file(load.local_path(text, document.path), context, policy)
            elif name == "inputs":
                for _, inner in entries(given).values():
                    yield from _reference(document, inner, context)
            elif name == "command" and text is not None:
                yield from _command(document, given, text)
            if name in _REFERRING:
                yield from _reference(document, given, context)


def is_conda(document: Document) -> bool:
    """Whether a document is a conda environment by what it has."""
    present = entries(document.root)
    return isinstance(value(document.root, "dependencies"), yaml.SequenceNode) and "$schema" not in present


def _policy(context: Context) -> Policy:
    try:
        return context.policy
    except PipelineError:  # the rules of residency say so
        return Policy()


# ---- references ----


def _reference(document: Document, node: yaml.Node, context: Context) -> Iterator[Finding]:
    text = scalar(node) or ""
    if not text.startswith("azureml:") or text.startswith("azureml://datastores/") or "${{" in text:
        return
    if "/datastores/" in text or (text.startswith("azureml:/subscriptions/") and "/versions/" in text):
        return
    if not _PINNED.fullmatch(text):
        what = "asks for the latest" if "latest" in text else "names no version"
        yield found(REFERENCE, document.place(node), f"{text} {what}; write azureml:NAME:VERSION")
        return
    match = _LOCAL_ENVIRONMENT.fullmatch(text)
    defined = environments.defined(context).get(match["name"]) if match else None
    if match and defined is not None and match["version"] != defined.version:
        message = (
            f"{defined.path} defines {match['name']}:{defined.version}, not version {match['version']}; "
            "name that one, or run edgeml check --fix"
        )
        yield found(UNDEFINED, document.place(node), message)


# ---- environments ----


def _environment_of(document: Document, node: yaml.Node | None, context: Context, policy: Policy) -> Iterator[Finding]:
    named, conda, build = value(node, "image"), value(node, "conda_file"), value(node, "build", "path")
    if named is not None and scalar(named) is not None:
        yield from _image(scalar(named) or "", document.place(named), policy)
    if isinstance(conda, yaml.MappingNode):
        yield from _conda(document, conda)
    elif conda is not None and os.path.isfile(path := load.local_path(scalar(conda) or "", document.path)):
        read = context.read(path)[0]
        yield from _conda(read, read.root)
    if build is not None and not load.is_remote(scalar(build) or ""):
        folder = load.local_path(scalar(build) or "", document.path)
        file = os.path.join(folder, scalar(value(node, "build", "dockerfile_path")) or "Dockerfile")
        if os.path.isfile(file):
            yield from _dockerfile(file, context, policy)


def _environment_file(path: str, context: Context, policy: Policy) -> Iterator[Finding]:
    if os.path.isfile(path):
        read = context.read(path)[0]
        if is_conda(read):
            yield from _conda(read, read.root)
        else:
            yield from _environment_of(read, read.root, context, policy)


def _version(document: Document) -> Iterator[Finding]:
    name, declared = value(document.root, "name"), value(document.root, "version")
    if name is None or document.root is None:
        return
    wanted = environments.version(document)
    at = document.place(declared or name)
    if not wanted:
        limit = f"more than {environments.MAX_BYTES >> 20} MiB or {environments.MAX_FILES} files"
        message = f"the content of this environment cannot be read, or its build folder holds {limit}"
        yield found(VERSION, at, f"{message}; check its build path and conda file")
    elif scalar(declared) != wanted:
        given = f"version {scalar(declared)}" if declared is not None else "a version of its own"
        message = f'the content of this environment is {wanted}, not {given}; write version: "{wanted}"'
        yield found(VERSION, at, f"{message} here and where it is named, or run edgeml check --fix")


def _image(reference: str, place: Place, policy: Policy) -> Iterator[Finding]:
    why = image.why_unpinned(reference)
    if why:
        yield found(IMAGE, place, f"the image {reference} {why}; name a version, or better a digest")
    if not image.is_allowed(reference, policy.registries):
        known = ", ".join(sorted(policy.registries)) or "none yet"
        host = image.registry_of(reference)
        yield found(REGISTRY, place, f"the image {reference} is from {host}; the policy names {known}")


def _dockerfile(path: str, context: Context, policy: Policy) -> Iterator[Finding]:
    from edgeml.check import dockerfile, requirement

    text = "\n".join(context.lines(path))
    for named in dockerfile.images(text):
        place = Place(os.path.relpath(path), named.line, 1)
        if named.argument:
            message = (
                f"the image is the argument {named.argument}, which has no default; give it one that names a version"
            )
            yield found(IMAGE, place, message)
        else:
            yield from _image(named.reference, place, policy)
    for line, command in dockerfile.commands(text):
        for _, asked in requirement.of_command(command):
            yield from _package(asked, Place(os.path.relpath(path), line, 1))


# ---- packages ----


def _requirements(path: str, context: Context, policy: Policy) -> Iterator[Finding]:
    from edgeml.check import requirement

    for line, asked in requirement.of_file("\n".join(context.lines(path))):
        yield from _package(asked, Place(os.path.relpath(path), line, 1))


def _conda(document: Document, root: yaml.Node | None) -> Iterator[Finding]:
    from edgeml.check import requirement

    listed = value(root, "dependencies")
    for item in listed.value if isinstance(listed, yaml.SequenceNode) else ():
        text = scalar(item)
        if text is not None:
            why = requirement.why_unpinned_conda(text)
            if why:
                yield found(PACKAGE, document.place(item), f"'{text}' {why}; write name=1.2.3")
        pip = value(item, "pip")
        for inner in pip.value if isinstance(pip, yaml.SequenceNode) else ():
            for _, asked in requirement.of_file(scalar(inner) or ""):
                yield from _package(asked, document.place(inner))


def _command(document: Document, node: yaml.Node, text: str) -> Iterator[Finding]:
    if "pip" not in text:
        return
    from edgeml.check import requirement

    for _, asked in requirement.of_command(text):
        first = node.start_mark.line
        for number, line in enumerate(document.lines[first : node.end_mark.line + 1], start=first + 1):
            column = line.find(asked)
            if column >= 0 and (number > first + 1 or column >= node.start_mark.column):
                yield from _package(asked, Place(document.path, number, column + 1))
                break
        else:
            yield from _package(asked, document.place(node))


def _package(asked: str, place: Place) -> Iterator[Finding]:
    from edgeml.check import requirement

    why = requirement.why_unpinned(asked)
    if why:
        shown = re.sub(r"//[^/@\s]*@", "//", asked)  # an address may hold a credential
        yield found(PACKAGE, place, f"'{shown}' {why}; write name==1.2.3, or an address with #sha256=…")
