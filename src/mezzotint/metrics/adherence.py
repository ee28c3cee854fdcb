"""Measure how well images follow their styles: requested against measured.

For a style that is a number, with a_i requested for image i and m_i measured on it:

    correlation  Pearson's r of a and m
    error        mean |m_i - a_i|, in the style's unit; `bias` is the mean of m_i - a_i
    deaf         the same error for real images of the same classes in random order: that of a
                 model with the label as its only condition; the real data's own spread
    confusion    images requested at level j and measured in level k, (L, L)
    accuracy     share on its diagonal
    bound        what accuracy comes to for jointly normal a and m of that correlation, levels
                 requested as often as here: near a cut, a small error changes the level, so even
                 r = 0.95 gives no more than 82 % of three equal levels

Where a and m are standard normal with correlation r, m given a is normal with mean r a and
deviation sqrt(1 - r^2); `bound` integrates that over a.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from mezzotint.data import Style

__all__ = ["Adherence", "adherence", "agreement", "correlation"]

GRID = 4001
"""Points of the integral over a, which is cut at 8 deviations."""


@dataclass(frozen=True)
class Adherence:
    """How images follow one style; see the module's text."""

    n: int
    correlation: float
    error: float
    bias: float
    deaf: float
    confusion: tuple[tuple[int, ...], ...]
    accuracy: float
    bound: float


def adherence(
    style: Style,
    asked: Tensor,
    measured: Tensor,
    labels: Tensor,
    real: Tensor,
    real_labels: Tensor,
    generator: Generator,
) -> Adherence:
    """Compare requested float64 (N,) and measured (N,) styles of N images, with M real ones.

    labels int64 (N,) and real_labels (M,) say which real images are of an image's class. Images
    without a request, or on which nothing can be measured (nan), are left out.
    """
    known = ~(asked.isnan() | measured.isnan())
    a, m, own = asked[known], measured[known], labels[known]
    other = _of_class(own, real, real_labels, generator)
    there = ~other.isnan()
    levels = len(style.levels)
    pairs = style.level(a) * levels + style.level(m)
    confusion = torch.bincount(pairs, minlength=levels**2).reshape(levels, levels)
    r, n = correlation(a, m), len(a)
    return Adherence(
        n=n,
        correlation=r,
        error=float((m - a).abs().mean()),
        bias=float((m - a).mean()),
        deaf=float((other - a)[there].abs().mean()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        accuracy=float(confusion.trace()) / max(1, n),
        bound=agreement(r, (confusion.sum(1) / max(1, n)).tolist()),
    )


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of two columns (N,); nan where one of them does not vary."""
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1]) if len(a) > 1 else float("nan")


def agreement(correlation: float, shares: Sequence[float]) -> float:
    """How often two normal numbers of that correlation fall into the same of these levels.

    shares  of each level, lowest first, adding up to 1

    nan where there is no correlation: one of the numbers does not vary.
    """
    if math.isnan(correlation):
        return math.nan
    normal = torch.distributions.Normal(
        torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    )
    ends = torch.tensor([0.0, *shares], dtype=torch.float64).cumsum(0).clamp(0, 1)
    cuts = normal.icdf(ends)
    cuts[0], cuts[-1] = -torch.inf, torch.inf
    a = torch.linspace(-8, 8, GRID, dtype=torch.float64)
    weight = normal.log_prob(a).exp()
    level = torch.bucketize(a, cuts[1:-1], right=True)
    apart = max(1e-12, 1 - correlation**2) ** 0.5
    inside = normal.cdf((cuts[level + 1] - correlation * a) / apart) - normal.cdf(
        (cuts[level] - correlation * a) / apart
    )
    return float((weight * inside).sum() / weight.sum())


def _of_class(labels: Tensor, real: Tensor, real_labels: Tensor, generator: Generator) -> Tensor:
    """A random real value of each label's class, float64 (N,); nan where the class has none."""
    found = torch.full((len(labels),), torch.nan, dtype=torch.float64)
    for label in labels.unique():
        here, values = labels == label, real[real_labels == label]
        values = values[~values.isnan()]
        if len(values):
            drawn = torch.randint(len(values), (int(here.sum()),), generator=generator)
            found[here] = values[drawn]
    return found
