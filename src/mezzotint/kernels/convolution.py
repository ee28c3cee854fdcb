"""3x3 convolutions with a quarter of the multiplications, and their gradients (Winograd).

    y = A^T [(G w G^T) * (B^T x B)] A,   summed over the channels of x

makes a tile of 4x4 outputs of 6x6 inputs x and a 3x3 window w (Lavin & Gray 2015, arXiv
1509.09308, section 4.3): 36 multiplications instead of 144. With V = B^T x B, U = G w G^T and M
their product, the gradients are the same matrices transposed:

    dL/dM = A dL/dy A^T,   dL/dx = B (dL/dM U^T) B^T,   dL/dw = G^T (V^T dL/dM) G

so one transform of dL/dy serves both. All is float32. Sums that almost cancel cost two bits: 1e-6
of a feature map's root mean square instead of 3e-7.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.kernels.bias import biased
from mezzotint.kernels.build import library
from mezzotint.kernels.calls import call, fits

__all__ = ["conv3x3", "convolution", "convolves"]

LEAST = 32
"""Tiles from which on the transform of the weights is worth its time."""

MOST = 1024
"""Tiles of an image, which passes through as a whole: more would leave every cache."""


def convolves(x: Tensor, weight: Tensor) -> bool:
    """Whether `convolution` is to be had, and faster than torch's, for these two.

    float32, not under autocast, channels in whole vectors of the processor's, no more than 128x128
    pixels, and neither a lone small image nor threads that the kernels were built without.
    """
    if not fits(x) or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if torch.is_autocast_enabled("cpu") or weight.device.type != "cpu":
        return False
    kernels = library()
    assert kernels is not None
    lanes = kernels.convolution_lanes()
    if not lanes or (torch.get_num_threads() > 1 and not kernels.convolution_threads()):
        return False
    batch, _, height, width = x.shape
    tiles = -(-height // 4) * -(-width // 4)
    if batch * tiles < LEAST or tiles > MOST:
        return False
    return not weight.shape[0] % lanes and not weight.shape[1] % lanes


def conv3x3(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None = None
) -> Tensor:
    """`convolution` where it is faster, else torch's: the same shapes, any type and device.

    residual  (B, D, H, W), added to the result; None: nothing
    """
    if x.is_cuda and bias is not None:
        return biased(F.conv2d(x, weight, padding=1), bias, residual)
    if convolves(x, weight) and (residual is None or residual.dtype == x.dtype):
        return convolution(x, weight, bias, residual)
    y = F.conv2d(x, weight, bias, padding=1)
    return y if residual is None else residual + y


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None = None
) -> Tensor:
    """x (B, C, H, W), weight (D, C, 3, 3), bias (D,) or None -> (B, D, H, W), channels_last.

    Stride 1, one row of zeros around; `residual`, of the result's shape, is added. Ask
    `convolves` first.
    """
    if x.dim() != 4 or weight.shape != (weight.shape[0], x.shape[1], 3, 3):
        raise ValueError(
            f"convolution wants (B, C, H, W) and (D, C, 3, 3), got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    made = x.shape[0], len(weight), *x.shape[2:]
    if residual is not None and residual.shape != made:
        raise ValueError(
            f"what is added has the result's shape {made}, not {tuple(residual.shape)}"
        )
    result: Tensor = _Convolution.apply(x, weight, bias, residual)  # type: ignore[no-untyped-call]
    return result


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None
    ) -> Tensor:
        batch, in_channels, height, width = x.shape
        made = len(weight)
        x = x.contiguous(memory_format=torch.channels_last)
        if residual is not None:
            residual = residual.contiguous(memory_format=torch.channels_last)
        y = torch.empty((batch, made, height, width), memory_format=torch.channels_last)
        ctx.sizes = batch, height, width, in_channels, made
        window = weight.permute(2, 3, 1, 0).contiguous()  # (3, 3, in_channels, made)
        offset = x.new_zeros(made) if bias is None else bias.contiguous()
        call("convolve", (x, window, offset, residual, y), ctx.sizes)
        of_x, of_weight, _, ctx.has_residual = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        batch, height, width, in_channels, made = ctx.sizes
        dresidual = dy if ctx.has_residual else None
        dy = dy.contiguous(memory_format=torch.channels_last)
        weight_t = dx = dw = dbias = None
        if weight is not None:
            weight_t = weight.permute(2, 3, 0, 1).contiguous()  # (3, 3, made, in_channels)
            dx = torch.empty(
                (batch, in_channels, height, width), memory_format=torch.channels_last
            )
        if x is not None:
            dw, dbias = dy.new_empty(3, 3, in_channels, made), dy.new_empty(made)
        call("convolve_back", (dy, weight_t, x, dx, dw, dbias), ctx.sizes)
        if not ctx.needs_input_grad[2]:
            dbias = None
        elif dbias is None:
            dbias = dy.sum((0, 2, 3))
        return dx, None if dw is None else dw.permute(3, 2, 0, 1), dbias, dresidual
