"""From encoded pictures to one uint8 array (N, C, H, W).

Grey      a picture is grey if its file's mode says so (1-bit, 8- or 16-bit grey, with or without
          alpha); one palette or RGB picture makes the whole set RGB, so C is 1 or 3
16 bits   65535 becomes 255, rounded
Alpha     is composited on white, as on paper
Photos    are turned upright by their EXIF orientation
Size      what must be resized is first cut to its central square, then resized bicubically with
          anti-aliasing (Pillow)
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from mezzotint.data.encoded import Encoded, Picture, in_threads, read
from mezzotint.errors import DataError
from mezzotint.runtime.log import log

__all__ = ["Layout", "common_layout", "fill", "survey"]

GREY = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
ORIENTATION = 0x0112  # EXIF tag; 5 and above lie on their side
UNREADABLE = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip


class Layout(NamedTuple):
    """The shape of every decoded image."""

    channels: int
    height: int
    width: int


class _Header(NamedTuple):
    grey: bool
    width: int
    height: int


def survey(encoded: Encoded, size: int | None) -> Layout:
    """The layout that fits the set, from the pictures' headers alone.

    size  pixels: every image becomes size x size. None keeps the size that all share; where they
          differ, the most common shorter side decides
    """
    headers = _headers(encoded)
    channels, sizes = _channels(headers), _sizes(headers)
    if size is not None:
        return Layout(channels, size, size)
    if len(sizes) == 1:
        return Layout(channels, *sizes.pop())
    sides: Counter[int] = Counter()
    for header, count in headers.items():
        sides[min(header.height, header.width)] += count
    side = max(sides, key=lambda side: (sides[side], -side))  # of equals the smaller
    log.info(f"images of {len(sizes)} sizes: all are cut square and resized to {side}x{side}")
    return Layout(channels, side, side)


def common_layout(encoded: Encoded) -> Layout | None:
    """The layout of pictures of one size; None where sizes differ."""
    headers = _headers(encoded)
    sizes = _sizes(headers)
    return Layout(_channels(headers), *sizes.pop()) if len(sizes) == 1 else None


def _headers(encoded: Encoded) -> Counter[_Header]:
    return Counter(in_threads(_header, encoded.pictures()))


def _channels(headers: Counter[_Header]) -> int:
    return 1 if all(header.grey for header in headers) else 3


def _sizes(headers: Counter[_Header]) -> set[tuple[int, int]]:
    """(height, width) of the pictures."""
    return {(header.height, header.width) for header in headers}


def fill(images: np.ndarray, encoded: Encoded, layout: Layout) -> None:
    """Decode every picture into its place in `images`, uint8 (N, C, H, W)."""
    decode = partial(_decode, layout=layout)
    for place, pixels in zip(images, in_threads(decode, encoded.pictures()), strict=True):
        place[...] = pixels


def _header(picture: Picture) -> _Header:
    with _opened(picture) as image:
        width, height = image.size
        if "exif" in image.info and image.getexif().get(ORIENTATION, 1) >= 5:
            width, height = height, width
        return _Header(image.mode in GREY, width, height)


def _decode(picture: Picture, layout: Layout) -> np.ndarray:
    with _opened(picture) as opened:
        image: Image.Image = opened
        if "exif" in image.info:
            image = ImageOps.exif_transpose(image)
        image = _opaque(image, "L" if layout.channels == 1 else "RGB")
        if image.size != (layout.width, layout.height):
            image = _fitted(image, layout)
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)  # (C, H, W)


def _opaque(image: Image.Image, mode: str) -> Image.Image:
    """The picture in 8 bits a channel and without alpha."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


def _fitted(image: Image.Image, layout: Layout) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # Cut first: resize's own `box` lets the filter look past the square's edge.
    square = image.crop((left, top, left + side, top + side))
    return square.resize((layout.width, layout.height), Image.Resampling.BICUBIC)


@contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    encoded = read(picture)
    try:
        with Image.open(BytesIO(encoded)) as image:
            yield image
    except UNREADABLE as error:  # Pillow decodes late, so all work on the image is in here
        raise DataError(
            f"{picture.where} is truncated or no image: replace it or remove it"
        ) from error
