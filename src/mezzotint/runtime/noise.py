"""Noise of images as a function of (seed, i), in a form that any language can repeat.

The words come from Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2,
3"), the normals from Box and Muller. All integers are unsigned. `>>` shifts right, `^` is the
exclusive or, `hi` and `lo` are the upper and the lower 32 bits of a product of 64 bits.

Philox maps a counter (c0, c1, c2, c3) and a key (k0, k1) to four words. It repeats this round ten
times, and adds 0x9E3779B9 to k0 and 0xBB67AE85 to k1, modulo 2^32, between two rounds:

    a = 0xD2511F53 * c0
    b = 0xCD9E8D57 * c2
    (c0, c1, c2, c3) = (hi(b) ^ c1 ^ k0, lo(b), hi(a) ^ c3 ^ k1, lo(a))

Image i of a seed has n = C * H * W numbers, in row-major order of (C, H, W). Seeds and indices are
integers of 64 bits; negative ones count as their two's complement. At a step, in float64:

    key     = (seed mod 2^32, seed >> 32)
    counter = (block, step, i mod 2^32, i >> 32)
    w0, w1, w2, w3 = philox(counter, key)
    u = ((w0 >> 6) * 2^26 + (w1 >> 6) + 0.5) / 2^52      in (0, 1), no rounding
    v = ((w2 >> 6) * 2^26 + (w3 >> 6) + 0.5) / 2^52
    even = sqrt(-2 ln u) cos(2 pi v)
    odd  = sqrt(-2 ln u) sin(2 pi v)

Number p of the image is `even` (p even) or `odd` (p odd) of block p // 2. Step 0 is the starting
noise; step k >= 1 is the k-th fresh noise of a sampler that adds some. A canvas of several parts
of n numbers each has one (seed, i): part w begins at block w * ceil(n / 2).

For one key Philox is a permutation of its counters, so no two blocks of a seed are alike. torch's
C++ class `at::Philox4_32(seed, i, 2^32 * step + block)` gives the same words.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["image_noise", "philox"]

LOW = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the four words of Philox4x32-10, int64 tensors in [0, 2^32).

    Args:
        counter: four int64 tensors in [0, 2^32) that broadcast with each other and the key.
        key: two int64 tensors in [0, 2^32).
    """
    c0, c1, c2, c3, k0, k1 = torch.broadcast_tensors(*counter, *key)
    k0, k1 = key
    for i in range(ROUNDS):
        if i > 0:
            k0, k1 = (k0 + INCREMENTS[0]) & LOW, (k1 + INCREMENTS[1]) & LOW
        # int64 keeps a product modulo 2^64. The shift copies the sign; the mask removes it.
        a, b = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0 = (b >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(LOW)
        c2 = (a >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(LOW)
        c1, c3 = b, a  # the upper halves fall to the masks, here and below
    return c0, c1 & LOW, c2, c3 & LOW


def image_noise(
    seeds: Tensor,
    indices: Tensor,
    step: int,
    shape: Sequence[int],
    device: torch.device | str = "cpu",
    tiles: Tensor | None = None,
) -> Tensor:
    """Return the unit noise of images at a step, float64 (N, *shape).

    The bits of a row depend on its own seed, index and part alone, on one kind of processor.

    Args:
        seeds: int64 (N,).
        indices: int64 (N,), the i of each image.
        step: 0 for the starting noise, k for the k-th fresh noise; in [0, 2^32).
        shape: (C, H, W) of an image.
        device: where to draw; it must know float64.
        tiles: int64 (N,), the part w of its canvas that each image is; None: 0.
    """
    count = math.prod(shape)
    pairs = (count + 1) // 2
    seeds, indices = (x.to(device)[:, None] for x in (seeds, indices))
    blocks = torch.arange(pairs, device=device)
    if tiles is not None:
        blocks = blocks + tiles.to(device)[:, None] * pairs
    counter = (blocks, torch.full_like(blocks, step), *_words(indices))
    w0, w1, w2, w3 = philox(counter, _words(seeds))
    radius = _uniform(w0, w1).log_().mul_(-2).sqrt_()
    angle = _uniform(w2, w3).mul_(2 * math.pi)
    normals = torch.empty((*radius.shape, 2), dtype=torch.float64, device=device)
    torch.mul(radius, angle.cos(), out=normals[..., 0])
    torch.mul(radius, angle.sin(), out=normals[..., 1])
    return normals.flatten(1)[:, :count].reshape(-1, *shape)


def _words(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower and the upper 32 bits of int64 numbers."""
    return x & LOW, (x >> 32) & LOW


def _uniform(high: Tensor, low: Tensor) -> Tensor:
    """Return numbers in (0, 1) from the upper 26 bits of two words, float64."""
    return ((high >> 6 << 26) + (low >> 6)).double().add_(0.5).mul_(2.0**-52)
