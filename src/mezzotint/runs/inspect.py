"""Layers, schedule and settings of a preset or a run."""

from pathlib import Path
from typing import Any

import torch

from mezzotint import imaging
from mezzotint.config.build import build_denoiser
from mezzotint.config.presets import load_preset, preset_summary, usual_source
from mezzotint.config.schema import Config
from mezzotint.config.tables import override, parse_config, to_table
from mezzotint.data import SOURCES, Style, load
from mezzotint.diffusion import terminal_snr
from mezzotint.errors import InputError
from mezzotint.networks.summary import summarise
from mezzotint.reporting import figures
from mezzotint.runs.run import Run
from mezzotint.runs.setup import warnings
from mezzotint.sampling import trajectories

__all__ = ["PICTURES", "inspection"]


PICTURES = ("schedule.png", "forward.png")
"""What `inspect --out` writes."""


CURVE_POINTS = 400


def inspection(
    name: str, settings: tuple[str, ...], out: Path | None, data_dir: Path | None
) -> dict[str, Any]:
    """Layers and schedule of a preset or a run; writes pictures into `out`."""
    config, shape, classes, styles = _config_of(name, settings)
    channels, height, width = shape
    network = build_denoiser(config, channels, classes, styles).network
    layers = summarise(network, (channels, height, width))
    schedule = config.objective.schedule
    ends = schedule.sigma(torch.tensor([0.0, 1.0], dtype=torch.float64))
    result: dict[str, Any] = {
        "name": name,
        "input": [channels, height, width],
        "layers": [dict(vars(layer)) for layer in layers],
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": sum(layer.flops for layer in layers),
        "objective": to_table(config.objective),
        "training": to_table(config.training),
        "sampling": to_table(config.sampling),
        "sigma_min": float(ends[0]),
        "sigma_max": float(ends[1]),
        "terminal_snr": terminal_snr(schedule),
        "warnings": warnings(config),
        "about": "" if Run.is_at(name) else preset_summary(name),
    }
    if out is not None:
        if Run.is_at(name):
            images = Run.at(name).images(data_dir)
        else:
            images = load(usual_source(name), data_dir=data_dir)
        u = torch.linspace(0, 1, CURVE_POINTS, dtype=torch.float64)
        curve = schedule.sigma(u)
        pictures = [
            figures.schedule(u.tolist(), curve.tolist(), out / "schedule.png", title=name),
            imaging.save_png(
                trajectories.forward_strip(images.images[:5], schedule), out / "forward.png"
            ),
        ]
        result["pictures"] = [str(path) for path in pictures]
    return result


def _config_of(
    name: str, settings: tuple[str, ...]
) -> tuple[Config, tuple[int, int, int], int, tuple[Style, ...]]:
    """Configuration, (C, H, W), classes and styles of a run or a preset."""
    if Run.is_at(name):
        if settings:
            raise InputError("--set changes a preset; a run is what it is: leave it out")
        found = Run.at(name).config
        facts = found.data
        shape = facts.channels, facts.height, facts.width
        return found, shape, len(facts.classes), facts.styles
    config = parse_config(override(load_preset(name), settings), Config)
    return config, SOURCES[usual_source(name)].shape, 10, ()
