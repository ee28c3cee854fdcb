"""The loss of one image: a weighted squared error of the denoiser, D(x0 + sigma eps) - x0.

A weight is a function (sigma, out) -> (B,) of the level and of the precondition's `out`:

    Uniform  1 / out^2: plain MSE on whatever the network predicts. For `Eps` Ho et al.'s simple
             loss (arXiv 2006.11239, equation 14), for `V` the MSE of v.
    MinSnr   min(SNR, gamma) with SNR = 1 / sigma^2: Hang et al. 2023 (arXiv 2303.09556, 3.4).
    EdmLoss  (sigma^2 + data^2) / (sigma data)^2: Karras et al. 2022 (arXiv 2206.00364, table 1);
             with the `Edm` precondition the same as Uniform.

All weigh the error of x0, so none divides by an SNR that may be 0.

Guidance can be learned (Tang et al. 2025, arXiv 2502.12154, equation 10): with the target
x0 + (1 - 1 / scale) (D - D_free), of which no gradient is taken, the best D solves

    D = E[x0 | x, condition] + (1 - 1 / scale) (D - D_free)
      = D_free + scale (E[x0 | x, condition] - D_free),

what `guide` computes from two evaluations. The scale of each image is a factor of the condition,
GUIDANCE, which the network is told (as Chen et al. 2025, arXiv 2501.15420, tell it theirs); where
it is free, the denoiser is the plain one. So one network draws at any scale that it has learned.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.diffusion.condition import GUIDANCE, Condition, is_free
from mezzotint.diffusion.denoiser import Denoiser
from mezzotint.diffusion.parameterization import like

__all__ = ["EdmLoss", "MinSnr", "Uniform", "Weight", "loss"]

Weight = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Uniform:
    """Weight 1 on what the network predicts."""

    def __call__(self, sigma: Tensor, out: Tensor) -> Tensor:
        """Weight (B,) of the squared error of x0."""
        return out.square().reciprocal()


@dataclass(frozen=True)
class MinSnr:
    """min(SNR, gamma) on x0."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise ValueError(f"MinSnr needs gamma > 0, got {self.gamma}")

    def __call__(self, sigma: Tensor, out: Tensor) -> Tensor:
        """Weight (B,) of the squared error of x0."""
        return sigma.square().reciprocal().clamp(max=self.gamma)


@dataclass(frozen=True)
class EdmLoss:
    """The effective weight of EDM on x0; `data` is the pixels' standard deviation."""

    data: float = 0.5

    def __post_init__(self) -> None:
        if self.data <= 0:
            raise ValueError(f"EdmLoss needs the data's standard deviation > 0, got {self.data}")

    def __call__(self, sigma: Tensor, out: Tensor) -> Tensor:
        """Weight (B,) of the squared error of x0."""
        return (sigma.square() + self.data**2) / (sigma * self.data).square()


def loss(
    denoiser: Denoiser,
    x0: Tensor,
    condition: Condition,
    sigma: Tensor,
    eps: Tensor,
    weight: Weight,
    guided: Tensor | None = None,
) -> Tensor:
    """The loss (B,) of clean images x0 (B, C, H, W) at levels sigma (B,) with unit noise eps.

    Images whose condition has a scale of GUIDANCE cost an evaluation more, without gradient.
    `guided` says which they are (n,); None: looked up, for which a device has to be waited for.
    """
    x = x0 + like(x0, sigma) * eps
    estimate = denoiser(x, sigma, condition)
    target = x0
    if GUIDANCE in condition.factors:
        if guided is None:
            guided = (~is_free(condition.factors[GUIDANCE])).nonzero()[:, 0]
        target = _guided(denoiser, x, x0, sigma, condition, estimate.detach(), guided)
    scale = weight(sigma, denoiser.precondition(sigma).out)
    return scale * (estimate - target).square().flatten(1).mean(1)


@torch.no_grad()
def _guided(
    denoiser: Denoiser,
    x: Tensor,
    x0: Tensor,
    sigma: Tensor,
    condition: Condition,
    estimate: Tensor,
    rows: Tensor,
) -> Tensor:
    """What the estimate (B, C, H, W) should be in the rows where guidance is learned; else x0."""
    scale = condition.factors[GUIDANCE]
    if len(rows) == 0:
        return x0
    free = denoiser(x[rows], sigma[rows], condition[rows].null())
    share = like(x0, 1 - 1 / scale[rows])
    return x0.index_put((rows,), x0[rows] + share * (estimate[rows] - free))
