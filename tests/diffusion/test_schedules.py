"""Schedules against textbook loops in plain Python, and the trap numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.diffusion import (
    NO_SIGNAL,
    Cosine,
    Discrete,
    Karras,
    Learned,
    LinearBeta,
    LogNormal,
    Resampled,
    ZeroTerminal,
    distinct_sigmas,
    sampling_sigmas,
    terminal_snr,
    training_sigmas,
)

from .examples import SCHEDULES, every, names

ALL = pytest.mark.parametrize("schedule", every(SCHEDULES), ids=names(every(SCHEDULES)))
DISCRETE = [schedule for schedule in every(SCHEDULES) if isinstance(schedule, Discrete)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels_of(betas: list[float]) -> list[float]:
    """sqrt(1 / alpha_bar - 1) with alpha_bar the running product."""
    bar, levels = 1.0, []
    for beta in betas:
        bar *= 1 - beta
        levels.append(math.sqrt((1 - bar) / bar))
    return levels


def linear_betas(steps: int, factor: float = 1.0) -> list[float]:
    return [factor * (1e-4 + (0.02 - 1e-4) * t / (steps - 1)) for t in range(steps)]


def cosine_betas(steps: int) -> list[float]:
    def bar(t: int) -> float:
        return math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - bar(t + 1) / bar(t), 0.999) for t in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [
        (LinearBeta(1000), linear_betas(1000)),
        (LinearBeta(100), linear_betas(100)),
        (LinearBeta(100, rescaled=True), linear_betas(100, 10.0)),
        (LinearBeta(4000, rescaled=True), linear_betas(4000, 0.25)),
        (Cosine(1000), cosine_betas(1000)),
        (Cosine(50), cosine_betas(50)),
    ],
    ids=lambda value: repr(value) if isinstance(value, Discrete) else "textbook",
)
def test_discrete_levels_are_those_of_the_textbook_loop(schedule, betas):
    expected = torch.tensor(levels_of(betas), dtype=torch.float64)
    torch.testing.assert_close(schedule.levels(), expected, rtol=1e-9, atol=0)


def test_linear_betas_with_100_steps_do_not_end_in_noise():
    levels = LinearBeta(100).levels()
    assert float(levels[-1]) == pytest.approx(1.32, abs=0.005)
    assert float(1 / (1 + levels[-1] ** 2)) == pytest.approx(0.364, abs=0.0005)


def test_rescaled_linear_betas_end_in_noise_but_start_higher():
    levels = LinearBeta(100, rescaled=True).levels()
    assert float(levels[-1]) == pytest.approx(221, abs=0.5)
    assert float(levels[0]) == pytest.approx(0.0316, abs=5e-5)


def test_the_cosine_schedule_has_an_enormous_last_level():
    assert float(Cosine(1000).levels()[-1]) == pytest.approx(2e4, rel=0.05)


def zero_terminal(betas: list[float]) -> list[float]:
    """Lin et al. 2023, algorithm 1, in plain Python: sqrt(alpha_bar) after rescaling."""
    bar, roots = 1.0, []
    for beta in betas:
        bar *= 1 - beta
        roots.append(math.sqrt(bar))
    first, last = roots[0], roots[-1]
    return [(root - last) * first / (first - last) for root in roots]


@pytest.mark.parametrize(
    ("base", "betas"),
    [(LinearBeta(1000), linear_betas(1000)), (Cosine(200), cosine_betas(200))],
    ids=lambda value: repr(value) if isinstance(value, Discrete) else "textbook",
)
def test_zero_terminal_is_algorithm_1_of_lin_et_al(base, betas):
    levels, roots = ZeroTerminal(base).levels(), zero_terminal(betas)
    got = 1 / torch.sqrt(1 + levels**2)
    torch.testing.assert_close(
        got[:-1], torch.tensor(roots[:-1], dtype=torch.float64), rtol=1e-9, atol=1e-12
    )
    assert float(levels[0]) == pytest.approx(float(base.levels()[0]), rel=1e-9)
    assert float(levels[-1]) == NO_SIGNAL
    assert float(levels[-2]) < NO_SIGNAL


def test_terminal_snr_is_one_over_sigma_squared_and_0_without_signal():
    assert terminal_snr(LinearBeta(100)) == pytest.approx(0.364 / (1 - 0.364), rel=2e-3)
    assert terminal_snr(Karras()) == pytest.approx(80.0**-2)
    assert terminal_snr(ZeroTerminal(LinearBeta(100))) == 0


def test_karras_runs_from_low_to_high_evenly_in_the_root():
    schedule = Karras(sigma_min=0.01, sigma_max=50.0, rho=5.0)
    sigma = schedule.sigma(torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64))
    quarter = (0.75 * 0.01**0.2 + 0.25 * 50.0**0.2) ** 5
    torch.testing.assert_close(sigma, torch.tensor([0.01, quarter, 50.0], dtype=torch.float64))


def test_log_normal_gives_the_quantiles_of_the_log_normal_distribution():
    u = torch.linspace(1e-5, 1 - 1e-5, 999, dtype=torch.float64)
    normal = torch.distributions.LogNormal(*torch.tensor([-0.4, 1.7], dtype=torch.float64))
    torch.testing.assert_close(LogNormal(-0.4, 1.7).sigma(u), normal.icdf(u), rtol=1e-8, atol=0)


def test_log_normal_is_finite_at_the_ends():
    low, high = LogNormal(0.0, 1.0).sigma(torch.tensor([0.0, 1.0], dtype=torch.float64)).log()
    assert (float(low), float(high)) == pytest.approx((-4.7534, 4.7534), abs=1e-4)


@ALL
@given(st.lists(st.floats(0, 1), min_size=2, max_size=50))
def test_a_schedule_never_decreases_and_stays_positive(schedule, positions):
    sigma = schedule.sigma(torch.tensor(sorted(positions), dtype=torch.float64))
    assert (sigma > 0).all()
    # One u may round differently in another lane of a vector register.
    assert (sigma[1:] >= sigma[:-1] * (1 - 1e-14)).all()
    assert sigma.isfinite().all()


@ALL
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_sampling_sigmas_descend_from_the_noisiest_level_to_exactly_0(schedule, steps):
    levels = sampling_sigmas(schedule, steps)
    assert levels.shape == (steps + 1,)
    assert levels.dtype == torch.float64
    assert levels[0] == schedule.sigma(torch.ones(1, dtype=torch.float64))
    assert (levels[1:] < levels[:-1]).all()
    assert levels[-1] == 0


def test_t_sampling_steps_visit_every_discrete_level_once():
    for steps in range(2, 1001):
        schedule = LinearBeta(steps)
        assert torch.equal(sampling_sigmas(schedule, steps)[:-1].flip(0), schedule.levels()), steps


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        (ZeroTerminal(LinearBeta(10_000)), 100),  # nearly half of its levels are NO_SIGNAL
        (LogNormal(), 1_500_000),  # the tails are cut at one in a million
    ],
    ids=repr,
)
def test_sampling_sigmas_visit_no_level_twice(schedule, steps):
    levels = sampling_sigmas(schedule, steps)
    visited = schedule.sigma(torch.linspace(1, 0, steps, dtype=torch.float64)).tolist()
    assert levels.tolist() == [*sorted(set(visited), reverse=True), 0.0]
    assert len(levels) < steps
    assert (levels[1:] < levels[:-1]).all()


def test_equal_neighbours_are_merged():
    levels = torch.tensor([5.0, 5.0, 3.0, 2.0, 2.0, 2.0, 0.0])
    assert distinct_sigmas(levels).tolist() == [5, 3, 2, 0]


@pytest.mark.parametrize("steps", [0, 11])
def test_sampling_sigmas_refuse_no_step_and_more_steps_than_levels(steps):
    with pytest.raises(ValueError, match=f"1 to 10 steps, got {steps}"):
        sampling_sigmas(LinearBeta(10), steps)


class Identity:
    """sigma = u: shows the positions that `training_sigmas` takes."""

    def sigma(self, u):
        return u


@pytest.mark.parametrize("n", [1, 2, 13, 128])
def test_draw_takes_one_level_from_each_nth_of_the_schedule(n):
    for seed in range(20):
        u = training_sigmas(Identity(), n, seeded(seed))
        assert torch.equal((u * n).floor(), torch.arange(n).float())


def test_draw_is_uniform_within_each_nth():
    u = torch.stack([training_sigmas(Identity(), 4, seeded(seed)) for seed in range(4000)])
    inside = (u * 4 - torch.arange(4)).sort(0).values
    expected = ((torch.arange(4000) + 0.5) / 4000)[:, None].expand(-1, 4)
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand times; the seeds are fixed.
    assert float((inside - expected).abs().max()) < 1.95 / math.sqrt(4000)


@pytest.mark.parametrize("schedule", DISCRETE, ids=repr)
def test_draw_takes_every_discrete_level_equally_often(schedule):
    levels = schedule.levels().float()
    values, counts = training_sigmas(schedule, 3 * len(levels), seeded()).unique(
        return_counts=True
    )
    assert torch.equal(values, levels)
    assert (counts == 3).all()


@ALL
def test_draw_depends_on_the_generator_alone(schedule):
    first, again, other = (training_sigmas(schedule, 16, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert isinstance(schedule, Discrete) or not torch.equal(first, other)
    assert first.dtype == torch.float32


SHARES = st.lists(st.floats(0.01, 1), min_size=1, max_size=9).map(
    lambda raw: tuple(share / math.fsum(raw) for share in raw)
)


@given(SHARES)
def test_what_is_learned_cannot_lower_the_loss_of_a_frozen_network(shares):
    """The mean of any function of sigma, weighted, does not depend on the schedule's interior.

    Without the weights it does: drawing more of the easy levels would look like progress.
    """
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    base, drawn = LogNormal(), Resampled(LogNormal(), shares)

    def loss(sigma):  # of a denoiser that outputs 0, for data of variance 1 / 4
        return 1 / (1 + sigma**2 / 0.25)

    expected = loss(base.sigma(u)).mean()
    weighted = drawn.weight(u) * loss(drawn.sigma(u))
    assert float(weighted.mean()) == pytest.approx(float(expected), rel=1e-3)
    assert float(drawn.weight(u).mean()) == pytest.approx(1, rel=1e-3)
    easy = Resampled(base, (0.1, 0.9))  # nine in ten from the noisier half
    assert float(loss(easy.sigma(u)).mean()) < 0.7 * float(expected)


@given(SHARES)
def test_a_resampled_schedule_gives_each_piece_its_share(shares):
    drawn = Resampled(LogNormal(), shares)
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    piece = (drawn.position(u) * len(shares)).long().clamp(max=len(shares) - 1)
    counts = torch.bincount(piece, minlength=len(shares)) / len(u)
    assert counts.tolist() == pytest.approx(shares, abs=1e-4)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert drawn.position(ends).tolist() == pytest.approx([0, 1], abs=1e-12)


def test_the_shares_that_are_learned_vary_least():
    """Against a search over all other shares of two pieces, by the variance's definition."""
    second = [9.0, 1.0]

    def spread(share):  # E[(weight * loss)^2], each piece 1/2 of the base
        return sum(m / (4 * s) for m, s in zip(second, (share, 1 - share), strict=True))

    best = min((k / 1000 for k in range(1, 1000)), key=spread)
    learned = Learned(LogNormal(), pieces=2, floor=1e-6).resampled(second)
    assert learned.shares[0] == pytest.approx(best, abs=2e-3)
    assert Learned(LogNormal(), pieces=3).resampled(()).shares == pytest.approx((1 / 3,) * 3)
    assert Learned(LogNormal(), pieces=2, floor=0.5).resampled((1.0, 0.0)).shares == pytest.approx(
        (0.75, 0.25)
    )


@pytest.mark.parametrize(
    "build",
    [
        lambda: LinearBeta(0),
        lambda: LinearBeta(first=0.0),
        lambda: LinearBeta(first=0.03),
        lambda: LinearBeta(last=1.0),
        lambda: LinearBeta(20, rescaled=True),
        lambda: Cosine(0),
        lambda: Cosine(cap=1.0),
        lambda: Karras(sigma_min=0.0),
        lambda: Karras(sigma_min=2.0, sigma_max=1.0),
        lambda: Karras(rho=0.0),
        lambda: LogNormal(std=0.0),
        lambda: ZeroTerminal(LinearBeta(1)),
        lambda: Learned(Cosine()),
        lambda: Learned(LogNormal(), pieces=0),
        lambda: Learned(LogNormal(), floor=0.0),
        lambda: Resampled(LogNormal(), (0.5, 0.4)),
    ],
)
def test_impossible_schedules_are_refused(build):
    with pytest.raises(ValueError, match="needs"):
        build()
