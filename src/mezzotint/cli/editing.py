"""What `edit` does, in the library's words."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint import imaging
from mezzotint.editing.compose import annotations
from mezzotint.editing.compose.compose import Composed, compose, random_text, read_back
from mezzotint.errors import InputError
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.runs import find
from mezzotint.runs.run import Pick, Run
from mezzotint.runtime.atomic import flush_together, write_bytes
from mezzotint.runtime.log import counted
from mezzotint.runtime.outputs import check_output
from mezzotint.sampling.model import Model

__all__ = ["Composition", "compose_text", "composed"]

Say = Callable[[str], None]
ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class Composition:
    """What the user asked for."""

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
    pick: Pick
    data_dir: Path | None
    overwrite: bool


def composed(wish: Composition, say: Say) -> dict[str, Any]:
    """Draw the canvases; a PNG, or a folder of them with their boxes."""
    check_output("--out", wish.out, (".png", ""), overwrite=wish.overwrite)
    if sum(given is not None for given in (wish.text, wish.random, wish.strings)) != 1:
        raise InputError(
            'say what to write: TEXT as in "2026", or --random 5, or --strings FILE, one of them'
        )
    loaded = find.load(
        wish.run,
        weights=wish.pick.weights,
        checkpoint=wish.pick.checkpoint,
        device=wish.pick.device,
    )
    model = loaded.changed(**wish.changes)
    texts = _texts(wish, model)
    for doubt in model.doubts(wish.styles):
        say(doubt)
    if wish.out.suffix and len(texts) > 1:
        raise InputError(
            f"--out {wish.out} holds one image, and {len(texts)} are asked for: give a folder"
        )
    pages = compose(
        model,
        texts,
        seed=wish.seed,
        spacing=wish.spacing,
        styles=wish.styles,
        watch=counted("drawing", len(texts), say),
    )
    result: dict[str, Any] = {
        "run": str(wish.run),
        "n": len(pages),
        "places": sum(len(page.inks) for page in pages),
        "sampler": model.sampling.sampler,
        "evaluations": model.sampling.evaluations,
        "guidance": model.sampling.guidance,
        "styles": dict(wish.styles),
        "seed": wish.seed,
        "written": _written(wish.out, pages, model),
    }
    if wish.read:
        result["read"] = _read(wish, pages, say)
    return result


def _texts(wish: Composition, model: Model) -> list[str]:
    if wish.text is not None:
        return [wish.text] * wish.n
    if wish.random is not None:
        return [random_text(model.classes, wish.random, wish.seed, i) for i in range(wish.n)]
    assert wish.strings is not None
    if wish.n > 1:
        raise InputError("--strings draws each line once: leave --n out")
    try:
        lines = wish.strings.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--strings {wish.strings} cannot be read as text ({error})") from error
    if not any(line.strip() for line in lines):
        raise InputError(f"--strings {wish.strings} has no text in it: one a line")
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


def _read(wish: Composition, pages: Sequence[Composed], say: Say) -> dict[str, float]:
    """How much the data set's own classifier reads as it was asked for."""
    data = Run.at(wish.run).images(wish.data_dir, say)
    found = read_back(pages, classifier_for(data, say))
    whole = [bool(part.all()) for part in found.boxes.split([len(page.inks) for page in pages])]
    return {
        "boxes": float(found.boxes.double().mean()),
        "windows": float(found.windows.double().mean()),
        "images": sum(whole) / len(whole),
    }


def compose_text(result: Mapping[str, Any]) -> str:
    """The result of `edit compose` for a person."""
    lines = [
        f"{result['n']:,} images of {result['places']:,} places, {result['sampler']}, "
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
