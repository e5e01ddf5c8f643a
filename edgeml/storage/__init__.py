"""Azure Stack Hub blobs, or the embedded server that stands in for them on a machine without a stamp.

The face is small: `session()` for whoever reads or writes rows, `step_environment()` for whoever hands the
credential on, `account()` to say where the rows lie. Which of the two it is, the settings decide: `storage.account_url`
names a real account, empty means the embedded server under `.edgeml/storage/`.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeml import project
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeml import settings


@contextmanager
def session() -> Iterator[dict[str, str]]:
    """The storage, reachable while the block lasts, as the variables of `step_environment()`.

    Starts the embedded server if the settings name no account and it does not run, and stops it at the end only if
    nobody else uses it and `edgeml storage start` did not ask for it.
    """
    from edgeml.storage import server

    chosen = _settings()
    if chosen.account_url:
        yield _named(chosen)
        return
    state = project.state()
    with server.session(state, chosen.port) as found:
        yield server.environment(state, found)


def step_environment() -> dict[str, str]:
    """The `EDGEML_STORAGE_*` variables by which a step reaches the rows: an address and one credential.

    Raises `EdgemlError` if the settings name an account without a credential, or if the embedded server is meant
    and does not run.
    """
    from edgeml.storage import server

    chosen = _settings()
    if chosen.account_url:
        return _named(chosen)
    state = project.state()
    found = server.running(state)
    if found is None:
        raise EdgemlError("the embedded storage does not run; start it with `edgeml storage start`")
    return server.environment(state, found)


def account() -> str:
    """The address of the account that the settings name, empty for the embedded server."""
    return _settings().account_url


def _settings() -> settings.Storage:
    from edgeml import settings

    return settings.load().storage


def _named(chosen: settings.Storage) -> dict[str, str]:
    """The variables of the account that the settings name."""
    key = chosen.account_key.get_secret_value() if chosen.account_key else ""
    token = chosen.sas_token.get_secret_value() if chosen.sas_token else ""
    if bool(key) == bool(token):
        raise EdgemlError(
            f"storage.account_url names {chosen.account_url}, so exactly one of EDGEML_STORAGE_ACCOUNT_KEY and "
            f"EDGEML_STORAGE_SAS_TOKEN must be set; {'both are' if key else 'neither is'}"
        )
    values = {
        "EDGEML_STORAGE_ACCOUNT_URL": chosen.account_url,
        "EDGEML_STORAGE_ACCOUNT_NAME": chosen.account_name,
        "EDGEML_STORAGE_ACCOUNT_KEY": key,
        "EDGEML_STORAGE_SAS_TOKEN": token,
        # A step runs in a folder of its own, so a path relative to the project becomes absolute.
        "EDGEML_STORAGE_CA_BUNDLE": str(project.root() / chosen.ca_bundle) if chosen.ca_bundle else "",
    }
    return {name: value for name, value in values.items() if value}
