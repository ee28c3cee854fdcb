"""Configuration: the composition root, the only place that knows every concrete class.

A configuration is a TOML file (`presets/*.toml`, or a run's `config.toml`) read into frozen
objects. Where there is a choice among classes, a table names one by its `kind`, and the other
keys are its arguments. An unknown key, kind or value is an error that names the closest.
"""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from mezzotint import diffusion
from mezzotint.data import Style
from mezzotint.diffusion import Denoiser, Sampler
from mezzotint.errors import InputError, suggest
from mezzotint.networks import Block, Embedding, Factor, Level, UNet, UNetSpec
from mezzotint.training import rates
from mezzotint.training.batches import PLAIN

__all__ = [
    "SAMPLERS",
    "Budget",
    "Config",
    "Objective",
    "Sampling",
    "Strict",
    "Training",
    "build_denoiser",
    "load_preset",
    "override",
    "parse_config",
    "preset_names",
    "preset_summary",
    "sampler_named",
    "suited",
    "to_table",
]

SCHEDULES: dict[str, type] = {
    "linear-beta": diffusion.LinearBeta,
    "cosine": diffusion.Cosine,
    "zero-terminal": diffusion.ZeroTerminal,
    "karras": diffusion.Karras,
    "log-normal": diffusion.LogNormal,
    "learned": diffusion.Learned,
}
PRECONDITIONS: dict[str, type] = {
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
RATES: dict[str, type] = {
    "constant": rates.Constant,
    "cosine": rates.WarmupCosine,
    "plateau": rates.Plateau,
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


class Strict(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _choose(registry: Mapping[str, type], table: Any) -> Any:
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
        rest["base"] = _choose(registry, rest["base"])
    known = [f.name for f in dataclasses.fields(registry[kind])]
    for key in rest:
        if key not in known:
            hint = suggest(key, known) if known else "it takes none"
            raise InputError(f"'{kind}' has no key '{key}': {hint}")
    model = create_model("Choice", __config__=Strict.model_config, value=(registry[kind], ...))
    # An instance of the very class: pydantic checks the types, the class its own ranges.
    return model.model_validate({"value": rest}).value  # type: ignore[attr-defined]


ScheduleField = Annotated[Any, BeforeValidator(partial(_choose, SCHEDULES))]
PreconditionField = Annotated[Any, BeforeValidator(partial(_choose, PRECONDITIONS))]
WeightField = Annotated[Any, BeforeValidator(partial(_choose, WEIGHTS))]
RateField = Annotated[Any, BeforeValidator(partial(_choose, RATES))]


class Objective(Strict):
    """What is learned, at which noise levels, with which weight."""

    schedule: ScheduleField = diffusion.LogNormal()
    """Levels to train on."""

    precondition: PreconditionField = diffusion.Edm()
    """What the network predicts; the data's deviation is measured where it is not given."""

    weight: WeightField = diffusion.Uniform()


class Training(Strict):
    """How long, how fast, how often. Every number of images counts images seen."""

    budget: str = "10m"
    """Total of the run: 40s, 10m, 1h, 30epochs, 20000images, 5Mimages."""

    batch: int = Field(128, ge=1)
    optimizer: Literal["adamw", "adam", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    rate: RateField = rates.WarmupCosine()
    """What the learning rate is multiplied by, over the run."""

    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Largest norm of the gradient; 0: no clipping."""

    ema: float = Field(0.1, ge=0, le=0.28)
    """Relative width of the weight average; 0: no averaging."""

    drop: float = Field(0.1, ge=0, le=1)
    """Probability of leaving the label free, which guidance needs."""

    drop_style: float = Field(0.1, ge=0, le=1)
    """Probability of leaving a style free, and again of leaving all of them free together."""

    guidance: float = Field(1.0, ge=1, allow_inf_nan=False)
    """Largest scale that is learned, so that sampling needs no second evaluation; 1: none."""

    guidance_after: float = Field(0.5, ge=0, lt=1)
    """Share of the budget after which it is: until then steps are cheaper, and there is little to
    learn from."""

    snapshot: float = Field(0.0, ge=0, lt=1)
    """Share of the budget after which the weights are kept as they are then, as the weaker model
    of autoguidance; 0: never."""

    seed: int = 0
    validate_every: int = Field(20_000, ge=1)
    validation_images: int = Field(1000, ge=1)
    patience: int = Field(0, ge=0)
    """Stop after so many validations without improvement; 0: never."""

    target: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Stop once the validation loss is below this; 0: never."""

    preview_every: int = Field(50_000, ge=0)
    """Images between sample grids; 0: none."""

    log_every: int = Field(1000, ge=1)
    """Images between lines of the loss in metrics.jsonl."""

    metrics_every: int = Field(0, ge=0)
    """Images between judgements of samples (fd, kd, coverage, accuracy); 0: never."""

    metrics_images: int = Field(2000, ge=10)
    """Samples judged each time."""

    metrics_share: float = Field(0.1, gt=0, le=1)
    """Most of the training time that judging may take; a judgement that would take more waits."""

    best: Literal["loss", "fd", "kd", "coverage", "accuracy"] = "loss"
    """What decides on the best checkpoint: the validation loss, or a metric of those above."""

    @model_validator(mode="after")
    def _free_is_learned(self) -> "Training":
        if self.guidance > 1 and self.drop == 0:
            raise ValueError(
                f"guidance {self.guidance:g} is learned from what the network does without a "
                "label, which drop = 0 never shows it: set training.drop to 0.1, or "
                "training.guidance and sampling.guidance to 1"
            )
        if self.guidance > 1 and self.batch < PLAIN:
            raise ValueError(
                f"where guidance is learned, one image of {PLAIN} goes on without, and batch = "
                f"{self.batch} has none to spare: set training.batch to {PLAIN} or more, or "
                "training.guidance and sampling.guidance to 1"
            )
        return self

    @model_validator(mode="after")
    def _best_is_judged(self) -> "Training":
        if self.best != "loss" and self.metrics_every == 0:
            raise ValueError(
                f"best = {self.best} is judged every metrics_every images, and that is 0: set "
                "training.metrics_every, to 20000 for instance"
            )
        return self


class Sampling(Strict):
    """How images are drawn where the command does not say otherwise."""

    sampler: str = "ipndm"
    evaluations: int = Field(12, ge=1)
    ladder: ScheduleField | None = None
    """Levels to visit; none: the training schedule's own."""

    start: Literal["noise", "standard", "matched"] = "matched"
    """Mean and deviation of the data that the first level is drawn with: none; N(0, I) for DDPM's
    x_t; or as measured. They differ only where the largest sigma is small."""

    guidance: float = Field(1.0, ge=0, allow_inf_nan=False)
    """1: none, 0: unconditional."""

    style_guidance: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    """Scale of each style, beyond what the label does: 1, or not named: none, 0: not heard.
    Guidance that was learned is by all that is asked for, styles too: this multiplies it."""

    autoguidance: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Scale of guidance by the run's early snapshot; 1: none."""

    interval: tuple[float, float] | None = None
    """Levels low < sigma <= high at which both guidances act; none: all."""

    clip: bool = False
    """Keep the estimate of x0 in [-1, 1] at every step."""

    @field_validator("interval")
    @classmethod
    def _rises(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"an interval needs 0 <= low < high, got {value[0]:g} {value[1]:g}")
        return value

    @field_validator("sampler")
    @classmethod
    def _known(cls, name: str) -> str:
        sampler_named(name)
        return name


class Config(Strict):
    """A whole configuration."""

    objective: Objective = Objective()
    network: UNetSpec
    training: Training = Training()
    sampling: Sampling = Sampling()


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much to train: an amount of seconds, epochs or images."""

    amount: float
    unit: Literal["seconds", "epochs", "images"]

    @staticmethod
    def parse(text: str) -> "Budget":
        """Read 40s, 10m, 1h, 30epochs, 20000images or 5Mimages."""
        match = re.fullmatch(r"([0-9]*\.?[0-9]+)(s|m|h|epochs?|[kM]?images?)", text.strip())
        if not match or float(match[1]) <= 0:
            raise InputError(
                f"'{text}' is not a budget: write 40s, 10m, 1h, 30epochs, 20000images or 5Mimages"
            )
        amount, unit = float(match[1]), match[2]
        if unit in ("s", "m", "h"):
            return Budget(amount * {"s": 1, "m": 60, "h": 3600}[unit], "seconds")
        if unit.startswith("epoch"):
            return Budget(amount, "epochs")
        return Budget(amount * {"k": 1e3, "M": 1e6}.get(unit[0], 1), "images")


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("mezzotint") / "presets"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def _preset_text(name: str) -> str:
    if name.endswith(".toml") and Path(name).is_file():
        return Path(name).read_text(encoding="utf-8", errors="replace")
    if name not in preset_names():
        raise InputError(
            f"no preset '{name}': {suggest(name, preset_names())}; or a path to a .toml file"
        )
    return (resources.files("mezzotint") / "presets" / f"{name}.toml").read_text()


class Part(Strict):
    """What a preset has otherwise, for budgets on one side of a number of images."""

    images: int = Field(ge=1)
    set: tuple[str, ...]
    """As `--set` takes them."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """A preset as it is written, and what it has otherwise."""

    table: dict[str, Any]
    shorter: tuple[Part, ...]
    """Of budgets below their number of images; those of the smaller numbers last."""

    longer: tuple[Part, ...]
    """Of budgets from their number of images on; those of the larger numbers last."""


def load_preset(name: str, images: int = 0) -> dict[str, Any]:
    """The table of a preset, by name or path of a TOML file, for a budget of so many images.

    0: as it is written.
    """
    preset = _preset(name)
    return override(preset.table, [each for part in _suited(preset, images) for each in part.set])


def suited(name: str, images: int) -> tuple[int, str]:
    """What a preset is other than written for, where so many images make it so, else 0 and "".

    As a number of images that makes it the same, and as words.
    """
    preset = _preset(name)
    parts = _suited(preset, images)
    if not parts:
        return 0, ""
    bound = parts[-1].images
    if parts[-1] in preset.shorter:
        return bound - 1, f"fewer than {bound:,} images"
    return bound, f"{bound:,} images and more"


def _suited(preset: Preset, images: int) -> list[Part]:
    """What a budget of so many images changes, in this order."""
    shorter = [part for part in preset.shorter if 0 < images < part.images]
    return shorter + [part for part in preset.longer if part.images <= images]


def _preset(name: str) -> Preset:
    table = parse_toml(_preset_text(name), name)
    parts = {}
    for side in ("shorter", "longer"):
        entries = table.pop(side, [])
        if not isinstance(entries, list):
            raise InputError(f"{name}: {side} is a list of tables, each headed [[{side}]]")
        found = [parse_config(part, Part) for part in entries]
        found.sort(key=lambda part: part.images, reverse=side == "shorter")
        parts[side] = tuple(found)
    return Preset(table, parts["shorter"], parts["longer"])


def preset_summary(name: str) -> str:
    """The first comment of a preset: what it is and what it measured."""
    lines = _preset_text(name).splitlines()
    head = [line[1:].strip() for line in lines[: _first(lines)]]
    return " ".join(line for line in head if line)


def _first(lines: list[str]) -> int:
    return next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))


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
        *parents, leaf = path.strip().split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise InputError(f"--set {setting}: '{parent}' is a value, not a table")
        place[leaf] = _value(text)
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
        raise InputError(_explain(error, model)) from error


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    unknown = ("extra_forbidden", "unexpected_keyword_argument")
    # A mistyped key is also a missing one: the mistyped one is what helps.
    first = min(error.errors(), key=lambda each: each["type"] not in unknown)
    where = ".".join(str(part) for part in first["loc"] if part != "value")  # see `_choose`
    if first["type"] in unknown:
        known = _keys_beside(first["loc"], model)
        return f"no key '{where}' in a configuration: {suggest(str(first['loc'][-1]), known)}"
    if first["type"] == "value_error":  # our own words, which say what was given
        return f"{where}: {first['msg'].removeprefix('Value error, ')}"
    given, message = first["input"], first["msg"]
    shown = f"{where} = {given!r}: " if isinstance(given, str | int | float) else f"{where}: "
    if first["type"] == "literal_error":
        return shown + suggest(str(given), re.findall("'([^']+)'", message))
    return f"{shown}{message[0].lower()}{message[1:]}"


def _keys_beside(path: tuple[int | str, ...], model: Any) -> list[str]:
    """The names that would have been allowed where an unknown key stands."""
    if path[:1] == ("network",):
        inner = {"block": Block, "embedding": Embedding, "levels": Level}
        model = next((inner[str(p)] for p in path[1:-1] if p in inner), UNetSpec)
        return [f.name for f in dataclasses.fields(model)]
    for part in path[:-1]:
        model = model.model_fields[str(part)].annotation
    return list(model.model_fields)


def to_table(value: Any) -> Any:
    """A configuration as plain tables that `parse_config` reads back to an equal one.

    None is left out: TOML has no word for it, and it is the default wherever it is allowed.
    """
    if isinstance(value, BaseModel):
        items = ((name, getattr(value, name)) for name in type(value).model_fields)
        return {name: to_table(item) for name, item in items if item is not None}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        table = {name: to_table(item) for name, item in fields if item is not None}
        kind = _kind_of(type(value))
        return {"kind": kind, **table} if kind else table
    if isinstance(value, tuple | list):
        return [to_table(item) for item in value]
    return value


def _kind_of(cls: type) -> str | None:
    registries = (SCHEDULES, PRECONDITIONS, WEIGHTS, RATES)
    return next((kind for r in registries for kind, known in r.items() if known is cls), None)


def with_deviation(table: Mapping[str, Any], deviation: float) -> dict[str, Any]:
    """A copy of a table whose EDM entries got the measured deviation where they give none."""
    result = _copy(table)
    objective = result.setdefault("objective", {})
    objective.setdefault("precondition", {"kind": "edm"})
    for name in ("precondition", "weight"):
        entry = objective.get(name, {})
        if isinstance(entry, dict) and entry.get("kind") == "edm":
            entry.setdefault("data", deviation)
    return result


def build_denoiser(
    config: Config, channels: int, classes: int, styles: Iterable[Style] = ()
) -> Denoiser:
    """A fresh network and its precondition, for images of so many channels, classes, styles.

    Initial weights come from the training seed; the process's random state stays as it was.
    """
    import torch

    try:
        diffusion.refuse_pair(config.objective.schedule, config.objective.precondition)
    except ValueError as error:
        raise InputError(str(error)) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        factors = [Factor("label", classes)]
        factors += [Factor(s.name, len(s.levels) if s.choice else None) for s in styles]
        if config.training.guidance > 1:
            factors.append(Factor(diffusion.GUIDANCE, None))
        network = UNet(channels, factors, config.network)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Denoiser(network, config.objective.precondition)


def sampler_named(name: str) -> Sampler:
    """The sampler of that name; InputError names the closest."""
    if name not in SAMPLERS:
        raise InputError(f"no sampler '{name}': {suggest(name, SAMPLERS)}")
    return SAMPLERS[name]
