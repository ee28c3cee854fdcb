"""The presets that come with the package, and their variants by budget."""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from mezzotint.config import legacy
from mezzotint.config.schema import Strict
from mezzotint.config.tables import override, parse_config, parse_toml
from mezzotint.data import SOURCES
from mezzotint.errors import InputError, suggest

__all__ = [
    "PresetVariant",
    "Preset",
    "load_preset",
    "preset_names",
    "preset_summary",
    "recommended",
    "preset_variant",
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


class PresetVariant(Strict):
    """A `[[when]]` table of a preset: settings for budgets up to, or from, a number of images."""

    max_images: int | None = Field(None, ge=1)
    min_images: int | None = Field(None, ge=1)
    set: tuple[str, ...]
    """As `--set` takes them."""

    @model_validator(mode="after")
    def _has_one_bound(self) -> "PresetVariant":
        if (self.max_images is None) == (self.min_images is None):
            raise ValueError("[[when]] takes max_images or min_images, one of them")
        return self

    def applies(self, images: int) -> bool:
        """Return whether a budget of this many images has the variant; 0: not known, so no."""
        if self.max_images is not None:
            return 0 < images <= self.max_images
        return self.min_images is not None and images >= self.min_images

    def __str__(self) -> str:
        """Describe the budgets that have the variant."""
        if self.max_images is not None:
            return f"up to {self.max_images:,} images"
        return f"{self.min_images:,} images and more"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A preset as it is written, and its variants by budget."""

    table: dict[str, Any]
    variants: tuple[PresetVariant, ...]
    """In the order in which they apply: the narrower one later."""


def load_preset(name: str, images: int = 0) -> dict[str, Any]:
    """Return the table of a preset for a budget of this many images.

    Args:
        name: A preset's name, or the path of a TOML file.
        images: The budget; 0: the preset as it is written.
    """
    preset = _preset(name)
    changes = [each for variant in _applicable(preset, images) for each in variant.set]
    return override(preset.table, changes)


def preset_variant(name: str, images: int) -> tuple[int, str]:
    """Return which variant of a preset applies to a budget of this many images.

    Returns:
        A number of images that stands for all budgets of this variant, and a description of
        them; (0, "") if the preset applies as written.
    """
    applicable = _applicable(_preset(name), images)
    if not applicable:
        return 0, ""
    last = applicable[-1]
    return last.max_images or last.min_images or 0, str(last)


def _applicable(preset: Preset, images: int) -> list[PresetVariant]:
    return [variant for variant in preset.variants if variant.applies(images)]


def _preset(name: str) -> Preset:
    table = legacy.current_preset(parse_toml(_preset_text(name), name))
    entries = table.pop("when", [])
    if not isinstance(entries, list):
        raise InputError(f"{name}: when is a list of tables, each headed [[when]]")
    variants = [parse_config(entry, PresetVariant) for entry in entries]
    variants.sort(key=lambda each: (each.min_images or 0, -(each.max_images or 0)))
    return Preset(table, tuple(variants))


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
    """The source that a preset, by name or file, is meant for; mnist where the name says none."""
    name = Path(preset).stem
    return next((source for source in SOURCES if name.startswith(source.split("-")[0])), "mnist")
