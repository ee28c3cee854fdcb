"""Compose images from a run and write them: one picture, or a folder with COCO boxes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from mezzotint import imaging
from mezzotint.config.registry import sampler_table
from mezzotint.editing.compose import annotations
from mezzotint.editing.compose.compose import Composed, random_text, read_back
from mezzotint.editing.compose.compose import compose as compose_images
from mezzotint.errors import DataError, InputError
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.runs.find import find, load_model
from mezzotint.runs.run import CheckpointName, CheckpointRef, Run, Weights
from mezzotint.runtime.atomic import flush_together, write_bytes
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import check_output, optional_path
from mezzotint.runtime.progress_bar import progress as progress_of
from mezzotint.sampling.model import Model
from mezzotint.sampling.request import SamplingOptions

__all__ = ["ComposeRequest", "ComposeResult", "compose", "execute"]

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class ComposeRequest:
    """What to compose, and how. One of `text`, `random` and `strings` says what to write."""

    run: Run | str | Path
    _: KW_ONLY
    out: Path
    """FILE.png: one image, enlarged; a folder: PNGs and COCO boxes."""

    text: str | None = None
    """Classes: "2026"; names with commas; rows with semicolons."""

    random: int | None = None
    """Number of random classes in an image."""

    strings: Path | None = None
    """A file with one text a line."""

    n: int = 1
    seed: int = 0
    spacing: int | None = None
    """Pixels between neighbours, on average; None: a seventh of an image."""

    styles: Mapping[str, str | float]
    read: bool = False
    """Have the data set's classifier read every place."""

    options: SamplingOptions = SamplingOptions()
    checkpoint: CheckpointRef = CheckpointRef()
    data_dir: Path | None = None
    overwrite: bool = False
    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ComposeResult:
    """The composed images, and how they were drawn."""

    run: Path
    images: Sequence[Composed] = field(repr=False)
    sampler: str | Mapping[str, Any]
    evaluations: int
    guidance: float
    styles: Mapping[str, str | float]
    seed: int
    written: Mapping[str, Path]
    read: Mapping[str, float] | None = None
    """Shares that the data set's classifier reads as requested: boxes, windows, images."""

    @property
    def places(self) -> int:
        """Number of classes on all images together."""
        return sum(len(image.inks) for image in self.images)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the images as plain JSON."""
        facts: dict[str, Any] = {
            "run": str(self.run),
            "n": len(self.images),
            "places": self.places,
            "sampler": self.sampler,
            "evaluations": self.evaluations,
            "guidance": self.guidance,
            "styles": dict(self.styles),
            "seed": self.seed,
            "written": {kind: str(path) for kind, path in self.written.items()},
        }
        return facts if self.read is None else {**facts, "read": dict(self.read)}


def compose(
    run: Run | str | Path,
    text: str | None = None,
    *,
    out: str | Path,
    random: int | None = None,
    strings: str | Path | None = None,
    n: int = 1,
    seed: int = 0,
    spacing: int | None = None,
    styles: Mapping[str, str | float] = {},  # noqa: B006 - never changed
    read: bool = False,
    sampler: str | Mapping[str, object] | None = None,
    evaluations: int | None = None,
    guidance: float | None = None,
    weights: Weights = "ema",
    checkpoint: CheckpointName = "last",
    device: str = "auto",
    data_dir: str | Path | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> ComposeResult:
    """Draw numbers, words and grids of classes as one image each, with labels and boxes.

        mezzotint.compose("runs/mnist", "2026", out="2026.png")

    Args:
        run: A run's directory, or the `Run`.
        text: Classes: "2026"; names with commas, "Sandal,Bag"; rows with semicolons.
        out: FILE.png: one image, enlarged; a folder: PNGs and COCO boxes.
        random: Instead of `text`: number of random classes in an image.
        strings: Instead of `text`: a file with one text a line.
        n: Number of images.
        seed: Image i depends on (seed, i) alone.
        spacing: Pixels between neighbours, on average; negative: they interlock. None: a seventh
            of an image's width.
        styles: Level or number of each style, by name, for all that is drawn.
        read: Have the data set's classifier read every place.
        sampler: Name of a sampler, or a table as in {"kind": "ddim", "eta": 0.5}.
        evaluations: Evaluations of the network for each window; windows that overlap take twice
            as many.
        guidance: Guidance scale, 0 or more: 1 is none, 0 unconditional.
        weights: "ema" (averaged) or "raw" (the last step's).
        checkpoint: "last", "best" or "snapshot".
        device: "auto" (the run's own), "cpu", "cuda" or "mps".
        data_dir: Folder of named data sets, where `read` finds the run's data.
        overwrite: Replace `out` where it is already there.
        progress: Show a bar: None where there is a terminal or notebook, True always.

    Returns:
        The images, uint8, with boxes, and the files that were written.

    Raises:
        InputError: Nothing or more than one thing to write is given, or a value is not possible.

    """
    return execute(
        ComposeRequest(
            run,
            out=Path(out),
            text=text,
            random=random,
            strings=optional_path(strings),
            n=n,
            seed=seed,
            spacing=spacing,
            styles=styles,
            read=read,
            options=SamplingOptions(sampler=sampler, evaluations=evaluations, guidance=guidance),
            checkpoint=CheckpointRef(weights, checkpoint, device),
            data_dir=optional_path(data_dir),
            overwrite=overwrite,
            progress=progress,
        )
    )


def execute(request: ComposeRequest) -> ComposeResult:
    """Draw the canvases of a request; write a PNG, or a folder of them with their boxes."""
    check_output("--out", request.out, (".png", ""), overwrite=request.overwrite)
    wanted = [each for each in (request.text, request.random, request.strings) if each is not None]
    if len(wanted) != 1:
        raise InputError(
            'say what to write: TEXT as in "2026", or --random 5, or --strings FILE, one of them'
        )
    run = find(request.run)
    model = load_model(run, request.checkpoint, request.data_dir).with_options(request.options)
    texts = _texts(request, model)
    for warning in model.style_warnings(request.styles):
        log.info(warning)
    if request.out.suffix and len(texts) > 1:
        raise InputError(
            f"--out {request.out} holds one image, and {len(texts)} are asked for: give a folder"
        )
    with progress_of("drawing", len(texts), request.progress) as update:
        images = compose_images(
            model,
            texts,
            seed=request.seed,
            spacing=request.spacing,
            styles=request.styles,
            watch=update,
        )
    return ComposeResult(
        run=run.path,
        images=images,
        sampler=sampler_table(model.sampling.sampler),
        evaluations=model.sampling.evaluations,
        guidance=model.sampling.guidance,
        styles=request.styles,
        seed=request.seed,
        written=_write(request.out, images, model),
        read=_read(model, images) if request.read else None,
    )


def _texts(request: ComposeRequest, model: Model) -> list[str]:
    if request.text is not None:
        return [request.text] * request.n
    if request.random is not None:
        return [
            random_text(model.classes, request.random, request.seed, i) for i in range(request.n)
        ]
    assert request.strings is not None
    if request.n > 1:
        raise InputError("--strings draws each line once: leave --n out")
    try:
        lines = request.strings.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--strings {request.strings} cannot be read as text ({error})") from error
    if not any(line.strip() for line in lines):
        raise DataError(f"--strings {request.strings} has no text in it: one a line")
    return [line for line in lines if line.strip()]


def _write(out: Path, images: Sequence[Composed], model: Model) -> dict[str, Path]:
    """Write one image enlarged, to look at; or a folder of them as they are, with their boxes."""
    if out.suffix:
        (image,) = images
        scale = imaging.scale_for(model.shape[2])
        return {"out": imaging.save_png(imaging.grid(image.image[None], 1, scale=scale), out)}
    files = [f"{i:05d}.png" for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        imaging.save_png(image.image, out / file, flush=False)
    sizes = [(image.image.shape[1], image.image.shape[2]) for image in images]
    found = annotations(
        files, sizes, [each.text for each in images], [each.inks for each in images], model.classes
    )
    flush_together(out)
    # Last: a folder that has it is complete.
    write_bytes(out / ANNOTATIONS, json.dumps(found, ensure_ascii=False, indent=1).encode())
    return {"folder": out, "annotations": out / ANNOTATIONS}


def _read(model: Model, images: Sequence[Composed]) -> dict[str, float]:
    """Return the shares of places that the data set's own classifier reads as requested."""
    assert model.data is not None
    found = read_back(images, classifier_for(model.data()))
    whole = [bool(part.all()) for part in found.boxes.split([len(each.inks) for each in images])]
    return {
        "boxes": float(found.boxes.double().mean()),
        "windows": float(found.windows.double().mean()),
        "images": sum(whole) / len(whole),
    }
