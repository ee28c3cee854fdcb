"""GIF and WebP."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.imaging.checks import check_suffix
from mezzotint.imaging.pixels import to_pillow
from mezzotint.runtime.atomic import replacing

__all__ = ["save_animation"]


def save_animation(frames: Sequence[Tensor], path: Path, *, seconds_per_frame: float) -> Path:
    """Write pictures uint8 (C, H, W) of one shape as an endless .gif or .webp; returns the path.

    A frame equal to the one before it is not stored again: that one is shown longer. WebP and
    grey GIF are lossless; a GIF in colour has 256 colours a frame.

    frames: at least one.
    path: its suffix chooses the format.
    seconds_per_frame: at least 0.02, since viewers slow down what is faster; GIF rounds it
        to hundredths of a second.
    """
    check_suffix(path, ".gif", ".webp")
    if not 0.02 <= seconds_per_frame < math.inf:
        raise InputError(f"seconds_per_frame is {seconds_per_frame}; it must be at least 0.02")
    if len({tuple(frame.shape) for frame in frames}) != 1:
        raise InputError("an animation needs at least one frame, and all of one shape")
    first, *others = [to_pillow(frame) for frame in frames]
    gif = path.suffix.lower() == ".gif"
    duration = 10 * round(100 * seconds_per_frame) if gif else round(1000 * seconds_per_frame)
    form: dict[str, Any] = {"format": "GIF"} if gif else {"format": "WEBP", "lossless": True}
    with replacing(path) as file:
        first.save(file, save_all=True, append_images=others, duration=duration, loop=0, **form)
    return path
