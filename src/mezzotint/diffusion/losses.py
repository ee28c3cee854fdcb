"""The loss of one image: a weighted squared error of the denoiser, D(x0 + sigma eps) - x0.

A weight is a function (sigma, out) -> (B,) of the level and of the parameterization's `c_out`:

    Uniform  1 / c_out^2: plain MSE on whatever the network predicts. For `Eps` Ho et al.'s simple
             loss (arXiv 2006.11239, equation 14), for `V` the MSE of v.
    MinSnr   min(SNR, gamma) with SNR = 1 / sigma^2: Hang et al. 2023 (arXiv 2303.09556, 3.4).
    EdmLoss  (sigma^2 + sigma_data^2) / (sigma sigma_data)^2: Karras et al. 2022 (arXiv 2206.00364,
             table 1); with the `Edm` parameterization the same as Uniform.

All weigh the error of x0, so none divides by an SNR that may be 0.

Model guidance (Tang et al. 2025, arXiv 2502.12154, equation 10) trains towards the target
x0 + (1 - 1 / scale) (D - D_null). No gradient flows through the target. The optimal D solves

    D = E[x0 | x, condition] + (1 - 1 / scale) (D - D_null)
      = D_null + scale (E[x0 | x, condition] - D_null),

which `guide` computes from two evaluations. The scale of each image is the factor GUIDANCE of the
condition. The network takes it as an input, as in Chen et al. 2025 (arXiv 2501.15420). Where it is
null, the denoiser has no guidance. So one network samples at any scale that it was trained for.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mezzotint.diffusion.condition import GUIDANCE, Condition, is_null
from mezzotint.diffusion.denoiser import Denoiser
from mezzotint.diffusion.parameterization import append_dims

__all__ = ["EdmLoss", "LossWeight", "MinSnr", "Uniform", "loss"]


@runtime_checkable
class LossWeight(Protocol):
    """How much the error at a noise level counts; a frozen dataclass."""

    def __call__(self, sigma: Tensor, out: Tensor, /) -> Tensor:
        """Return the weight (B,) of the squared error of x0, for sigma (B,) and c_out (B,)."""
        ...


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
    """The effective weight of EDM on x0; `sigma_data` is the pixels' standard deviation."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise ValueError(
                f"EdmLoss needs the data's standard deviation > 0, got {self.sigma_data}"
            )

    def __call__(self, sigma: Tensor, out: Tensor) -> Tensor:
        """Weight (B,) of the squared error of x0."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()


def loss(
    denoiser: Denoiser,
    x0: Tensor,
    condition: Condition,
    sigma: Tensor,
    eps: Tensor,
    loss_weight: LossWeight,
    guided_rows: Tensor | None = None,
) -> Tensor:
    """Return the loss (B,) of each image.

    Images with a model-guidance scale cost a second evaluation, without gradient.

    Args:
        denoiser: The denoiser to train.
        x0: Clean images (B, C, H, W).
        condition: The condition of B images. The factor GUIDANCE holds the model-guidance scales.
        sigma: Noise levels (B,).
        eps: Standard normal noise (B, C, H, W).
        loss_weight: Weight of the squared error of x0.
        guided_rows: Rows (n,) with a model-guidance scale. None looks them up, which waits for the
            device.

    """
    x = x0 + append_dims(x0, sigma) * eps
    estimate = denoiser(x, sigma, condition)
    target = x0
    if GUIDANCE in condition.factors:
        if guided_rows is None:
            guided_rows = (~is_null(condition.factors[GUIDANCE])).nonzero()[:, 0]
        target = _guided(denoiser, x, x0, sigma, condition, estimate.detach(), guided_rows)
    scale = loss_weight(sigma, denoiser.parameterization(sigma).c_out)
    losses: Tensor = scale * (estimate - target).square().flatten(1).mean(1)
    return losses


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
    """Return the target (B, C, H, W): the model-guidance target in `rows`, x0 in all others."""
    scale = condition.factors[GUIDANCE]
    if len(rows) == 0:
        return x0
    free = denoiser(x[rows], sigma[rows], condition[rows].null())
    share = append_dims(x0, 1 - 1 / scale[rows])
    return x0.index_put((rows,), x0[rows] + share * (estimate[rows] - free))
