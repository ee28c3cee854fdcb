"""What `edit` does, in the library's words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint import imaging
from mezzotint.config.tables import to_table
from mezzotint.editing.compose import annotations
from mezzotint.editing.compose.compose import Composed, compose, random_text, read_back
from mezzotint.errors import DataError, InputError
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.reporting.words import choice
from mezzotint.runs import find
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runtime.atomic import flush_together, write_bytes
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import check_output
from mezzotint.runtime.progress_bar import progress
from mezzotint.sampling.model import Model

__all__ = ["ComposeRequest", "compose_text", "composed"]

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class ComposeRequest:
    """What to compose, and how."""

    run: Path
    out: Path
    text: str | None
    random: int | None
    strings: Path | None
    n: int
    seed: int
    spacing: int | None
    styles: Mapping[str, str]
    read: bool
    changes: Mapping[str, object]
    checkpoint: CheckpointRef
    data_dir: Path | None
    overwrite: bool


def composed(request: ComposeRequest) -> dict[str, Any]:
    """Draw the canvases; a PNG, or a folder of them with their boxes."""
    check_output("--out", request.out, (".png", ""), overwrite=request.overwrite)
    if (
        sum(
            text_source is not None
            for text_source in (request.text, request.random, request.strings)
        )
        != 1
    ):
        raise InputError(
            'say what to write: TEXT as in "2026", or --random 5, or --strings FILE, one of them'
        )
    loaded = find.load(
        request.run,
        weights=request.checkpoint.weights,
        checkpoint=request.checkpoint.checkpoint,
        device=request.checkpoint.device,
    )
    model = loaded.changed(**request.changes)
    texts = _texts(request, model)
    for warning in model.style_warnings(request.styles):
        log.info(warning)
    if request.out.suffix and len(texts) > 1:
        raise InputError(
            f"--out {request.out} holds one image, and {len(texts)} are asked for: give a folder"
        )
    with progress("drawing", len(texts)) as update:
        pages = compose(
            model,
            texts,
            seed=request.seed,
            spacing=request.spacing,
            styles=request.styles,
            watch=update,
        )
    result: dict[str, Any] = {
        "run": str(request.run),
        "n": len(pages),
        "places": sum(len(page.inks) for page in pages),
        "sampler": to_table(model.sampling.sampler),
        "evaluations": model.sampling.evaluations,
        "guidance": model.sampling.guidance,
        "styles": dict(request.styles),
        "seed": request.seed,
        "written": _written(request.out, pages, model),
    }
    if request.read:
        result["read"] = _read(request, pages)
    return result


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


def _written(out: Path, pages: Sequence[Composed], model: Model) -> dict[str, str]:
    """One image enlarged, to look at; or a folder of them as they are, with their boxes."""
    if out.suffix:
        (page,) = pages
        scale = imaging.scale_for(model.shape[2])
        return {"out": str(imaging.save_png(imaging.grid(page.image[None], 1, scale=scale), out))}
    files = [f"{i:05d}.png" for i in range(len(pages))]
    for file, page in zip(files, pages, strict=True):
        imaging.save_png(page.image, out / file, flush=False)
    sizes = [(page.image.shape[1], page.image.shape[2]) for page in pages]
    found = annotations(
        files, sizes, [page.text for page in pages], [page.inks for page in pages], model.classes
    )
    flush_together(out)
    # Last: a folder that has it is complete.
    write_bytes(out / ANNOTATIONS, json.dumps(found, ensure_ascii=False, indent=1).encode())
    return {"folder": str(out), "annotations": str(out / ANNOTATIONS)}


def _read(request: ComposeRequest, pages: Sequence[Composed]) -> dict[str, float]:
    """How much the data set's own classifier reads as it was asked for."""
    data = Run.at(request.run).images(request.data_dir)
    found = read_back(pages, classifier_for(data))
    whole = [bool(part.all()) for part in found.boxes.split([len(page.inks) for page in pages])]
    return {
        "boxes": float(found.boxes.double().mean()),
        "windows": float(found.windows.double().mean()),
        "images": sum(whole) / len(whole),
    }


def compose_text(result: Mapping[str, Any]) -> str:
    """The result of `edit compose` for a person."""
    lines = [
        f"{result['n']:,} images of {result['places']:,} places, {choice(result['sampler'])}, "
        f"{result['evaluations']} evaluations, guidance {result['guidance']:g}, "
        f"seed {result['seed']}"
    ]
    if read := result.get("read"):
        lines.append(
            f"read by the data set's classifier as asked for: {read['boxes']:.1%} in their boxes, "
            f"{read['windows']:.1%} in their windows, neighbours and all; {read['images']:.1%} of "
            "images in every box"
        )
    return "\n".join([*lines, *(f"{name}: {path}" for name, path in result["written"].items())])
