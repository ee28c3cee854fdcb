"""What `train` and `sample` do, in the library's words."""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.cli.outputs import Outputs
from mezzotint.config.schema import Budget
from mezzotint.config.tables import to_table
from mezzotint.errors import InputError
from mezzotint.reporting import figures
from mezzotint.reporting.words import choice
from mezzotint.runs import find
from mezzotint.runs.progress import follow
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runs.setup import TrainRequest, setup, warnings
from mezzotint.runs.trainer import CheckpointInterval, Trainer
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.hardware import peak_memory
from mezzotint.runtime.log import log
from mezzotint.runtime.progress_bar import progress
from mezzotint.sampling import trajectories
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.noise import image_keys
from mezzotint.sampling.prompt import Prompt, with_prompt

__all__ = [
    "SampleRequest",
    "every",
    "pairs",
    "sample",
    "sample_text",
    "scales",
    "train",
    "train_text",
]

STRIP_IMAGES = 10

USUAL = 100
"""Images where nobody says how many."""

ROW = 10
"""Images in a row of a sheet; from a style's low to its high values."""


def every(text: str) -> CheckpointInterval:
    """Read the time or number of images between checkpoints."""
    budget = Budget.parse(text)
    if budget.unit == "epochs":
        raise InputError(f"--checkpoint-every takes a time or images, as in 60s; got '{text}'")
    return CheckpointInterval(budget.amount, budget.unit)


def train(request: TrainRequest, saves: CheckpointInterval) -> tuple[dict[str, Any], bool]:
    """Train, or say what would be trained; the result, and whether it was interrupted."""
    run, data = setup(request)
    for warning in warnings(run.config, run.config.data):
        log.warning(warning)
    machine = run.config.machine
    result: dict[str, Any] = {
        "run": str(run.path),
        "source": request.source,
        "images": machine.images,
        "device": machine.device,
        "precision": machine.precision,
    }
    if request.dry:
        return {**result, "dry_run": True, "budget": run.config.training.budget}, False
    log.info(
        f"training on {machine.device} in {machine.precision}: {machine.images:,} images "
        f"({machine.images / len(data.splits['train']):.3g} epochs)"
    )
    with Trainer(run, data, saves) as trainer:
        stopped = follow(run, trainer.run())
    interrupted = stopped is not None and stopped.reason == "interrupted"
    if current_ranks().first and run.metrics.exists():
        result["curves"] = str(figures.loss_curves(run.metrics, run.path / "loss.png"))
        _, validation = figures.read_losses(run.metrics)
        if validation.loss:
            result["validation_loss"] = validation.loss[-1]
            result["best_validation_loss"] = min(validation.loss)
    current_ranks().barrier()  # torchrun ends all when one is gone that was interrupted
    result["images_seen"] = run.images_seen()
    result["stopped"] = stopped.reason if stopped else "budget used up"
    result["peak_memory_bytes"] = peak_memory()
    return result, interrupted


def train_text(result: Mapping[str, Any]) -> str:
    """The result of `train` for a person."""
    if result.get("dry_run"):
        amount = f"{result['images']:,} images" if result["images"] > 0 else "as measured"
        return (
            f"would train {result['run']} on {result['source']}: budget {result['budget']} "
            f"({amount}), {result['device']}, {result['precision']}; nothing was written"
        )
    lines = [f"{result['run']}: {result['images_seen']:,} of {result['images']:,} images seen"]
    if "best_validation_loss" in result:
        lines.append(
            f"validation loss {result['validation_loss']:.4f}, "
            f"best {result['best_validation_loss']:.4f}; curves: {result['curves']}"
        )
    if result["stopped"] == "interrupted":
        lines.append("interrupted and saved; the same command goes on from here")
    else:
        lines.append(f"next: mezzotint sample {result['run']} --out grid.png")
    return "\n".join(lines)


@dataclass(frozen=True)
class SampleRequest:
    """What to draw."""

    run: Path
    checkpoint: CheckpointRef
    n: int | None
    label: str | None
    styles: Mapping[str, str]
    along: str | None
    seed: int
    seeds: int | None
    changes: Mapping[str, object]
    dry: bool
    prompt: Prompt | None = None
    data_dir: Path | None = None
    """Where the data lie that the prompt's reader was made from."""

    def drawing(self, model: Model) -> SampleBatch:
        """One row per image."""
        if self.along is not None:
            return self._along(model, self.along)
        if self.n is not None and self.seeds is not None:
            raise InputError(f"--n {self.n} and --seeds {self.seeds}: both say how many, give one")
        n = self.n or self.seeds or USUAL
        labels, styles = model.labels(self.label, n), model.style_values(self.styles, n)
        if self.seeds is None:
            return SampleBatch.of(labels, self.seed, styles)
        return SampleBatch(labels, self._first_images(n), styles)

    def _along(self, model: Model, name: str) -> SampleBatch:
        """Rows of images of one noise each, along one style."""
        index = model.style_index(name)
        if self.n is not None:
            raise InputError(
                f"--along {name} says how many there are: leave --n {self.n} away; with --label, "
                "--seeds is the number of rows"
            )
        if name in self.styles:
            raise InputError(f"--along {name} goes through its values: leave --style {name} away")
        if self.label is None and self.seeds is not None:
            raise InputError(
                f"--along {name} has one row for each class: give --label with --seeds "
                f"{self.seeds}, or leave --seeds away"
            )
        rows = len(model.classes) if self.label is None else self.seeds or 1
        steps = model.styles[index].steps(ROW)
        styles = model.style_values(self.styles, rows * len(steps))
        styles[:, index] = steps.repeat(rows)
        labels = model.labels(self.label, rows).repeat_interleave(len(steps))
        keys = self._first_images(rows).repeat_interleave(len(steps), dim=0)
        return SampleBatch(labels, keys, styles)

    def _first_images(self, n: int) -> Tensor:
        """Return the keys (seed, 0), (seed + 1, 0), … of n images, int64 (n, 2)."""
        keys = image_keys(self.seed, torch.zeros(n, dtype=torch.int64))
        keys[:, 0] += torch.arange(n)
        return keys

    def columns(self, model: Model) -> int:
        """Images in a row of a sheet."""
        if self.along is None:
            return ROW
        return len(model.styles[model.style_index(self.along)].steps(ROW))


def pairs(option: str, texts: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE texts of an option, each name once."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = (part.strip() for part in text.partition("="))
        if not (separator and name and value):
            raise InputError(f"{option} takes NAME=VALUE, as in thickness=thick; got '{text}'")
        if name in found:
            raise InputError(f"{option} {name} is given twice: {found[name]} and {value}")
        found[name] = value
    return found


def scales(texts: Iterable[str]) -> dict[str, float]:
    """NAME=SCALE texts of --style-guidance."""
    texts_by_name = pairs("--style-guidance", texts)
    try:
        return {name: float(text) for name, text in texts_by_name.items()}
    except ValueError as error:
        raise InputError(f"--style-guidance takes NAME=SCALE, as in slant=2 ({error})") from error


def sample(request: SampleRequest, outputs: Outputs) -> dict[str, Any]:
    """Draw images and write them to the requested places."""
    outputs.check()
    checkpoint = request.checkpoint
    loaded = find.load(
        request.run,
        weights=checkpoint.weights,
        checkpoint=checkpoint.checkpoint,
        device=checkpoint.device,
        guide_model=checkpoint.guide_model,
    )
    model = loaded.changed(**request.changes)
    if request.prompt is not None:
        request = dataclasses.replace(request, label=request.prompt.label(model, request.label))
    drawing = request.drawing(model)
    for warning in model.style_warnings(request.styles):
        log.info(warning)
    settings = model.sampling
    meta = {
        "run": str(request.run),
        "weights": checkpoint.weights,
        "checkpoint": checkpoint.checkpoint,
        "sampler": to_table(settings.sampler),
        "evaluations": settings.evaluations,
        "guidance": settings.guidance,
        "styles": dict(request.styles),
        "style_guidance": settings.style_guidance,
        "along": request.along,
        "autoguidance": settings.autoguidance,
        "interval": settings.interval,
        "seed": request.seed,
        "n": len(drawing),
        **(asdict(request.prompt) if request.prompt else {}),
    }
    if request.dry:
        return {**meta, "dry_run": True}
    if request.prompt is not None:
        data = Run.at(request.run).images(request.data_dir)
        model = with_prompt(model, request.prompt, data)
    written: dict[str, str] = {}
    if outputs.out is not None:
        with progress("drawing", len(drawing)) as update:
            images = model.sample_batch(drawing, update)
    if not current_ranks().first:
        return meta
    if outputs.out is not None:
        columns = request.columns(model)
        written["out"] = str(_write(outputs.out, images, drawing, model, meta, columns))
    if outputs.strip is not None or outputs.animate is not None:
        steps = trajectories.trajectory(model, drawing[:STRIP_IMAGES])
        if outputs.strip is not None:
            path = imaging.save_png(trajectories.reverse_strip(steps), outputs.strip)
            written["strip"] = str(path)
        if outputs.animate is not None:
            written["animate"] = str(trajectories.animate(steps, outputs.animate, 5))
    return {**meta, "written": written}


def _write(
    out: Path,
    images: Any,
    drawing: SampleBatch,
    model: Model,
    meta: Mapping[str, Any],
    columns: int,
) -> Path:
    """Images as a grid, arrays, or a folder, by the name of the output."""
    if out.suffix.lower() == ".npz":
        whole = {**meta, "classes": model.classes}
        return imaging.save_npz(
            out, images, drawing.labels, whole, drawing.styles, model.style_names
        )
    if out.suffix.lower() == ".png":
        return imaging.save_png(class_sheet(images, drawing.labels, model, columns), out)
    extra = [
        {"seed": seed, "draw": i, **asked} for (seed, i), asked in requested_styles(drawing, model)
    ]
    return imaging.save_folder(images, drawing.labels, model.classes, out, extra)


def requested_styles(
    drawing: SampleBatch, model: Model
) -> Iterator[tuple[tuple[int, int], dict[str, dict[str, float]]]]:
    """Return the key of every image, and its requested styles, for a manifest."""
    table = model.styles_of(drawing)
    for (seed, i), values in zip(drawing.keys.tolist(), table.tolist(), strict=True):
        named = zip(model.styles, values, strict=True)
        asked = {style.name: value for style, value in named if not math.isnan(value)}
        yield (seed, i), {"styles": asked} if asked else {}


def class_sheet(images: Any, labels: Any, model: Model, columns: int = ROW) -> Any:
    """A grid with a row per class and its name; up to `columns` images a row, then more rows."""
    rows = []
    for index in labels.unique().tolist():
        own = images[labels == index]
        for part in range(0, len(own), columns):
            rows.append((model.classes[index] if part == 0 else "", own[part : part + columns]))
    return imaging.labelled_grid(rows)


def sample_text(result: Mapping[str, Any]) -> str:
    """The result of `sample` for a person."""
    how = (
        f"{result['n']:,} images, {choice(result['sampler'])}, "
        f"{result['evaluations']} evaluations, guidance {result['guidance']:g}, "
        + (f"autoguidance {result['autoguidance']:g}, " if result["autoguidance"] != 1 else "")
        + f"seed {result['seed']}"
    )
    if "prompt" in result:
        how += f", prompt '{result['prompt']}' at {result['prompt_scale']:g} by {result['score']}"
    if result.get("dry_run"):
        return f"would draw {how}; nothing was written"
    return "\n".join([how, *(f"{name}: {path}" for name, path in result["written"].items())])
