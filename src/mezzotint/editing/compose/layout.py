"""Layout: where the windows of a canvas stand.

A window is as large as the model's images and holds one class. How much of it a class fills is
asked of the model: its estimate from pure noise, D(x; sigma_max, label), is the mean image of the
class, and between the 2 % and 98 % quantiles of that image's ink over the columns lies the mean
box of its images (MNIST: to a pixel). Windows stand so that between the mean boxes of neighbours
a gap is left; they overlap where boxes are narrower than windows.

Ink is the difference from the ground, the colour around an image: black or white.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import InputError

__all__ = ["LARGEST", "Layout", "Room", "laid_out", "rooms"]

EDGE = 0.02
"""Share of the mean ink that lies beyond each end of a mean box."""

LARGEST = 256
"""Places on one canvas; all its windows are one batch of the network."""


@dataclass(frozen=True)
class Room:
    """The mean box of a class within its window, in pixels; `right` and `bottom` lie outside."""

    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Layout:
    """One canvas: its size, and the upper left corners and classes of its windows."""

    height: int
    width: int
    corners: tuple[tuple[int, int], ...]
    """(top, left) of each window."""

    labels: tuple[int, ...]
    """The class of each window."""


def rooms(means: Tensor, ground: float) -> list[Room]:
    """The mean boxes of classes from their mean images (N, C, H, W) in [-1, 1]."""
    found = []
    for ink in (means - ground).abs().mean(1):  # (H, W)
        # What hardly differs from the ground is the network's noise, not ink.
        ink = torch.where(ink > FAINT * ink.max(), ink, 0.0)
        left, right = _between(ink.sum(0))
        top, bottom = _between(ink.sum(1))
        found.append(Room(left, right, top, bottom))
    return found


FAINT = 0.05
"""Of the strongest mean ink: what is less is none."""


def _between(profile: Tensor) -> tuple[int, int]:
    """The pixels [first, last) that hold all but a share `EDGE` at each end."""
    share = profile.cumsum(0) / profile.sum()
    first = int((share >= EDGE).nonzero()[0])
    last = int((share >= 1 - EDGE).nonzero()[0])
    return first, last + 1


def laid_out(
    rows: Sequence[Sequence[int | None]],
    room: Sequence[Room],
    size: tuple[int, int],
    spacing: int,
) -> Layout:
    """A canvas of rows of places (None: a gap of half a window); `room` has an entry a class.

    size: (H, W) of a window.
    spacing: pixels between the mean boxes of neighbours, also of rows; negative: they interlock.
    """
    if (places := sum(map(len, rows))) > LARGEST:
        raise InputError(
            f"{places} places on one canvas: at most {LARGEST}, so make several of it"
        )
    height, width = size
    corners: list[tuple[int, int]] = []
    labels: list[int] = []
    used = [room[label] for row in rows for label in row if label is not None]
    line = max(r.bottom for r in used) - min(r.top for r in used) + spacing
    for number, row in enumerate(rows):
        end = 0  # of the mean box before, or of a gap
        for label in row:
            if label is None:
                end += width // 2
                continue
            left = end - room[label].left
            corners.append((number * max(1, line), left))
            labels.append(label)
            end = left + max(1, room[label].right + spacing)
    first = min(left for _, left in corners)
    corners = [(top, left - first) for top, left in corners]
    return Layout(
        max(top for top, _ in corners) + height,
        max(left for _, left in corners) + width,
        tuple(corners),
        tuple(labels),
    )
