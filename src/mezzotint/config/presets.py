"""The presets that come with the package, and their variants by budget."""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import (
    Field,
)

from mezzotint.config.registry import Strict
from mezzotint.config.tables import override, parse_config, parse_toml
from mezzotint.data import SOURCES
from mezzotint.errors import InputError, suggest

__all__ = [
    "Part",
    "Preset",
    "load_preset",
    "preset_names",
    "preset_summary",
    "recommended",
    "suited",
    "usual_source",
]


def preset_names() -> list[str]:
    """The presets that come with the package."""
    folder = resources.files("mezzotint.config") / "presets"
    return sorted(item.name[:-5] for item in folder.iterdir() if item.name.endswith(".toml"))


def _preset_text(name: str) -> str:
    if name.endswith(".toml") and Path(name).is_file():
        return Path(name).read_text(encoding="utf-8", errors="replace")
    if name not in preset_names():
        raise InputError(
            f"no preset '{name}': {suggest(name, preset_names())}; or a path to a .toml file"
        )
    return (resources.files("mezzotint.config") / "presets" / f"{name}.toml").read_text()


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


def recommended(source: str) -> str:
    """The preset of a source that the user chose none for."""
    return source if source in SOURCES and source in preset_names() else "folder"


def usual_source(preset: str) -> str:
    """The source that a preset, by name or file, is meant for; mnist where the name tells none."""
    name = Path(preset).stem
    return next((source for source in SOURCES if name.startswith(source.split("-")[0])), "mnist")
