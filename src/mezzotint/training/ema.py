"""The exponential moving average of the weights, with a power profile.

After each step

    ema = beta * ema + (1 - beta) * weights    with beta = (1 - batch / images_seen)^(gamma + 1)

The average spans a fixed share of the training so far, and needs no warm-up. The share is set by
its relative standard deviation, width = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)).

Karras et al. 2024 (arXiv 2312.02696), equations 121 to 127.
"""

from functools import cache

import torch
from torch import Tensor, nn

__all__ = ["gamma", "update_ema"]


@cache
def gamma(width: float) -> float:
    """Return the exponent gamma of a profile with this relative width, in (0, 0.28]."""
    if not 0 < width <= 0.28:
        raise ValueError(f"the width of the weight average lies in (0, 0.28], got {width}")
    low, high = 0.0, 1e8
    for _ in range(200):
        middle = (low + high) / 2
        wide = (middle + 1) ** 0.5 / ((middle + 2) * (middle + 3) ** 0.5)
        low, high = (middle, high) if wide > width else (low, middle)
    return low


@torch.no_grad()
def update_ema(
    ema: nn.Module, network: nn.Module, width: float, batch: int, images_seen: int
) -> None:
    """Move `ema` towards `network` after a step of `batch` images; width 0 copies.

    images_seen counts this step's images. Buffers (running averages of BatchNorm) are copied.
    """
    keep = (1 - batch / images_seen) ** (gamma(width) + 1) if width > 0 else 0.0
    ours: list[Tensor] = list(ema.parameters())
    theirs: list[Tensor] = list(network.parameters())
    torch._foreach_lerp_(ours, theirs, 1 - keep)
    for mine, yours in zip(ema.buffers(), network.buffers(), strict=True):
        mine.copy_(yours)
