"""`mezzotint select`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import refuse_torchrun, show, written_lines

EXAMPLES = (
    "mezzotint select runs/mnist --label 5 --pool 15 --top 3 --out best",
    "mezzotint select runs/mnist --refill 1000 --threshold 0.9 --out clean",
)


def select(
    run: options.RunPath,
    out: Annotated[
        Path,
        typer.Option(
            help="A new folder for the kept images and the sheet.", rich_help_panel=options.OUTPUT
        ),
    ],
    label: Annotated[
        str | None, typer.Option(help="A class, by name or number. Default: every class.")
    ] = None,
    pool: Annotated[int, typer.Option(min=1, help="Images drawn for each pool.")] = 15,
    top: Annotated[int, typer.Option(min=1, help="Images kept of each pool.")] = 3,
    pools: Annotated[
        int, typer.Option(min=1, help="Pools of each class; the more, the surer the numbers.")
    ] = 1,
    score: Annotated[
        str,
        typer.Option(help="clip (the data set's own), clip:ID (a hub id or folder), classifier."),
    ] = "clip",
    refill: Annotated[
        int | None,
        typer.Option(min=1, help="Instead: draw until this many of each class pass --threshold."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Least score: what --refill keeps; else what counts as high quality (0.5).",
        ),
    ] = None,
    seed: options.Seed = 0,
    evaluations: options.Evaluations = None,
    sampler: options.SamplerOption = None,
    guidance: options.Guidance = None,
    weights: options.WeightsOption = texts.Weights.EMA,
    checkpoint: options.CheckpointOption = texts.Checkpoint.LAST,
    device: options.DeviceOption = texts.Device.AUTO,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> None:
    """Draw a pool, keep the best by a score, and say what that did to quality and variety."""
    refuse_torchrun("select")
    from mezzotint.evaluation.selection import SelectRequest, execute
    from mezzotint.runs.run import CheckpointRef
    from mezzotint.sampling.request import SamplingOptions

    request = SelectRequest(
        run,
        out=out,
        label=label,
        pool=pool,
        top=top,
        pools=pools,
        score=score,
        refill=refill,
        threshold=threshold,
        seed=seed,
        options=SamplingOptions(sampler=sampler, evaluations=evaluations, guidance=guidance),
        checkpoint=CheckpointRef(weights.value, checkpoint.value, device),
        data_dir=data_dir,
    )
    show(execute(request).to_json(), text, as_json)


def text(facts: Mapping[str, Any]) -> str:
    """Return the facts for a person."""
    lines = [f"kept {facts['kept']:,} of {facts['drawn']:,} images by {facts['score']}"]
    if "share_passed" in facts:
        lines[0] += f", threshold {facts['threshold']:g}: {facts['share_passed']:.1%} of the draws"
    for row in facts.get("classes", []):
        lines.append(
            f"{row['class']}: {row['high_quality']:.0%} score {facts['threshold']:g} or more; "
            f"mean {row['mean_score']:.3f}, of the kept {row['kept_score']:.3f}"
        )
    if effects := facts.get("effect"):
        lines.append(f"as the pool grows, {effects[0]['keep']} kept ({effects[0]['n']} measured):")
        lines += [
            f"  pool {row['pool']}: accuracy {row['accuracy']:.3f}  kd {row['kd']:.4g}  "
            f"coverage {row['coverage']:.3f}  density {row['density']:.3f}  "
            f"spread {row['spread']:.3f}"
            for row in effects
        ]
    return "\n".join([*lines, *written_lines(facts)])
