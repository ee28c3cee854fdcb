"""`mezzotint bench`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import refuse_torchrun, show
from mezzotint.reporting.words import duration

EXAMPLES = (
    "mezzotint bench",
    "mezzotint bench cifar10 --device cuda --seconds 60",
)


def bench(
    preset: Annotated[
        str, typer.Argument(help="Name or TOML file of a preset.")
    ] = "fashion-mnist",
    device: options.DeviceOption = texts.Device.AUTO,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="Time to measure for; longer where single steps are slow."),
    ] = 20.0,
    as_json: options.Json = False,
) -> None:
    """Measure images/s in training and sampling, and the share of this machine's matrix peak."""
    refuse_torchrun("bench")
    from mezzotint.benchmarking import BenchmarkRequest, execute

    request = BenchmarkRequest(preset, device=device, seconds=seconds)
    show(execute(request).to_json(), text, as_json)


def text(facts: Mapping[str, Any]) -> str:
    """Return the facts for a person."""
    training, sampling, hardware = facts["training"], facts["sampling"], facts["hardware"]
    shape = "x".join(map(str, facts["image"]))
    kernels = "with" if facts["kernels"] else "without"
    row = "{:<34}{:>12}{:>10}{:>10}{:>10}".format
    lines = [
        f"{facts['preset']}: {shape} images, {training['batch']} a training step, "
        f"{sampling['chunk']} drawn at once",
        f"{hardware.get('card', hardware['processor'])}: {facts['device']} in "
        f"{facts['precision']}, threads {facts['threads']}, {kernels} C++ kernels, "
        f"torch {hardware['torch']}",
        "",
        row("", "a second", "GFLOP", "TFLOP/s", "of peak"),
        row("matrix products", "", "", f"{facts['peak']['tflops']:.3f}", "100 %"),
        row("training, images", *_cells("images_per_second", "gflop_per_image", training)),
        row("evaluations of the network",
            *_cells("evaluations_per_second", "gflop_per_evaluation", sampling)),
        row(f"drawing, images of {sampling['evaluations']} evaluations",
            f"{sampling['images_per_second']:,.1f}", "", "", ""),
    ]  # fmt: skip
    if max(training["share_of_peak"], sampling["share_of_peak"]) > 1:
        lines.append("above 100 %: fewer multiplications do the same as those that are counted")
    if facts["profile"]:
        lines += ["", "a training step's time:"]
        lines += [f"  {part:<34}{100 * share:>5.1f} %" for part, share in facts["profile"].items()]
    lines.append("")
    if facts["peak_memory_bytes"]:
        lines.append(f"peak memory {facts['peak_memory_bytes'] / 2**30:.2f} GiB")
    lines.append(_budget_text(facts["budget"]))
    return "\n".join(line.rstrip() for line in lines)


def _cells(speed: str, work: str, numbers: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{numbers[speed]:,.1f}",
        f"{numbers[work]:.3g}",
        f"{numbers['tflops']:.3f}",
        f"{100 * numbers['share_of_peak']:.0f} %",
    )


def _budget_text(budget: Mapping[str, Any]) -> str:
    time, images = duration(budget["seconds"]), f"{budget['images']:,} images"
    if budget["unit"] == "seconds":
        return f"{time} of training, the preset's budget, see about {images}"
    if budget["unit"] == "epochs":
        of = round(budget["images"] / budget["amount"])
        images = f"{budget['amount']:g} epochs of {of:,} images"
    return f"{images}, the preset's budget, take about {time} of training"
