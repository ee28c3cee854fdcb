"""Pixels: from 0 … 255 to [-1, 1] and back, and what a batch of images must be.

Models work on x = v / 127.5 - 1 in [-1, 1]; the way back is v = round(127.5 (x + 1)), and
`to_uint8` is the one place where x is clamped.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mezzotint.errors import DivergenceError, InputError

__all__ = [
    "check_batch",
    "check_least",
    "describe_shape",
    "from_pillow",
    "shown",
    "to_float",
    "to_pillow",
    "to_uint8",
]


def to_float(images: Tensor) -> Tensor:
    """uint8 images of any shape -> float32 in [-1, 1], 0 at -1 and 255 at 1."""
    if images.dtype != torch.uint8:
        raise InputError(f"images are {images.dtype}; allowed: torch.uint8, values 0 to 255")
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Float images of any shape in about [-1, 1] -> uint8, clamped and rounded to nearest.

    Exact inverse of `to_float`. NaN and infinity raise `DivergenceError`: a broken model must not
    look like a grey picture.
    """
    if not x.is_floating_point():
        raise InputError(f"x is {x.dtype}; allowed: floating point, values about -1 to 1")
    broken = int((~x.isfinite()).sum())
    if broken:
        raise DivergenceError(
            f"{broken} of {x.numel()} values are NaN or infinite, so not a picture"
        )
    # half precision has too few bits for 256 levels, hence float() before the arithmetic
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def check_batch(images: Tensor) -> None:
    """Refuse what is no batch of images."""
    found = f"given {images.dtype} {tuple(images.shape)}"
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images must be uint8 (N, C, H, W) with C = 1 or 3; {found}")
    if images.numel() == 0:
        raise InputError(f"there must be at least one image; {found}")


def describe_shape(shape: Sequence[int]) -> str:
    """Return an image shape (C, H, W) in words.

    >>> describe_shape((1, 28, 28)), describe_shape((3, 32, 24))
    ('28x28 grey', '32x24 RGB')
    """
    channels, height, width = shape
    kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    return f"{height}x{width} {kind}"


def check_least(name: str, value: int, least: int) -> None:
    """Refuse an option that is too small."""
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}")


def to_pillow(image: Tensor) -> Image.Image:
    """A picture uint8 (C, H, W) -> Pillow, mode L for C = 1 and RGB for C = 3."""
    if image.dim() != 3:
        raise InputError(f"a picture must be uint8 (C, H, W); given {tuple(image.shape)}")
    check_batch(image[None])
    pixels = image.cpu().permute(1, 2, 0).contiguous().numpy()  # H, W, C
    return Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels)


def from_pillow(picture: Image.Image) -> Tensor:
    """A Pillow picture -> uint8 (C, H, W): C = 1 for mode L, RGB for every other mode."""
    pixels = np.array(picture if picture.mode == "L" else picture.convert("RGB"))
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()


def shown(x: Tensor, sigma: float) -> Tensor:
    """A noisy state as uint8 pixels: DDPM's x_t = x / sqrt(1 + sigma^2), which stays in range."""
    return to_uint8((x / (1 + sigma**2) ** 0.5).float().cpu())
