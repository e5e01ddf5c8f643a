"""Kubernetes through kubectl: always one named context and one namespace, and one deployment at a time.

The context is the site's own setting. Without it nothing is asked: the current context of a laptop may be any cluster.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.settings import Site

MANAGER = "edgeml"
SECONDS = 30  # for one request
ROLLOUT_SECONDS = 180  # longer than progressDeadlineSeconds of the base, which says why
LEASE_SECONDS = 900  # a deployment that was killed keeps the next one waiting for no longer
PAUSE = 2.0


_DENIED = re.compile(r"admission webhook \S+ denied the request\W*(.*)", re.DOTALL)


class Failed(Exception):  # noqa: N818 - an answer
    """kubectl says no; the message is its last line, and `said` all of it."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


class Cluster:
    """One namespace of one cluster."""

    def __init__(self, site: str, where: Site) -> None:
        for key in ("context", "namespace"):
            if not getattr(where, key):
                raise EdgemlError(f"site.{site}.{key} is empty; edgeml never takes the current one, name it")
        self.site, self.where = site, where
        self._lost = False  # the lease, while it is held
        self._program = shutil.which("kubectl") or ""
        if not self._program:
            raise EdgemlError("kubectl is not installed here; install it, of the cluster's version or one beside it")

    def kustomize(self, folder: str) -> str:
        """An overlay with its bases. Asks no cluster."""
        try:
            return self._called("kustomize", folder)
        except Failed as failed:
            raise EdgemlError(f"kustomize refuses the overlay of {self.site} ({failed})", 1) from None

    def ask(self, *arguments: str, content: str = "", seconds: int = SECONDS) -> str:
        """What kubectl says. Raises Failed."""
        where = ("--context", self.where.context, "--namespace", self.where.namespace)
        return self._called(*arguments, *where, f"--request-timeout={seconds}s", content=content)

    def find(self, kind: str, name: str) -> dict[str, Any] | None:
        """An object; None where there is none. Raises Failed."""
        said = self.ask("get", kind, name, "--ignore-not-found", "--output=json")
        found: dict[str, Any] | None = json.loads(said) if said.strip() else None
        return found

    def apply(self, manifests: str) -> None:
        """Make the objects as they are written, whoever changed them by hand meanwhile: Git has the last word.

        Raises Failed, also where the lease was lost and another deployment may be at work.
        """
        if self._lost:
            raise Failed("this deployment lost its lease, and another may have begun")
        self.ask("apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "--filename=-",
                 content=manifests)  # fmt: skip

    def denial(self, manifest: str) -> str:
        """Why an admission controller would not let an object be made; empty where it would. Nothing is made.

        Raises Failed for any other answer, as where a controller cannot be reached: it has decided nothing.
        """
        try:
            self.ask("create", "--dry-run=server", "--output=name", "--filename=-", content=manifest)
        except Failed as failed:
            denied = _DENIED.search(failed.said)
            if denied is None:
                raise
            return " ".join(denied[1].split())[:300] or "no reason given"
        return ""

    def wait(self, name: str) -> None:
        """Until every pod of a Deployment is of its newest version and ready. Raises Failed."""
        timeout = f"--timeout={ROLLOUT_SECONDS}s"
        self.ask("rollout", "status", f"deployment/{name}", timeout, seconds=ROLLOUT_SECONDS + SECONDS)

    def call(self, service: str, path: str, body: Any = None) -> str:
        """A request to a Service, through the API server's own proxy. Raises Failed."""
        url = f"/api/v1/namespaces/{self.where.namespace}/services/http:{service}:http/proxy{path}"
        if body is None:
            return self.ask("get", "--raw", url)
        return self.ask("create", "--raw", url, "--filename=-", content=json.dumps(body))

    @contextmanager
    def lease(self, say: Callable[[str], None]) -> Iterator[None]:
        """One deployment of a site at a time, whatever machine it is called on and however long it takes; a second one
        waits."""
        name, me = f"edgeml-{self.site}", f"{os.uname().nodename}-{uuid.uuid4().hex[:12]}"
        held = self._acquired(name, me, say)
        self._lost, ended = False, threading.Event()
        renewing = threading.Thread(target=self._renew, args=(held, ended), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            ended.set()
            renewing.join()
            held["spec"] |= {"holderIdentity": ""}
            try:
                self.ask("replace", "--filename=-", content=json.dumps(held))
            except Failed:  # somebody has it by now, or it runs out by itself
                say(f"the lease {name} could not be given back; it runs out in {LEASE_SECONDS} s")

    def _renew(self, held: dict[str, Any], ended: threading.Event) -> None:
        """Keep a lease until the end: who waits takes each new version of it for a sign of life."""
        renewed = time.monotonic()
        while not ended.wait(LEASE_SECONDS / 3):
            held["spec"]["renewTime"] = _now()
            try:
                held |= json.loads(self.ask("replace", "--filename=-", "--output=json", content=json.dumps(held)))
                renewed = time.monotonic()
            except Failed as failed:  # the cluster may be away for a moment
                if _is_taken(failed) or time.monotonic() > renewed + LEASE_SECONDS:
                    self._lost = True
                    return

    def _acquired(self, name: str, me: str, say: Callable[[str], None]) -> dict[str, Any]:
        seen, since = "", 0.0
        while True:
            now = _now()
            spec = {"holderIdentity": me, "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": now, "renewTime": now}
            there = self.find("lease", name)
            wanted: dict[str, Any] = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
            wanted["metadata"] = {"name": name}
            if there is not None:
                version = there["metadata"]["resourceVersion"]
                wanted["metadata"] |= {"resourceVersion": version}
                if version != seen:  # its age is what this clock has seen of it: clocks differ
                    seen, since = version, time.monotonic()
                if there["spec"].get("holderIdentity") and time.monotonic() < since + LEASE_SECONDS:
                    say(f"{there['spec']['holderIdentity']} deploys to {self.site}; waiting")
                    time.sleep(PAUSE)
                    continue
            try:
                verb = "create" if there is None else "replace"
                made: dict[str, Any] = json.loads(
                    self.ask(verb, "--filename=-", "--output=json", content=json.dumps(wanted))
                )
                return made
            except Failed as failed:
                if not _is_taken(failed):
                    raise

    def _called(self, *arguments: str, content: str = "") -> str:
        done = subprocess.run([self._program, *arguments], input=content.encode(), capture_output=True)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace")
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            raise Failed(lines[-1][:500] if lines else f"kubectl ended with {done.returncode}", said)
        return done.stdout.decode()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _is_taken(failed: Failed) -> bool:
    """Whether somebody else wrote an object first."""
    return any(word in str(failed) for word in ("AlreadyExists", "Conflict", "has been modified"))
