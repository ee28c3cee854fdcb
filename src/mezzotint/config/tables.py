"""TOML tables to settings and back; every mistake is one line."""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    ValidationError,
)

from mezzotint.config import legacy
from mezzotint.config.registry import (
    NETWORKS,
    USUAL_NETWORK,
    kind_of,
    network_kind,
    sampler_table,
)
from mezzotint.diffusion import Sampler
from mezzotint.errors import InputError, suggest

__all__ = ["flatten", "override", "parse_config", "parse_toml", "to_table", "with_deviation"]


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """TOML text as a table; InputError with the parser's line for bad syntax."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{name} is not valid TOML: {error}") from error


def override(table: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of a table with `a.b=value` settings; values as in TOML, bare words as strings."""
    result = _copy(table)
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not path:
            raise InputError(f"--set takes key=value, as in training.batch=64; got '{setting}'")
        path = legacy.current_path(path.strip())
        *parents, leaf = path.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {setting}: '{parent}' is a value, not a table")
        value = _value(text)
        place[leaf] = legacy.current_table(value, path) if isinstance(value, dict) else value
    return result


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _copy(v) if isinstance(v, Mapping) else v for k, v in table.items()}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


T = TypeVar("T", bound=BaseModel)


def parse_config(table: Mapping[str, Any], model: type[T]) -> T:
    """A validated configuration; InputError of one line for the first thing that is wrong."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise InputError(_explain(error, table, model)) from error


def _explain(error: ValidationError, table: Mapping[str, Any], model: type[BaseModel]) -> str:
    unknown = ("extra_forbidden", "unexpected_keyword_argument")
    # A mistyped key is also a missing one: the mistyped one is what helps.
    first = min(error.errors(), key=lambda each: each["type"] not in unknown)
    where = ".".join(str(part) for part in first["loc"] if part != "value")  # see `choose`
    if first["type"] in unknown:
        known = _allowed_keys(first["loc"], table, model)
        return f"no key '{where}' in a configuration: {suggest(str(first['loc'][-1]), known)}"
    if first["type"] == "value_error":  # our own words, which say what was given
        return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    value, message = first["input"], first["msg"]
    shown = f"{where} = {value!r}: " if isinstance(value, str | int | float) else f"{where}: "
    if first["type"] == "literal_error":
        return shown + suggest(str(value), re.findall("'([^']+)'", message))
    return f"{shown}{message[0].lower()}{message[1:]}"


def _allowed_keys(
    path: tuple[int | str, ...], table: Mapping[str, Any], model: type[BaseModel]
) -> list[str]:
    """The names that would have been allowed where an unknown key stands."""
    parts = [part for part in path[:-1] if isinstance(part, str) and part != "value"]
    here: Any = model
    if parts[:1] == ["network"]:  # which keys it has depends on its kind
        here, parts = NETWORKS[network_kind(table["network"])], parts[1:]
    for part in parts:
        here = get_type_hints(here)[part]
        if get_origin(here) is tuple:
            here = get_args(here)[0]
    is_model = isinstance(here, type) and issubclass(here, BaseModel)
    return list(here.model_fields) if is_model else [f.name for f in dataclasses.fields(here)]


def to_table(value: Any) -> Any:
    """A configuration as plain tables that `parse_config` reads back to an equal one.

    None is left out: TOML has no word for it, and it is the default wherever it is allowed.
    """
    if isinstance(value, BaseModel):
        items = ((name, getattr(value, name)) for name in type(value).model_fields)
        return {name: to_table(item) for name, item in items if item is not None}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if isinstance(value, Sampler):
            return sampler_table(value)
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        table = {name: to_table(item) for name, item in fields if item is not None}
        kind = kind_of(type(value))
        return {"kind": kind, **table} if kind and kind != USUAL_NETWORK else table
    if isinstance(value, tuple | list):
        return [to_table(item) for item in value]
    return value


def flatten(table: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, {"a.b": value}."""
    if isinstance(table, dict):
        items = (flatten(value, f"{prefix}{key}.") for key, value in table.items())
        return {key: value for part in items for key, value in part.items()}
    return {prefix[:-1]: table}


def with_deviation(table: Mapping[str, Any], deviation: float) -> dict[str, Any]:
    """A copy of a table whose EDM entries got the measured deviation where they give none."""
    result = _copy(table)
    objective = result.setdefault("objective", {})
    objective.setdefault("parameterization", {"kind": "edm"})
    for name in ("parameterization", "weight"):
        entry = objective.get(name, {})
        if isinstance(entry, dict) and entry.get("kind") == "edm":
            entry.setdefault("sigma_data", deviation)
    return result
