"""Random changes of training images: batches (B, C, H, W) of any dtype, one draw per image.

What may be changed without changing the class is a fact about a data set (a mirrored 2 is no
digit), so an `Augment` belongs to a source's entry in `sources.SOURCES`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import InputError

__all__ = ["Augment", "Changes"]


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
        return self.draw(len(images), generator)(images)

    def draw(self, n: int, generator: torch.Generator) -> "Changes":
        """What to do with each of n images."""
        device, mirrored, moves = generator.device, None, None
        if self.flip:
            mirrored = torch.rand(n, generator=generator, device=device) < 0.5
        if self.shift:
            reach = (-self.shift, self.shift + 1)
            moves = torch.randint(*reach, (2, n), generator=generator, device=device)
        return Changes(mirrored, moves)


@dataclass(frozen=True)
class Changes:
    """What is done with each image of a batch."""

    mirrored: Tensor | None
    """bool (B,)."""

    moves: Tensor | None
    """Pixels down and right (2, B)."""

    def __getitem__(self, rows: slice) -> "Changes":
        """Those of some of the images."""
        return Changes(
            None if self.mirrored is None else self.mirrored[rows],
            None if self.moves is None else self.moves[:, rows],
        )

    def __call__(self, images: Tensor) -> Tensor:
        """New images (B, C, H, W); the same object where nothing is done."""
        if self.mirrored is not None:
            mirrored = self.mirrored.to(images.device)
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        if self.moves is not None:
            images = _shifted(images, self.moves.to(images.device)[:, :, None])
        return images


def _shifted(images: Tensor, moves: Tensor) -> Tensor:
    batch, channels, height, width = images.shape
    # A clamped source index is what repeats the edge.
    rows = (torch.arange(height, device=images.device) - moves[0]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=images.device) - moves[1]).clamp(0, width - 1)  # (B, W)
    image = torch.arange(batch, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
