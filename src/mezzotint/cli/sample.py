"""`mezzotint sample`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import show, written_lines
from mezzotint.errors import InputError
from mezzotint.reporting.words import choice

if TYPE_CHECKING:
    from mezzotint.sampling.request import Prompt

EXAMPLES = (
    "mezzotint sample runs/digits --n 100 --out grid.png",
    "mezzotint sample runs/fashion --label Sandal --seeds 10 --out sandals.png",
    "mezzotint sample runs/digits --n 1000 --out images.npz",
    "mezzotint sample runs/mnist --label 5 --style thickness=thick --out 5.png",
    "mezzotint sample runs/mnist --along slant --out sheet.png",
    "mezzotint sample runs/mnist --prompt 'a thick clear 7' --n 20 --out sevens.png",
)


def sample(
    run: options.RunPath,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "-n",
            min=1,
            max=10_000_000,
            help="Number of images. Default: 100, or what --seeds says.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="A class, by name or number. Default: all in equal shares."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="FILE.png: a grid; FILE.npz: arrays; a folder: one PNG an image.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    strip: Annotated[
        Path | None,
        typer.Option(
            help="FILE.png: the reverse process, x and x0 estimate.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    animate: Annotated[
        Path | None,
        typer.Option(
            help="FILE.gif or FILE.webp: the reverse process, moving.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    style: options.StyleOption = None,
    along: Annotated[
        str | None,
        typer.Option(
            metavar="STYLE",
            help="A row for each class (with --label: for each of --seeds), one noise a row, from "
            "the style's low to its high values.",
        ),
    ] = None,
    seed: options.Seed = 0,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Draw the first image of this many seeds, from --seed on."),
    ] = None,
    evaluations: options.Evaluations = None,
    sampler: options.SamplerOption = None,
    guidance: options.Guidance = None,
    style_guidance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SCALE",
            help="A style's guidance is --guidance times SCALE; 1 = as the label, 0 = ignore the "
            "style. Repeatable.",
            rich_help_panel=options.SAMPLING,
        ),
    ] = None,
    autoguidance: options.Autoguidance = None,
    interval: options.Interval = None,
    prompt: options.PromptWords = None,
    prompt_scale: options.PromptScale = None,
    prompt_interval: options.PromptInterval = None,
    prompt_gradient: options.PromptGradient = None,
    score: options.PromptScore = None,
    weights: options.WeightsOption = texts.Weights.EMA,
    checkpoint: options.CheckpointOption = texts.Checkpoint.LAST,
    data_dir: options.DataDir = None,
    overwrite: options.Overwrite = False,
    device: options.DeviceOption = texts.Device.AUTO,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Draw images from a run."""
    from mezzotint.runs.run import CheckpointRef, needs_guide_model
    from mezzotint.runs.sample import Outputs, SampleFilesRequest, execute
    from mezzotint.sampling.request import SampleRequest, SamplingOptions

    images = SampleRequest(
        label=label,
        n=n,
        seed=seed,
        seeds=seeds,
        along=along,
        styles=texts.named_values("--style", style),
        options=SamplingOptions(
            sampler=sampler,
            evaluations=evaluations,
            guidance=guidance,
            style_guidance=texts.named_scales("--style-guidance", style_guidance),
            autoguidance=autoguidance,
            interval=interval,
        ),
        prompt=_prompt(prompt, prompt_scale, prompt_interval, prompt_gradient, score),
    )
    request = SampleFilesRequest(
        run,
        images=images,
        outputs=Outputs(out=out, strip=strip, animate=animate, overwrite=overwrite),
        checkpoint=CheckpointRef(
            weights.value, checkpoint.value, device, needs_guide_model(autoguidance)
        ),
        data_dir=data_dir,
        dry_run=dry_run,
    )
    show(execute(request).to_json(), text, as_json)


def _prompt(
    prompt: str | None,
    scale: float | None,
    interval: tuple[float, float] | None,
    gradient: str | None,
    score: str | None,
) -> "Prompt | None":
    """Read the prompt's options; InputError for those that need a prompt and have none."""
    from mezzotint.sampling.request import Prompt

    settings: dict[str, Any] = {
        "prompt_scale": scale,
        "prompt_interval": interval,
        "prompt_gradient": gradient,
        "score": score,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    if prompt is not None:
        return Prompt(prompt, **settings)
    for name in settings:
        option = f"--{name.replace('_', '-')}"
        raise InputError(f"{option} is of a prompt: give --prompt 'WORDS' too")
    return None


def text(facts: Mapping[str, Any]) -> str:
    """Return the result for a person."""
    how = (
        f"{facts['n']:,} images, {choice(facts['sampler'])}, "
        f"{facts['evaluations']} evaluations, guidance {facts['guidance']:g}, "
        + (f"autoguidance {facts['autoguidance']:g}, " if facts["autoguidance"] != 1 else "")
        + f"seed {facts['seed']}"
    )
    if "prompt" in facts:
        how += f", prompt '{facts['prompt']}' at {facts['prompt_scale']:g} by {facts['score']}"
    if facts.get("dry_run"):
        return f"would draw {how}; nothing was written"
    return "\n".join([how, *written_lines(facts)])
