"""Guidance against the formula written out by hand, and its cost in evaluations."""

import pytest
import torch

from mezzotint.diffusion import (
    X0,
    Condition,
    Denoiser,
    Heun,
    Karras,
    autoguide,
    bind,
    clip,
    guide,
    ladder,
    within,
)

from .gaussian import denoised, flowed, no_noise
from .networks import Counting

B = 3
X = torch.randn(B, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SIGMA = torch.tensor(0.8, dtype=torch.float64)
LABEL = Condition({"label": torch.tensor([1, 2, 0])})
BOTH = Condition({**LABEL.factors, "style": torch.tensor([0.5, -2.0, 7.0])})


def evaluated(denoise_of) -> tuple[torch.Tensor, int, int]:
    """x0, calls and rows of one call of what `denoise_of` makes of a denoiser."""
    network = Counting()
    denoise = denoise_of(Denoiser(network, X0()))
    return denoise(X, SIGMA), network.calls, network.rows


def parts(condition: Condition) -> list[torch.Tensor]:
    """D free, D with the first factor, D with the first two, …"""
    names = list(condition.factors)
    return [
        evaluated(lambda d, k=k: bind(d, condition.null(keep=names[:k])))[0]
        for k in range(len(names) + 1)
    ]


def test_the_parts_differ_so_that_the_tests_below_can_fail():
    free, label, both = parts(BOTH)
    assert (free != label).any()
    assert (label != both).any()
    # Counting's own formula, so that a condition that never arrives is seen.
    torch.testing.assert_close(
        label - free, torch.tensor([10.0, 20, 0]).double()[:, None, None, None].expand_as(X)
    )


def test_without_a_condition_bind_is_unconditional():
    torch.testing.assert_close(evaluated(bind)[0], parts(LABEL)[0], rtol=0, atol=0)


@pytest.mark.parametrize("condition", [LABEL, BOTH], ids=["label", "label and style"])
def test_scale_1_is_bind_in_one_evaluation(condition):
    for scales in ({}, dict.fromkeys(condition.factors, 1.0)):
        x0, calls, rows = evaluated(lambda d, s=scales: guide(d, condition, s))
        assert torch.equal(x0, evaluated(lambda d: bind(d, condition))[0])
        assert (calls, rows) == (1, B)


@pytest.mark.parametrize("condition", [LABEL, BOTH], ids=["label", "label and style"])
def test_scale_0_is_unconditional_in_one_evaluation(condition):
    scales = dict.fromkeys(condition.factors, 0.0)
    x0, calls, rows = evaluated(lambda d: guide(d, condition, scales))
    assert torch.equal(x0, parts(condition)[0])
    assert (calls, rows) == (1, B)


@pytest.mark.parametrize("scale", [-1.0, 0.3, 1.3, 7.5])
def test_one_factor_is_the_formula_of_ho_and_salimans(scale):
    free, label = parts(LABEL)
    x0, calls, rows = evaluated(lambda d: guide(d, LABEL, {"label": scale}))
    w = scale - 1
    torch.testing.assert_close(x0, (1 + w) * label - w * free, rtol=1e-13, atol=1e-12)
    assert (calls, rows) == (1, 2 * B)


@pytest.mark.parametrize(
    ("label_scale", "style_scale", "terms"),
    [(2.0, 3.5, 3), (1.3, 0.4, 3), (1.0, 2.0, 2), (2.0, 0.0, 2), (3.0, 3.0, 2), (0.0, 2.0, 3)],
)
def test_two_factors_are_nested(label_scale, style_scale, terms):
    free, label, both = parts(BOTH)
    scales = {"label": label_scale, "style": style_scale}
    x0, calls, rows = evaluated(lambda d: guide(d, BOTH, scales))
    expected = free + label_scale * (label - free) + style_scale * (both - label)
    torch.testing.assert_close(x0, expected, rtol=1e-13, atol=1e-12)
    # Terms of weight 0 cost nothing, the others go as one batch.
    assert (calls, rows) == (1, terms * B)


def test_a_factor_without_a_scale_has_scale_1():
    got = evaluated(lambda d: guide(d, BOTH, {"label": 2.0}))[0]
    expected = evaluated(lambda d: guide(d, BOTH, {"label": 2.0, "style": 1.0}))[0]
    assert torch.equal(got, expected)


def test_a_float32_state_stays_float32():
    denoise = guide(Denoiser(Counting(), X0()), LABEL, {"label": 2.0})
    assert denoise(X.float(), SIGMA.float()).dtype == torch.float32


def drawn(denoise, x, high=20.0):
    """The ODE from `high` to 0 in many steps of Heun."""
    levels = ladder(Karras(0.002, high), 400)
    *_, last = Heun().walk(denoise, x, levels, no_noise)
    return last.x


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.7, 3.0])
def test_a_weaker_model_with_another_mean_moves_the_mean(scale):
    good, bad = (lambda x, sigma, m=m: denoised(x, sigma, m) for m in (0.3, -0.5))
    high = torch.tensor(20.0, dtype=torch.float64)
    expected = flowed(20 * X, high, torch.zeros(()), -0.5 + scale * (0.3 - -0.5))
    got = drawn(autoguide(good, bad, scale), 20 * X)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 3.0])
def test_a_weaker_model_that_is_too_wide_makes_the_samples_narrower(scale):
    """d(x - m) / (x - m) = sum_k w_k sigma / (S_k^2 + sigma^2) d sigma, with w = (s, 1 - s)."""
    mean, narrow, wide, high = 0.3, 0.5, 1.0, 20.0
    good, bad = (lambda x, sigma, s=s: denoised(x, sigma, mean, s) for s in (narrow, wide))
    shrink = [(s**2 / (s**2 + high**2)) ** 0.5 for s in (narrow, wide)]
    expected = mean + shrink[0] ** scale * shrink[1] ** (1 - scale) * (20 * X - mean)
    got = drawn(autoguide(good, bad, scale), 20 * X)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)


def test_autoguidance_of_scale_1_and_0_is_one_model_alone():
    good, bad = Denoiser(Counting(), X0()), Denoiser(Counting(), X0())
    for scale, other in ((1, bad), (0, good)):
        x0 = autoguide(bind(good, LABEL), bind(bad, LABEL), scale)(X, SIGMA)
        assert torch.equal(x0, parts(LABEL)[1])
        assert other.network.calls == 0
        good.network.calls = bad.network.calls = 0


@pytest.mark.parametrize("scale", [0.3, 2.0, 7.5])
def test_autoguidance_by_an_equal_model_changes_nothing(scale):
    x0 = evaluated(lambda d: autoguide(bind(d, LABEL), bind(d, LABEL), scale))[0]
    assert torch.equal(x0, parts(LABEL)[1])


def test_guidance_of_autoguided_denoisers_is_autoguidance_of_guided_ones():
    good = Denoiser(Counting(), X0())

    def bad(x, sigma, condition):
        return 0.7 * good(x, sigma, condition) - 0.2

    def both(x, sigma, condition):
        return autoguide(bind(good, condition), bind(bad, condition), 1.8)(x, sigma)

    scales = {"label": 2.5}
    one = guide(both, LABEL, scales)(X, SIGMA)
    other = autoguide(guide(good, LABEL, scales), guide(bad, LABEL, scales), 1.8)(X, SIGMA)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "inside"), [(0.1, False), (0.2, False), (0.21, True), (0.9, True), (0.91, False)]
)
def test_an_interval_holds_above_low_up_to_high(sigma, inside):
    denoise = within(lambda x, s: x + s, lambda x, s: x - s, low=0.2, high=0.9)
    sigma = torch.tensor(sigma, dtype=torch.float64)
    assert torch.equal(denoise(X, sigma), X + sigma if inside else X - sigma)


def test_outside_the_interval_guidance_costs_nothing():
    network = Counting()
    denoiser = Denoiser(network, X0())
    guided = guide(denoiser, LABEL, {"label": 2.0})
    denoise = within(guided, bind(denoiser, LABEL), low=0.2, high=1.0)
    for sigma in (2.0, 0.5, 0.1):
        denoise(X, torch.tensor(sigma, dtype=torch.float64))
    assert (network.calls, network.rows) == (3, 4 * B)


def test_clip_keeps_x0_between_minus_one_and_one():
    got = clip(lambda x, sigma: 3 * x)(X, SIGMA)
    expected = [max(-1.0, min(1.0, 3 * value)) for value in X.flatten().tolist()]
    assert got.flatten().tolist() == expected
