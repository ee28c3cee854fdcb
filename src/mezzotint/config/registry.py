"""The names that a configuration may choose classes by.

The tables say where a class lies and import nothing: the command line lists their names without
torch. A new class is a file of its own and a line here.
"""

import dataclasses
import functools
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mezzotint.errors import InputError, suggest
from mezzotint.runtime.registry import Entry, Registry, entry

if TYPE_CHECKING:
    from pydantic import BaseModel

    from mezzotint.diffusion import LossWeight, Parameterization, Sampler, Schedule
    from mezzotint.networks import NetworkSpec
    from mezzotint.training.lr import LrSchedule

__all__ = [
    "LR_SCHEDULES",
    "NETWORKS",
    "PARAMETERIZATIONS",
    "SAMPLERS",
    "SCHEDULES",
    "USUAL_NETWORK",
    "WEIGHTS",
    "choose",
    "choose_network",
    "choose_sampler",
    "kind_of",
    "network_kind",
    "sampler_table",
]

SCHEDULES: "Registry[type[Schedule], Entry]" = Registry(
    "schedule",
    {
        "linear-beta": entry("mezzotint.diffusion.schedules:LinearBeta"),
        "cosine": entry("mezzotint.diffusion.schedules:Cosine"),
        "zero-terminal": entry("mezzotint.diffusion.schedules:ZeroTerminal"),
        "karras": entry("mezzotint.diffusion.schedules:Karras"),
        "log-normal": entry("mezzotint.diffusion.schedules:LogNormal"),
        "learned": entry("mezzotint.diffusion.schedules:Learned"),
    },
)

PARAMETERIZATIONS: "Registry[type[Parameterization], Entry]" = Registry(
    "parameterization",
    {
        "eps": entry("mezzotint.diffusion.parameterization:Eps"),
        "x0": entry("mezzotint.diffusion.parameterization:X0"),
        "v": entry("mezzotint.diffusion.parameterization:V"),
        "edm": entry("mezzotint.diffusion.parameterization:Edm"),
    },
)

WEIGHTS: "Registry[type[LossWeight], Entry]" = Registry(
    "weight",
    {
        "uniform": entry("mezzotint.diffusion.losses:Uniform"),
        "min-snr": entry("mezzotint.diffusion.losses:MinSnr"),
        "edm": entry("mezzotint.diffusion.losses:EdmLoss"),
    },
)

LR_SCHEDULES: "Registry[type[LrSchedule], Entry]" = Registry(
    "learning-rate schedule",
    {
        "constant": entry("mezzotint.training.lr:Constant"),
        "cosine": entry("mezzotint.training.lr:WarmupCosine"),
        "plateau": entry("mezzotint.training.lr:Plateau"),
    },
)

SAMPLERS: "Registry[type[Sampler], Entry]" = Registry(
    "sampler",
    {
        # Before ddpm: what lies between the two is written as ddim with its eta.
        "ddim": entry("mezzotint.diffusion.samplers:Ancestral", eta=0.0),
        "ddpm": entry("mezzotint.diffusion.samplers:Ancestral", eta=1.0),
        "heun": entry("mezzotint.diffusion.samplers:Heun"),
        "dpm++2m": entry("mezzotint.diffusion.samplers:Multistep", order=2),
        "dpm++2m-sde": entry("mezzotint.diffusion.samplers:Ancestral", eta=1.0, order=2),
        "dpm++3m": entry("mezzotint.diffusion.samplers:Multistep", order=3),
        "ipndm": entry("mezzotint.diffusion.samplers:Ipndm", order=4),
    },
)

NETWORKS: "Registry[type[NetworkSpec], Entry]" = Registry(
    "network",
    {
        "unet": entry("mezzotint.networks.unet:UNetSpec"),
    },
)

USUAL_NETWORK = "unet"
"""The kind of a network table that names none; it is not written down."""


def choose(registry: Registry[Any, Entry], table: Any) -> Any:
    """Return the object that a table {kind, …} describes; an object passes through."""
    if table is None or isinstance(table, str | int | float | list | tuple):
        example = next(iter(registry))
        raise InputError(f"give a table, as in {{ kind = '{example}' }}; got {table!r}")
    if not isinstance(table, Mapping):
        return table
    rest = dict(table)
    kind = str(rest.pop("kind", ""))
    cls = registry.resolve(kind)
    if "base" in rest:
        rest["base"] = choose(registry, rest["base"])
    known = [f.name for f in dataclasses.fields(cls)]
    for key in rest:
        if key not in known:
            hint = suggest(key, known) if known else "it takes none"
            raise InputError(f"'{kind}' has no key '{key}': {hint}")
    return _built(cls, {**registry.entries[kind].fixed, **rest})


def choose_sampler(value: Any) -> Any:
    """Return the sampler of a name, of a table {kind, …}, or of the TOML text of such a table."""
    if isinstance(value, str):
        text = value.strip()
        value = _inline_table(text) if text.startswith("{") else {"kind": text}
    return choose(SAMPLERS, value)


def _inline_table(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        example = '{kind = "ddim", eta = 0.5}'
        raise InputError(f"{text} is no table as in {example}: {error}") from error


def choose_network(value: Any) -> Any:
    """Return the specification of a network's table; an object passes through."""
    if not isinstance(value, Mapping):
        return choose(NETWORKS, value)
    fields = {key: own for key, own in value.items() if key != "kind"}
    return _built(NETWORKS.resolve(network_kind(value)), fields)


def network_kind(table: Mapping[str, Any]) -> str:
    """Return the kind of network that a table describes."""
    return str(table.get("kind", USUAL_NETWORK))


def _built(cls: type, fields: Mapping[str, Any]) -> Any:
    # An instance of the very class: pydantic checks the types, the class its own ranges.
    return _checked(cls).model_validate({"value": fields}).value  # type: ignore[attr-defined]


@functools.cache
def _checked(cls: type) -> "type[BaseModel]":
    from pydantic import ConfigDict, create_model

    settings = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    return create_model("Choice", __config__=settings, value=(cls, ...))


def kind_of(cls: type) -> str | None:
    """Return the kind of a class whose instances are written as tables; None if not registered."""
    registries: tuple[Registry[Any, Entry], ...] = (
        SCHEDULES, PARAMETERIZATIONS, WEIGHTS, LR_SCHEDULES, NETWORKS,
    )  # fmt: skip
    return next((kind for r in registries for kind, known in r.items() if known is cls), None)


def sampler_table(sampler: "Sampler") -> str | dict[str, Any]:
    """Return the name of a sampler, or a table of a name and the fields that differ from its own.

    >>> sampler_table(Ancestral(0.0)), sampler_table(Ancestral(0.5))
    ('ddim', {'kind': 'ddim', 'eta': 0.5})
    """
    tables = []
    for kind, cls in SAMPLERS.items():
        if type(sampler) is cls:
            own = {f.name: f.default for f in dataclasses.fields(sampler)}  # type: ignore[arg-type]
            own |= SAMPLERS.entries[kind].fixed
            changed = {k: v for k in own if (v := getattr(sampler, k)) != own[k]}
            tables.append({"kind": kind, **changed})
    if not tables:
        raise InputError(
            f"the sampler {sampler!r} has no name to be written down by: give its class a line in "
            "config/registry.py"
        )
    nearest = min(tables, key=len)
    return nearest if len(nearest) > 1 else str(nearest["kind"])
