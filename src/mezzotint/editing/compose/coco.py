"""Boxes: where on a canvas each class lies, as detection and OCR tools read it.

The format is COCO's for detection (Lin et al. 2014, arXiv 1405.0312): a box is [x, y, width,
height] in pixels from the upper left corner, its edges lying between pixels; categories count
from 1. `text` is ours: what is written on the image, row by row.

A box encloses the ink of one window, known apart from its neighbours' (`windows`): strokes that
run into each other have overlapping boxes, each of the whole digit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Ink", "annotations", "ink_box"]

VISIBLE = 0.5
"""Least difference from the ground that counts as ink, of the 2 between black and white."""


@dataclass(frozen=True)
class Ink:
    """One class on a canvas: where its window stands and where in it its ink lies."""

    label: int
    window: tuple[int, int, int, int]
    """(x, y, width, height) on the canvas."""

    box: tuple[int, int, int, int]
    """Of the ink alone, as `window`; the window's where nothing is to be seen."""

    pixels: int
    """How many pixels of it are ink."""


def ink_box(ink: Tensor, label: int, corner: tuple[int, int]) -> Ink:
    """The box of a window's ink (C, H, W), the window standing at (top, left) of its canvas."""
    (top, left), (height, width) = corner, ink.shape[1:]
    window = (left, top, width, height)
    visible = ink.abs().amax(0) >= VISIBLE  # (H, W)
    if not visible.any():
        return Ink(label, window, window, 0)
    rows, columns = visible.any(1).nonzero()[:, 0], visible.any(0).nonzero()[:, 0]
    x, y = int(columns[0]), int(rows[0])
    box = (left + x, top + y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
    return Ink(label, window, box, int(visible.sum()))


def annotations(
    files: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    texts: Sequence[str],
    inks: Sequence[Sequence[Ink]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """COCO's JSON object of canvases: file names, (height, width), texts and inks of each."""
    boxes = [(image, ink) for image, own in enumerate(inks, 1) for ink in own]
    return {
        "images": [
            {"id": image, "file_name": file, "width": width, "height": height, "text": text}
            for image, (file, (height, width), text) in enumerate(
                zip(files, sizes, texts, strict=True), 1
            )
        ],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": ink.label + 1,
                "bbox": list(ink.box),
                "area": ink.pixels,
                "iscrowd": 0,
                "window": list(ink.window),
            }
            for number, (image, ink) in enumerate(boxes, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }
