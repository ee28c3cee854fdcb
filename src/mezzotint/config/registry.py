"""The names that a configuration may choose classes by."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    create_model,
)

from mezzotint import diffusion
from mezzotint.diffusion import Sampler
from mezzotint.errors import InputError, suggest
from mezzotint.training import lr

__all__ = [
    "PARAMETERIZATIONS",
    "LR_SCHEDULES",
    "SAMPLERS",
    "SCHEDULES",
    "WEIGHTS",
    "Strict",
    "choose",
    "kind_of",
    "sampler_named",
]


class Strict(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


SCHEDULES: dict[str, type] = {
    "linear-beta": diffusion.LinearBeta,
    "cosine": diffusion.Cosine,
    "zero-terminal": diffusion.ZeroTerminal,
    "karras": diffusion.Karras,
    "log-normal": diffusion.LogNormal,
    "learned": diffusion.Learned,
}


PARAMETERIZATIONS: dict[str, type] = {
    "eps": diffusion.Eps,
    "x0": diffusion.X0,
    "v": diffusion.V,
    "edm": diffusion.Edm,
}


WEIGHTS: dict[str, type] = {
    "uniform": diffusion.Uniform,
    "min-snr": diffusion.MinSnr,
    "edm": diffusion.EdmLoss,
}


LR_SCHEDULES: dict[str, type] = {
    "constant": lr.Constant,
    "cosine": lr.WarmupCosine,
    "plateau": lr.Plateau,
}


SAMPLERS: dict[str, Sampler] = {
    "ddpm": diffusion.Ancestral(1.0),
    "ddim": diffusion.Ancestral(0.0),
    "heun": diffusion.Heun(),
    "dpm++2m": diffusion.Multistep(2),
    "dpm++2m-sde": diffusion.Ancestral(1.0, order=2),
    "dpm++3m": diffusion.Multistep(3),
    "ipndm": diffusion.Ipndm(4),
}


def choose(registry: Mapping[str, type], table: Any) -> Any:
    """The object that a table {kind, …} describes; an object passes through."""
    if table is None or isinstance(table, str | int | float | list | tuple):
        example = next(iter(registry))
        raise InputError(f"give a table, as in {{ kind = '{example}' }}; got {table!r}")
    if not isinstance(table, Mapping):
        return table
    rest = dict(table)
    kind = str(rest.pop("kind", ""))
    if kind not in registry:
        raise InputError(f"unknown kind '{kind}': {suggest(kind, registry)}")
    if "base" in rest:
        rest["base"] = choose(registry, rest["base"])
    known = [f.name for f in dataclasses.fields(registry[kind])]
    for key in rest:
        if key not in known:
            hint = suggest(key, known) if known else "it takes none"
            raise InputError(f"'{kind}' has no key '{key}': {hint}")
    model = create_model("Choice", __config__=Strict.model_config, value=(registry[kind], ...))
    # An instance of the very class: pydantic checks the types, the class its own ranges.
    return model.model_validate({"value": rest}).value  # type: ignore[attr-defined]


def kind_of(cls: type) -> str | None:
    """The kind under which a class is registered; None for one that is not."""
    registries = (SCHEDULES, PARAMETERIZATIONS, WEIGHTS, LR_SCHEDULES)
    return next((kind for r in registries for kind, known in r.items() if known is cls), None)


def sampler_named(name: str) -> Sampler:
    """The sampler of that name; InputError names the closest."""
    if name not in SAMPLERS:
        raise InputError(f"no sampler '{name}': {suggest(name, SAMPLERS)}")
    return SAMPLERS[name]
