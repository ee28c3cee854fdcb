"""`mezzotint train`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import show

EXAMPLES = (
    "mezzotint train digits --out runs/digits --budget 60s",
    "mezzotint train fashion-mnist --preset fashion-a --out runs/a",
    "mezzotint train mnist --style thickness --style slant --out runs/styled",
)

INTERRUPTED = 130


def train(
    source: options.Source,
    out: Annotated[Path, typer.Option(help="Directory of the run, new or to go on with.")],
    preset: options.Preset = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Total of the run: 40s, 10m, 1h, 30epochs, 20000images, 5Mimages. Default: the "
            "preset's."
        ),
    ] = None,
    limit: options.Limit = None,
    size: options.Size = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A style to learn besides the label: thickness, slant, … (see data --styles) or "
            "a column of your own. Repeatable.",
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A run whose weights a new one starts with: of other data, or of another --size.",
        ),
    ] = None,
    set_: options.Setting = None,
    checkpoint_every: Annotated[
        str, typer.Option(help="Time or images between checkpoints: 60s, 5m, 20000images.")
    ] = "60s",
    device: options.DeviceOption = texts.Device.AUTO,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Train a model. The same command again resumes; with a larger --budget it goes on."""
    from mezzotint.runs.train import TrainRequest, execute
    from mezzotint.runs.trainer import CheckpointInterval

    request = TrainRequest(
        source,
        out,
        preset=preset,
        budget=budget,
        limit=limit,
        size=size,
        styles=tuple(style or ()),
        settings=tuple(set_ or ()),
        init_from=init_from,
        checkpoint_every=CheckpointInterval.parse(checkpoint_every),
        device=device,
        data_dir=data_dir,
        dry_run=dry_run,
    )
    result = execute(request)
    show(result.to_json(), text, as_json)
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def text(facts: Mapping[str, Any]) -> str:
    """Return the result for a person."""
    if facts.get("dry_run"):
        amount = f"{facts['images']:,} images" if facts["images"] > 0 else "as measured"
        return (
            f"would train {facts['run']} on {facts['source']}: budget {facts['budget']} "
            f"({amount}), {facts['device']}, {facts['precision']}; nothing was written"
        )
    lines = [f"{facts['run']}: {facts['images_seen']:,} of {facts['images']:,} images seen"]
    if "best_validation_loss" in facts:
        lines.append(
            f"validation loss {facts['validation_loss']:.4f}, "
            f"best {facts['best_validation_loss']:.4f}; curves: {facts['curves']}"
        )
    if facts["stopped"] == "interrupted":
        lines.append("interrupted and saved; the same command goes on from here")
    else:
        lines.append(f"next: mezzotint sample {facts['run']} --out grid.png")
    return "\n".join(lines)
