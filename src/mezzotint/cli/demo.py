"""`mezzotint demo`: the whole path on the embedded digits, for a first look."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mezzotint.cli import options, texts
from mezzotint.cli.show import refuse_torchrun, show
from mezzotint.cli.train import INTERRUPTED

if TYPE_CHECKING:
    from torch import Tensor

    from mezzotint.runs.run import Run

EXAMPLES = ("mezzotint demo --out runs/demo",)

IMAGES = 100


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/demo"),
    device: options.DeviceOption = texts.Device.AUTO,
    as_json: options.Json = False,
) -> None:
    """Train on the embedded digits, draw every class, look at the pictures: about a minute."""
    refuse_torchrun("demo")
    from mezzotint.runs.train import TrainRequest, execute

    trained = execute(TrainRequest("digits", out, device=device))
    if trained.interrupted:
        show({"run": str(out), "interrupted": True}, text, as_json)
        raise typer.Exit(INTERRUPTED)
    show(_draw(trained.run), text, as_json)


def _draw(run: "Run") -> dict[str, Any]:
    """Draw every class, write pictures, and compare the images with the training set."""
    from mezzotint import imaging
    from mezzotint.metrics.memorisation import nearest
    from mezzotint.runs.find import load
    from mezzotint.runs.sample import class_sheet
    from mezzotint.sampling import trajectories
    from mezzotint.sampling.model import SampleBatch

    model, out = load(run), run.path
    assert model.data is not None
    data, batch = model.data(), SampleBatch.of(model.labels(None, IMAGES))
    images = model.sample_batch(batch)
    steps = trajectories.trajectory(model, batch[::20])
    forward = trajectories.forward_strip(data.images[:5], model.schedule)
    pictures = {
        "grid": imaging.save_png(class_sheet(images, batch.labels, model), out / "grid.png"),
        "film strip": imaging.save_png(trajectories.reverse_strip(steps), out / "strip.png"),
        "forward process": imaging.save_png(forward, out / "forward.png"),
        "loss curves": out / "loss.png",
    }
    train, _ = data.split("train")
    held_out, _ = data.split("test")
    return {
        "run": str(out),
        "images": IMAGES,
        "different": len(images.flatten(1).unique(dim=0)),
        "nearest_train": _spread(nearest(images, train)),
        "nearest_sample": _spread(nearest(images, images, self_excluded=True)),
        "nearest_train_of_held_out": _spread(nearest(held_out, train)),
        "pictures": {name: str(path) for name, path in pictures.items()},
    }


def _command() -> str:
    """Return what to type for mezzotint: in a new environment it is not on the path."""
    called = Path(sys.argv[0])
    if shutil.which("mezzotint") or called.name != "mezzotint":
        return "mezzotint"
    return str(called)


def _spread(distances: "Tensor") -> dict[str, float]:
    return {
        "min": round(float(distances.min()), 2),
        "median": round(float(distances.median()), 2),
    }


def text(facts: Mapping[str, Any]) -> str:
    """Return the result for a person."""
    if facts.get("interrupted"):
        return f"interrupted and saved in {facts['run']}; the same command goes on from here"
    rows = {
        "samples to the nearest training image": facts["nearest_train"],
        "held-out digits to the nearest training image": facts["nearest_train_of_held_out"],
        "samples to the nearest other sample": facts["nearest_sample"],
    }
    lines = [
        f"{facts['images']} images drawn, {facts['different']} different; distances in grey "
        "levels per pixel (0 would be a copy):",
        *(
            f"  {name:<46} min {row['min']:6.2f}  median {row['median']:6.2f}"
            for name, row in rows.items()
        ),
        "look at:",
        *(f"  {name:<16} {path}" for name, path in facts["pictures"].items()),
        f"more: {_command()} sample {facts['run']} --label 5 --seeds 10 --out fives.png",
    ]
    return "\n".join(lines)
