"""Hands what was made to `edgeml.toml`, leaving every comment and every other line as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.engine.files import write_atomically
from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from tomlkit.container import Container


def write(file: Path, sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Set keys by section (`compute.edge`), and return what changed as `section.key`. Raises EdgemlError."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    text = file.read_text("utf-8") if file.exists() else ""
    try:
        document = tomlkit.parse(text)
        changed = []
        for section, values in sections.items():
            table: Any = _table(document, section)
            for key, value in values.items():
                if key not in table or table[key] != value:
                    comment = table.item(key).trivia.comment if key in table else ""
                    table[key] = value
                    if comment:
                        table[key].comment(comment.lstrip("# "))
                    changed.append(f"{section}.{key}")
    except (TOMLKitError, TypeError, AttributeError) as error:
        raise EdgemlError(f"{file} cannot be edited ({error}); mend it, or set by hand what is printed above") from None
    if changed:
        write_atomically(str(file), tomlkit.dumps(document))
    return changed


def _table(document: Container | Any, section: str) -> Any:
    import tomlkit

    here: Any = document
    for part in section.split("."):
        if part not in here:
            here[part] = tomlkit.table(is_super_table=part != section.rpartition(".")[2])
        here = here[part]
    return here


def of_stack_hub(outputs: Mapping[str, Any], host_key: str, compute: str, container: str) -> dict[str, dict[str, Any]]:
    """The keys that a made edge VM sets: a compute target of the kind `edge`, and where the rows lie."""
    target = {"kind": "edge", "user": str(outputs["user"])}
    if outputs.get("address"):
        target["address"] = str(outputs["address"])
    if host_key:
        target["host_key"] = host_key
    storage = {"account_url": str(outputs["accountUrl"]).rstrip("/"), "container": container}
    return {f"compute.{compute}": target, "storage": storage}


def of_azure(outputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys that a made cloud side sets: what the training workflow signs in as, and where."""
    return {"azure": {"workspace": str(outputs["workspace"]), "client_id": str(outputs["trainingClientId"])}}
