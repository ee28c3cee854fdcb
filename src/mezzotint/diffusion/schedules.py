"""Noise schedules: the sigmas to train on and the sigmas to sample at.

Convention: x = x0 + sigma * eps with eps ~ N(0, I). A schedule is one primitive, a monotone map
from a position u in [0, 1] to a noise level sigma; u = 1 is the noisiest. Everything else
(`positions` and `training_sigmas` for training, `sampling_sigmas`, `terminal_snr`) is a function
of any schedule.

Only this file uses the terms of DDPM's discrete schedules: beta_t and
alpha_bar_t = prod (1 - beta_s). They give sigma_t^2 = 1 / alpha_bar_t - 1. DDPM's x_t is
x / sqrt(1 + sigma^2). The signal-to-noise ratio is alpha_bar / (1 - alpha_bar) = 1 / sigma^2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

__all__ = [
    "NO_SIGNAL",
    "Cosine",
    "Discrete",
    "Karras",
    "Learned",
    "LinearBeta",
    "LogNormal",
    "Resampled",
    "Schedule",
    "ZeroTerminal",
    "distinct_sigmas",
    "training_sigmas",
    "sampling_sigmas",
    "positions",
    "terminal_snr",
]

NO_SIGNAL = 1e6
"""Sigma that represents infinity (zero signal).

At this sigma, x / sqrt(1 + sigma^2) differs from eps by 1e-6, which is eight roundings of float32.
In float64, x still determines x0 to 10 digits.
"""


@runtime_checkable
class Schedule(Protocol):
    """A monotone map from a position u in [0, 1] to a noise level."""

    def sigma(self, u: Tensor) -> Tensor:
        """Map u (N,) in [0, 1] to sigma (N,) > 0, non-decreasing, in the dtype of u."""
        ...


@runtime_checkable
class Discrete(Schedule, Protocol):
    """A schedule with finitely many levels, all visited equally often."""

    def levels(self) -> Tensor:
        """Sigma of every level, ascending, float64 (T,)."""
        ...


def positions(n: int, generator: Generator) -> Tensor:
    """Positions u (n,) float64 for one batch, one in each n-th of [0, 1].

    Every batch spans the schedule, so the loss varies less from batch to batch. Each position has
    its own random offset, drawn on the CPU. Kingma et al. 2021 (arXiv 2107.00630, appendix I.1)
    share one offset.
    """
    return (torch.arange(n, dtype=torch.float64) + torch.rand(n, generator=generator)) / n


def training_sigmas(schedule: Schedule, n: int, generator: Generator) -> Tensor:
    """Noise levels (n,) float32 for one batch, one in each n-th of the schedule."""
    return schedule.sigma(positions(n, generator)).float()


def distinct_sigmas(sigmas: Tensor) -> Tensor:
    """Return descending sigmas (N,) with equal neighbours merged.

    A sigma visited twice is a wasted evaluation, and a multistep sampler would divide by a step of
    length 0.
    """
    distinct: Tensor = torch.unique_consecutive(sigmas)
    return distinct


def sampling_sigmas(schedule: Schedule, steps: int) -> Tensor:
    """Return the strictly descending sigmas a sampler visits, float64 (steps + 1,).

    The last one is 0. There are fewer where the schedule gives neighbours the same sigma, as
    `ZeroTerminal` does at NO_SIGNAL. A discrete schedule has no more steps than levels.
    """
    most = len(schedule.levels()) if isinstance(schedule, Discrete) else math.inf
    if not 1 <= steps <= most:
        raise ValueError(f"this schedule has 1 to {most} steps, got {steps}")
    u = torch.linspace(1, 0, steps, dtype=torch.float64)
    return distinct_sigmas(torch.cat([schedule.sigma(u), torch.zeros(1, dtype=torch.float64)]))


def terminal_snr(schedule: Schedule) -> float:
    """Signal-to-noise ratio 1 / sigma^2 at the noisiest level; 0 where no signal is left."""
    sigma = float(schedule.sigma(torch.ones(1, dtype=torch.float64)))
    return 0.0 if sigma >= NO_SIGNAL else sigma**-2


@dataclass(frozen=True)
class LinearBeta:
    """Ho et al. 2020 (arXiv 2006.11239), section 4: beta rises linearly from first to last.

    `steps` is DDPM's T. `rescaled` multiplies the betas by 1000 / T, so that any T ends in noise.
    Without it, T = 100 stops at alpha_bar = 0.364, sigma = 1.32, which is not noise.
    """

    steps: int = 1000
    first: float = 1e-4
    last: float = 0.02
    rescaled: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"LinearBeta needs at least one step, got {self.steps}")
        if not 0 < self.first * self.factor <= self.last * self.factor < 1:
            raise ValueError(
                f"LinearBeta needs 0 < first <= last < 1 after rescaling by {self.factor:g}, "
                f"got first {self.first * self.factor:g} and last {self.last * self.factor:g}"
            )

    @property
    def factor(self) -> float:
        """Factor of every beta: 1000 / T if rescaled, else 1."""
        return 1000 / self.steps if self.rescaled else 1.0

    def levels(self) -> Tensor:
        """Sigma of every level, ascending, float64 (T,)."""
        beta = torch.linspace(self.first, self.last, self.steps, dtype=torch.float64) * self.factor
        return (1 / (1 - beta).cumprod(0) - 1).sqrt()

    def sigma(self, u: Tensor) -> Tensor:
        """The level that contains u when [0, 1] is cut into T equal pieces."""
        return _level_at(self.levels(), u)


@dataclass(frozen=True)
class Cosine:
    """Nichol & Dhariwal 2021 (arXiv 2102.09672), equation 17, betas capped at `cap`.

    Its last level is sigma = 2e4 at T = 1000: sampler state wants float64.
    """

    steps: int = 1000
    offset: float = 0.008
    cap: float = 0.999

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.cap < 1:
            raise ValueError(
                f"Cosine needs steps >= 1 and 0 < cap < 1, got {self.steps} and {self.cap}"
            )

    def levels(self) -> Tensor:
        """Sigma of every level, ascending, float64 (T,)."""
        t = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)
        f = ((t + self.offset) / (1 + self.offset) * math.pi / 2).cos().square()
        beta = (1 - f[1:] / f[:-1]).clamp(max=self.cap)
        return (1 / (1 - beta).cumprod(0) - 1).sqrt()

    def sigma(self, u: Tensor) -> Tensor:
        """The level that contains u when [0, 1] is cut into T equal pieces."""
        return _level_at(self.levels(), u)


@dataclass(frozen=True)
class ZeroTerminal:
    """Lin et al. 2023 (arXiv 2305.08891), algorithm 1: shift and scale so no signal is left.

    sqrt(alpha_bar) is shifted until its last value is 0 and scaled until its first is as before.
    The infinite last sigma is represented by NO_SIGNAL. Never with `Eps`: see `refuse_pair`.
    """

    base: Discrete

    def __post_init__(self) -> None:
        if len(self.base.levels()) < 2:
            raise ValueError("ZeroTerminal needs a schedule of at least two levels, got one")

    def levels(self) -> Tensor:
        """Sigma of every level, ascending, float64 (T,); the last is NO_SIGNAL."""
        root = (1 + self.base.levels().square()).rsqrt()  # sqrt(alpha_bar)
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return (root**-2 - 1).sqrt().clamp(max=NO_SIGNAL)

    def sigma(self, u: Tensor) -> Tensor:
        """The level that contains u when [0, 1] is cut into T equal pieces."""
        return _level_at(self.levels(), u)


@dataclass(frozen=True)
class Karras:
    """Karras et al. 2022 (arXiv 2206.00364), equation 5: evenly spaced in sigma^(1 / rho)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not (0 < self.sigma_min < self.sigma_max and self.rho > 0):
            raise ValueError(
                "Karras needs 0 < sigma_min < sigma_max and rho > 0, got "
                f"{self.sigma_min}, {self.sigma_max}, {self.rho}"
            )

    def sigma(self, u: Tensor) -> Tensor:
        """Run from sigma_min at u = 0 to sigma_max at u = 1."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        sigma: Tensor = (low + u * (high - low)) ** self.rho
        return sigma


@dataclass(frozen=True)
class LogNormal:
    """Karras et al. 2022 (arXiv 2206.00364), table 1: log sigma ~ N(mean, std^2) in training.

    As a map, sigma(u) = exp(mean + std * quantile(u)). The tails are cut at one in a million
    (4.75 standard deviations), so that u = 0 and u = 1 are finite.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise ValueError(f"LogNormal needs std > 0, got {self.std}")

    def sigma(self, u: Tensor) -> Tensor:
        """The u-quantile of the log-normal distribution."""
        quantile = torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6)).to(u.dtype)
        sigma: Tensor = (self.mean + self.std * quantile).exp()
        return sigma


@dataclass(frozen=True)
class Learned:
    """The levels of `base`, drawn in training more often where the loss is larger.

    [0, 1] is cut into pieces. Each is drawn in proportion to the root of the loss's second moment
    there, which minimizes the variance of the weighted loss. Every loss is divided by the ratio of
    its new frequency to its frequency in `base`. So the objective stays that of `base`: drawing
    more easy levels does not lower it. `sigma` is the map of `base`.

    Importance sampling as in Nichol & Dhariwal 2021 (arXiv 2102.09672, section 3.3).
    """

    base: Schedule
    pieces: int = 32
    floor: float = 0.1
    """Share of the draws that is spread evenly over the pieces, so that each is drawn."""

    def __post_init__(self) -> None:
        if isinstance(self.base, Discrete):
            raise ValueError("Learned needs a continuous base: log-normal or karras")
        if self.pieces < 1 or not 0 < self.floor <= 1:
            raise ValueError(
                f"Learned needs pieces >= 1 and 0 < floor <= 1, got {self.pieces} and {self.floor}"
            )

    def sigma(self, u: Tensor) -> Tensor:
        """Return the sigma of the base."""
        return self.base.sigma(u)

    def resampled(self, second_moments: Sequence[float]) -> "Resampled":
        """Return the schedule to draw from, given the mean squared loss of each piece.

        If none are known yet, all pieces are drawn equally often.
        """
        known = second_moments if any(second_moments) else [1.0] * self.pieces
        roots = [math.sqrt(moment) for moment in known]
        learned, even = (1 - self.floor) / sum(roots), self.floor / self.pieces
        return Resampled(self.base, tuple(learned * root + even for root in roots))


@dataclass(frozen=True)
class Resampled:
    """The levels of `base`, whose equally probable pieces are drawn with other probabilities.

    v(u) is the position in the base. For all `shares`, E_u[v'(u) f(sigma(u))] is the base's mean
    of f. The weight v' therefore corrects the changed probabilities.
    """

    base: Schedule
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.shares or min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
            raise ValueError(
                f"Resampled needs positive shares that add up to 1, got {self.shares}"
            )

    def sigma(self, u: Tensor) -> Tensor:
        """The base's level at the position v(u)."""
        return self.base.sigma(self.position(u))

    def position(self, u: Tensor) -> Tensor:
        """Position v (N,) in the base for u (N,): piecewise linear, from 0 to 1."""
        shares = self._shares(u)
        ends = shares.cumsum(0)
        piece = self._piece(u, ends)
        return ((piece + (u - ends[piece] + shares[piece]) / shares[piece]) / len(shares)).clamp(
            0, 1
        )

    def weight(self, u: Tensor) -> Tensor:
        """Return v'(u) (N,): how many times more rarely than the base this draws u's level."""
        shares = self._shares(u)
        return 1 / (len(shares) * shares[self._piece(u, shares.cumsum(0))])

    def _shares(self, u: Tensor) -> Tensor:
        return torch.tensor(self.shares, dtype=u.dtype, device=u.device)

    def _piece(self, u: Tensor, ends: Tensor) -> Tensor:
        return torch.searchsorted(ends, u, right=True).clamp(max=len(ends) - 1)


def _level_at(levels: Tensor, u: Tensor) -> Tensor:
    """The level (N,) of a discrete schedule that contains each position u (N,)."""
    index = (u * len(levels)).long().clamp(0, len(levels) - 1)
    return levels.to(u.device)[index].to(u.dtype)
