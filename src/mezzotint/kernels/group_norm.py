"""GroupNorm, conditioning and activation in one pass, and their gradients in another.

    y = f(n (1 + scale) + shift),   n = gain (x - mean) / sqrt(variance + epsilon) + bias

mean and variance over the pixels and channels of each group of each image (Wu & He 2018, arXiv
1803.08494, equations 1 to 3); scale and shift per image and channel (FiLM: Perez et al. 2018,
arXiv 1709.07871), f the identity or silu. With g = dL/dy f', w = gain (1 + scale), x' the
normalised x, and means over each group:

    dL/dx = (w g - mean(w g) - x' mean(w g x')) / sqrt(variance + epsilon)
    dL/dgain = sum (1 + scale) g x',   dL/dbias = sum (1 + scale) g
    dL/dscale = sum g n,               dL/dshift = sum g

Only x and the two statistics are kept for the way back. On a CPU every image is one thread's work,
so the result does not depend on the number of threads; for CUDA see triton_group_norm.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.kernels.calls import KINDS, call

__all__ = ["Affine", "Norm", "group_norm"]


class Affine(NamedTuple):
    """What follows the normalisation: gain and bias (C,), scale and shift (B, C) or None."""

    gain: Tensor
    bias: Tensor
    scale: Tensor | None
    shift: Tensor | None


@dataclass(frozen=True)
class Norm:
    """What a pass computes, apart from its tensors."""

    groups: int
    epsilon: float
    silu: bool


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
    """x (B, C, H, W), gain and bias (C,), scale and shift (B, C) or None; ask `normalises` first.

    Returns (B, C, H, W) in x's type, channels_last. All is computed in float32.
    """
    if x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} channels cannot be {groups} equal groups")
    result: Tensor = _GroupNorm.apply(x, gain, bias, scale, shift, Norm(groups, epsilon, silu))  # type: ignore[no-untyped-call]
    return result


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor,
        bias: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        norm: Norm,
    ) -> Tensor:
        batch, width = x.shape[:2]
        x = x.contiguous(memory_format=torch.channels_last)
        gain, bias = (_plain(t, x, width) for t in (gain, bias))
        scale, shift = (None if t is None else _plain(t, x, batch, width) for t in (scale, shift))
        y: Tensor
        ctx.norm = norm
        forth, _ = _passes(x)
        y, mean, inverse = forth(x, Affine(gain, bias, scale, shift), norm)
        ctx.save_for_backward(x, gain, bias, scale, shift, mean, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, bias, scale, shift, mean, inverse = ctx.saved_tensors
        dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
        _, back = _passes(x)
        # g and gx: the sums over pixels of g and g x'
        dx, g, gx = back(dy, x, Affine(gain, bias, scale, shift), mean, inverse, ctx.norm)
        dscale = None if scale is None else torch.addcmul(bias * g, gain, gx)
        dshift = None if shift is None else g
        dgain = gx if scale is None else torch.addcmul(gx, scale, gx)
        dbias = g if scale is None else torch.addcmul(g, scale, g)
        return dx, dgain.sum(0), dbias.sum(0), dscale, dshift, None


def _plain(tensor: Tensor, x: Tensor, *shape: int) -> Tensor:
    """Return it as the kernels read it: on x's device, of this shape; float32 for CPUs."""
    tensor = tensor.detach().to(x.device).expand(shape)
    return tensor if x.is_cuda else tensor.float().contiguous()


def _passes(x: Tensor) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward for this tensor's device, as triton_group_norm.py describes them."""
    if not x.is_cuda:
        return _forward, _backward
    from mezzotint.kernels import triton_group_norm  # takes a second

    return triton_group_norm.forward, triton_group_norm.backward


def _forward(x: Tensor, affine: Affine, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    batch, width, height, across = x.shape
    y = torch.empty_like(x)
    mean, inverse = affine.gain.new_empty(2, batch, norm.groups).unbind()
    sizes = batch, height * across, width, norm.groups
    call(f"forward_{_name(x, norm.silu)}", (x, *affine, y, mean, inverse), sizes, norm.epsilon)
    return y, mean, inverse


def _backward(
    dy: Tensor, x: Tensor, affine: Affine, mean: Tensor, inverse: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    batch, width, height, across = x.shape
    dx = torch.empty_like(x)
    g, gx = affine.gain.new_empty(2, batch, width).unbind()
    tensors = dy, x, *affine, mean, inverse, dx, g, gx
    sizes = batch, height * across, width, norm.groups
    call(f"backward_{_name(x, norm.silu)}", tensors, sizes)
    return dx, g, gx


def _name(x: Tensor, silu: bool) -> str:
    return f"{KINDS[x.dtype]}_{'silu' if silu else 'linear'}"
