"""Gaussian data N(mean, S^2), where everything about diffusion has a closed form.

The best denoiser is D(x; sigma) = mean + S^2 / (S^2 + sigma^2) (x - mean), and the solution of the
ODE dx/dsigma = (x - D) / sigma from `now` to `then` shrinks the distance from the mean by
sqrt((S^2 + then^2) / (S^2 + now^2)).

With a condition the mean is BASE + LABELS[label] + SLOPE * style, where a null factor adds
nothing. All D have the same slope in x, so the guided D is a Gaussian's as well, with the mean

    BASE + label scale * LABELS[label] + style scale * SLOPE * style.
"""

import torch
from torch import Tensor, nn

from mezzotint.diffusion import Condition, is_null

from .examples import input_scale, target

S = 0.5
BASE = 0.1
LABELS = torch.tensor([-0.6, 0.3, 0.8], dtype=torch.float64)
SLOPE = 0.25


def column(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]


def mean_of(condition: Condition, scales: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """The mean (B, 1, 1, 1) under guidance; a null factor adds nothing."""
    if not condition.factors:
        return torch.full((1, 1, 1, 1), BASE, dtype=torch.float64)
    label, style = condition.factors["label"], condition.factors["style"]
    by_label = torch.where(is_null(label), 0.0, LABELS[label.clamp(min=0)])
    by_style = torch.where(is_null(style), 0.0, SLOPE * style)
    return column(BASE + scales[0] * by_label + scales[1] * by_style)


def denoised(x: Tensor, sigma: Tensor, mean: Tensor | float, std: float = S) -> Tensor:
    """The closed form of D."""
    return mean + std**2 / (std**2 + sigma**2) * (x - mean)


def flowed(
    x: Tensor, now: Tensor, then: Tensor, mean: Tensor | float = 0.0, std: float = S
) -> Tensor:
    """The closed form of the ODE's solution at `then`, from x at `now`."""
    return mean + torch.sqrt((std**2 + then**2) / (std**2 + now**2)) * (x - mean)


class Perfect(nn.Module):
    """A network that predicts exactly what its parameterization defines, in float64."""

    def __init__(self, parameterization_: object) -> None:
        super().__init__()
        self.parameterization = parameterization_
        self.dummy = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, inp_x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        sigma = column(torch.exp(4 * noise))
        x = inp_x / input_scale(self.parameterization, sigma)
        x0 = denoised(x, sigma, mean_of(condition))
        return target(self.parameterization, x0, (x - x0) / sigma, sigma)


def no_noise() -> Tensor:
    """For samplers that should ask for none."""
    raise AssertionError("a deterministic sampler asked for fresh noise")
