"""Parameterizations: which quantity the network predicts, as four coefficients per level.

The network itself does not depend on the choice. The denoiser is

    D(x; sigma) = c_skip * x + c_out * F(c_in * x, c_noise)

with x = x0 + sigma * eps, the estimate D of x0 and the raw network F. The quantity that F predicts
follows from (c_skip, c_out):

    Eps  F -> eps                                c_skip 1, c_out -sigma
    X0   F -> x0                                 c_skip 0, c_out 1
    V    F -> v = (eps - sigma x0)/sqrt(1+s^2)   c_skip 1 / (1 + s^2), c_out -s / sqrt(1 + s^2)
    Edm  F -> a mixture with unit variance at every level (Karras et al. 2022, table 1)

`c_noise`, the level as the network sees it, is log(sigma) / 4 for all of them.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from mezzotint.diffusion.schedules import Schedule, terminal_snr

__all__ = [
    "Coefficients",
    "Edm",
    "Eps",
    "Parameterization",
    "V",
    "X0",
    "append_dims",
    "refuse_pair",
]


class Coefficients(NamedTuple):
    """D(x; sigma) = c_skip * x + c_out * F(c_in * x, c_noise); all (B,)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


@runtime_checkable
class Parameterization(Protocol):
    """What the network predicts; a frozen dataclass."""

    def __call__(self, sigma: Tensor, /) -> Coefficients:
        """Return the coefficients (B,) for levels sigma (B,)."""
        ...


@dataclass(frozen=True)
class Eps:
    """Ho et al. 2020 (arXiv 2006.11239), equation 11: the network predicts the noise."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Coefficients (B,) for levels sigma (B,)."""
        return Coefficients(
            c_skip=sigma.new_ones(sigma.shape),
            c_out=-sigma,
            c_in=(1 + sigma.square()).rsqrt(),
            c_noise=sigma.log() / 4,
        )


@dataclass(frozen=True)
class X0:
    """The network predicts the clean image."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Coefficients (B,) for levels sigma (B,)."""
        return Coefficients(
            c_skip=sigma.new_zeros(sigma.shape),
            c_out=sigma.new_ones(sigma.shape),
            c_in=(1 + sigma.square()).rsqrt(),
            c_noise=sigma.log() / 4,
        )


@dataclass(frozen=True)
class V:
    """Salimans & Ho 2022 (arXiv 2202.00512), section 4: v = (eps - sigma x0) / sqrt(1 + s^2)."""

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Coefficients (B,) for levels sigma (B,)."""
        inp = (1 + sigma.square()).rsqrt()
        return Coefficients(inp.square(), -sigma * inp, inp, sigma.log() / 4)


@dataclass(frozen=True)
class Edm:
    """Karras et al. 2022 (arXiv 2206.00364), table 1.

    `sigma_data` is the standard deviation of the pixels in [-1, 1], not their root mean square.
    """

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise ValueError(f"Edm needs the data's standard deviation > 0, got {self.sigma_data}")

    def __call__(self, sigma: Tensor) -> Coefficients:
        """Coefficients (B,) for levels sigma (B,)."""
        inp = (sigma.square() + self.sigma_data**2).rsqrt()
        skip = (self.sigma_data * inp).square()
        return Coefficients(skip, sigma * self.sigma_data * inp, inp, sigma.log() / 4)


def append_dims(x: Tensor, v: Tensor) -> Tensor:
    """Reshape v (B,) to (B, 1, …, 1) so that it broadcasts over x (B, …)."""
    return v.reshape(-1, *(1,) * (x.ndim - 1))


def refuse_pair(schedule: Schedule, parameterization: Parameterization) -> None:
    """Raise ValueError for a schedule and a parameterization that cannot work together.

    At zero SNR the input is the noise itself, so predicting the noise teaches nothing. There,
    x0 = x - sigma * eps is infinity minus infinity (Lin et al. 2023, arXiv 2305.08891, 3.2).
    """
    if isinstance(parameterization, Eps) and terminal_snr(schedule) == 0:
        raise ValueError(
            "eps prediction cannot work at zero terminal SNR: the input is the noise itself, and "
            "x0 would be infinity minus infinity; use the v, x0 or edm parameterization, or a "
            "schedule that is not rescaled to zero terminal SNR"
        )
