"""Guidance by a log-likelihood's gradient, on Gaussians, where the posterior is known.

Data N(m, S^2) and an observation y = x0 + r * noise: given y, data are again Gaussian, with mean
m + k (y - m) and deviation S sqrt(1 - k), k = S^2 / (S^2 + r^2). A log-likelihood g x0
moves the mean by S^2 g and leaves the deviation.
"""

import pytest
import torch

from mezzotint.diffusion import (
    Heun,
    Karras,
    dps_guidance,
    guidance_interval,
    initial_state,
    posterior_variance,
    sampling_sigmas,
    x0_guidance,
)

from .gaussian import BASE, S, denoised, no_noise

G = torch.Generator().manual_seed(0)
X = torch.randn(4, 1, 2, 3, generator=G, dtype=torch.float64)
SIGMAS = [0.01, 0.3, 1.0, 20.0]


def independent(sigma):
    """The variance that is open of pixels which are independent with deviation S."""
    return sigma**2 * S**2 / (sigma**2 + S**2)


WAYS = [dps_guidance, lambda d, scorer, scale=1.0: x0_guidance(d, scorer, independent, scale)]


def level(sigma):
    return torch.tensor(sigma, dtype=torch.float64)


def unguided(x, sigma):
    return denoised(x, sigma, BASE)


def tilt(g):
    return lambda x0: (g * x0).sum((1, 2, 3))


def observed(y, variance):
    return lambda x0: -((x0 - y) ** 2).sum((1, 2, 3)) / (2 * variance)


@pytest.mark.parametrize("way", WAYS, ids=["dps", "x0"])
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_a_preference_moves_the_mean_and_nothing_else(way, sigma, scale):
    got = way(unguided, tilt(3.0), scale)(X, level(sigma))
    expected = denoised(X, level(sigma), BASE + S**2 * scale * 3.0)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", WAYS, ids=["dps", "x0"])
@pytest.mark.parametrize("sigma", SIGMAS)
def test_an_observation_gives_the_mean_of_the_posterior(way, sigma):
    """The likelihood of x0's estimate is wider than that of x0, by the variance still open."""
    y, r, sigma = 0.7, 0.4, level(sigma)
    variance_ = S**2 * sigma**2 / (S**2 + sigma**2)
    got = way(unguided, observed(y, r**2 + variance_))(X, sigma)
    # x and y are two looks at x0, beside what is known beforehand: weights are 1 / variance.
    weights = 1 / torch.stack([sigma**2, level(r) ** 2, level(S) ** 2])
    expected = (weights[0] * X + weights[1] * y + weights[2] * BASE) / weights.sum()
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("way", WAYS, ids=["dps", "x0"])
def test_with_the_noise_the_error_of_a_plain_likelihood_goes(way):
    y, r = 0.7, 0.4
    errors = []
    for sigma in map(level, (0.1, 0.01)):
        got = way(unguided, observed(y, r**2))(X, sigma)
        weights = 1 / torch.stack([sigma**2, level(r) ** 2, level(S) ** 2])
        exact = (weights[0] * X + weights[1] * y + weights[2] * BASE) / weights.sum()
        errors.append(float((got - exact).abs().max()))
    assert errors[1] < 1.2e-4 * errors[0]  # of order sigma^4


@pytest.mark.parametrize("way", WAYS, ids=["dps", "x0"])
def test_samplers_end_in_the_posterior(way):
    """The flow that ends in N(mean, deviation^2) shrinks distances by deviation / sigma."""
    y, r = 0.7, 0.4
    k = S**2 / (S**2 + r**2)
    mean, deviation = BASE + k * (y - BASE), S * (1 - k) ** 0.5

    def guided(x, sigma):
        variance_ = S**2 * sigma**2 / (S**2 + sigma**2)
        return way(unguided, observed(y, r**2 + variance_))(x, sigma)

    levels = sampling_sigmas(Karras(0.002, 80.0, 7.0), 200)
    start = initial_state(X, levels[0], mean, deviation)
    *_, last = Heun().iterate(guided, start, levels, no_noise)
    torch.testing.assert_close(last.x, mean + deviation * X, rtol=1e-3, atol=1e-3)


def test_through_the_denoiser_is_the_full_covariance():
    """Two pixels that always agree, and a log-likelihood of one of them.

    `dps_guidance` moves both, `x0_guidance` that one alone.
    """

    def agreeing(x, sigma):
        both = x.mean(3, keepdim=True)  # variance sigma^2 / 2 around the common value
        return denoised(both, sigma / 2**0.5, 0.0).expand(-1, -1, -1, 2)

    def request(x0):
        return x0[:, 0, 0, 0]

    x, sigma = torch.zeros(1, 1, 1, 2, dtype=torch.float64), level(1.0)
    variance = 0.5 * S**2 / (0.5 + S**2)
    expected = torch.full((2,), variance, dtype=torch.float64)
    torch.testing.assert_close(dps_guidance(agreeing, request)(x, sigma).flatten(), expected)
    assert x0_guidance(agreeing, request, independent)(x, sigma).flatten()[1] == 0


@pytest.mark.parametrize("sigma", [0.03, 0.1, 0.5, 3.0, 20.0, 90.0])
def test_posterior_variance_is_the_variance_of_the_posterior(sigma):
    draws = torch.Generator().manual_seed(3)
    x0, noise = torch.randn(2, 400, 1, 8, 8, generator=draws, dtype=torch.float64)
    levels = sampling_sigmas(Karras(0.05, 80.0, 7.0), 24)[:-1]
    found = posterior_variance(unguided, BASE + S * x0, levels, noise)
    inside = level(sigma).clamp(levels[-1], levels[0])
    assert float(found(level(sigma))) == pytest.approx(float(independent(inside)), rel=0.04)


def test_one_level_is_all_there_is():
    x0, noise = torch.randn(2, 400, 1, 8, 8, generator=G, dtype=torch.float64)
    found = posterior_variance(unguided, BASE + S * x0, level(0.5)[None], noise)
    assert found(level(9.0)) == found(level(0.5))
    assert float(found(level(0.5))) == pytest.approx(float(independent(level(0.5))), rel=0.02)


@pytest.mark.parametrize("way", WAYS, ids=["dps", "x0"])
def test_it_works_where_gradients_are_off_and_leaves_none_behind(way):
    with torch.no_grad():
        got = way(unguided, tilt(1.0))(X.float(), torch.tensor(0.5))
    assert got.dtype == torch.float32
    assert not got.requires_grad


def test_outside_an_interval_the_scorer_is_not_asked():
    asked = []

    def request(x0):
        asked.append(len(x0))
        return x0.sum((1, 2, 3))

    guided = guidance_interval(dps_guidance(unguided, request), unguided, low=0.2, high=1.0)
    for sigma in (2.0, 0.5, 0.1):
        guided(X, level(sigma))
    assert asked == [4]
