"""A convolution's bias for CUDA, in Triton: added in one pass, and its gradient in another.

    y = x + bias (+ other),   dL/dbias = sum over images and pixels of dL/dy

torch adds a bias along channels_last number by number, and sums its gradient at a tenth of the
memory's speed. Here a tile is some pixels times some channels that lie side by side. Sums are kept
in float32: each program's of its share of the pixels, then torch's of those.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["add", "total"]

TILE = 4096
"""Numbers that a program holds at once: 32 for each thread of four warps."""

MOST_COLUMNS = 128
PROGRAMS = 1024
"""As many as a large GPU has at work at once."""


def add(x: Tensor, bias: Tensor, other: Tensor | None) -> Tensor:
    """x and other (B, C, H, W) channels_last and of one type, bias (C,) -> like x."""
    count, width, columns, rows = _plan(x)
    y = torch.empty_like(x)
    grid = (triton.cdiv(count, rows), width // columns)
    with torch.cuda.device_of(x):
        _add[grid](x, bias, other, y, count, width, columns=columns, rows=rows)
    return y


def total(dy: Tensor) -> Tensor:
    """(B, C, H, W) channels_last -> (C,) in float32."""
    count, width, columns, rows = _plan(dy)
    tiles, across = triton.cdiv(count, rows), width // columns
    chunk = triton.cdiv(tiles, max(1, min(tiles, PROGRAMS // across))) * rows
    parts = triton.cdiv(count, chunk)
    sums = torch.empty((parts, width), dtype=torch.float32, device=dy.device)
    with torch.cuda.device_of(dy):
        _total[(parts, across)](dy, sums, count, chunk, width, columns=columns, rows=rows)
    return sums.sum(0)


def _plan(x: Tensor) -> tuple[int, int, int, int]:
    """Pixels of all images, channels, and a tile's columns and rows."""
    batch, width, height, across = x.shape
    columns = min(width & -width, MOST_COLUMNS)  # the largest power of two that divides it
    return batch * height * across, width, columns, TILE // columns


@triton.jit
def _add(
    x: tl.tensor,
    bias: tl.tensor,
    other: tl.tensor,
    y: tl.tensor,
    count: tl.tensor,
    width: tl.tensor,
    columns: tl.constexpr,
    rows: tl.constexpr,
) -> None:
    pixel = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    channel = tl.program_id(1) * columns + tl.arange(0, columns)
    at = pixel[:, None] * width + channel[None, :]
    inside = (pixel < count)[:, None]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + channel).to(tl.float32)[None, :]
    if other is not None:
        value += tl.load(other + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + at, value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _total(
    dy: tl.tensor,
    sums: tl.tensor,
    count: tl.tensor,
    chunk: tl.tensor,
    width: tl.tensor,
    columns: tl.constexpr,
    rows: tl.constexpr,
) -> None:
    part = tl.program_id(0)
    channel = tl.program_id(1) * columns + tl.arange(0, columns)
    first = part.to(tl.int64) * chunk
    left = tl.minimum(count - first, chunk).to(tl.int32)
    dy += first * width
    row = tl.arange(0, rows)
    of_all = tl.zeros((rows, columns), tl.float32)
    for start in range(0, left, rows):
        pixel = start + row
        at = pixel[:, None] * width + channel[None, :]
        of_all += tl.load(dy + at, mask=(pixel < left)[:, None], other=0.0).to(tl.float32)
    tl.store(sums + part * width + channel, tl.sum(of_all, 0))
