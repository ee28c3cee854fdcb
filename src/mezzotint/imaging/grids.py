"""Sheets: grids, grids with names, and film strips, as one uint8 picture (C, H, W).

Pages are white and text is black. Small images are enlarged by a whole factor, each pixel
becoming a square, so that a pixel stays a pixel.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import ImageDraw, ImageFont
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.imaging.pixels import check_batch, check_least, from_pillow, to_pillow

__all__ = ["grid", "labelled_grid", "scale_for", "strip"]

WHITE = 255
VISIBLE = 84  # pixels: an enlarged image is at least this wide ...
LARGEST_SCALE = 8  # ... unless that takes more than this; 8x8 digits are then 64 pixels wide
TEXT = 14  # font size in pixels, legible where a sheet is shown at its own size
MARGIN = 6  # pixels around a sheet with text, and between text and images


def scale_for(width: int) -> int:
    """The whole factor that shows images of this width (pixels) at a visible size.

    >>> [scale_for(width) for width in (8, 28, 32, 64, 256)]
    [8, 3, 3, 2, 1]
    """
    return max(1, min(LARGEST_SCALE, math.ceil(VISIBLE / width)))


def grid(images: Tensor, columns: int, *, scale: int = 1, gap: int = 2) -> Tensor:
    """Images (N, C, H, W) row by row on one white page -> (C, H', W').

    images: uint8, N >= 1.
    columns: images in a row; cells left over in the last row stay white.
    scale: whole factor of enlargement, 1 for none.
    gap: white pixels between neighbours, none outside; 0 for none.
    """
    check_batch(images)
    check_least("columns", columns, 1)
    check_least("gap", gap, 0)
    cells = _enlarge(images, scale)
    n, channels, height, width = cells.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    cells = F.pad(cells, (0, gap, 0, gap, 0, 0, 0, rows * columns - n), value=WHITE)
    cells = cells.view(rows, columns, channels, height + gap, width + gap)
    page = cells.permute(2, 0, 3, 1, 4)  # C, rows, H, columns, W
    page = page.reshape(channels, rows * (height + gap), columns * (width + gap))
    return page[:, : page.shape[1] - gap, : page.shape[2] - gap].contiguous()


def labelled_grid(
    rows: Sequence[tuple[str, Tensor]], *, scale: int | None = None, gap: int = 2
) -> Tensor:
    """One row of images per class, the name left of it -> uint8 (C, H', W').

    rows: name and uint8 images (n, C, H, W); n may differ between rows, C, H and W may not.
    scale: whole factor of enlargement; None: `scale_for` their width.
    gap: white pixels between neighbours.
    """
    return _table([_Row(name, images) for name, images in rows], [], scale, gap, together=1)


def strip(
    frames: Sequence[Tensor],
    captions: Sequence[str],
    *,
    estimates: Sequence[Tensor] | None = None,
    scale: int | None = None,
    gap: int = 2,
) -> Tensor:
    """The film strip of the reverse process, a column per moment -> uint8 (C, H', W').

    An early x is mostly noise far outside [-1, 1]; pass x / sqrt(1 + sigma^2) through
    `to_uint8`, or it is black and white only.

    frames: x at each moment, uint8 (N, C, H, W) each.
    captions: one a moment, written over its column.
    estimates: the x0 estimates of the same moments; each image then has two rows,
        "x" and "x0 estimate". None: the rows of x alone.
    scale: whole factor of enlargement; None: `scale_for` their width.
    gap: white pixels between neighbours.
    """
    bands = [("x", frames)] + ([] if estimates is None else [("x0 estimate", estimates)])
    shapes = {tuple(moment.shape) for _, band in bands for moment in band}
    lengths = {len(captions)} | {len(band) for _, band in bands}
    if len(lengths) != 1 or len(shapes) != 1:
        raise InputError(
            f"a strip needs one caption per moment and one shape of images; given "
            f"{len(captions)} captions, {len(frames)} moments, shapes {sorted(shapes)}"
        )
    for _, band in bands:
        for moment in band:
            check_batch(moment)
    stacks = [(title, torch.stack(list(band), dim=1)) for title, band in bands]  # N, M, C, H, W
    rows = [
        _Row(title if len(bands) > 1 else "", stack[i])
        for i in range(len(frames[0]))
        for title, stack in stacks
    ]
    return _table(rows, captions, scale, gap, together=len(bands))


@dataclass(frozen=True)
class _Row:
    """One row of a sheet: its title, "" for none, and its images uint8 (n, C, H, W)."""

    title: str
    images: Tensor


def _table(
    rows: Sequence[_Row], captions: Sequence[str], scale: int | None, gap: int, *, together: int
) -> Tensor:
    """Rows of images, titles left, captions on top; every `together` rows form a group."""
    channels, height, width = _common_shape(rows)
    check_least("gap", gap, 0)
    scale = scale_for(width) if scale is None else scale
    font = ImageFont.load_default(TEXT)
    titles = [_printable(row.title) for row in rows]
    captions = [_printable(caption) for caption in captions]
    widest_title = math.ceil(max(font.getlength(title) for title in titles))
    widest_caption = math.ceil(max((font.getlength(text) for text in captions), default=0))
    line = math.ceil(TEXT * 1.3)  # the built-in font's ascent and descent

    cell_height = max(height * scale, line if widest_title else 0)
    cell_width = max(width * scale, widest_caption + 2 * MARGIN if widest_caption else 0)
    left = MARGIN + (widest_title + MARGIN if widest_title else 0)
    top = MARGIN + (line + MARGIN if widest_caption else 0)
    between = MARGIN if together > 1 else 0  # groups must read as groups
    columns = max(len(row.images) for row in rows)
    xs = [left + j * (cell_width + gap) for j in range(columns)]
    ys = [top + i * (cell_height + gap) + i // together * between for i in range(len(rows))]

    shape = (channels, ys[-1] + cell_height + MARGIN, xs[-1] + cell_width + MARGIN)
    page = torch.full(shape, WHITE, dtype=torch.uint8)
    down, right = (cell_height - height * scale) // 2, (cell_width - width * scale) // 2
    for y, row in zip(ys, rows, strict=True):
        for x, image in zip(xs, _enlarge(row.images.cpu(), scale), strict=False):
            page[:, y + down :, x + right :][:, : height * scale, : width * scale] = image

    # Pillow's anchors: right end and middle of the line, middle and top of the line
    middles = [y + cell_height // 2 for y in ys]
    texts = [(left - MARGIN, y, "rm", t) for y, t in zip(middles, titles, strict=True)]
    texts += [(x + cell_width // 2, MARGIN, "ma", c) for x, c in zip(xs, captions, strict=False)]
    return _write(page, texts, font)


def _write(
    page: Tensor,
    texts: Sequence[tuple[int, int, str, str]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> Tensor:
    """The page (C, H, W) with black texts (x, y, Pillow's anchor, text)."""
    picture = to_pillow(page)
    draw = ImageDraw.Draw(picture)
    for x, y, anchor, text in texts:
        draw.text((x, y), text, fill=0 if len(page) == 1 else (0, 0, 0), font=font, anchor=anchor)
    return from_pillow(picture)


def _printable(text: str) -> str:
    """The text on one line in the letters Pillow's built-in font has, which are ASCII."""
    plain = unicodedata.normalize("NFKD", text.replace("σ", "sigma"))
    letters = (c for c in " ".join(plain.split()) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in letters)


def _enlarge(images: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) -> (N, C, scale H, scale W), each pixel a square."""
    check_least("scale", scale, 1)
    return images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)


def _common_shape(rows: Sequence[_Row]) -> tuple[int, int, int]:
    """The shape (C, H, W) that the images of all rows share."""
    if not rows:
        raise InputError("a sheet needs at least one row of images; given none")
    for row in rows:
        check_batch(row.images)
    shapes = {tuple(row.images.shape[1:]) for row in rows}
    if len(shapes) > 1:
        raise InputError(f"the images of a sheet must share one shape; given {sorted(shapes)}")
    channels, height, width = shapes.pop()
    return channels, height, width
