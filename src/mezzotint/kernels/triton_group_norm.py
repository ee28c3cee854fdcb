"""The passes of group_norm.py for CUDA, in Triton: the same formulas, two kernels each way.

An image is cut into `splits` parts of `chunk` pixels, a program each. The first kernel of a way
leaves its part's sums; the second adds those of its image, which are few, and writes the result.
It begins with the images that were read last, as they are still in the processor's cache.

Where channels lie side by side, a tile is some pixels times all channels: a lane for each channel,
the groups and their channels padded to powers of two, so that a group's sum is a reshape.

Statistics never see E[x^2] - E[x]^2. Every lane keeps the mean of its own numbers and the sum of
squares around that (Welford 1962, doi 10.1080/00401706.1962.10490022); lanes and parts are merged
as in Chan, Golub & LeVeque 1983 (doi 10.1080/00031305.1983.10483115):

    mean = sum n_i mean_i / N,   square = sum square_i + n_i (mean_i - mean)^2

All is computed in float32. Nothing waits for the device, so that a CUDA graph can hold it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from mezzotint.kernels.group_norm import Affine, Norm

__all__ = ["backward", "forward"]

TILE = 4096
"""Numbers that a program holds at once: 32 for each thread of four warps."""

PROGRAMS = 1024
"""As many as a large GPU has at work at once; more would only leave more sums to add."""

MOST = 32
"""Parts of an image, whose sums every program of the second kernel adds."""


def forward(x: Tensor, affine: Affine, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise x (B, C, H, W), channels_last.

    Returns y like x, and mean and 1 / sqrt(variance + epsilon), each (B, groups) in float32.
    """
    batch, pixels = len(x), x.shape[2] * x.shape[3]
    chunk, splits, lanes = _plan(x, norm.groups)
    affine, strides = _side_by_side(affine)
    y = torch.empty_like(x)
    means, squares = _new(x, 2, batch, splits, norm.groups)
    mean, inverse = _new(x, 2, batch, norm.groups)
    with torch.cuda.device_of(x):
        grid = (batch * splits,)
        _measure[grid](x, means, squares, pixels, chunk, splits, **lanes)
        _normalise[grid](
            *(x, *affine, y, means, squares, mean, inverse),
            *(pixels, chunk, splits, *strides, norm.epsilon),
            padded_splits=triton.next_power_of_2(splits),
            silu=norm.silu,
            **lanes,
        )
    return y, mean, inverse


def backward(
    dy: Tensor, x: Tensor, affine: Affine, mean: Tensor, inverse: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate: dy is like x, the rest is what `forward` was given and returned.

    Returns dx like x, and the sums over pixels of g and g x', each (B, C) in float32.
    """
    batch, width, height, across = x.shape
    pixels = height * across
    chunk, splits, lanes = _plan(x, norm.groups)
    affine, strides = _side_by_side(affine)
    dx = torch.empty_like(x)
    sums = _new(x, 2, batch, splits, width)
    of_groups = _new(x, 2, batch, splits, norm.groups)
    saved = dy, x, *affine, mean, inverse
    sizes = pixels, chunk, splits, *strides
    with torch.cuda.device_of(x):
        grid = (batch * splits,)
        _sum[grid](*saved, *sums, *of_groups, *sizes, silu=norm.silu, **lanes)
        _differentiate[grid](
            *(*saved, *of_groups, dx, *sizes),
            padded_splits=triton.next_power_of_2(splits),
            silu=norm.silu,
            **lanes,
        )
    g, gx = sums[:, :, 0] if splits == 1 else sums.sum(2)
    return dx, g, gx


def _plan(x: Tensor, groups: int) -> tuple[int, int, dict[str, int]]:
    """Pixels of a part, parts of an image, and what the kernels must know of a tile's shape."""
    batch, width, height, across = x.shape
    pixels, each = height * across, width // groups
    wide, deep = triton.next_power_of_2(groups), triton.next_power_of_2(each)
    rows = min(max(TILE // (wide * deep), 1), triton.next_power_of_2(max(pixels, 1)))
    tiles = max(triton.cdiv(pixels, rows), 1)
    splits = min(tiles, MOST, triton.cdiv(PROGRAMS, max(batch, 1)))
    chunk = triton.cdiv(tiles, splits) * rows
    lanes = {"groups": groups, "each": each, "wide": wide, "deep": deep, "rows": rows}
    return chunk, triton.cdiv(tiles * rows, chunk), lanes


def _side_by_side(affine: Affine) -> tuple[Affine, tuple[int, int]]:
    """Return it as the kernels read it, and the distances between rows of scale and of shift."""
    (scale, scale_stride), (shift, shift_stride) = _rows(affine.scale), _rows(affine.shift)
    plain = Affine(affine.gain.contiguous(), affine.bias.contiguous(), scale, shift)
    return plain, (scale_stride, shift_stride)


def _rows(tensor: Tensor | None) -> tuple[Tensor | None, int]:
    """With the numbers of a row side by side, and the distance from row to row."""
    if tensor is None:
        return None, 0
    tensor = tensor if tensor.stride(1) == 1 else tensor.contiguous()
    return tensor, tensor.stride(0)


def _new(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x.device)


# --- on the device ----------------------------------------------------------------------------
# Everywhere `groups` groups of `each` channels, padded to `wide` and `deep`, `rows` pixels a tile.


@triton.jit
def _part(
    program: tl.tensor, pixels: tl.tensor, chunk: tl.tensor, splits: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """A program's image, and its first pixel there and the one after its last."""
    first = (program % splits).to(tl.int32) * chunk
    return program // splits, first, tl.minimum(first + chunk, pixels)


@triton.jit
def _lanes(
    groups: tl.constexpr, each: tl.constexpr, wide: tl.constexpr, deep: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Of each lane the channel and its group, and whether there is such a channel."""
    lane = tl.arange(0, wide * deep)
    group = lane // deep
    place = lane % deep
    return group * each + place, group, (group < groups) & (place < each)


@triton.jit
def _by_group(values: tl.tensor, wide: tl.constexpr, deep: tl.constexpr) -> tl.tensor:
    """Sums over all rows and each group's lanes: (rows, wide * deep) -> (wide,)."""
    return tl.sum(tl.reshape(tl.sum(values, 0), (wide, deep)), 1)


@triton.jit
def _to_lanes(values: tl.tensor, wide: tl.constexpr, deep: tl.constexpr) -> tl.tensor:
    """Each group's number for all its lanes: (wide,) -> (1, wide * deep)."""
    return tl.reshape(tl.broadcast_to(values[:, None], (wide, deep)), (1, wide * deep))


@triton.jit
def _merge(
    count: tl.tensor, mean: tl.tensor, square: tl.tensor, wide: tl.constexpr, deep: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Counts, means and squares around them (rows, wide * deep) -> those of each group (wide,)."""
    total = _by_group(count, wide, deep)
    some = tl.maximum(total, 1.0)  # lanes that only pad have none
    about = _by_group(count * mean, wide, deep) / some
    away = mean - _to_lanes(about, wide, deep)
    # What the sum of large numbers lost is in the sum of their distances.
    rest = _by_group(count * away, wide, deep) / some
    square = _by_group(square + count * away * away, wide, deep) - total * rest * rest
    return total, about + rest, tl.where(square < 0.0, 0.0, square)  # NaN stays NaN


@triton.jit
def _line(
    gain: tl.tensor,
    bias: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    image: tl.tensor,
    scale_stride: tl.tensor,
    shift_stride: tl.tensor,
    channel: tl.tensor,
    real: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """w and b (1, lanes) of n (1 + scale) + shift = w x' + b."""
    w = tl.load(gain + channel, mask=real, other=0.0).to(tl.float32)
    b = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
    if scale is not None:
        at = scale + image * scale_stride + channel
        one = 1.0 + tl.load(at, mask=real, other=0.0).to(tl.float32)
        w = w * one
        b = b * one
    if shift is not None:
        at = shift + image * shift_stride + channel
        b = b + tl.load(at, mask=real, other=0.0).to(tl.float32)
    return w[None, :], b[None, :]


@triton.jit
def _gradient(
    dy: tl.tensor,
    x: tl.tensor,
    inside: tl.tensor,
    m: tl.tensor,
    r: tl.tensor,
    w: tl.tensor,
    b: tl.tensor,
    silu: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """x' and g = dL/dy f'(z) of a tile."""
    normal = (tl.load(x, mask=inside, other=0.0).to(tl.float32) - m) * r
    g = tl.load(dy, mask=inside, other=0.0).to(tl.float32)
    if silu:
        z = normal * w + b
        s = 1.0 / (1.0 + tl.exp(-z))
        g = g * s * (1.0 + z * (1.0 - s))
    return normal, g


@triton.jit
def _measure(
    x: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    pixels: tl.tensor,
    chunk: tl.tensor,
    splits: tl.tensor,
    groups: tl.constexpr,
    each: tl.constexpr,
    wide: tl.constexpr,
    deep: tl.constexpr,
    rows: tl.constexpr,
) -> None:
    """Mean and sum of squares around it, (B, splits, groups), of each group in each part."""
    program = tl.program_id(0).to(tl.int64)
    image, first, last = _part(program, pixels, chunk, splits)
    channel, _, real = _lanes(groups, each, wide, deep)
    row = tl.arange(0, rows)
    x += image * pixels * (groups * each)

    mean = tl.zeros((rows, wide * deep), tl.float32)
    square = tl.zeros((rows, wide * deep), tl.float32)
    seen = 0.0
    for start in range(first, last, rows):
        pixel = (start + row)[:, None]
        inside = (pixel < last) & real[None, :]
        at = pixel * (groups * each) + channel[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        d = tl.where(inside, value - mean, 0.0)
        seen += 1.0
        share = 1.0 / seen
        mean += d * share
        square += d * d * (1.0 - share)

    count = ((last - first - row + rows - 1) // rows).to(tl.float32)[:, None]
    count = tl.where(real[None, :], count, 0.0)
    _, mean_g, square_g = _merge(count, mean, square, wide, deep)
    group = tl.arange(0, wide)
    tl.store(means + program * groups + group, mean_g, mask=group < groups)
    tl.store(squares + program * groups + group, square_g, mask=group < groups)


@triton.jit
def _normalise(
    x: tl.tensor,
    gain: tl.tensor,
    bias: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    y: tl.tensor,
    means: tl.tensor,
    squares: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    pixels: tl.tensor,
    chunk: tl.tensor,
    splits: tl.tensor,
    scale_stride: tl.tensor,
    shift_stride: tl.tensor,
    epsilon: tl.tensor,
    padded_splits: tl.constexpr,
    silu: tl.constexpr,
    groups: tl.constexpr,
    each: tl.constexpr,
    wide: tl.constexpr,
    deep: tl.constexpr,
    rows: tl.constexpr,
) -> None:
    """y, and each group's mean and inverse deviation (B, groups)."""
    program = tl.num_programs(0) - 1 - tl.program_id(0).to(tl.int64)
    image, first, last = _part(program, pixels, chunk, splits)
    channel, _, real = _lanes(groups, each, wide, deep)

    part = tl.arange(0, padded_splits)[:, None]
    group = tl.arange(0, wide)
    there = (part < splits) & (group < groups)[None, :]
    place = (image * splits + part) * groups + group[None, :]
    count = tl.where(there, tl.minimum(pixels - part * chunk, chunk) * each, 0).to(tl.float32)
    m = tl.load(means + place, mask=there, other=0.0)
    square = tl.load(squares + place, mask=there, other=0.0)
    total, m, square = _merge(count, m, square, wide, 1)
    r = 1.0 / tl.sqrt(square / tl.maximum(total, 1.0) + epsilon)
    if first == 0:
        tl.store(mean + image * groups + group, m, mask=group < groups)
        tl.store(inverse + image * groups + group, r, mask=group < groups)

    m = _to_lanes(m, wide, deep)
    r = _to_lanes(r, wide, deep)
    w, b = _line(gain, bias, scale, shift, image, scale_stride, shift_stride, channel, real)
    w = w * r
    x += image * pixels * (groups * each)
    y += image * pixels * (groups * each)
    row = tl.arange(0, rows)
    for start in range(first, last, rows):
        pixel = (start + row)[:, None]
        inside = (pixel < last) & real[None, :]
        at = pixel * (groups * each) + channel[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        z = (value - m) * w + b
        if silu:
            z = z / (1.0 + tl.exp(-z))
        tl.store(y + at, z.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _sum(
    dy: tl.tensor,
    x: tl.tensor,
    gain: tl.tensor,
    bias: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    sum_g: tl.tensor,
    sum_gx: tl.tensor,
    group_g: tl.tensor,
    group_gx: tl.tensor,
    pixels: tl.tensor,
    chunk: tl.tensor,
    splits: tl.tensor,
    scale_stride: tl.tensor,
    shift_stride: tl.tensor,
    silu: tl.constexpr,
    groups: tl.constexpr,
    each: tl.constexpr,
    wide: tl.constexpr,
    deep: tl.constexpr,
    rows: tl.constexpr,
) -> None:
    """Sums over each part's pixels: of g and g x' (B, splits, C), of w g and w g x' by group."""
    program = tl.program_id(0).to(tl.int64)
    image, first, last = _part(program, pixels, chunk, splits)
    channel, group, real = _lanes(groups, each, wide, deep)
    w, b = _line(gain, bias, scale, shift, image, scale_stride, shift_stride, channel, real)
    m = tl.load(mean + image * groups + group, mask=real, other=0.0)[None, :]
    r = tl.load(inverse + image * groups + group, mask=real, other=0.0)[None, :]
    row = tl.arange(0, rows)
    dy += image * pixels * (groups * each)
    x += image * pixels * (groups * each)

    all_g = tl.zeros((rows, wide * deep), tl.float32)
    all_gx = tl.zeros((rows, wide * deep), tl.float32)
    for start in range(first, last, rows):
        pixel = (start + row)[:, None]
        inside = (pixel < last) & real[None, :]
        at = pixel * (groups * each) + channel[None, :]
        normal, g = _gradient(dy + at, x + at, inside, m, r, w, b, silu)
        all_g += tl.where(inside, g, 0.0)
        all_gx += tl.where(inside, g * normal, 0.0)

    tl.store(sum_g + program * (groups * each) + channel, tl.sum(all_g, 0), mask=real)
    tl.store(sum_gx + program * (groups * each) + channel, tl.sum(all_gx, 0), mask=real)
    one = tl.arange(0, wide)
    of_g = _by_group(all_g * w, wide, deep)
    of_gx = _by_group(all_gx * w, wide, deep)
    tl.store(group_g + program * groups + one, of_g, mask=one < groups)
    tl.store(group_gx + program * groups + one, of_gx, mask=one < groups)


@triton.jit
def _differentiate(
    dy: tl.tensor,
    x: tl.tensor,
    gain: tl.tensor,
    bias: tl.tensor,
    scale: tl.tensor,
    shift: tl.tensor,
    mean: tl.tensor,
    inverse: tl.tensor,
    group_g: tl.tensor,
    group_gx: tl.tensor,
    dx: tl.tensor,
    pixels: tl.tensor,
    chunk: tl.tensor,
    splits: tl.tensor,
    scale_stride: tl.tensor,
    shift_stride: tl.tensor,
    padded_splits: tl.constexpr,
    silu: tl.constexpr,
    groups: tl.constexpr,
    each: tl.constexpr,
    wide: tl.constexpr,
    deep: tl.constexpr,
    rows: tl.constexpr,
) -> None:
    """dx = (w g - mean(w g) - x' mean(w g x')) inverse."""
    program = tl.num_programs(0) - 1 - tl.program_id(0).to(tl.int64)
    image, first, last = _part(program, pixels, chunk, splits)
    channel, group, real = _lanes(groups, each, wide, deep)
    w, b = _line(gain, bias, scale, shift, image, scale_stride, shift_stride, channel, real)
    m = tl.load(mean + image * groups + group, mask=real, other=0.0)[None, :]
    r = tl.load(inverse + image * groups + group, mask=real, other=0.0)[None, :]

    part = tl.arange(0, padded_splits)[:, None]
    one = tl.arange(0, wide)[None, :]
    there = (part < splits) & (one < groups)
    place = (image * splits + part) * groups + one
    share = 1.0 / (pixels * each)
    of_g = tl.sum(tl.load(group_g + place, mask=there, other=0.0), 0) * share
    of_gx = tl.sum(tl.load(group_gx + place, mask=there, other=0.0), 0) * share
    of_g = _to_lanes(of_g, wide, deep)
    of_gx = _to_lanes(of_gx, wide, deep)

    row = tl.arange(0, rows)
    dy += image * pixels * (groups * each)
    x += image * pixels * (groups * each)
    dx += image * pixels * (groups * each)
    for start in range(first, last, rows):
        pixel = (start + row)[:, None]
        inside = (pixel < last) & real[None, :]
        at = pixel * (groups * each) + channel[None, :]
        normal, g = _gradient(dy + at, x + at, inside, m, r, w, b, silu)
        value = (g * w - of_g - normal * of_gx) * r
        tl.store(dx + at, value.to(dx.dtype.element_ty), mask=inside)
