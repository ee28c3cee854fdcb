"""Composing: numbers, words and grids of classes as one image, drawn as one.

    (page,) = compose(mezzotint.load("runs/mnist"), ["2026"])
    page.image  # uint8 (1, 28, 71)
    page.inks   # where each digit lies

All windows of all canvases are one batch of the network, each with its own row of the condition;
`compose.windows` says how neighbours heed each other. The noise of canvas i is of (seed, i) alone:
its windows are the parts of one noise (`runtime.noise`), and a canvas of one class is image i.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.editing.compose import (
    Ink,
    Layout,
    Room,
    Windows,
    ink_box,
    laid_out,
    read_text,
    rooms,
)
from mezzotint.errors import InputError
from mezzotint.imaging import to_uint8
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.runtime.rng import generator
from mezzotint.sampling.denoise import build_denoise
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.noise import image_keys

__all__ = ["Composed", "ReadBack", "compose", "random_text", "read_back"]

USUAL_SPACING = 7
"""Windows are so many times as wide as the usual gap between neighbours' ink: 4 of 28 pixels."""


@dataclass(frozen=True)
class Composed:
    """A canvas and what is on it."""

    text: str
    image: Tensor
    """uint8 (C, H, W)."""

    inks: tuple[Ink, ...]
    """Where each class lies, in the order of the text."""

    ground: int
    """The value of a pixel that no ink covers: 0 or 255."""


@dataclass(frozen=True)
class ReadBack:
    """Return whether each class is read as requested, page after page: bool (N,) each."""

    windows: Tensor
    """In its window, with what of its neighbours lies in it."""

    boxes: Tensor
    """In its window, with all but its box blanked: as a reader does that is given the boxes."""


def compose(
    model: Model,
    texts: Sequence[str],
    *,
    seed: int = 0,
    spacing: int | None = None,
    styles: Mapping[str, str | float] = {},  # noqa: B006 - never changed
    watch: Callable[[int], None] = lambda done: None,
) -> list[Composed]:
    """Draw one canvas a text, however they differ in size; for texts see `compose.read_text`.

    spacing: pixels between the ink of neighbours, on average; negative: they interlock. None: a
        seventh of an image's width.
    styles: of all that is drawn, by name, as `Model.sample` takes them: one hand writes a number.
    watch: called with the number of canvases done.
    """
    _, height, width = model.shape
    usual = round(width / USUAL_SPACING)
    spacing = usual if spacing is None else spacing
    if not -width // 2 <= spacing <= 4 * width:
        raise InputError(
            f"spacing is {-width // 2} to {4 * width} pixels (half an image to four, negative: "
            f"interlocked), got {spacing}; leave it out for the usual {usual}"
        )
    pages = [read_text(text, model.classes) for text in texts]
    style = model.style_values(styles)
    ground, room = _measured(model, style)
    layouts = [laid_out(rows, room, (height, width), spacing) for rows in pages]
    found: list[Composed] = []
    for rows in _batches(layouts, model.chunk()):
        windows = Windows(layouts[rows], (height, width), ground)
        keys = image_keys(seed, torch.arange(rows.start, rows.stop))
        x0 = _drawn(model, windows, keys, style)
        canvases = to_uint8(windows.joined(x0))
        ink = iter(x0 - ground)
        for text, layout, canvas in zip(texts[rows], windows.layouts, canvases, strict=True):
            image = canvas[:, : layout.height, : layout.width].contiguous()
            own = zip(layout.labels, layout.corners, strict=True)
            boxes = tuple(ink_box(next(ink), label, corner) for label, corner in own)
            found.append(Composed(text, image, boxes, 0 if ground < 0 else 255))
        watch(len(found))
    return found


def random_text(classes: Sequence[str], places: int, seed: int, i: int) -> str:
    """Text i of a seed: so many classes drawn with equal chances, as `read_text` reads them."""
    drawn = torch.randint(len(classes), (places,), generator=generator("text", seed, i))
    # A name that text cannot hold is written as its index.
    names = [str(k) if set(",;") & set(classes[k]) else classes[k] for k in drawn.tolist()]
    return ("" if all(len(name) == 1 for name in classes) else ",").join(names)


def read_back(pages: Sequence[Composed], classifier: Classifier) -> ReadBack:
    """What the classifier of the data set reads on canvases."""
    labels = torch.tensor([ink.label for page in pages for ink in page.inks])
    windows: list[Tensor] = []
    boxes: list[Tensor] = []
    for page in pages:
        for ink in page.inks:
            (x, y, width, height), (left, top, wide, high) = ink.window, ink.box
            bare = torch.full_like(page.image, page.ground)
            inside = (slice(None), slice(top, top + high), slice(left, left + wide))
            bare[inside] = page.image[inside]
            for seen, image in ((windows, page.image), (boxes, bare)):
                seen.append(image[:, y : y + height, x : x + width])

    def right(images: list[Tensor]) -> Tensor:
        return classifier.read(torch.stack(images)).probabilities.argmax(1) == labels

    return ReadBack(right(windows), right(boxes))


def _measured(model: Model, style: Tensor) -> tuple[float, list[Room]]:
    """The colour around the images, and the mean box of every class.

    The estimate from the mean image at the highest level is the mean image of the class.
    """
    labels = torch.arange(len(model.classes))
    x = torch.full((len(labels), *model.shape), model.mean, dtype=torch.float64)
    level = model.sigmas()[0]
    asked = SampleBatch.of(labels, 0, style.expand(len(labels), -1))
    with torch.no_grad():
        means = build_denoise(model, model.condition(asked))(x, level).float().clamp(-1, 1)
    rim = torch.ones(model.shape[1:], dtype=torch.bool)
    rim[1:-1, 1:-1] = False
    ground = 1.0 if float(means[:, :, rim].mean()) > 0 else -1.0
    return ground, rooms(means, ground)


def _batches(layouts: Sequence[Layout], most: int) -> Iterator[slice]:
    """Canvases in order, as many together as have `most` windows, and at least one."""
    start, windows = 0, 0
    for i, layout in enumerate(layouts):
        if i > start and windows + len(layout.labels) > most:
            yield slice(start, i)
            start, windows = i, 0
        windows += len(layout.labels)
    if layouts:
        yield slice(start, len(layouts))


def _drawn(model: Model, windows: Windows, keys: Tensor, style: Tensor) -> Tensor:
    """The image of every window (N, C, H, W), float32 on the CPU.

    Args:
        model: what draws them.
        windows: those of B canvases.
        keys: int64 (B, 2), the (seed, i) of each canvas.
        style: float64 (1, K), of all windows.
    """
    counts = [len(at.labels) for at in windows.layouts]
    keys = keys.repeat_interleave(torch.tensor(counts), dim=0)
    parts = torch.cat([torch.arange(count) for count in counts])
    asked = SampleBatch(windows.labels, keys, style.expand(len(windows.labels), -1))
    denoise = windows.apart(build_denoise(model, model.condition(asked)))
    for step in model.reverse(denoise, model.noise(keys, parts)):
        last = step
    return last.x.float().cpu()
