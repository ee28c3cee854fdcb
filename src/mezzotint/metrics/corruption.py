"""Controlled damage to real images: the anchors that give a number its scale.

Blur, noise and erased squares take and give uint8 (N, C, H, W). Their strengths are in units that
mean the same at every image size: pixels of 28, shares of the range, shares of the area. Missing
classes take and give labels too.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.imaging import check_batch, to_float, to_uint8

__all__ = ["blur", "erase", "missing_classes", "noise"]

CHUNK = 4096


def blur(images: Tensor, radius: float) -> Tensor:
    """Smoothed by a Gaussian of standard deviation `radius`, in 28ths of the image's width.

    Edges are repeated. 0 leaves the images alone.
    """
    check_batch(images)
    _check("blur radius", radius)
    deviation = radius * images.shape[-1] / 28
    if deviation == 0:
        return images
    reach = max(1, math.ceil(3 * deviation))
    offsets = torch.arange(-reach, reach + 1).float()
    kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
    kernel = kernel / kernel.sum()
    channels = images.shape[1]
    down = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    across = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    parts = []
    for part in images.split(CHUNK):
        x = F.pad(to_float(part), (reach,) * 4, mode="replicate")
        parts.append(
            to_uint8(F.conv2d(F.conv2d(x, down, groups=channels), across, groups=channels))
        )
    return torch.cat(parts)


def noise(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """With Gaussian noise added, of standard deviation `share` of the whole range, then clamped.

    1 is a deviation of 255 grey levels. 0 leaves the images alone.
    """
    check_batch(images)
    _check("noise share", share)
    if share == 0:
        return images
    parts = []
    for part in images.split(CHUNK):
        eps = torch.randn(part.shape, generator=generator)
        parts.append(to_uint8(to_float(part) + 2 * share * eps))
    return torch.cat(parts)


def erase(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """With one square of `share` of the area, at a random place, filled with mid-grey (128).

    0 leaves the images alone, 1 erases them.
    """
    check_batch(images)
    _check("erased share", share, 1.0)
    n, _, height, width = images.shape
    tall, wide = round(height * share**0.5), round(width * share**0.5)
    if tall == 0 or wide == 0:
        return images
    top = (torch.rand(n, 1, generator=generator) * (height - tall + 1)).long()
    left = (torch.rand(n, 1, generator=generator) * (width - wide + 1)).long()
    rows, columns = torch.arange(height)[None], torch.arange(width)[None]
    inside = ((rows >= top) & (rows < top + tall))[:, :, None]
    inside = inside & ((columns >= left) & (columns < left + wide))[:, None, :]  # (N, H, W)
    return torch.where(inside[:, None], torch.tensor(128, dtype=torch.uint8), images)


def missing_classes(
    images: Tensor, labels: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Replace the images of the first `count` classes by random ones of the other classes.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), indices of classes.
        count: Number of classes to remove.
        generator: Chooses the images that stand in.

    Returns:
        As many images and their labels; unchanged where there are no other classes.

    """
    gone, rest = ((labels < count).nonzero()[:, 0], (labels >= count).nonzero()[:, 0])
    if len(rest) == 0:
        return images, labels
    rows = torch.arange(len(labels))
    rows[gone] = rest[torch.randint(len(rest), (len(gone),), generator=generator)]
    return images[rows], labels[rows]


def _check(name: str, value: float, most: float = math.inf) -> None:
    if not 0 <= value <= most or math.isinf(value):
        allowed = "or more" if math.isinf(most) else f"to {most:g}"
        raise InputError(f"{name} is {value}: give a finite number, 0 (off) {allowed}")
