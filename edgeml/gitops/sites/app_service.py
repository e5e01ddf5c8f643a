"""A site of the kind `app-service`: a web app for containers in the public cloud, its slot, and the swap of both.

App Service on Azure Stack Hub documents no containers, so there, without `resource_id`, the model is exported for
whoever writes an app, and nothing is deployed. What is known to be good is Azure's own: a tag of the app holds the
digest, and the slot what served before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.gitops import images
from edgeml.gitops.deploy import DEPLOYED, EXPORTED, FAILED, ROLLED_BACK, UNCHANGED, Release, Rollout, Serving
from edgeml.gitops.sites import azure

if TYPE_CHECKING:
    from edgeml.azure.web import WebApp
    from edgeml.gitops.record import Record
    from edgeml.image.golden import Golden

Say = Callable[[str], None]

SITE, GOOD = "edgeml.site", "edgeml.good"  # tags of the app
START_SECONDS = 600.0  # until a slot that was started answers: the image is pulled before
GRACE_SECONDS = 60.0  # what the swap may take after Azure has said that it is done


def deploy(site: str, record: Record, release: Release, say: Say) -> Rollout:
    """Make a record's image serve at a site, or export it. Raises EdgemlError where nothing has been changed yet."""
    say("verifying the signature by the keys of this repository")
    golden = images.verified_as(record).golden
    _, place = azure.where(site, "resource_id", needed=False)
    if not place.resource_id:
        from edgeml.gitops.sites import export

        path = export.write(record, release, golden)
        return Rollout(
            EXPORTED, f"not deployed: App Service on Azure Stack Hub runs no container; {path}", {"file": path}
        )
    return _rolled_out(_app(site, say), record, golden, say)


def status(site: str, record: Record) -> Serving:
    """What an app serves, and whether it gives the golden answer of its record."""
    if not azure.where(site, "resource_id", needed=False)[1].resource_id:
        return Serving("", False, {}, exported=True)
    app = _app(site, lambda line: None)
    host, image = _host(app.read()), app.image()
    healthy = image == record.image and not azure.wrong(host, images.verified_as(record).golden, {})
    return Serving(image, healthy, {"previous": app.staged()})


def _rolled_out(app: WebApp, record: Record, golden: Golden, say: Say) -> Rollout:
    there = app.read()
    tags = there.get("tags") or {}
    if tags.get(SITE, record.site) != record.site:
        raise EdgemlError(f"the web app {app.name} is of {tags[SITE]}; give {record.site} one of its own", 1)
    staging = _host(app.staging())
    before, staged, good = app.image(), app.staged(), str(tags.get(GOOD) or "")
    same = before == record.image and good == record.digest
    seconds = 0 if same else record.rollout.get("health_seconds", azure.HEALTH_SECONDS)
    if reason := _tried(app, (_host(there), staging), record.image, golden, seconds, say):
        if same:
            return Rollout(FAILED, f"the known good does not answer: {reason}", {"current": before, "previous": staged})
        return _taken_back(app, record.image, before, staged, good, reason, say)
    if (tags.get(SITE), good) != (record.site, record.digest):
        app.tag({SITE: record.site, GOOD: record.digest})
    details = {"current": record.image, "previous": app.staged()}
    return Rollout(DEPLOYED if app.writes else UNCHANGED, "", details)


def _tried(app: WebApp, hosts: tuple[str, str], image: str, golden: Golden, seconds: float, say: Say) -> str:
    """Stage, ask, swap and watch; empty where all is well, else what is wrong."""
    production, staging = hosts
    try:
        if app.image() != image:
            say(f"starting the image in the slot {app.slot}; pulling it takes minutes")
            app.stage(image)
            if problem := azure.becomes(lambda: azure.wrong(staging, golden, {}), START_SECONDS):
                return f"in the slot, {problem}"
            say("swapping the slot and the app")
            app.lead(image)
        if problem := azure.becomes(lambda: azure.wrong(production, golden, {}), GRACE_SECONDS):
            return problem
        if not seconds:
            return ""
        say(f"asking the golden request for {seconds:g} s")
        return azure.stays(lambda: azure.wrong(production, golden, {}), seconds)
    except EdgemlError as error:
        return str(error)


def _taken_back(app: WebApp, image: str, before: str, staged: str, good: str, reason: str, say: Say) -> Rollout:
    """Swap back where it was swapped, put back what the slot held, and say how that went."""
    try:
        if app.image() == image:
            now = app.staged()
            is_good = before != image or good in ("", now.partition("@")[2])  # swapped just now, or known to be so
            if now == image or not is_good:
                lost = f"{reason}; and the slot does not hold the last known good: deploy that, by a rollback"
                return Rollout(FAILED, lost, {"current": image, "previous": now})
            say(f"swapping back ({reason})")
            app.lead(now)
        if staged not in ("", image, app.staged()):
            say("putting back what the slot held")
            app.stage(staged)
        details = {"current": app.image(), "previous": app.staged()}
    except EdgemlError as error:
        return Rollout(FAILED, f"{reason}; and it could not be taken back: {error}", {"current": before})
    return Rollout(ROLLED_BACK if good else FAILED, reason, details)


def _host(resource: dict[str, dict[str, str]]) -> str:
    return f"https://{resource['properties']['defaultHostName']}/score"


def _app(site: str, say: Say) -> WebApp:
    from edgeml.azure.arm import Arm
    from edgeml.azure.web import WebApp

    settings, place = azure.where(site, "resource_id")
    return WebApp(Arm(settings), place.resource_id, place.slot, say)
