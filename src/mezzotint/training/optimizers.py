"""Muon for the matrices of inner layers, and AdamW for all other parameters.

Muon orthogonalizes the momentum of each matrix before it updates the weights.

The update of a weight matrix W (rows, columns) with gradient G, momentum b and learning rate lr:

    M <- b M + (1 - b) G,   U = b M + (1 - b) G (Nesterov; the scale of both does not matter),
    W <- W (1 - lr decay) - lr 0.2 sqrt(max(rows, columns)) O(U)

O(U) = A B^T for the singular value decomposition U = A S B^T, so all singular directions of the
layer learn equally fast (Jordan et al. 2024, kellerjordan.github.io/posts/muon). The factor gives
the entries of the update AdamW's usual size of 0.2. So both can use the same learning rate (Liu
et al. 2025, arXiv 2502.16982, equation 4). A convolution is the matrix (out, in x height x width).

O is computed by five steps of X <- 3.4445 X - 4.7750 (X X^T) X + 2.0315 (X X^T)^2 X from U / |U|.
They bring all singular values to about 0.7 ... 1.2 (Jordan et al.). Matrices of the same shape are
batched. Matrices of convolutions often have at least twice as many columns as rows. For them the
steps use the small square S = X X^T alone, with P = 3.4445 - 4.7750 S + 2.0315 S^2:

    Q <- P Q,   S <- P S P,   and at the end  O = Q X

This takes a third of the time. It needs float32, because S holds squared singular values.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

__all__ = ["Muon"]

MOMENTUM = 0.95
STEPS = 5
COEFFICIENTS = 3.4445, -4.7750, 2.0315
MIN_MATRIX_SIDE = 16
"""Smallest number of rows and of columns of a matrix that Muon updates.

Thinner matrices touch the image or are embedding tables of few classes. In a larger table, the
rows of classes that a batch lacks move by their momentum alone.
"""


class Muon(torch.optim.Optimizer):
    """Muon for matrices and AdamW for all other parameters, as two parameter groups."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        weight_decay: float = 0.0,
        *,
        fused: bool = False,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Split the parameters into the two groups.

        Args:
            parameters: Tensors to update.
            lr: Learning rate of both groups.
            weight_decay: Decoupled weight decay of both groups.
            fused: Whether AdamW runs as one fused kernel.
            precision: Dtype of the matrix products that orthogonalize the momentum.

        """
        inner: list[Tensor] = []
        other: list[Tensor] = []
        for parameter in parameters:
            (inner if _is_matrix(parameter) else other).append(parameter)
        groups = [{"params": inner, "muon": True}, {"params": other, "muon": False}]
        defaults = {"lr": lr, "weight_decay": weight_decay, "fused": fused}
        super().__init__([group for group in groups if group["params"]], defaults)
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            chosen = [p for p in group["params"] if p.grad is not None]
            (self._muon if group["muon"] else self._adamw)(group, chosen)

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        if not parameters:
            return
        for p in parameters:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        nesterov = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        alike = defaultdict(list)
        for p, update in zip(parameters, nesterov, strict=True):
            alike[_rows_columns(p)].append((p, update))
        for (rows, columns), same in alike.items():
            updates = torch.stack([_matrix(update, p) for p, update in same])
            size = group["lr"] * 0.2 * max(rows, columns) ** 0.5
            step = orthogonal(updates.to(self.precision)).to(updates.dtype) * size
            weights = [_matrix(p, p) for p, _ in same]
            if group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_sub_(weights, list(step.unbind()))

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for p in parameters:
            if not self.state[p]:
                zero = torch.zeros((), dtype=torch.float32, device=p.device)
                both = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                self.state[p] = {"step": zero, **both}
        rows = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters],  # type: ignore[misc]
            [row["exp_avg"] for row in rows],
            [row["exp_avg_sq"] for row in rows],
            [],
            [row["step"] for row in rows],
            fused=group["fused"],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def orthogonal(x: Tensor) -> Tensor:
    """Bring the singular values of x (N, rows, columns) near 1, with the same singular vectors."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    wide = x.shape[2] >= 2 * x.shape[1] and x.dtype.itemsize >= 4
    x = _by_squares(x) if wide else _by_steps(x)
    return x.mT if tall else x


def _by_steps(x: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)
    return x


def _by_squares(x: Tensor) -> Tensor:
    """Compute `_by_steps(x)` with products of the small square x x^T.

    Results differ by rounding: 1e-4 if singular values differ by a factor of 10,000.
    """
    a, b, c = COEFFICIENTS
    s, q = x @ x.mT, None
    for step in range(STEPS):
        p = torch.baddbmm(s, s, s, beta=b, alpha=c)
        p.diagonal(dim1=1, dim2=2).add_(a)
        q = p if q is None else p @ q
        s = p @ s @ p if step < STEPS - 1 else s
    assert q is not None
    return q @ x


def _matrix(tensor: Tensor, p: Tensor) -> Tensor:
    """Return a tensor shaped like p as (rows, columns), with the columns in p's memory order.

    So the result for p itself is a view. Orthogonalization does not depend on the column order.
    """
    if p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last):
        tensor = tensor.permute(0, 2, 3, 1)  # (out, height, width, in)
    return tensor.flatten(1)


def _rows_columns(p: Tensor) -> tuple[int, int]:
    return p.shape[0], p[0].numel()


def _is_matrix(p: Tensor) -> bool:
    return p.dim() > 1 and min(_rows_columns(p)) >= MIN_MATRIX_SIDE
