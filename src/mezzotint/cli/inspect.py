"""`mezzotint inspect`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import refuse_torchrun, show

EXAMPLES = (
    "mezzotint inspect fashion-a",
    "mezzotint inspect runs/mnist --out pictures",
)


def inspect(
    preset_or_run: Annotated[str, typer.Argument(help="A preset, a TOML file, or a run.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for schedule.png and forward.png.", rich_help_panel=options.OUTPUT
        ),
    ] = None,
    set_: options.Setting = None,
    data_dir: options.DataDir = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Show layers with shape, parameters and FLOPs, the schedule, and every setting in use."""
    refuse_torchrun("inspect")
    from mezzotint.runs.inspect import InspectRequest, execute

    request = InspectRequest(
        preset_or_run,
        settings=tuple(set_ or ()),
        out=out,
        data_dir=data_dir,
        overwrite=overwrite,
    )
    show(execute(request).to_json(), text, as_json)


def text(facts: Mapping[str, Any]) -> str:
    """Return layers, schedule and settings for a person."""
    channels, height, width = facts["input"]
    lines = [
        f"{facts['name']} for {channels}x{height}x{width} images",
        *([facts["about"]] if facts["about"] else []),
        *([facts["variant"]] if facts["variant"] else []),
        f"{'layer':<44}{'kind':<14}{'output':<16}{'parameters':>12}{'MFLOP':>10}",
    ]
    for layer in facts["layers"]:
        shape = "x".join(map(str, layer["shape"]))
        lines.append(
            f"{layer['name']:<44}{layer['kind']:<14}{shape:<16}{layer['parameters']:>12,}"
            f"{layer['flops'] / 1e6:>10.2f}"
        )
    lines += [
        f"{facts['parameters']:,} parameters, {facts['flops'] / 1e9:.3f} GFLOP forward",
        f"sigma from {facts['sigma_min']:.4g} to {facts['sigma_max']:.4g}, "
        f"terminal SNR {facts['terminal_snr']:.3g}",
        *(
            f"{part}: {', '.join(f'{k} {texts.plain(v)}' for k, v in facts[part].items())}"
            for part in ("objective", "network", "training", "sampling", "machine")
            if part in facts
        ),
        *(f"warning: {text}" for text in facts["warnings"]),
        *(f"picture: {path}" for path in facts.get("pictures", [])),
    ]
    return "\n".join(lines)
