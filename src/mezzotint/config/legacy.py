"""Names of earlier versions, translated once where a table, a checkpoint or a command enters.

Old presets, `--set` paths, config.toml files, checkpoints, evaluations and calls keep working.
Nothing else in the library knows an old name. Where an old and a new name are given together, the
later wins.
"""

from __future__ import annotations

import functools
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CHOICES",
    "CHECKPOINT_FACTS",
    "EVALUATION_KEYS",
    "KEYS",
    "OPTIONS",
    "PARAMETERS",
    "current_choice",
    "current_evaluation",
    "current_facts",
    "current_options",
    "current_path",
    "current_preset",
    "current_run",
    "current_table",
    "current_tensors",
    "renamed_keywords",
    "warn",
]

KEYS: Mapping[str, str] = {
    "objective.precondition": "objective.parameterization",
    "objective.parameterization.data": "objective.parameterization.sigma_data",
    "objective.weight.data": "objective.weight.sigma_data",
    "objective.schedule.low": "objective.schedule.sigma_min",
    "objective.schedule.high": "objective.schedule.sigma_max",
    "objective.schedule.base.low": "objective.schedule.base.sigma_min",
    "objective.schedule.base.high": "objective.schedule.base.sigma_max",
    "network.told": "network.conditioned_blocks",
    "training.rate": "training.lr_schedule",
    "training.drop": "training.label_dropout",
    "training.drop_style": "training.style_dropout",
    "training.guidance": "training.model_guidance.max_scale",
    "training.guidance_after": "training.model_guidance.start",
    "sampling.ladder": "sampling.schedule",
    "sampling.schedule.low": "sampling.schedule.sigma_min",
    "sampling.schedule.high": "sampling.schedule.sigma_max",
    "sampling.schedule.base.low": "sampling.schedule.base.sigma_min",
    "sampling.schedule.base.high": "sampling.schedule.base.sigma_max",
    "origin.suited_to": "origin.variant_budget",
    "origin.suited_from": "origin.variant_budget",
    "origin.begun_from": "origin.init_from",
}
"""Old path of a setting -> its path now. A path below a renamed table moves with it."""

REMOVED = frozenset({"machine.compile"})
"""Paths that earlier runs wrote and nothing reads any more."""

PARAMETERS: Mapping[str, str] = {
    r"(^|\.)told\.": r"\1modulation.",
    r"(^|\.)halve\.": r"\1downsample.",
}
"""Parts of the parameter names in old checkpoints, as patterns -> their names now."""

CHECKPOINT_FACTS: Mapping[str, str] = {"rate_scale": "lr_scale"}
"""Keys among the JSON facts of old checkpoints -> their names now."""

EVALUATION_KEYS: Mapping[str, str] = {
    "subject": "samples",
    "verdict": "summary",
    "memorisation.verdict": "summary",
    "memorisation.pixels.verdict": "summary",
    "memorisation.features.verdict": "summary",
    "difficulty.answers.verdict": "outcome",
    "subject.weak": "guide_model",
    "samples.weak": "guide_model",
    "subject.early_images_seen": "snapshot_images_seen",
    "samples.early_images_seen": "snapshot_images_seen",
}
"""Old path of a key in evaluation.json or sweep.json -> its name now. A list adds no part."""

OPTIONS: Mapping[str, Mapping[str, str]] = {
    "tune": {"--judge-every": "--check-every", "--judged": "--check-images"},
}
"""Verb -> its old command-line options -> their names now."""

CHOICES: Mapping[str, Mapping[str, str]] = {
    "weights": {"network": "raw"},
    "checkpoint": {"early": "snapshot"},
}
"""Argument -> its old values -> their names now."""

VIEWS: Mapping[str, str] = {"free": "unconditional"}
"""Views of a state in the section recognition of an evaluation -> their names now."""

RUN_DEFAULTS: Mapping[str, Any] = {"sampling.noise": "torch"}
"""Settings that earlier runs do not name, and what they had: noise from torch's generators."""

P = ParamSpec("P")
R = TypeVar("R")


def current_path(path: str) -> str:
    """Return the path of a setting as it is called now.

    >>> current_path("sampling.ladder.low")
    'sampling.schedule.sigma_min'
    """
    parts = path.split(".")
    for length in range(1, len(parts) + 1):
        if (new := KEYS.get(".".join(parts[:length]))) is not None:
            return current_path(".".join([new, *parts[length:]]))
    return path


def current_table(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a table of settings with every key as it is called now.

    Args:
        table: A preset, a config.toml, or a table inside of one.
        prefix: Path of this table; "" for a whole configuration.
    """
    result: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}.{key}" if prefix else key
        if path in REMOVED:
            continue
        new = current_path(path)
        if isinstance(value, Mapping):
            value = current_table(value, new)
        _put(result, new.removeprefix(f"{prefix}.") if prefix else new, value)
    return result


def _put(table: dict[str, Any], path: str, value: Any) -> None:
    """Set a value at a path of nested tables; a table joins one that is there.

    A table with a `kind` replaces the one that is there, since the keys of two kinds do not mix.
    """
    *parents, leaf = path.split(".")
    for parent in parents:
        if not isinstance(table.get(parent), dict):
            table[parent] = {}
        table = table[parent]
    known = table.get(leaf)
    joins = isinstance(value, Mapping) and isinstance(known, Mapping) and "kind" not in value
    if leaf in table and not joins:
        del table[leaf]  # the later value also comes later in the order
    table[leaf] = {**known, **value} if joins and known is not None else value


def current_run(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's config.toml with current keys and all that earlier runs did not name."""
    result: dict[str, Any] = {}
    for path, value in RUN_DEFAULTS.items():
        _put(result, path, value)
    for key, value in current_table(table).items():
        _put(result, key, value)
    return result


def current_preset(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a preset's table with current keys, and its variants as `[[when]]` tables.

    Earlier presets had `[[shorter]]` (below a number of images) and `[[longer]]` (from it on).
    """
    result = current_table(table)
    whens = result.pop("when", [])
    if not isinstance(whens, list):
        return {**result, "when": whens}  # refused by its reader
    whens = list(whens)
    for side, bound, shift in (("shorter", "max_images", -1), ("longer", "min_images", 0)):
        entries = result.pop(side, [])
        if not isinstance(entries, list):
            return {**result, "when": entries}  # refused by its reader
        for entry in entries:
            known = isinstance(entry, Mapping) and isinstance(entry.get("images"), int)
            if known:
                rest = {key: value for key, value in entry.items() if key != "images"}
                entry = {bound: entry["images"] + shift, **rest}
            whens.append(entry)
    return {**result, "when": whens} if whens else result


def current_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint under the parameter names of today."""
    return {_current_parameter(name): value for name, value in tensors.items()}


def _current_parameter(name: str) -> str:
    for pattern, new in PARAMETERS.items():
        name = re.sub(pattern, new, name)
    return name


def current_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON facts of a checkpoint under the names of today."""
    return {CHECKPOINT_FACTS.get(name, name): value for name, value in facts.items()}


def current_evaluation(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return an evaluation.json or sweep.json with every key as it is called now.

    Check the file's checksum first: it covers the keys as they were written.
    """
    result = _current_keys(table)
    if isinstance(samples := result.get("samples"), Mapping):  # they name the sampling settings
        samples = current_table(samples, "sampling")
        for name, renamed in CHOICES.items():
            if isinstance(value := samples.get(name), str):
                samples[name] = renamed.get(value, value)
        result["samples"] = samples
    if isinstance(recognition := result.get("recognition"), Mapping):
        result["recognition"] = {
            name: [_current_view(each) for each in value] if isinstance(value, list) else value
            for name, value in recognition.items()
        }
    return result


def _current_view(finding: Any) -> Any:
    """Return one finding of the section recognition with its view as it is called now."""
    if not isinstance(finding, Mapping) or not isinstance(view := finding.get("view"), str):
        return finding
    return {**finding, "view": VIEWS.get(view, view)}


def _current_keys(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Rename the keys of a table in an evaluation, and those of the tables inside of it."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        inside = f"{path}."
        if any(old.startswith(inside) for old in EVALUATION_KEYS):
            if isinstance(value, Mapping):
                value = _current_keys(value, inside)
            elif isinstance(value, list):
                value = [
                    _current_keys(row, inside) if isinstance(row, Mapping) else row
                    for row in value
                ]
        result[EVALUATION_KEYS.get(path, key)] = value
    return result


def current_choice(name: str, value: str) -> str:
    """Return the value of an argument as it is called now; warn about an earlier name."""
    if (new := CHOICES[name].get(value)) is None:
        return value
    warn(f'{name}="{value}" is called "{new}" now')
    return new


def warn(message: str) -> None:
    """Warn of an earlier name or argument, at the line outside of this package that used it."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("mezzotint."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def current_options(arguments: list[str]) -> list[str]:
    """Return a command line's arguments with every option and choice as it is called now."""
    verb = next((word for word in arguments if not word.startswith("-")), "")
    renamed = OPTIONS.get(verb, {})
    choices = {f"--{name}": values for name, values in CHOICES.items()}

    def current(argument: str, before: str) -> str:
        if before in choices:
            return choices[before].get(argument, argument)
        name, equals, value = argument.partition("=")
        value = choices.get(name, {}).get(value, value)
        return renamed.get(name, name) + equals + value

    return [current(*pair) for pair in zip(arguments, ["", *arguments], strict=False)]


def renamed_keywords(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that takes keyword arguments under their earlier names, too.

    Args:
        **names: Earlier name = name now.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old in names.keys() & kwargs.keys():
                warn(f"{function.__name__}({old}=) is called {names[old]}= now")
            current = {names.get(name, name): value for name, value in kwargs.items()}
            kwargs.clear()
            kwargs.update(current)
            return function(*args, **kwargs)

        return call

    return decorate
