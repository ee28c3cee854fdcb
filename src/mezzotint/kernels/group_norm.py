"""GroupNorm, conditioning and activation in one pass, and their gradients in another.

    y = f(n (1 + scale) + shift),   n = gain (x - mean) / sqrt(variance + epsilon) + bias

mean and variance over the pixels and channels of each group of each image (Wu & He 2018, arXiv
1803.08494, equations 1 to 3); scale and shift per image and channel (FiLM: Perez et al. 2018,
arXiv 1709.07871), f the identity or silu. With g = dL/dy f', w = gain (1 + scale), x' the
normalised x, and means over each group:

    dL/dx = (w g - mean(w g) - x' mean(w g x')) / sqrt(variance + epsilon)
    dL/dgain = sum (1 + scale) g x',   dL/dbias = sum (1 + scale) g
    dL/dscale = sum g n,               dL/dshift = sum g

Only x and the two statistics are kept for the way back. Every image is one thread's work, so the
result does not depend on the number of threads.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.kernels.calls import KINDS, call

__all__ = ["group_norm"]


def group_norm(
    x: Tensor,
    groups: int,
    gain: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    *,
    epsilon: float,
    silu: bool,
) -> Tensor:
    """x float32 or bfloat16 (B, C, H, W), gain and bias (C,), scale and shift (B, C) or None.

    Returns (B, C, H, W) in x's type, channels_last. All is computed in float32.
    """
    if x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} channels cannot be {groups} equal groups")
    result: Tensor = _GroupNorm.apply(x, groups, gain, bias, scale, shift, epsilon, silu)
    return result


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        groups: int,
        gain: Tensor,
        bias: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        epsilon: float,
        silu: bool,
    ) -> Tensor:
        batch, width, height, across = x.shape
        x = x.contiguous(memory_format=torch.channels_last)
        gain, bias = (_plain(t, width) for t in (gain, bias))
        scale, shift = (None if t is None else _plain(t, batch, width) for t in (scale, shift))
        y = torch.empty_like(x)
        mean, inverse = gain.new_empty(2, batch, groups).unbind()
        ctx.sizes = batch, height * across, width, groups
        ctx.name = f"{KINDS[x.dtype]}_{'silu' if silu else 'linear'}"
        call(
            f"forward_{ctx.name}",
            (x, gain, bias, scale, shift, y, mean, inverse),
            ctx.sizes,
            epsilon,
        )
        ctx.save_for_backward(x, gain, bias, scale, shift, mean, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, bias, scale, shift, mean, inverse = ctx.saved_tensors
        batch, _, width, _ = ctx.sizes
        dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x)
        g, gx = gain.new_empty(2, batch, width).unbind()  # sums over pixels
        call(
            f"backward_{ctx.name}",
            (dy, x, gain, bias, scale, shift, mean, inverse, dx, g, gx),
            ctx.sizes,
        )
        one = 1.0 if scale is None else 1 + scale
        dscale = None if scale is None else gain * gx + bias * g
        dshift = None if shift is None else g
        return dx, None, (one * gx).sum(0), (one * g).sum(0), dscale, dshift, None, None


def _plain(tensor: Tensor, *shape: int) -> Tensor:
    """As the kernels read it, which trust that it is so."""
    return tensor.detach().to("cpu", torch.float32).expand(shape).contiguous()
