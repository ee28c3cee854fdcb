"""What `data` and `inspect` find out and how they say it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mezzotint import films, imaging
from mezzotint.config import (
    Config,
    build_denoiser,
    load_preset,
    override,
    parse_config,
    preset_summary,
    to_table,
)
from mezzotint.data import SOURCES, ImageSet, Style, load, spread
from mezzotint.diffusion import terminal_snr
from mezzotint.errors import InputError
from mezzotint.networks.summary import summarise
from mezzotint.report import figures
from mezzotint.run import Run
from mezzotint.start import usual_source, warnings

__all__ = [
    "PICTURES",
    "data_facts",
    "data_text",
    "inspection",
    "inspection_text",
    "style_facts",
    "style_text",
]

Say = Callable[[str], None]
PICTURES = ("schedule.png", "forward.png")
"""What `inspect --out` writes."""

SHEET_ROW = 10
QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)
CURVE_POINTS = 400


def data_facts(data: ImageSet, sheet: Path | None) -> dict[str, Any]:
    """What is in a data set; writes the sample sheet."""
    counts = {name: len(rows) for name, rows in data.splits.items()}
    labels = data.labels[data.splits["train"]]
    per_class = torch.bincount(labels, minlength=len(data.classes)).tolist()
    facts = {
        "source": data.name,
        "splits": counts,
        "size": [data.height, data.width],
        "channels": data.channels,
        "classes": dict(zip(data.classes, per_class, strict=True)),
        "pixels": {"mean": data.mean, "deviation": data.deviation},
        "augment": {"flip": data.augment.flip, "shift": data.augment.shift},
        "fingerprint": data.fingerprint,
    }
    if sheet is None:
        return facts
    rows = []
    for index, name in enumerate(data.classes):
        own = data.splits["train"][labels == index][:SHEET_ROW]
        rows.append((name, data.images[own]))
    return {**facts, "sheet": str(imaging.save_png(imaging.labelled_grid(rows), sheet))}


def data_text(facts: Mapping[str, Any]) -> str:
    """The facts of a data set for a person."""
    height, width = facts["size"]
    splits = ", ".join(f"{count:,} {name}" for name, count in facts["splits"].items())
    pixels = facts["pixels"]
    lines = [
        f"{facts['source']}: {splits}",
        f"{height}x{width} pixels, {'grey' if facts['channels'] == 1 else 'RGB'}; in [-1, 1] "
        f"mean {pixels['mean']:.3f}, standard deviation (sigma_data) {pixels['deviation']:.3f}",
        f"augmentation: {', '.join(k for k, v in facts['augment'].items() if v) or 'none'}",
        "training images per class:",
        *(f"  {name:<24} {count:>8,}" for name, count in facts["classes"].items()),
    ]
    if "sheet" in facts:
        lines.append(f"sheet: {facts['sheet']}")
    return "\n".join(lines)


def style_facts(data: ImageSet, sheet: Path | None) -> dict[str, Any]:
    """What is known of a data set's styles; writes examples, a row for each level.

    Of a level's train images in ascending order, every row shows some at equal distances.
    """
    values = data.styles_of(data.splits["train"])  # (n, K)
    styles: dict[str, Any] = {}
    rows = []
    for style, own in zip(data.styles, values.T, strict=True):
        levels = style.level(own)
        counts = [int((levels == i).sum()) for i in range(len(style.levels))]
        order = own.argsort()
        for i, name in enumerate(style.levels):
            picks = spread(data.splits["train"][order[levels[order] == i]], SHEET_ROW)
            if len(picks):
                rows.append((f"{style.name}: {name}", data.images[picks]))
        known = own[~own.isnan()].sort().values
        styles[style.name] = {
            "kind": "choice" if style.choice else "number",
            "unit": style.unit,
            "levels": dict(zip(style.levels, counts, strict=True)),
            "unknown": int(own.isnan().sum()),
        }
        if not style.choice:
            styles[style.name] |= {
                "mean": style.mean,
                "deviation": style.deviation,
                "quantiles": {str(q): float(known[int(q * (len(known) - 1))]) for q in QUANTILES},
                "cuts": list(style.cuts),
                "middles": list(style.middles),
            }
    facts: dict[str, Any] = {
        "source": data.name,
        "images": len(values),
        "styles": styles,
        "correlations": _correlations(data),
    }
    if sheet is None or not rows:
        return facts
    return {**facts, "sheet": str(imaging.save_png(imaging.labelled_grid(rows), sheet))}


def _correlations(data: ImageSet) -> dict[str, dict[str, float]]:
    """Pearson's, between all styles that are numbers, over the train images that have both."""
    numbers = [i for i, style in enumerate(data.styles) if not style.choice]
    values = data.styles_of(data.splits["train"])
    table: dict[str, dict[str, float]] = {}
    for i in numbers:
        row = table[data.styles[i].name] = {}
        for j in numbers:
            both = values[:, [i, j]]
            both = both[both.isfinite().all(1)]
            row[data.styles[j].name] = float(torch.corrcoef(both.T)[0, 1])
    return table


def style_text(facts: Mapping[str, Any]) -> str:
    """The styles of a data set for a person."""
    lines = [f"{facts['source']}: styles of {facts['images']:,} train images"]
    if not facts["styles"]:
        lines.append("none fits")
    for name, style in facts["styles"].items():
        unit = f" {style['unit']}" if style["unit"] else ""
        unknown = f", {style['unknown']:,} not known" if style["unknown"] else ""
        if style["kind"] == "choice":
            parts = ", ".join(f"{level} {count:,}" for level, count in style["levels"].items())
            lines.append(f"{name}: {parts}{unknown}")
            continue
        levels, cuts = list(style["levels"]), style["cuts"]
        between = " | ".join(
            f"{level} | {cut:.4g}" for level, cut in zip(levels, cuts, strict=False)
        )
        spread = ", ".join(
            f"{100 * float(q):g} % {value:.4g}" for q, value in style["quantiles"].items()
        )
        lines += [
            f"{name}: mean {style['mean']:.4g}, deviation {style['deviation']:.4g}{unit}{unknown}",
            f"  levels {between} | {levels[-1]}",
            f"  quantiles {spread}",
        ]
    if len(names := list(facts["correlations"])) > 1:
        lines += ["correlations", " " * 14 + "".join(f"{name[:8]:>9}" for name in names)]
        lines += [
            f"{name[:13]:<14}" + "".join(f"{value:>9.2f}" for value in row.values())
            for name, row in facts["correlations"].items()
        ]
    if "sheet" in facts:
        lines.append(f"sheet: {facts['sheet']}")
    return "\n".join(lines)


def inspection(
    name: str, settings: tuple[str, ...], out: Path | None, data_dir: Path | None, say: Say
) -> dict[str, Any]:
    """Layers and schedule of a preset or a run; writes pictures into `out`."""
    config, shape, classes, styles = _subject(name, settings, say)
    channels, height, width = shape
    network = build_denoiser(config, channels, classes, styles).network
    layers = summarise(network, (channels, height, width))  # type: ignore[arg-type]
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
            images = Run.at(name, say).images(data_dir, say)
        else:
            images = load(usual_source(name), data_dir=data_dir, say=say)
        u = torch.linspace(0, 1, CURVE_POINTS, dtype=torch.float64)
        curve = schedule.sigma(u)
        pictures = [
            figures.schedule(u.tolist(), curve.tolist(), out / "schedule.png", title=name),
            imaging.save_png(
                films.forward_strip(images.images[:5], schedule), out / "forward.png"
            ),
        ]
        result["pictures"] = [str(path) for path in pictures]
    return result


def _subject(
    name: str, settings: tuple[str, ...], say: Say
) -> tuple[Config, tuple[int, int, int], int, tuple[Style, ...]]:
    """Configuration, (C, H, W), classes and styles of a run or a preset."""
    if Run.is_at(name):
        if settings:
            raise InputError("--set changes a preset; a run is what it is: leave it out")
        found = Run.at(name, say).config
        facts = found.data
        shape = facts.channels, facts.height, facts.width
        return found, shape, len(facts.classes), facts.styles
    config = parse_config(override(load_preset(name), settings), Config)
    return config, SOURCES[usual_source(name)].shape, 10, ()


def _plain(value: object) -> str:
    """A setting, in a line of many."""
    if isinstance(value, dict):
        return f"({', '.join(f'{key} {_plain(own)}' for key, own in value.items())})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def inspection_text(result: Mapping[str, Any]) -> str:
    """Layers and schedule for a person."""
    channels, height, width = result["input"]
    lines = [
        f"{result['name']} for {channels}x{height}x{width} images",
        *([result["about"]] if result["about"] else []),
        f"{'layer':<44}{'kind':<14}{'output':<16}{'parameters':>12}{'MFLOP':>10}",
    ]
    for layer in result["layers"]:
        shape = "x".join(map(str, layer["shape"]))
        lines.append(
            f"{layer['name']:<44}{layer['kind']:<14}{shape:<16}{layer['parameters']:>12,}"
            f"{layer['flops'] / 1e6:>10.2f}"
        )
    lines += [
        f"{result['parameters']:,} parameters, {result['flops'] / 1e9:.3f} GFLOP forward",
        f"sigma from {result['sigma_min']:.4g} to {result['sigma_max']:.4g}, "
        f"terminal SNR {result['terminal_snr']:.3g}",
        *(
            f"{part}: {', '.join(f'{key} {_plain(value)}' for key, value in result[part].items())}"
            for part in ("training", "sampling")
        ),
        *(f"warning: {text}" for text in result["warnings"]),
        *(f"picture: {path}" for path in result.get("pictures", [])),
    ]
    return "\n".join(lines)
