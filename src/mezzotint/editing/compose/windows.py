"""Windows: neighbours on one canvas that keep clear of each other, drawn together.

A canvas is the ground with the ink of its windows on it; each window is an image of the model,
with its own label and its own noise, x_i = ground + ink_i + sigma eps_i, all of them one batch of
the network. Drawn each for itself and pasted, neighbours that stand as close as in handwriting run
into each other. So what is drawn is not the product of the windows' distributions but

    p(ink_1, ..., ink_n) ~ prod_i p(ink_i | label_i) exp(-strength sum_{i<j} <ink_i, B ink_j>)

where <,> is the sum over the pixels of the canvas and B the mean over the pixels around, so
that strokes shun each other before they touch. Given its neighbours' ink r_i = sum_j ink_j, the
factor is exponential in ink_i, and completing the square in |x_i - ground - ink_i|^2 / (2 sigma^2)
moves it into x:

    D'(x_i; sigma) = D(x_i - strength sigma^2 B r_i; sigma, label_i)

That is the exact denoiser of the window among known neighbours; with r_i from a first look,
ink_j = D(x_j) - ground, it is one round of the mean-field equations. It takes two evaluations a
window where windows overlap, one where none do.

At every step the canvas so acts on its windows, and each window only ever sees an image like those
it was trained on. MultiDiffusion (Bar-Tal et al. 2023, arXiv 2302.08113, equation 5) shares one
noisy canvas instead, and fuses the estimates by their weighted mean: then a window sees at its rim
its neighbours' ink, as it never did in training, and leaves seams (docs/editing.md has numbers).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.diffusion import Denoise
from mezzotint.editing.compose.layout import Layout

__all__ = ["Windows"]

STRENGTH = 1.0
"""What a pixel of ink on a pixel of a neighbour's ink costs, per square of the difference from the
ground: black on white, 4 nats."""

REACH = 14
"""Windows are so many times as wide as B reaches to each side: 2 pixels of 28, a square of 5."""


@dataclass(frozen=True)
class Windows:
    """The windows of a batch of canvases, canvas after canvas.

    layouts  one a canvas; smaller canvases are filled up to the largest
    size     (H, W) of a window
    ground   the colour in [-1, 1] of what no ink covers
    """

    layouts: Sequence[Layout]
    size: tuple[int, int]
    ground: float = -1.0

    def __len__(self) -> int:
        """The number of windows."""
        return len(self._places)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the canvases, the largest in each direction."""
        return max(at.height for at in self.layouts), max(at.width for at in self.layouts)

    @property
    def labels(self) -> Tensor:
        """The classes of all windows, int64 (N,)."""
        return torch.tensor([label for at in self.layouts for label in at.labels])

    @cached_property
    def _places(self) -> list[tuple[int, slice, slice]]:
        """(canvas, rows, columns) of each window."""
        height, width = self.size
        return [
            (i, slice(top, top + height), slice(left, left + width))
            for i, at in enumerate(self.layouts)
            for top, left in at.corners
        ]

    def cut(self, canvases: Tensor) -> Tensor:
        """What lies in each window: (B, C, H', W') -> (N, C, H, W)."""
        return torch.stack([canvases[i, :, rows, columns] for i, rows, columns in self._places])

    def add(self, windows: Tensor) -> Tensor:
        """The sum of the windows, each in its place: (N, C, H, W) -> (B, C, H', W')."""
        canvases = windows.new_zeros(len(self.layouts), windows.shape[1], *self.shape)
        for (i, rows, columns), window in zip(self._places, windows, strict=True):
            canvases[i, :, rows, columns] += window
        return canvases

    def joined(self, x0: Tensor) -> Tensor:
        """The canvases: (N, C, H, W) -> (B, C, H', W'); of two inks the stronger is seen."""
        canvases = x0.new_zeros(len(self.layouts), x0.shape[1], *self.shape)
        for (i, rows, columns), ink in zip(self._places, x0 - self.ground, strict=True):
            under = canvases[i, :, rows, columns]
            canvases[i, :, rows, columns] = torch.where(ink.abs() > under.abs(), ink, under)
        return self.ground + canvases

    @cached_property
    def overlapping(self) -> bool:
        """Whether any two windows share a pixel."""
        return bool((self.add(torch.ones(len(self), 1, *self.size)) > 1).any())

    def around(self, ink: Tensor) -> Tensor:
        """B r: the neighbours' ink about each pixel of each window, (N, C, H, W) both."""
        reach = round(self.size[1] / REACH)
        others = self.cut(self.add(ink)) - ink
        return F.avg_pool2d(others, 2 * reach + 1, 1, reach)

    def apart(self, denoise: Denoise) -> Denoise:
        """The denoiser of windows that keep clear of each other, made of that of windows alone."""
        if not self.overlapping:
            return denoise

        def kept_apart(x: Tensor, sigma: Tensor) -> Tensor:
            # Estimates may overshoot; times sigma^2, ink that cannot be would be all there is.
            ink = denoise(x, sigma).clamp(-1, 1) - self.ground
            return denoise(x - STRENGTH * sigma**2 * self.around(ink), sigma)

        return kept_apart
