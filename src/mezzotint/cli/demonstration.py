"""`mezzotint demo`: the whole path on the embedded digits, for a first look."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mezzotint import imaging
from mezzotint.cli import verbs
from mezzotint.metrics.memorisation import nearest
from mezzotint.reporting import figures
from mezzotint.runs.find import load
from mezzotint.runs.progress import follow
from mezzotint.runs.setup import TrainRequest, setup
from mezzotint.runs.trainer import Trainer
from mezzotint.runtime.log import log
from mezzotint.runtime.progress_bar import progress
from mezzotint.sampling import trajectories
from mezzotint.sampling.model import SampleBatch

__all__ = ["demo", "demo_text"]

IMAGES = 100


def demo(out: Path, device: str) -> tuple[dict[str, Any], bool]:
    """Train about a minute, draw every class, write pictures, compare with the training set."""
    run, data = setup(TrainRequest("digits", out, device=device))
    log.info(f"training on {len(data.splits['train']):,} real 8x8 digits …")
    with Trainer(run, data) as trainer:
        stopped = follow(run, trainer.run())
    if stopped is not None:
        return {"run": str(out), "interrupted": True}, True
    model = load(run)
    drawing = SampleBatch.of(model.labels(None, IMAGES))
    with progress("drawing", IMAGES) as update:
        images = model.sample_batch(drawing, update)
    pictures = {
        "grid": imaging.save_png(
            verbs.class_sheet(images, drawing.labels, model), out / "grid.png"
        ),
        "film strip": imaging.save_png(
            trajectories.reverse_strip(trajectories.trajectory(model, drawing[::20])),
            out / "strip.png",
        ),
        "forward process": imaging.save_png(
            trajectories.forward_strip(data.images[:5], model.schedule), out / "forward.png"
        ),
        "loss curves": figures.loss_curves(run.metrics, out / "loss.png"),
    }
    train, _ = data.split("train")
    held, _ = data.split("test")
    return {
        "run": str(out),
        "images": IMAGES,
        "different": len(images.flatten(1).unique(dim=0)),
        "nearest_train": _spread(nearest(images, train)),
        "nearest_sample": _spread(nearest(images, images, self_excluded=True)),
        "nearest_train_of_held_out": _spread(nearest(held, train)),
        "pictures": {name: str(path) for name, path in pictures.items()},
    }, False


def _command() -> str:
    """What to type for mezzotint: in a new environment it is not on the path."""
    called = Path(sys.argv[0])
    if shutil.which("mezzotint") or called.name != "mezzotint":
        return "mezzotint"
    return str(called)


def _spread(distances: Any) -> dict[str, float]:
    return {
        "min": round(float(distances.min()), 2),
        "median": round(float(distances.median()), 2),
    }


def demo_text(result: Mapping[str, Any]) -> str:
    """The result of `demo` for a person."""
    if result.get("interrupted"):
        return f"interrupted and saved in {result['run']}; the same command goes on from here"
    rows = {
        "samples to the nearest training image": result["nearest_train"],
        "held-out digits to the nearest training image": result["nearest_train_of_held_out"],
        "samples to the nearest other sample": result["nearest_sample"],
    }
    lines = [
        f"{result['images']} images drawn, {result['different']} different; distances in grey "
        "levels per pixel (0 would be a copy):",
        *(
            f"  {name:<46} min {row['min']:6.2f}  median {row['median']:6.2f}"
            for name, row in rows.items()
        ),
        "look at:",
        *(f"  {name:<16} {path}" for name, path in result["pictures"].items()),
        f"more: {_command()} sample {result['run']} --label 5 --seeds 10 --out fives.png",
    ]
    return "\n".join(lines)
