"""Random changes of training images: batches (B, C, H, W) of any dtype, one draw per image.

What may be changed without changing the class is a fact about a data set (a mirrored 2 is no
digit), so an `Augment` belongs to a source's entry in `sources.SOURCES`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import InputError

__all__ = ["Augment"]


@dataclass(frozen=True)
class Augment:
    """Flips and shifts; with both off, the identity.

    flip   mirror left and right, each image with probability 1/2
    shift  pixels: move each image by -shift..shift down and right, uniformly and independently;
           the uncovered edge repeats the outermost pixels. 0 = never
    """

    flip: bool = False
    shift: int = 0

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise InputError(f"shift {self.shift} is negative: give 0 (off) or a pixel count")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """New images (B, C, H, W) of the same dtype, drawn from the generator.

        Nothing to do returns the same object and leaves the generator as it was.
        """
        if self.flip:
            images = _flipped(images, generator)
        if self.shift:
            images = _shifted(images, self.shift, generator)
        return images


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    chance = torch.rand(len(images), generator=generator, device=generator.device)
    mirrored = (chance < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def _shifted(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    batch, channels, height, width = images.shape
    moves = torch.randint(
        -shift, shift + 1, (2, batch, 1), generator=generator, device=generator.device
    ).to(images.device)
    # A clamped source index is what repeats the edge.
    rows = (torch.arange(height, device=images.device) - moves[0]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=images.device) - moves[1]).clamp(0, width - 1)  # (B, W)
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
