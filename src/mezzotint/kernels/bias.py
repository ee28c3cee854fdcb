"""Add a bias and a residual in one pass; in Triton where that takes the tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.kernels.calls import on_triton

__all__ = ["biased"]

LEAST = 8
"""Channels that must lie side by side, in whole such numbers."""


def biased(x: Tensor, bias: Tensor, other: Tensor | None = None) -> Tensor:
    """x (B, C, H, W) + bias (C,) + other (B, C, H, W) -> (B, C, H, W)."""
    if x.shape[1] % LEAST or not on_triton(x):
        y = x + bias[:, None, None].to(x.dtype)  # (C, 1, 1)
        return y if other is None else y + other
    if other is not None and other.dtype != x.dtype:
        return biased(x, bias) + other
    result: Tensor = _Biased.apply(x, bias, other)  # type: ignore[no-untyped-call]
    return result


class _Biased(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor, other: Tensor | None) -> Tensor:
        from mezzotint.kernels import triton_bias

        ctx.has_residual, ctx.kind = other is not None, bias.dtype
        x = x.contiguous(memory_format=torch.channels_last)
        if other is not None:
            other = other.contiguous(memory_format=torch.channels_last)
        return triton_bias.add(x, bias.detach().contiguous(), other)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from mezzotint.kernels import triton_bias

        dy = dy.contiguous(memory_format=torch.channels_last)
        dbias = triton_bias.total(dy).to(ctx.kind) if ctx.needs_input_grad[1] else None
        return dy, dbias, dy if ctx.has_residual else None
