"""Adherence against closed forms: known correlations, known confusions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mezzotint.data import Style
from mezzotint.metrics.adherence import adherence, agreement, correlation
from mezzotint.runtime.rng import generator

THIRDS = Style("size", ("small", "middle", "large"), (-0.4307, 0.4307), (-1.0, 0.0, 1.0))


def draw(n, *shape):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def found(asked, measured, labels=None, real=None, real_labels=None):
    labels = torch.zeros(len(asked), dtype=torch.int64) if labels is None else labels
    real = asked if real is None else real
    real_labels = labels if real_labels is None else real_labels
    return adherence(THIRDS, asked, measured, labels, real, real_labels, generator("a test"))


def test_a_perfect_model_has_no_error_and_a_deaf_one_the_spread_of_the_data():
    asked = draw(20_000)
    perfect = found(asked, asked)
    assert (perfect.correlation, perfect.error, perfect.accuracy) == (pytest.approx(1), 0, 1)
    # Of two independent standard normal numbers, E |a - b| = 2 / sqrt(pi).
    assert perfect.deaf == pytest.approx(2 / math.sqrt(math.pi), abs=0.03)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9, 0.95])
def test_correlation_and_bound_of_normal_numbers(r):
    both = draw(40_000, 2)
    asked, measured = both[:, 0], r * both[:, 0] + math.sqrt(1 - r**2) * both[:, 1] + 3
    result = found(asked, measured - 3)
    assert result.correlation == pytest.approx(r, abs=0.02)
    assert result.correlation == pytest.approx(np.corrcoef(asked, measured)[0, 1], abs=1e-9)
    assert result.accuracy == pytest.approx(result.bound, abs=0.01)
    assert found(asked, measured).bias == pytest.approx(3, abs=0.03)


def test_agreement_is_the_mass_of_the_diagonal_squares():
    """Against scipy's bivariate normal distribution function."""
    r, shares = 0.8, (0.2, 0.5, 0.3)
    cuts = [-8.0, *stats.norm.ppf(np.cumsum(shares)[:-1]), 8.0]
    both = stats.multivariate_normal([0, 0], [[1, r], [r, 1]])
    mass = sum(
        both.cdf([b, b]) - both.cdf([a, b]) - both.cdf([b, a]) + both.cdf([a, a])
        for a, b in zip(cuts, cuts[1:], strict=False)
    )
    assert agreement(r, shares) == pytest.approx(mass, abs=2e-3)


def test_agreement_of_deaf_and_of_perfect_models():
    assert agreement(0.0, (1 / 3,) * 3) == pytest.approx(1 / 3, abs=1e-3)
    assert agreement(1.0, (1 / 3,) * 3) == pytest.approx(1, abs=1e-3)
    assert agreement(0.7, (0.0, 1.0, 0.0)) == pytest.approx(1, abs=1e-6)


def test_the_confusion_counts_levels_and_leaves_out_what_nobody_asked_for():
    nan = math.nan
    asked = torch.tensor([-1.0, -1.0, 0.0, 1.0, nan, 1.0], dtype=torch.float64)
    measured = torch.tensor([-1.0, 0.0, 0.1, 1.0, 1.0, nan], dtype=torch.float64)
    result = found(asked, measured, real=draw(6))
    assert result.confusion == ((1, 1, 0), (0, 1, 0), (0, 0, 1))
    assert (result.n, result.accuracy) == (4, 0.75)
    assert result.error == pytest.approx(1.1 / 4)


def test_the_spread_is_that_of_an_images_own_class():
    labels = torch.tensor([0, 1] * 500)
    asked = torch.where(labels == 0, 0.0, 100.0).double()
    result = found(asked, asked, labels)
    assert result.deaf == 0
    other = found(asked, asked, labels, real=asked, real_labels=1 - labels)
    assert other.deaf == 100


def test_what_does_not_vary_has_no_correlation():
    assert math.isnan(correlation(torch.ones(5), torch.arange(5.0)))
    assert math.isnan(agreement(math.nan, (0.5, 0.5)))
    one = found(torch.ones(9, dtype=torch.float64), draw(9))
    assert math.isnan(one.bound)
    assert one.n == 9
