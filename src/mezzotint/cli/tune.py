"""`mezzotint tune`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import refuse_torchrun, show

EXAMPLES = (
    "mezzotint tune runs/mnist --prompt 'a clear {}' --out runs/clear",
    "mezzotint sample runs/clear --out grid.png",
)

LIMITS = "Checks"


def tune(
    run: options.RunPath,
    prompt: Annotated[
        str, typer.Option(help="What CLIP shall find in the images; {} is the class of each.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="A new folder for the tuned run.", rich_help_panel=options.OUTPUT),
    ],
    score: Annotated[
        str,
        typer.Option(help="The CLIP that reads the prompt: clip (the data set's own), clip:ID."),
    ] = "clip",
    budget: Annotated[str, typer.Option(help="Images drawn in all.")] = "2000images",
    batch: Annotated[int, typer.Option(min=1, help="Images drawn for each step.")] = 32,
    last: Annotated[
        int, typer.Option(min=1, help="Steps of the sampler that the gradient goes through.")
    ] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 3e-4,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Rank of the change of each layer, which has fewer numbers to train (LoRA). "
            "Default: all weights are tuned.",
        ),
    ] = None,
    bound: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Stop where label accuracy or coverage falls below this share of the first.",
            rich_help_panel=LIMITS,
        ),
    ] = 0.95,
    check_every: Annotated[
        int, typer.Option(min=1, help="Images between two checks.", rich_help_panel=LIMITS)
    ] = 320,
    check_images: Annotated[
        int, typer.Option(min=20, help="Samples drawn at a check.", rich_help_panel=LIMITS)
    ] = 500,
    evaluations: options.Evaluations = None,
    sampler: options.SamplerOption = None,
    guidance: options.Guidance = None,
    seed: Annotated[int, typer.Option(help="Seed of the images drawn.")] = 0,
    weights: options.WeightsOption = texts.Weights.EMA,
    device: options.DeviceOption = texts.Device.AUTO,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> None:
    """Tune a run to a prompt by the gradient of CLIP's score: a new run, stopped in time."""
    refuse_torchrun("tune")
    from mezzotint.finetuning.reward import Tuning
    from mezzotint.finetuning.tune import TuneRequest, budget_images, execute
    from mezzotint.runs.run import CheckpointRef
    from mezzotint.sampling.request import SamplingOptions

    request = TuneRequest(
        run,
        out=out,
        prompt=prompt,
        score=score,
        last=last,
        check_images=check_images,
        plan=Tuning(
            budget_images(budget), batch, rate, check_every=check_every, bound=bound, rank=rank
        ),
        seed=seed,
        options=SamplingOptions(sampler=sampler, evaluations=evaluations, guidance=guidance),
        checkpoint=CheckpointRef(weights.value, "last", device),
        data_dir=data_dir,
    )
    show(execute(request).to_json(), text, as_json)


def text(facts: Mapping[str, Any]) -> str:
    """Return the facts for a person."""
    how = "all weights" if facts["rank"] is None else f"changes of rank {facts['rank']}"
    lines = [
        f"{facts['run']}: tuned to '{facts['prompt']}', {facts['stopped']} after "
        f"{facts['images_seen']:,} images; weights of {facts['kept']:,} kept",
        f"trained: {how}, {facts['trained']:,} numbers",
        f"reward {facts['reward']['first']:.3f} -> {facts['reward']['last']:.3f}",
    ]
    for name, before in facts["before"].items():
        beyond = f" (then {facts['beyond'][name]:.3f})" if "beyond" in facts else ""
        lines.append(f"{name} {before:.3f} -> {facts['after'][name]:.3f}{beyond}")
    return "\n".join([*lines, f"curves: {facts['curves']}"])
