"""Are samples like real images (density), and are all real images matched (coverage)?

Both look at balls around N real features x_i that reach to the k-th nearest other real feature,
at distance r_i, and at N fake features y_j.

Naeem et al. 2020 (arXiv 2002.09797):

    density  = sum_ij [y_j in ball i] / (k N)         1 for equal distributions, can exceed it
    coverage = mean_i [some y_j in ball i]            about 1 - 2^-k for equal distributions

Salvy et al. 2025 (arXiv 2507.01761) make both robust, and linear in the share of good samples.
Radii are clipped at their median, s_i = min(r_i, median r), and so is what one sample adds:

    clipped density  = min(1, D(fake) / D(real)),    D(y) = mean_j min(1, sum_i [y_j in s_i] / k)

where D(real) puts each real feature into the balls of the others. A sample far from real images
adds 0, and one in a crowd no more than 1. For coverage, the count in each ball is clipped:

    c = mean_i min(1, sum_j [y_j in ball i] / k)      clipped coverage = m / N with f(m) = c

f(m) is what c is on average with m samples of the real distribution: the share of it that lies
in a ball is Beta(k, N - k), so a ball holds J samples, J beta-binomial of m, k and N - k. In
words: "covers as well as m good samples would". The definitions are those of the authors'
published program; it looks m up, here it is interpolated between whole numbers.

Equal numbers of real and fake are part of this: otherwise a missing class out of ten costs the
clipped coverage nothing (many real ones) or most of its value (many fake ones), not a tenth.

A point on the sphere lies inside for clipped density and outside for the other three, as in
either published program. It matters only where features coincide.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.metrics.frechet import check_features
from mezzotint.metrics.metric import Group, Metric, Number, Read

__all__ = ["COVERAGE", "Coverage", "coverage", "even_coverage"]

ENTRIES = 2**21  # distances held at a time: 16 MB


@dataclass(frozen=True)
class Coverage:
    """Four shares; those without "clipped" are the well-known ones, the clipped ones read best."""

    density: float
    """>= 0; can exceed 1."""

    coverage: float
    """0 to 1."""

    clipped_density: float
    """0 to 1: as if this share of the samples were good."""

    clipped_coverage: float
    """0 to 1: as if this share of the samples were good, and spread as the real images are."""


@dataclass(frozen=True, eq=False)
class _Balls:
    """Balls around N real features."""

    radii: Tensor
    """float64 (N,), squared."""

    clipped: Tensor
    """The same, at most the square of their median."""

    crowd: Tensor
    """int64 (N,): in how many other clipped balls each real feature lies."""


def coverage(real: Tensor, fake: Tensor, k: int = 5) -> Coverage:
    """Of as many real features as fake ones, (N, D) each, N > k; in float64 and flat memory.

    k: neighbours that a ball around a real feature reaches to.
    """
    check_features(real, fake)
    n = len(real)
    if len(fake) != n:
        raise InputError(
            f"{n} real and {len(fake)} fake images: coverage compares equal numbers, take "
            f"{min(n, len(fake))} of both at random"
        )
    if not 1 <= k < n:
        raise InputError(f"k is {k} with {n} real images: give 1 to {n - 1}")
    # Distances do not change with the origin, but their rounding does.
    centre = real.double().mean(0)
    real, fake = real.double() - centre, fake.double() - centre
    balls = _balls(real, k)
    total, covered, filled = 0, 0, 0
    crowd = torch.zeros(n, dtype=torch.int64)
    for rows in _row_chunks(n):
        squared = _squared_distances(real[rows], fake)
        counts = (squared < balls.radii[rows, None]).sum(1)
        total += int(counts.sum())
        covered += int((counts > 0).sum())
        filled += int(counts.clamp(max=k).sum())
        crowd += (squared <= balls.clipped[rows, None]).sum(0)
    fidelity, best = _fidelity(crowd, k), _fidelity(balls.crowd, k)
    good = np.interp(filled / (k * n), _expected_fill(n, k), np.linspace(0, 1, n + 1))
    return Coverage(
        density=total / (k * n),
        coverage=covered / n,
        clipped_density=min(1.0, fidelity / best),
        clipped_coverage=float(good),
    )


def _balls(real: Tensor, k: int) -> _Balls:
    # Filled in place: small tensors kept between the large ones would keep their memory, too.
    distance = torch.empty(len(real), k, dtype=torch.float64)  # squared
    neighbour = torch.empty(len(real), k, dtype=torch.int64)
    for rows in _row_chunks(len(real)):
        squared = _squared_distances(real[rows], real)
        squared.diagonal(rows.start).fill_(torch.inf)  # nobody is their own neighbour
        distance[rows], neighbour[rows] = squared.topk(k, dim=1, largest=False)
    radii = distance[:, -1]
    clipped = radii.clamp(max=float(radii.sqrt().quantile(0.5)) ** 2)
    inside = distance <= clipped[:, None]
    return _Balls(radii, clipped, torch.bincount(neighbour[inside], minlength=len(real)))


def _fidelity(crowd: Tensor, k: int) -> float:
    """D in the module's head."""
    return float(crowd.clamp(max=k).double().mean()) / k


def _expected_fill(n: int, k: int) -> np.ndarray:
    """f(0) ... f(n) of the module's head, increasing from 0.

    f(m) = E min(J, k) / k = 1 - sum_{j < k} (1 - j / k) P(J = j).
    """
    m = torch.arange(n + 1, dtype=torch.float64)[:, None]
    j = torch.arange(k, dtype=torch.float64)
    ways = torch.lgamma(m + 1) - torch.lgamma(j + 1) - torch.lgamma(m - j + 1)
    none = torch.zeros_like(j)
    chance = ways + _log_beta(k + j, n - k + m - j) - _log_beta(k + none, n - k + none)
    chance = chance.where(j <= m, -torch.inf).exp()
    return (1 - ((1 - j / k) * chance).sum(1)).numpy()


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 (len(a), len(b)), by the expansion; what is rounding alone is exactly 0."""
    lengths = a.square().sum(1)[:, None] + b.square().sum(1)
    squared = torch.addmm(lengths, a, b.T, alpha=-2)
    rounding = a.shape[1] * torch.finfo(torch.float64).eps
    return squared.masked_fill_(squared < rounding * lengths, 0.0)


def _row_chunks(n: int) -> list[slice]:
    """Rows of an (n, n) matrix, so many at a time that they are ENTRIES numbers or one row."""
    step = max(1, ENTRIES // n)
    return [slice(start, start + step) for start in range(0, n, step)]


def even_coverage(real: Tensor, samples: Tensor, draws: torch.Generator) -> Coverage:
    """Coverage of equally many images: of the larger set, so many are drawn at random."""
    n = min(len(real), len(samples))
    real, samples = (x[torch.randperm(len(x), generator=draws)[:n]] for x in (real, samples))
    return coverage(real, samples)


def _measure(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    found = even_coverage(real.features, samples.features, draws)
    return {name: Number(value) for name, value in asdict(found).items()}


COVERAGE = Group(
    {
        "density": Metric("density", "higher", swept=True),
        "coverage": Metric("coverage", "higher", online=True, swept=True),
        "clipped_density": Metric("clipped density", "higher", swept=True),
        "clipped_coverage": Metric("clipped coverage", "higher", swept=True),
    },
    _measure,
    even_sizes=True,
    fewest=6,
)
