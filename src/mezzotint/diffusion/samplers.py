"""Samplers: from noise to images, along descending sigmas.

A sampler has one generator, `iterate(denoise, x, sigmas, noise)`. It takes a callable and a tensor
of descending sigmas, and yields a `Step` after each step. The caller's `for` loop adds a progress
bar, trajectory, preview or cancellation. `steps(evaluations)` is the number of steps that a number
of network evaluations (NFE) allows.

The reverse process is the ODE dx/dsigma = (x - D(x; sigma)) / sigma (Karras et al. 2022,
arXiv 2206.00364, equations 1 and 3), with fresh noise added back by `Ancestral` when eta > 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from mezzotint.diffusion.denoiser import Denoise

__all__ = [
    "Ancestral",
    "Heun",
    "Ipndm",
    "Multistep",
    "Noise",
    "Sampler",
    "Step",
    "initial_state",
    "multistep_update",
]

Noise = Callable[[], Tensor]
"""Fresh N(0, I) in the shape of x."""


class Step(NamedTuple):
    """The state and the estimate after one step of a sampler."""

    sigma: Tensor  # () the level reached
    x: Tensor  # (B, C, H, W) the state at that level
    x0: Tensor  # (B, C, H, W) the estimate of the clean image that led there


@runtime_checkable
class Sampler(Protocol):
    """Anything that iterates over descending sigmas; a frozen dataclass.

    A class that names it as its base spends one evaluation a step, unless it says how many.
    """

    def steps(self, evaluations: int) -> int:
        """Return the number of steps, at least 1, that these evaluations of the network buy."""
        return max(1, evaluations)

    def evaluations(self, steps: int) -> int:
        """Return the number of evaluations of the network that this many steps spend."""
        return steps

    def iterate(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Step]:
        """Yield the steps from x (B, C, H, W) at sigmas[0] to sigmas[-1].

        `sigmas` (steps + 1,) descends to 0.

        Raises:
            ValueError: A level is not below the one before it.

        """
        ...


def _steps(sigmas: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the two levels of each step; ValueError where they do not strictly descend."""
    wrong = (~(sigmas[1:] < sigmas[:-1])).nonzero().flatten().tolist()
    if wrong:
        i = wrong[0]
        raise ValueError(
            f"the levels that a sampler visits must strictly descend, and levels[{i + 1}] = "
            f"{sigmas[i + 1]:g} follows levels[{i}] = {sigmas[i]:g}: merge equal neighbours with "
            "distinct_sigmas"
        )
    return pairwise(sigmas)


def initial_state(
    noise: Tensor, sigma: Tensor, mean: float = 0.0, deviation: float = 0.0
) -> Tensor:
    """Return the initial state N(mean, deviation^2 + sigma^2), from standard normal noise (B, …).

    (mean, deviation) = (0, 0) is pure noise. (0, 1) is DDPM's x_t ~ N(0, I), since
    x = x_t * sqrt(1 + sigma^2). The data's own mean and deviation match the first two moments of
    the training inputs at sigma. This matters if sigma is small.
    """
    return mean + (deviation**2 + sigma.to(noise) ** 2).sqrt() * noise


@dataclass(frozen=True)
class Ancestral(Sampler):
    """eta = 1: DDPM (Ho et al. 2020, equation 7). eta = 0: DDIM (Song et al. 2021, equation 12).

    Between 0 and 1, eta scales the fresh noise of each step. Order 2 extrapolates x0 to the middle
    of the step, linearly in -log sigma from the last two estimates. With eta = 0, order 2 is
    `Multistep(2)`. With eta = 1, it is the SDE-DPM-Solver++ 2M of Lu et al. 2022.

    arXiv 2006.11239, 2010.02502 and 2211.01095.
    """

    eta: float = 1.0
    order: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"Ancestral needs 0 <= eta <= 1, got {self.eta}")
        if self.order not in (1, 2):
            raise ValueError(f"Ancestral has order 1 or 2, got {self.order}")

    def iterate(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Step]:
        """See `Sampler.iterate`."""
        past: tuple[Tensor, Tensor] | None = None
        for now, then in _steps(sigmas):
            aim = x0 = denoise(x, now)
            if self.order == 2 and past is not None and then > 0:
                _, change = _change(now, then, x0, past)
                aim = x0 + change / 2
            past = now, x0
            fresh = self.eta * then * (1 - (then / now) ** 2).sqrt()
            kept = (then**2 - fresh**2).clamp(min=0).sqrt()
            x = aim + kept / now * (x - aim)
            if fresh > 0:
                x = x + fresh * noise()
            yield Step(then, x, x0)


@dataclass(frozen=True)
class Heun(Sampler):
    """Karras et al. 2022 (arXiv 2206.00364), algorithm 1: second order.

    Each step costs two evaluations, and the last step one: n steps cost 2 n - 1.
    """

    def steps(self, evaluations: int) -> int:
        """(evaluations + 1) / 2, rounded down."""
        return max(1, (evaluations + 1) // 2)

    def evaluations(self, steps: int) -> int:
        """Two evaluations a step, but one in the last."""
        return 2 * steps - 1

    def iterate(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Step]:
        """See `Sampler.iterate`."""
        for now, then in _steps(sigmas):
            x0 = denoise(x, now)
            slope = (x - x0) / now
            if then > 0:
                ahead = x + (then - now) * slope
                slope = (slope + (ahead - denoise(ahead, then)) / then) / 2
            x = x + (then - now) * slope
            yield Step(then, x, x0)


@dataclass(frozen=True)
class Multistep(Sampler):
    """DPM-Solver++ 2M and 3M: Lu et al. 2022 (arXiv 2211.01095), in lambda = -log sigma.

    Order 1 is DDIM. The first steps have lower orders, for lack of past estimates. The last step,
    to 0, has order 1. Published code halves the third-order term of order 3. This class gives it
    the full weight, so its samples differ from those in papers.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise ValueError(f"Multistep has order 1, 2 or 3, got {self.order}")

    def iterate(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Step]:
        """See `Sampler.iterate`."""
        history: list[tuple[Tensor, Tensor]] = []
        for now, then in _steps(sigmas):
            x0 = denoise(x, now)
            history = [(now, x0), *history][: self.order]
            x = multistep_update(x, then, history)
            yield Step(then, x, x0)


def multistep_update(x: Tensor, then: Tensor, history: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Return x at level `then`, from x at level history[0][0].

    `history` holds 1 to 3 past (sigma, x0), newest first. The step solves the ODE exactly for a
    Taylor polynomial of x0 in lambda around now. Its derivatives are divided differences
    (docs/theory.md). With h = log(now / then) and p1 = 1 - e^-h, the weights are

        x0            p1
        h x0'         1 - p1 / h
        h^2 x0'' / 2  1 - 2 / h + 2 p1 / h^2

    Published code halves the last weight, and so loses the third order.
    """
    (now, x0), *past = history
    if then == 0 or not past:
        return then / now * x + (1 - then / now) * x0
    h = (now / then).log()
    p1 = -torch.expm1(-h)
    h1, first = _change(now, then, x0, past[0])
    if len(past) == 1:
        # Lu et al. and all other codes use p1 / 2 for 1 - p1 / h: equal to second order.
        return then / now * x + p1 * (x0 + first / 2)
    h2 = (past[1][0] / past[0][0]).log() / h
    second = (first - (past[0][1] - past[1][1]) / h2) / (h1 + h2)  # h^2 x0'' / 2
    first = first + h1 * second  # h x0'
    return then / now * x + p1 * x0 + (1 - p1 / h) * first + (1 - 2 / h + 2 * p1 / h**2) * second


def _change(
    now: Tensor, then: Tensor, x0: Tensor, past: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Return h1, the length of the last step in lambda divided by that of the next, h; and h x0'.

    The derivative x0' is the divided difference between x0 and the past (sigma, x0).
    """
    before, x0_before = past
    h1 = (before / now).log() / (now / then).log()
    return h1, (x0 - x0_before) / h1


_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class Ipndm(Sampler):
    """Improved PNDM: Zhang & Chen 2022 (arXiv 2204.13902), section 3.3; Liu et al. 2202.09778.

    The slopes (x - x0) / sigma get the Adams-Bashforth weights of equal steps, even if the steps
    differ. The first steps have lower orders. The last step, to 0, has order 1.
    """

    order: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.order <= len(_ADAMS_BASHFORTH):
            raise ValueError(f"Ipndm has order 1 to 4, got {self.order}")

    def iterate(self, denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Iterator[Step]:
        """See `Sampler.iterate`."""
        slopes: list[Tensor] = []
        for now, then in _steps(sigmas):
            x0 = denoise(x, now)
            slopes = [(x - x0) / now, *slopes][: self.order]
            order = len(slopes) if then > 0 else 1
            pairs = zip(_ADAMS_BASHFORTH[order - 1], slopes, strict=False)
            x = x + (then - now) * sum(weight * slope for weight, slope in pairs)
            yield Step(then, x, x0)
