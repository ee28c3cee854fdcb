"""Layers, schedule and settings of a preset or a run."""

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mezzotint import imaging
from mezzotint.config.build import build_denoiser
from mezzotint.config.presets import (
    load_preset,
    preset_names,
    preset_summary,
    preset_variant,
    usual_source,
)
from mezzotint.config.schema import Config
from mezzotint.config.tables import override, parse_config, to_table
from mezzotint.data import SOURCES, Style, load
from mezzotint.diffusion import Schedule, terminal_snr
from mezzotint.errors import InputError
from mezzotint.networks.summary import Layer, summarise
from mezzotint.reporting import figures
from mezzotint.runs.facts import Machine
from mezzotint.runs.find import find, path_of
from mezzotint.runs.run import Run
from mezzotint.runs.setup import warnings
from mezzotint.runtime.outputs import check_output, optional_path
from mezzotint.sampling import trajectories

__all__ = ["PICTURES", "InspectRequest", "InspectResult", "execute", "inspect"]

PICTURES = ("schedule.png", "forward.png")
"""What `inspect --out` writes."""

PARTS = ("objective", "network", "training", "sampling")
"""Tables of settings."""

CURVE_POINTS = 400


@dataclass(frozen=True)
class InspectRequest:
    """What to inspect."""

    preset_or_run: str | Path
    _: KW_ONLY
    settings: tuple[str, ...] = ()
    """Changes of a preset as key=value."""

    out: Path | None = None
    """Folder for the pictures of `PICTURES`; None: no pictures."""

    data_dir: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class InspectResult:
    """Layers, schedule and settings of a preset or a run."""

    name: str
    about: str
    """First words of a preset's file; "" for a run."""

    variant: str
    """Preset of a run, and which of its variants; "" for a preset."""

    config: Config = field(repr=False)
    """Every setting that is used, the defaults too."""

    shape: tuple[int, int, int]
    """(C, H, W) of an image."""

    layers: tuple[Layer, ...] = field(repr=False)
    parameters: int
    sigma_min: float
    sigma_max: float
    terminal_snr: float
    warnings: tuple[str, ...]
    machine: Machine | None = None
    """Device, precision and threads of a run; None for a preset."""

    pictures: tuple[Path, ...] = ()

    @property
    def flops(self) -> int:
        """FLOPs of one forward evaluation."""
        return sum(layer.flops for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        tables = {part: to_table(getattr(self.config, part)) for part in PARTS}
        facts: dict[str, Any] = {
            "name": self.name,
            "input": list(self.shape),
            "layers": [dict(vars(layer)) for layer in self.layers],
            "parameters": self.parameters,
            "flops": self.flops,
            **tables,
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "terminal_snr": self.terminal_snr,
            "warnings": list(self.warnings),
            "about": self.about,
            "variant": self.variant,
        }
        if self.machine is not None:
            facts["machine"] = to_table(self.machine)
        if self.pictures:
            facts["pictures"] = [str(path) for path in self.pictures]
        return facts


def inspect(
    preset_or_run: Run | str | Path,
    *,
    settings: Iterable[str] = (),
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    overwrite: bool = False,
) -> InspectResult:
    """Return the layers, the schedule and every setting of a preset or a run.

        print(mezzotint.inspect("fashion-mnist").parameters)

    Args:
        preset_or_run: A preset's name or TOML file, a run's directory, or the `Run`.
        settings: Changes of a preset as key=value, as in "training.batch=64".
        out: Folder for pictures of the schedule and of the forward process. None: no pictures.
        data_dir: Folder of named data sets, for the picture of the forward process.
        overwrite: Replace pictures that are already there.

    Returns:
        What the preset or run is made of.

    Raises:
        InputError: There is no such preset or run, or a setting is unknown or out of range.

    """
    return execute(
        InspectRequest(
            path_of(preset_or_run),
            settings=tuple(settings),
            out=optional_path(out),
            data_dir=optional_path(data_dir),
            overwrite=overwrite,
        )
    )


def execute(request: InspectRequest) -> InspectResult:
    """Inspect what a request names; write its pictures where it names a folder."""
    name = str(request.preset_or_run)
    if request.out is not None:
        for picture in PICTURES:
            check_output("--out", request.out / picture, (".png",), overwrite=request.overwrite)
    run = find(name) if Run.is_at(name) else None
    config, shape, classes, styles = _config_of(name, run, request.settings)
    network = build_denoiser(config, shape[0], classes, styles).network
    schedule = config.objective.schedule
    ends = schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    return InspectResult(
        name=name,
        about="" if run else preset_summary(name),
        variant=_variant(run),
        config=config,
        shape=shape,
        layers=tuple(summarise(network, shape)),
        parameters=sum(p.numel() for p in network.parameters()),
        sigma_min=float(ends[0]),
        sigma_max=float(ends[1]),
        terminal_snr=terminal_snr(schedule),
        warnings=tuple(warnings(config)),
        machine=run.config.machine if run else None,
        pictures=_pictures(request, name, run, schedule) if request.out is not None else (),
    )


def _variant(run: Run | None) -> str:
    """Return the preset that a run was made with and its variant; "" for no run."""
    if run is None:
        return ""
    origin = run.config.origin
    if not origin.variant_budget:
        return f"{origin.preset} as it is written"
    if origin.preset in preset_names():  # a file may have changed, or be gone
        budgets = preset_variant(origin.preset, origin.variant_budget)[1]
    else:
        budgets = f"a budget of {origin.variant_budget:,} images"
    return f"{origin.preset} with its settings for {budgets}"


def _pictures(
    request: InspectRequest, name: str, run: Run | None, schedule: Schedule
) -> tuple[Path, ...]:
    """Write the pictures of a schedule and of its forward process."""
    assert request.out is not None
    if run is not None:
        images = run.images(request.data_dir)
    else:
        images = load(usual_source(name), data_dir=request.data_dir)
    u = torch.linspace(0, 1, CURVE_POINTS, dtype=torch.float64)
    curve, (first, second) = schedule.sigma(u), (request.out / name for name in PICTURES)
    forward = trajectories.forward_strip(images.images[:5], schedule)
    return (
        figures.schedule(u.tolist(), curve.tolist(), first, title=name),
        imaging.save_png(forward, second),
    )


def _config_of(
    name: str, run: Run | None, settings: tuple[str, ...]
) -> tuple[Config, tuple[int, int, int], int, tuple[Style, ...]]:
    """Return configuration, (C, H, W), number of classes and styles of a run or a preset."""
    if run is not None:
        if settings:
            raise InputError("--set changes a preset; a run is what it is: leave it out")
        facts = run.config.data
        shape = facts.channels, facts.height, facts.width
        return run.config, shape, len(facts.classes), facts.styles
    config = parse_config(override(load_preset(name), settings), Config)
    return config, SOURCES[usual_source(name)].shape, 10, ()
