"""PNG files: written whole or not at all, losslessly."""

import io
import struct
from pathlib import Path

from PIL import Image
from torch import Tensor

from mezzotint.imaging.checks import check_suffix
from mezzotint.imaging.pixels import to_pillow
from mezzotint.runtime.atomic import replacing

__all__ = ["is_whole_png", "save_png"]


def save_png(image: Tensor, path: Path, *, flush: bool = True) -> Path:
    """Write a picture uint8 (C, H, W) as PNG, losslessly; returns the path.

    flush: False for one of many, which `runtime.atomic.flush_together` flushes.
    """
    check_suffix(path, ".png")
    picture = to_pillow(image)
    with replacing(path, flush=flush) as file:
        picture.save(file, format="PNG")
    return path


def is_whole_png(data: bytes) -> bool:
    """Whether these bytes are a PNG whose checksums are right."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return False
    return True
