"""Draw images from a run and write them: a grid, arrays, a folder, a film strip, an animation."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mezzotint import imaging
from mezzotint.config.tables import to_table
from mezzotint.diffusion import Schedule
from mezzotint.errors import InputError
from mezzotint.runs.find import find, load_model
from mezzotint.runs.run import CheckpointName, CheckpointRef, Run, Weights, needs_guide_model
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import check_output, optional_path
from mezzotint.runtime.progress_bar import progress as progress_of
from mezzotint.sampling import trajectories
from mezzotint.sampling.model import Model
from mezzotint.sampling.request import (
    ROW,
    Noise,
    Prompt,
    SampleBatch,
    SampleRequest,
    SamplingOptions,
    Start,
    as_prompt,
)

__all__ = ["Outputs", "SampleFilesRequest", "SampleResult", "class_sheet", "execute", "sample"]

STRIP_IMAGES = 10
"""Images on a film strip or in an animation."""

ANIMATION_COLUMNS = 5

KINDS = {"--out": ("", ".png", ".npz"), "--strip": (".png",), "--animate": (".gif", ".webp")}
"""What each output can name; "" is a folder."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the images go."""

    out: Path | None = None
    """FILE.png: a grid; FILE.npz: arrays; a folder: one PNG an image."""

    strip: Path | None = None
    """FILE.png: the reverse process, x and the estimate of x0."""

    animate: Path | None = None
    """FILE.gif or FILE.webp: the reverse process."""

    overwrite: bool = False

    def check(self) -> None:
        """Raise InputError before anything is drawn that could not be written."""
        wanted = {"--out": self.out, "--strip": self.strip, "--animate": self.animate}
        if not any(wanted.values()):
            raise InputError(
                "nothing to write: give --out FILE.png, FILE.npz or a folder, --strip FILE.png "
                "or --animate FILE.gif"
            )
        named = [path.absolute() for path in wanted.values() if path is not None]
        if len(set(named)) < len(named):
            raise InputError("--out, --strip and --animate name one file twice: give each its own")
        for option, path in wanted.items():
            if path is not None:
                check_output(option, path, KINDS[option], overwrite=self.overwrite)


@dataclass(frozen=True)
class SampleFilesRequest:
    """Which images to draw from which run, and where to write them."""

    run: Run | str | Path
    _: KW_ONLY
    images: SampleRequest
    outputs: Outputs
    checkpoint: CheckpointRef = CheckpointRef()
    data_dir: Path | None = None
    """Folder of named data sets, where a prompt finds the run's data."""

    dry_run: bool = False
    """Check everything, draw nothing."""

    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class SampleResult:
    """What was drawn, and how."""

    run: Path
    checkpoint: CheckpointRef
    sampling: Mapping[str, Any]
    """Sampler, evaluations and guidance, as they were used."""

    styles: Mapping[str, str | float]
    along: str | None
    seed: int
    n: int
    prompt: Prompt | None
    written: Mapping[str, Path]
    """Kind of output (out, strip, animate) -> file or folder."""

    dry_run: bool
    images: Tensor | None = dataclasses.field(default=None, repr=False, compare=False)
    """uint8 (N, C, H, W) on the CPU; None where only a strip or an animation was drawn."""

    def to_json(self) -> dict[str, Any]:
        """Return everything but the images as plain JSON."""
        used = self.sampling
        facts = {
            "run": str(self.run),
            "weights": self.checkpoint.weights,
            "checkpoint": self.checkpoint.checkpoint,
            "sampler": used["sampler"],
            "evaluations": used["evaluations"],
            "guidance": used["guidance"],
            "styles": dict(self.styles),
            "style_guidance": used["style_guidance"],
            "along": self.along,
            "autoguidance": used["autoguidance"],
            "interval": used.get("interval"),
            "seed": self.seed,
            "n": self.n,
            **(asdict(self.prompt) if self.prompt else {}),
        }
        if self.dry_run:
            return {**facts, "dry_run": True}
        return {**facts, "written": {kind: str(path) for kind, path in self.written.items()}}


def sample(
    run: Run | str | Path,
    *,
    out: str | Path | None = None,
    strip: str | Path | None = None,
    animate: str | Path | None = None,
    overwrite: bool = False,
    label: str | int | None = None,
    n: int | None = None,
    seed: int = 0,
    seeds: int | None = None,
    styles: Mapping[str, str | float] = {},  # noqa: B006 - never changed
    along: str | None = None,
    sampler: str | Mapping[str, object] | None = None,
    evaluations: int | None = None,
    schedule: Schedule | Mapping[str, object] | None = None,
    guidance: float | None = None,
    style_guidance: Mapping[str, float] | None = None,
    autoguidance: float | None = None,
    interval: tuple[float, float] | None = None,
    clip: bool | None = None,
    start: Start | None = None,
    noise: Noise | None = None,
    prompt: str | Prompt | None = None,
    weights: Weights = "ema",
    checkpoint: CheckpointName = "last",
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | None = None,
) -> SampleResult:
    """Draw images from a run and write them.

        mezzotint.sample("runs/digits", out="grid.png", n=100)

    What is None is as the run's own sampling settings say. `Model.sample` draws without writing.

    Args:
        run: A run's directory, or the `Run`.
        out: FILE.png: a grid; FILE.npz: arrays; a folder: one PNG an image with a manifest.
        strip: FILE.png: the reverse process of the first images, x and the estimate of x0.
        animate: FILE.gif or FILE.webp: the reverse process of the first images.
        overwrite: Replace files that are already there.
        label: Class, by name or number. None: all classes in equal shares.
        n: Number of images. None: 100, or what `seeds` says.
        seed: Image i depends on (seed, i) alone.
        seeds: Draw the first image of this many seeds instead of n images of one seed.
        styles: Level ("thick") or number in the style's own unit, by the style's name.
        along: A style: a row of images of one noise for each class, from low to high values.
        sampler: Name of a sampler, or a table as in {"kind": "ddim", "eta": 0.5}.
        evaluations: Evaluations of the network per image (NFE), 1 or more.
        schedule: Noise levels to visit: a schedule, or a table as in {"kind": "karras"}.
        guidance: Guidance scale of label and styles, 0 or more: 1 is none, 0 unconditional.
        style_guidance: Factor on `guidance` by the style's name; 0 ignores the style.
        autoguidance: Scale of guidance by the run's early snapshot: 1 is none.
        interval: (low, high): both guidances act at levels low < sigma <= high alone.
        clip: Keep the estimate of x0 in [-1, 1] at every step.
        start: Mean and deviation of the data that the first level is drawn with.
        noise: Generator of the noise, "philox" or "torch".
        prompt: Words that a CLIP's gradient guides to, or a `Prompt` with their scale.
        weights: "ema" (averaged) or "raw" (the last step's).
        checkpoint: "last", "best" or "snapshot" (the early one of training.snapshot).
        device: "auto" (the run's own), "cpu", "cuda" or "mps".
        data_dir: Folder of named data sets, where a prompt finds the run's data.
        progress: Show a bar: None where there is a terminal or notebook, True always.

    Returns:
        The images, uint8, with the files that were written.

    Raises:
        InputError: A value is unknown, out of range, or not possible with this run.

    """
    options = SamplingOptions(
        sampler=sampler,
        evaluations=evaluations,
        schedule=schedule,
        start=start,
        noise=noise,
        guidance=guidance,
        style_guidance=style_guidance,
        autoguidance=autoguidance,
        interval=interval,
        clip=clip,
    )
    images = SampleRequest(
        label=label,
        n=n,
        seed=seed,
        seeds=seeds,
        styles=styles,
        along=along,
        options=options,
        prompt=as_prompt(prompt),
    )
    return execute(
        SampleFilesRequest(
            run=run,
            images=images,
            outputs=Outputs(
                out=optional_path(out),
                strip=optional_path(strip),
                animate=optional_path(animate),
                overwrite=overwrite,
            ),
            checkpoint=CheckpointRef(weights, checkpoint, device, needs_guide_model(autoguidance)),
            data_dir=optional_path(data_dir),
            progress=progress,
        )
    )


def execute(request: SampleFilesRequest) -> SampleResult:
    """Draw the images of a request and write them to the requested places."""
    request.outputs.check()
    run = find(request.run)
    model = load_model(run, request.checkpoint, request.data_dir)
    model = model.with_options(request.images.options)
    batch = request.images.batch(model)
    for warning in model.style_warnings(request.images.styles):
        log.info(warning)
    result = SampleResult(
        run=run.path,
        checkpoint=request.checkpoint,
        sampling=to_table(model.sampling),
        styles=request.images.styles,
        along=request.images.along,
        seed=request.images.seed,
        n=len(batch),
        prompt=request.images.prompt,
        written={},
        dry_run=request.dry_run,
    )
    if request.dry_run:
        return result
    model = model.guided_by(request.images.prompt)
    images = None
    if request.outputs.out is not None:
        with progress_of("drawing", len(batch), request.progress) as update:
            images = model.sample_batch(batch, update)
    if not current_ranks().first:
        return dataclasses.replace(result, images=images)
    written = _write(request, model, batch, images, result)
    return dataclasses.replace(result, images=images, written=written)


def class_sheet(images: Tensor, labels: Tensor, model: Model, columns: int = ROW) -> Tensor:
    """Return a grid with a row per class and its name; up to `columns` images a row."""
    rows = []
    for index in labels.unique().tolist():
        own = images[labels == index]
        for part in range(0, len(own), columns):
            rows.append((model.classes[index] if part == 0 else "", own[part : part + columns]))
    return imaging.labelled_grid(rows)


def _write(
    request: SampleFilesRequest,
    model: Model,
    batch: SampleBatch,
    images: Tensor | None,
    result: SampleResult,
) -> dict[str, Path]:
    """Write the outputs of a request; return them by kind."""
    outputs, written = request.outputs, dict[str, Path]()
    if outputs.out is not None and images is not None:
        columns = request.images.columns(model)
        written["out"] = _write_images(outputs.out, images, batch, model, columns, result)
    if outputs.strip is not None or outputs.animate is not None:
        steps = trajectories.trajectory(model, batch[:STRIP_IMAGES])
        if outputs.strip is not None:
            written["strip"] = imaging.save_png(trajectories.reverse_strip(steps), outputs.strip)
        if outputs.animate is not None:
            written["animate"] = trajectories.animate(steps, outputs.animate, ANIMATION_COLUMNS)
    return written


def _write_images(
    out: Path,
    images: Tensor,
    batch: SampleBatch,
    model: Model,
    columns: int,
    result: SampleResult,
) -> Path:
    """Write images as a grid, arrays, or a folder, by the name of the output."""
    if out.suffix.lower() == ".npz":
        facts = {k: v for k, v in result.to_json().items() if k != "written"}
        meta = {**facts, "classes": model.classes}
        return imaging.save_npz(out, images, batch.labels, meta, batch.styles, model.style_names)
    if out.suffix.lower() == ".png":
        return imaging.save_png(class_sheet(images, batch.labels, model, columns), out)
    extra = [
        {"seed": seed, "draw": i, **asked} for (seed, i), asked in _requested_styles(batch, model)
    ]
    return imaging.save_folder(images, batch.labels, model.classes, out, extra)


def _requested_styles(
    batch: SampleBatch, model: Model
) -> Iterator[tuple[tuple[int, int], dict[str, dict[str, float]]]]:
    """Yield the key of every image, and its requested styles, for a manifest."""
    table = model.styles_of(batch)
    for (seed, i), values in zip(batch.keys.tolist(), table.tolist(), strict=True):
        named = zip(model.styles, values, strict=True)
        asked = {style.name: value for style, value in named if not math.isnan(value)}
        yield (seed, i), {"styles": asked} if asked else {}
