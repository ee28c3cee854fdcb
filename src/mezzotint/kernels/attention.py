"""Attention whose table of weights never leaves a core's cache, and its gradient.

    y_i = sum_j p_ij v_j,   p_ij = exp(s_ij) / sum_k exp(s_ik),   s_ij = q_i . k_j / sqrt(D)

(Vaswani et al. 2017, arXiv 1706.03762, equation 1.) With g = dL/dy and
c_ij = p_ij (g_i . v_j - g_i . y_i) = dL/ds_ij:

    dL/dq_i = sum_j c_ij k_j / sqrt(D),  dL/dk_j = sum_i c_ij q_i / sqrt(D),
    dL/dv_j = sum_i p_ij g_i

Kept for the way back are y and log sum_k exp(s_ik), from which p is computed anew (Dao et al.
2022, arXiv 2205.14135, appendix B). Every head of every image is one thread's work, so the result
does not depend on the number of threads.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mezzotint.kernels.calls import KINDS, call

__all__ = ["attention"]


def attention(qkv: Tensor) -> Tensor:
    """Queries, keys and values, float32 or bfloat16 (B, N, 3, heads, D) -> (B, N, heads, D).

    All is computed in float32.
    """
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise ValueError(f"attention wants (B, N, 3, heads, D), got {tuple(qkv.shape)}")
    result: Tensor = _Attention.apply(qkv)  # type: ignore[no-untyped-call]
    return result


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor) -> Tensor:
        batch, tokens, _, heads, width = qkv.shape
        qkv = qkv.contiguous()
        y = qkv.new_empty(batch, tokens, heads, width)
        sums = qkv.new_empty(batch, heads, tokens, dtype=torch.float32)
        ctx.sizes, ctx.scale = (batch, tokens, heads, width), width**-0.5
        call(f"attend_{KINDS[qkv.dtype]}", (qkv, y, sums), ctx.sizes, ctx.scale)
        ctx.save_for_backward(qkv, y, sums)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        qkv, y, sums = ctx.saved_tensors
        dqkv = torch.empty_like(qkv)
        tensors = dy.to(qkv.dtype).contiguous(), qkv, y, sums, dqkv
        call(f"attend_back_{KINDS[qkv.dtype]}", tensors, ctx.sizes, ctx.scale)
        return dqkv
