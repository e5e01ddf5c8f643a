"""Holds request bodies against the models that azure-ai-ml itself was generated with.

The SDK serializes whatever its entities hand it; a field that the service's model does not have, a value of another
type, a field that only the service may write and one that is missing are found here, where Azure would refuse or,
worse, ignore them.
"""

from __future__ import annotations

import datetime
import enum
import types
import typing
from functools import cache
from typing import Any

from azure.ai.ml._restclient.arm_ml_service import models
from azure.ai.ml._restclient.arm_ml_service._utils import model_base
from azure.ai.ml._restclient.arm_ml_service.models import _models

_NAMES = {**vars(_models), "_models": models}

# Where the SDK itself departs from its models: it writes a number into a table of texts.
_DEPARTURES = {"$.properties.properties.hash_version: must be str, not int"}

# What a client writes, by the kind of resource and the method. A body of any other request must be empty.
BODIES: dict[tuple[str, str], type] = {
    ("computes", "PUT"): models.ComputeResource,
    ("datastores", "PUT"): models.Datastore,
    ("codes", "PUT"): models.CodeVersion,
    ("codes", "POST"): models.PendingUploadRequestDto,
    ("environments", "PUT"): models.EnvironmentVersion,
    ("components", "PUT"): models.ComponentVersion,
    ("data", "PUT"): models.DataVersionBase,
    ("models", "PUT"): models.ModelVersion,
    ("jobs", "PUT"): models.JobBase,
    ("onlineEndpoints", "PUT"): models.OnlineEndpoint,
    ("deployments", "PUT"): models.OnlineDeployment,
    ("listSecrets", "POST"): models.SecretExpiry,
}


def errors(kind: str, method: str, body: Any) -> list[str]:
    """What is wrong with a body; an unknown kind of body is wrong as a whole."""
    model = BODIES.get((kind, method))
    if model is None:
        return [] if body is None else [f"{method} {kind} takes no body"]
    if body is None:
        return [] if kind == "listSecrets" else [f"{method} {kind} needs a body"]
    return [error for error in _model_errors(model, body, "$") if error not in _DEPARTURES]


def _model_errors(model: type, value: Any, at: str) -> typing.Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: {model.__name__} must be an object, not {type(value).__name__}"
        return
    model = _chosen(model, value)
    fields = _fields(model)
    for key, inner in value.items():
        if key not in fields:
            yield f"{at}: {model.__name__} has no field '{key}'"
            continue
        hint, read_only = fields[key]
        if read_only and inner is not None:
            yield f"{at}.{key}: only the service writes it"
        else:
            yield from _value_errors(hint, inner, f"{at}.{key}")
    for key, (hint, read_only) in fields.items():
        if (
            key not in value
            and not read_only
            and not _may_be_none(hint)
            and typing.get_origin(hint) is not typing.Literal
        ):
            yield f"{at}: {model.__name__} lacks '{key}'"


def _value_errors(hint: Any, value: Any, at: str) -> typing.Iterator[str]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or (value is None and _may_be_none(hint)):
        return
    if origin in (typing.Union, types.UnionType):
        found = [list(_value_errors(one, value, at)) for one in arguments if one is not type(None)]
        if all(found):
            yield from min(found, key=len)
    elif origin is typing.Literal:
        if value not in [getattr(one, "value", one) for one in arguments]:
            yield f"{at}: {value!r} is none of {arguments}"
    elif origin is list:
        if not isinstance(value, list):
            yield f"{at}: must be a list"
            return
        for number, one in enumerate(value):
            yield from _value_errors(arguments[0], one, f"{at}[{number}]")
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{at}: must be an object"
            return
        for key, one in value.items():
            yield from _value_errors(arguments[1], one, f"{at}.{key}")
    elif isinstance(hint, type) and issubclass(hint, model_base.Model):
        yield from _model_errors(hint, value, at)
    elif not _fits(hint, value):
        yield f"{at}: must be {getattr(hint, '__name__', hint)}, not {type(value).__name__}"


def _fits(hint: Any, value: Any) -> bool:
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is float:
        return isinstance(value, (int, float))
    if hint is int:
        return isinstance(value, int)
    if hint in (datetime.datetime, datetime.date, datetime.timedelta, str, bytes):
        return isinstance(value, str)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return isinstance(value, str)
    return hint is object


def _may_be_none(hint: Any) -> bool:
    return hint is Any or type(None) in typing.get_args(hint)


def _chosen(model: type, value: dict[str, Any]) -> type:
    """The subtype that the discriminator names, as far down as there is one."""
    seen: list[str] = []
    while True:
        discriminator = model._get_discriminator(seen)  # type: ignore[attr-defined]
        if discriminator is None:
            return model
        seen.append(discriminator._rest_name)
        kind = value.get(discriminator._rest_name)
        chosen = next((sub for name, sub in model.__mapping__.items() if _name(name) == kind), None)  # type: ignore[attr-defined]
        if chosen is None or chosen is model:
            return model
        model = chosen


def _name(discriminator: Any) -> Any:
    return getattr(discriminator, "value", discriminator)


@cache
def _fields(model: type) -> dict[str, tuple[Any, bool]]:
    """By name on the wire, the type of each field and whether only the service writes it."""
    hints = typing.get_type_hints(model, globalns=_NAMES)
    found = {}
    for base in reversed(model.__mro__):
        for name, field in vars(base).items():
            if isinstance(field, model_base._RestField):
                rest = field._rest_name_input or name
                found[rest] = (hints.get(name, Any), model_base._is_readonly(field))
    return found
