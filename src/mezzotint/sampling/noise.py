"""Unit noise of a batch of images, step after step, by either generator."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Literal

import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.runtime.noise import image_noise
from mezzotint.runtime.rng import generator

__all__ = ["image_keys", "noise_of"]


def image_keys(seed: int, indices: Tensor) -> Tensor:
    """Return the keys (seed, i) of images, int64 (N, 2); InputError for a seed beyond 64 bits."""
    if not -(2**63) <= seed < 2**63:
        raise InputError(f"the seed is {seed}, beyond 64 bits: give one of -2^63 to 2^63 - 1")
    return torch.stack([torch.full_like(indices, seed), indices], dim=1)


def noise_of(
    kind: Literal["philox", "torch"],
    keys: Tensor,
    shape: Sequence[int],
    device: str = "cpu",
    tiles: Tensor | None = None,
) -> Callable[[], Tensor]:
    """Return a function whose calls give the starting noise, then each fresh noise.

    Args:
        kind: the generator; see `Sampling.noise`.
        keys: int64 (N, 2), the (seed, i) of each image.
        shape: (C, H, W) of an image.
        device: where Philox draws; it must know float64.
        tiles: int64 (N,), the part of its canvas that each image is, in order; None: no canvas.

    Returns:
        A function of nothing; each call gives unit noise (N, C, H, W), float64 by Philox.
    """
    if kind == "torch":
        return _by_torch(keys, shape, tiles)
    seeds, indices = keys.to(device).T
    steps = count()
    return lambda: image_noise(seeds, indices, next(steps), shape, device, tiles)


def _by_torch(keys: Tensor, shape: Sequence[int], tiles: Tensor | None) -> Callable[[], Tensor]:
    """Return noise of torch's generators: runs made before Philox draw the same images again.

    A generator has 2^32 states, so some of 100,000 images share their noise.
    """
    first = [True] * len(keys) if tiles is None else (tiles == 0).tolist()
    draws: list[torch.Generator] = []
    for (seed, i), new in zip(keys.tolist(), first, strict=True):
        draws.append(generator("image", seed, i) if new else draws[-1])
    return lambda: torch.stack([torch.randn(*shape, generator=draw) for draw in draws])
