"""`mezzotint edit compose`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import refuse_torchrun, show, written_lines
from mezzotint.reporting.words import choice

EXAMPLES = (
    'mezzotint edit compose runs/mnist "2026" --out 2026.png',
    "mezzotint edit compose runs/mnist --random 5 --n 200 --out numbers",
    'mezzotint edit compose runs/fashion "Sandal,Bag;Coat,Dress" --out grid.png',
)


def compose(
    run: options.RunPath,
    out: Annotated[
        Path,
        typer.Option(
            help="FILE.png: one image, enlarged; a folder: PNGs and COCO boxes.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    text: Annotated[
        str | None,
        typer.Argument(
            help='Classes: "2026"; names with commas, "Sandal,Bag"; rows with semicolons. A '
            "space, or nothing between two commas, is a gap."
        ),
    ] = None,
    random: Annotated[
        int | None,
        typer.Option(min=1, help="Instead of TEXT: number of random classes in an image."),
    ] = None,
    strings: Annotated[
        Path | None, typer.Option(help="Instead of TEXT: a file with one text a line.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Number of images.")] = 1,
    seed: options.Seed = 0,
    spacing: Annotated[
        int | None,
        typer.Option(
            help="Pixels between neighbours, on average; negative: they interlock. Default: a "
            "seventh of an image."
        ),
    ] = None,
    style: options.StyleOption = None,
    read: Annotated[
        bool, typer.Option("--read", help="Have the data set's classifier read every place.")
    ] = False,
    evaluations: options.Evaluations = None,
    sampler: options.SamplerOption = None,
    guidance: options.Guidance = None,
    weights: options.WeightsOption = texts.Weights.EMA,
    checkpoint: options.CheckpointOption = texts.Checkpoint.LAST,
    overwrite: options.Overwrite = False,
    device: options.DeviceOption = texts.Device.AUTO,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> None:
    """Draw numbers, words and grids of classes as one image, with labels and boxes."""
    refuse_torchrun("edit compose")
    from mezzotint.editing.composition import ComposeRequest, execute
    from mezzotint.runs.run import CheckpointRef
    from mezzotint.sampling.request import SamplingOptions

    request = ComposeRequest(
        run,
        out=out,
        text=text,
        random=random,
        strings=strings,
        n=n,
        seed=seed,
        spacing=spacing,
        styles=texts.named_values("--style", style),
        read=read,
        options=SamplingOptions(sampler=sampler, evaluations=evaluations, guidance=guidance),
        checkpoint=CheckpointRef(weights.value, checkpoint.value, device),
        data_dir=data_dir,
        overwrite=overwrite,
    )
    show(execute(request).to_json(), result_text, as_json)


def result_text(facts: Mapping[str, Any]) -> str:
    """Return the facts for a person."""
    lines = [
        f"{facts['n']:,} images of {facts['places']:,} places, "
        f"{choice(facts['sampler'])}, "
        f"{facts['evaluations']} evaluations, guidance {facts['guidance']:g}, "
        f"seed {facts['seed']}"
    ]
    if read := facts.get("read"):
        lines.append(
            f"read by the data set's classifier as asked for: {read['boxes']:.1%} in their boxes, "
            f"{read['windows']:.1%} in their windows, neighbours and all; {read['images']:.1%} of "
            "images in every box"
        )
    return "\n".join([*lines, *written_lines(facts)])
