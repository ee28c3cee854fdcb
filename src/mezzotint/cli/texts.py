"""Read the texts of options: choices, NAME=VALUE pairs, the command as it was typed.

Nothing here imports torch: `--help` lists every choice at once.
"""

import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from importlib import import_module

from mezzotint.errors import InputError

__all__ = [
    "Checkpoint",
    "Device",
    "Weights",
    "choices",
    "command_line",
    "named_scales",
    "named_values",
    "plain",
    "registered",
]


class Device(StrEnum):
    """Device to compute on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Weights(StrEnum):
    """Weights of a checkpoint: averaged, or of the last step."""

    EMA = "ema"
    RAW = "raw"


class Checkpoint(StrEnum):
    """Checkpoint of a run: the last, the best, or the early snapshot."""

    LAST = "last"
    BEST = "best"
    SNAPSHOT = "snapshot"


def registered(registry: str) -> Callable[[], list[str]]:
    """Return a function that lists the names of a registry, given as "module:NAME"."""
    module, name = registry.split(":")

    def names() -> list[str]:
        return list(getattr(import_module(module), name))

    return names


def choices(registry: str) -> str:
    """Return the names of a registry as help shows them: <a|b|c>."""
    return f"<{'|'.join(registered(registry)())}>"


def plain(value: object) -> str:
    """Return a setting in a line of many: (kind ddim, eta 0.5) for a table."""
    if isinstance(value, Mapping):
        return f"({', '.join(f'{key} {plain(own)}' for key, own in value.items())})"
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def named_values(option: str, texts: Iterable[str] | None) -> dict[str, str]:
    """Read the NAME=VALUE texts of an option, each name once."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, separator, value = (part.strip() for part in text.partition("="))
        if not (separator and name and value):
            raise InputError(f"{option} takes NAME=VALUE, as in thickness=thick; got '{text}'")
        if name in found:
            raise InputError(f"{option} {name} is given twice: {found[name]} and {value}")
        found[name] = value
    return found


def named_scales(option: str, texts: Iterable[str] | None) -> Mapping[str, float] | None:
    """Read the NAME=SCALE texts of an option; None without any."""
    values = named_values(option, texts)
    try:
        return {name: float(text) for name, text in values.items()} or None
    except ValueError as error:
        raise InputError(f"{option} takes NAME=SCALE, as in slant=2 ({error})") from error


def command_line() -> str:
    """Return the command as it was typed, for a report."""
    return shlex.join(["mezzotint", *sys.argv[1:]])
