"""`mezzotint sweep`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import show, table
from mezzotint.errors import InputError
from mezzotint.reporting.words import choice

EXAMPLES = (
    "mezzotint sweep runs/mnist",
    "mezzotint sweep runs/mnist --scales 1,1.25,1.5,2 --n 2000 --interval 0.2 5",
)


def sweep(
    run: options.RunPath,
    scales: Annotated[
        str, typer.Option(help="Guidance scales, joined by commas: 1 = none, 0 = unconditional.")
    ] = "1,1.5,2,3",
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples at each scale.")] = 1000,
    interval: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            help="One more curve, guided only at levels LOW < sigma <= HIGH.",
        ),
    ] = None,
    evaluations: options.Evaluations = None,
    sampler: options.SamplerOption = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the samples: the same noise at all scales.")
    ] = 0,
    weights: options.WeightsOption = texts.Weights.EMA,
    checkpoint: options.CheckpointOption = texts.Checkpoint.LAST,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for sweep.json and sweep.png. Default: the run.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    device: options.DeviceOption = texts.Device.AUTO,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> None:
    """Compare guidance scales: what each costs in quality and variety, and which to take.

    Evaluated on the validation split; with autoguidance too where the run kept an early snapshot.
    """
    from mezzotint.evaluation.sweep import SweepRequest, execute
    from mezzotint.runs.run import CheckpointRef
    from mezzotint.sampling.request import SamplingOptions

    request = SweepRequest(
        run,
        scales=_scales(scales),
        n=n,
        interval=interval,
        options=SamplingOptions(sampler=sampler, evaluations=evaluations),
        seed=seed,
        checkpoint=CheckpointRef(weights.value, checkpoint.value, device),
        out=out,
        data_dir=data_dir,
        command=texts.command_line(),
    )
    show(execute(request).to_json(), text, as_json)


def _scales(text: str) -> tuple[float, ...]:
    """Read 1,1.5,2,3."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--scales takes numbers, as in 1,1.5,2,3; got '{text}'") from error


def text(facts: Mapping[str, Any]) -> str:
    """Return the facts for a person."""
    names = list(facts["floor"])
    rows = [
        [
            f"{point['curve']} {point['scale']:g}",
            *(f"{point['values'][name]:.3f} ± {point['errors'][name]:.3f}" for name in names),
        ]
        for point in facts["points"]
    ]
    rows.append(["real images", *(f"{facts['floor'][name]:.3f}" for name in names)])
    head = ["", *(name.replace("_", " ") for name in names)]
    samples, held = facts["samples"], facts["protocol"]
    return "\n".join(
        [
            f"{samples['n']:,} samples each, {choice(samples['sampler'])}, "
            f"{samples['evaluations']} evaluations, seed {samples['seed']}, "
            f"against {held['n_reference']:,} "
            f"{held['split']} images of {held['against']}; ± one standard error",
            "",
            *table(head, rows),
            "",
            *facts["sentences"],
            "",
            f"written: {facts['written']} and its picture",
        ]
    )
