"""What `data` and `inspect` find out and how they say it."""

from collections.abc import Mapping
from typing import Any

__all__ = ["data_text", "inspection_text", "style_text"]


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
