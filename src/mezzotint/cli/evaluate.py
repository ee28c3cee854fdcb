"""`mezzotint evaluate`."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import show, table
from mezzotint.evaluation.analyses import metric_names

EXAMPLES = (
    "mezzotint evaluate runs/mnist",
    "mezzotint evaluate runs/mnist --metrics cas",
    "mezzotint evaluate samples.npz --against mnist --n 5000",
    "mezzotint evaluate runs/b --compare runs/a",
)


class Split(StrEnum):
    """Split of a data set."""

    TEST = "test"
    VALIDATION = "validation"
    TRAIN = "train"


def evaluate(
    images: Annotated[Path, typer.Argument(help="A run, a folder of images, or an .npz.")],
    against: Annotated[
        str | None, typer.Option(help="The real images, a SOURCE. Default: the run's own.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help=f"Names joined by commas: {', '.join(metric_names())}; or all. "
            "Default: all but cas, which takes long."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", "-n", min=2, help="Samples. Default: as many as real ones, up to 10000."
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Real images to compare with.")] = Split.TEST,
    extractor: Annotated[
        str,
        typer.Option(help="classifier (the data set's own), inception, dinov2, clip; NAME:WHERE."),
    ] = "classifier",
    seed: Annotated[int, typer.Option(help="Seed of samples and of random subsets.")] = 0,
    evaluations: options.Evaluations = None,
    sampler: options.SamplerOption = None,
    guidance: options.Guidance = None,
    autoguidance: options.Autoguidance = None,
    interval: options.Interval = None,
    weights: options.WeightsOption = texts.Weights.EMA,
    checkpoint: options.CheckpointOption = texts.Checkpoint.LAST,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for evaluation.json and pictures. Default: the run itself.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(help="Another run or evaluation.json: print the differences."),
    ] = None,
    device: options.DeviceOption = texts.Device.AUTO,
    data_dir: options.DataDir = None,
    as_json: options.Json = False,
) -> None:
    """Evaluate images: numbers with their protocol, floor and anchors."""
    from mezzotint.evaluation.evaluate import EvaluateRequest, execute
    from mezzotint.runs.run import CheckpointRef, needs_guide_model
    from mezzotint.sampling.request import SamplingOptions

    request = EvaluateRequest(
        images,
        against=against,
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics else (),
        n=n,
        split=split,
        extractor=extractor,
        seed=seed,
        options=SamplingOptions(
            sampler=sampler,
            evaluations=evaluations,
            guidance=guidance,
            autoguidance=autoguidance,
            interval=interval,
        ),
        checkpoint=CheckpointRef(
            weights.value, checkpoint.value, device, needs_guide_model(autoguidance)
        ),
        out=out,
        compare=compare,
        data_dir=data_dir,
        command=texts.command_line(),
    )
    show(execute(request).to_json(), text, as_json)


def text(facts: Mapping[str, Any]) -> str:
    """Return the facts for a person."""
    anchors: list[str] = []
    for metric in facts["metrics"].values():
        anchors += [name for name in metric["anchors"] if name not in anchors]
    head = ["", "value", "real images", *anchors]
    rows = []
    for name, metric in facts["metrics"].items():
        error = f" ± {metric['error']:.2g}" if metric["error"] is not None else ""
        rows.append(
            [
                name,
                _digits(metric["value"]) + error,
                _digits(metric["floor"]),
                *(_digits(metric["anchors"].get(anchor)) for anchor in anchors),
            ]
        )
    lines = [*facts["summary"], "", *table(head, rows)]
    if "compared" in facts:
        compared = facts["compared"]
        lines += ["", f"difference to {compared['with']}:"]
        lines += [f"  {name} {value:+.4g}" for name, value in compared["differences"].items()]
        lines += [f"  {reason}" for reason in compared["not_compared"].values()]
    if "written" in facts:
        lines += ["", f"written: {facts['written']}"]
    return "\n".join(lines)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
