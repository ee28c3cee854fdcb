"""Guidance against the formula written out by hand, and its cost in evaluations."""

from itertools import pairwise
from math import isnan, nan

import pytest
import torch

from mezzotint.diffusion import (
    GUIDANCE,
    X0,
    Condition,
    Denoiser,
    Heun,
    Karras,
    autoguide,
    clamp_x0,
    guidance_interval,
    guide,
    sampling_sigmas,
    with_condition,
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


def by_factors(condition: Condition) -> list[torch.Tensor]:
    """D free, D with the first factor, D with the first two, …"""
    names = list(condition.factors)
    return [
        evaluated(lambda d, k=k: with_condition(d, condition.null(keep=names[:k])))[0]
        for k in range(len(names) + 1)
    ]


def test_the_parts_differ_so_that_the_tests_below_can_fail():
    free, label, both = by_factors(BOTH)
    assert (free != label).any()
    assert (label != both).any()
    # Counting's own formula, so that a condition that never arrives is seen.
    torch.testing.assert_close(
        label - free, torch.tensor([10.0, 20, 0]).double()[:, None, None, None].expand_as(X)
    )


def test_without_a_condition_the_denoiser_is_unconditional():
    torch.testing.assert_close(evaluated(with_condition)[0], by_factors(LABEL)[0], rtol=0, atol=0)


@pytest.mark.parametrize("condition", [LABEL, BOTH], ids=["label", "label and style"])
def test_scale_1_is_the_condition_in_one_evaluation(condition):
    x0, calls, rows = evaluated(lambda d: guide(d, condition, 1.0))
    assert torch.equal(x0, evaluated(lambda d: with_condition(d, condition))[0])
    assert (calls, rows) == (1, B)


@pytest.mark.parametrize("condition", [LABEL, BOTH], ids=["label", "label and style"])
def test_scale_0_is_unconditional_in_one_evaluation(condition):
    x0, calls, rows = evaluated(lambda d: guide(d, condition, 0.0))
    assert torch.equal(x0, by_factors(condition)[0])
    assert (calls, rows) == (1, B)


@pytest.mark.parametrize("scale", [-1.0, 0.3, 1.3, 7.5])
def test_one_factor_is_the_formula_of_ho_and_salimans(scale):
    free, label = by_factors(LABEL)
    x0, calls, rows = evaluated(lambda d: guide(d, LABEL, scale))
    w = scale - 1
    torch.testing.assert_close(x0, (1 + w) * label - w * free, rtol=1e-13, atol=1e-12)
    assert (calls, rows) == (1, 2 * B)


@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_all_null_is_one_evaluation_at_any_scale(scale):
    x0, calls, rows = evaluated(lambda d: guide(d, BOTH.null(), scale, {"style": 2.0}))
    assert torch.equal(x0, by_factors(BOTH)[0])
    assert (calls, rows) == (1, B)


SLOPES = {"slant": 0.25, "width": -0.6}


class Toy:
    """The exact denoiser of Gaussians whose means depend on label and styles jointly.

    Where the condition has a guidance scale w, it is the one with perfect model guidance.
    """

    def __init__(self, largest: float = 1.0) -> None:
        self.largest, self.rows, self.seen = largest, 0, []

    @staticmethod
    def mean(label: int, *styles: float) -> float:
        known = 0.0 if label < 0 else [-0.6, 0.3, 0.8][label]
        own = sum(k * v for k, v in zip(SLOPES.values(), styles, strict=True) if not isnan(v))
        return 0.1 + known + own * (1.0 if label < 0 else 0.5 + label)

    def __call__(self, x, sigma, condition):
        self.rows += len(x)
        columns = [condition.factors[name].tolist() for name in ("label", *SLOPES)]
        scales = condition.factors.get(GUIDANCE, torch.full((len(x),), nan)).tolist()
        means = []
        for w, *asked in zip(scales, *columns, strict=True):
            self.seen.append(asked)
            null, mean = self.mean(-1, nan, nan), self.mean(*asked)
            if isnan(w):
                means.append(mean)
            else:
                assert 1 < w <= self.largest, "the network never learned this scale"
                assert asked[0] >= 0, "the scale is null where all else is"
                means.append(null + w * (mean - null))
        return denoised(x, sigma, torch.tensor(means, dtype=torch.float64)[:, None, None, None])


M = 3.0
REQUESTED = {
    "nothing": [(1, nan, nan), (2, nan, nan), (0, nan, nan)],
    "a style": [(1, 0.5, nan), (2, -2.0, nan), (0, 7.0, nan)],
    "of some": [(1, 0.5, nan), (2, nan, nan), (0, 7.0, nan)],
    "both": [(1, 0.5, 1.5), (2, -2.0, nan), (0, nan, 0.3)],
}


def requested_of(rows) -> Condition:
    label, slant, width = zip(*rows, strict=True)
    return Condition(
        {
            "label": torch.tensor(label),
            "slant": torch.tensor(slant, dtype=torch.float64),
            "width": torch.tensor(width, dtype=torch.float64),
        }
    )


def by_formula(rows, stages, coefficients) -> torch.Tensor:
    """D at the first stage, plus a coefficient times each change; a stage says what is kept."""
    means = []
    for row in rows:
        kept = [
            [value if k in stage else (nan if k else -1) for k, value in enumerate(row)]
            for stage in stages
        ]
        d = [Toy.mean(*each) for each in kept]
        changes = [after - before for before, after in pairwise(d)]
        means.append(d[0] + sum(c * x for c, x in zip(coefficients, changes, strict=True)))
    return denoised(X, SIGMA, torch.tensor(means, dtype=torch.float64)[:, None, None, None])


COSTS = {  # (model guidance, scale) -> evaluations at k = 0, 0.5, 1, 2, where a style is asked for
    (1, 0.0): (1, 1, 1, 1), (M, 0.0): (1, 1, 1, 1),
    (1, 0.5): (2, 3, 2, 3), (M, 0.5): (2, 3, 2, 3),
    (1, 1.0): (1, 2, 1, 2), (M, 1.0): (1, 2, 1, 2),
    (1, 1.5): (2, 3, 2, 3), (M, 1.5): (1, 2, 1, 2),
    (1, M): (2, 3, 2, 3), (M, M): (1, 2, 1, 2),
    (1, M + 2): (2, 3, 2, 3), (M, M + 2): (2, 3, 2, 3),
}  # fmt: skip


@pytest.mark.parametrize("asked", ["nothing", "a style", "of some"])
@pytest.mark.parametrize("k", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(("largest", "scale"), COSTS)
def test_a_scale_means_the_same_with_model_guidance_and_without(largest, scale, k, asked):
    toy, rows = Toy(largest), REQUESTED[asked]
    denoise = guide(toy, requested_of(rows), scale, {"slant": k}, max_model_guidance=largest)
    expected = by_formula(rows, [(), (0,), (0, 1)], [scale, scale * k])
    torch.testing.assert_close(denoise(X, SIGMA), expected, rtol=1e-12, atol=1e-12)
    at = 2 if asked == "nothing" else (0.0, 0.5, 1.0, 2.0).index(k)  # as if the style were free
    assert toy.rows == B * COSTS[largest, scale][at]


@pytest.mark.parametrize("largest", [1.0, M])
@pytest.mark.parametrize(
    ("scale", "slant", "width", "evaluations"),
    [
        (1.5, 2.0, 0.5, 4),
        (1.5, 2.0, 2.0, 3),
        (1.5, 1.0, 1.0, 2),
        (M + 2, 1.0, 0.0, 2),
        (0, 2, 3, 1),
    ],
)
def test_several_styles_are_nested_in_order(largest, scale, slant, width, evaluations):
    toy, rows = Toy(largest), REQUESTED["both"]
    scales = {"slant": slant, "width": width}
    denoise = guide(toy, requested_of(rows), scale, scales, max_model_guidance=largest)
    stages = [(), (0,), (0, 1), (0, 1, 2)]
    expected = by_formula(rows, stages, [scale, scale * slant, scale * width])
    torch.testing.assert_close(denoise(X, SIGMA), expected, rtol=1e-12, atol=1e-12)
    learned = 1 if largest >= scale > 0 else 0  # the unconditional term falls away
    assert toy.rows == B * (evaluations - learned)


@pytest.mark.parametrize("asked", ["nothing", "of some", "both"])
@pytest.mark.parametrize(("largest", "scale"), COSTS)
def test_a_style_that_training_never_left_out_stays_with_the_label(largest, scale, asked):
    toy, rows = Toy(largest), REQUESTED[asked]
    condition = requested_of(rows)
    denoise = guide(toy, condition, scale, droppable=("label",), max_model_guidance=largest)
    expected = by_formula(rows, [(), (0, 1, 2)], [scale])
    torch.testing.assert_close(denoise(X, SIGMA), expected, rtol=1e-12, atol=1e-12)
    assert toy.rows == B * COSTS[largest, scale][2]
    # Training shows an image with all that it is, or with nothing: see
    # `Condition.drop_styles_jointly`.
    whole = [str(row) for row in map(list, [*rows, *[(-1, nan, nan)] * B])]
    assert {str(row) for row in toy.seen} <= set(whole)


def test_a_style_between_others_that_were_never_left_out_has_its_own_term():
    toy, rows = Toy(), REQUESTED["both"]
    denoise = guide(toy, requested_of(rows), 2.0, {"slant": 0.5}, droppable=("label", "slant"))
    expected = by_formula(rows, [(), (0, 2), (0, 1, 2)], [2.0, 1.0])
    torch.testing.assert_close(denoise(X, SIGMA), expected, rtol=1e-12, atol=1e-12)
    assert toy.rows == 3 * B


@pytest.mark.parametrize(
    ("scale", "styles", "droppable"),
    [
        (1.0, {"thickness": 2.0}, None),
        (1.0, {"label": 2.0}, None),
        (1.0, {"slant": 2.0}, ("label", "width")),
        (2.0, {}, ("slant",)),
        (0.0, {}, ()),
    ],
)
def test_guidance_by_what_was_never_left_out_is_refused(scale, styles, droppable):
    with pytest.raises(ValueError, match="in training are|that training dropped"):
        guide(Toy(), requested_of(REQUESTED["both"]), scale, styles, droppable=droppable)


def test_a_float32_state_stays_float32():
    denoise = guide(Denoiser(Counting(), X0()), LABEL, 2.0)
    assert denoise(X.float(), SIGMA.float()).dtype == torch.float32


def drawn(denoise, x, high=20.0):
    """The ODE from `high` to 0 in many steps of Heun."""
    levels = sampling_sigmas(Karras(0.002, high), 400)
    *_, last = Heun().iterate(denoise, x, levels, no_noise)
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
        x0 = autoguide(with_condition(good, LABEL), with_condition(bad, LABEL), scale)(X, SIGMA)
        assert torch.equal(x0, by_factors(LABEL)[1])
        assert other.network.calls == 0
        good.network.calls = bad.network.calls = 0


@pytest.mark.parametrize("scale", [0.3, 2.0, 7.5])
def test_autoguidance_by_an_equal_model_changes_nothing(scale):
    x0 = evaluated(lambda d: autoguide(with_condition(d, LABEL), with_condition(d, LABEL), scale))[
        0
    ]
    assert torch.equal(x0, by_factors(LABEL)[1])


def test_guidance_of_autoguided_denoisers_is_autoguidance_of_guided_ones():
    good = Denoiser(Counting(), X0())

    def bad(x, sigma, condition):
        return 0.7 * good(x, sigma, condition) - 0.2

    def both(x, sigma, condition):
        return autoguide(with_condition(good, condition), with_condition(bad, condition), 1.8)(
            x, sigma
        )

    one = guide(both, LABEL, 2.5)(X, SIGMA)
    other = autoguide(guide(good, LABEL, 2.5), guide(bad, LABEL, 2.5), 1.8)(X, SIGMA)
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("sigma", "inside"), [(0.1, False), (0.2, False), (0.21, True), (0.9, True), (0.91, False)]
)
def test_an_interval_holds_above_low_up_to_high(sigma, inside):
    denoise = guidance_interval(lambda x, s: x + s, lambda x, s: x - s, low=0.2, high=0.9)
    sigma = torch.tensor(sigma, dtype=torch.float64)
    assert torch.equal(denoise(X, sigma), X + sigma if inside else X - sigma)


def test_outside_the_interval_guidance_costs_nothing():
    network = Counting()
    denoiser = Denoiser(network, X0())
    guided = guide(denoiser, LABEL, 2.0)
    denoise = guidance_interval(guided, with_condition(denoiser, LABEL), low=0.2, high=1.0)
    for sigma in (2.0, 0.5, 0.1):
        denoise(X, torch.tensor(sigma, dtype=torch.float64))
    assert (network.calls, network.rows) == (3, 4 * B)


def test_clip_keeps_x0_between_minus_one_and_one():
    got = clamp_x0(lambda x, sigma: 3 * x)(X, SIGMA)
    expected = [max(-1.0, min(1.0, 3 * value)) for value in X.flatten().tolist()]
    assert got.flatten().tolist() == expected
