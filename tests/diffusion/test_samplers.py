"""The samplers' small print: cost, starting state, arguments."""

import pytest
import torch

from mezzotint.diffusion import (
    Ancestral,
    Ipndm,
    Karras,
    LinearBeta,
    Multistep,
    distinct_sigmas,
    initial_state,
    sampling_sigmas,
)

from .examples import SAMPLERS, every, names
from .gaussian import denoised

ALL = pytest.mark.parametrize("sampler", every(SAMPLERS), ids=names(every(SAMPLERS)))


@ALL
@pytest.mark.parametrize("evaluations", [1, 2, 3, 12, 25])
def test_a_sampler_spends_what_it_is_given_and_no_more(sampler, evaluations):
    spent = 0

    def denoise(x, sigma):
        nonlocal spent
        spent += 1
        return denoised(x, sigma, 0.0)

    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    levels = sampling_sigmas(Karras(), sampler.steps(evaluations))
    list(sampler.iterate(denoise, x, levels, lambda: torch.zeros_like(x)))
    assert spent <= evaluations
    # One step more would be over the budget (Heun: two evaluations).
    assert spent > evaluations - 2
    assert spent == sampler.evaluations(len(levels) - 1)
    assert sampler.steps(spent) == len(levels) - 1


@ALL
@pytest.mark.parametrize(
    ("levels", "where"),
    [
        ([9.0, 9.0, 4.0, 2.0, 1.0, 0.0], r"levels\[1\] = 9 follows levels\[0\] = 9"),
        ([9.0, 4.0, 2.0, 2.0, 2.0, 1.0, 0.0], r"levels\[3\] = 2 follows levels\[2\] = 2"),
        ([9.0, 4.0, 2.0, 1.0, 0.0, 0.0], r"levels\[5\] = 0 follows levels\[4\] = 0"),
        ([9.0, 2.0, 4.0, 0.0], r"levels\[2\] = 4 follows levels\[1\] = 2"),
        ([9.0, float("nan"), 4.0, 0.0], r"levels\[1\] = nan follows"),
    ],
    ids=["start", "middle", "end", "rising", "nan"],
)
def test_levels_that_do_not_descend_are_refused_before_anything_is_computed(
    sampler, levels, where
):
    def denoise(x, sigma):
        raise AssertionError("evaluated")

    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    process = sampler.iterate(
        denoise, x, torch.tensor(levels).double(), lambda: torch.zeros_like(x)
    )
    with pytest.raises(ValueError, match=f"strictly descend.*{where}.*distinct_sigmas"):
        next(process)


@ALL
@pytest.mark.parametrize(
    "levels",
    [
        [9.0, 9.0, 4.0, 2.0, 1.0, 0.0],
        [9.0, 4.0, 2.0, 2.0, 2.0, 1.0, 0.0],
        [9.0, 9.0, 9.0, 0.0, 0.0],
    ],
    ids=["start", "middle", "ends"],
)
def test_levels_merged_are_those_without_the_repetition(sampler, levels):
    x = torch.full((1, 1, 1, 1), 9.0, dtype=torch.float64)

    def last(levels):
        *_, step = sampler.iterate(
            lambda x, s: denoised(x, s, 0.2), x, levels, lambda: torch.ones_like(x)
        )
        return step.x

    merged = distinct_sigmas(torch.tensor(levels).double())
    assert merged.tolist() == sorted(set(levels), reverse=True)
    assert last(merged).isfinite().all()


@ALL
def test_every_step_carries_the_estimate_that_led_there(sampler):
    x = torch.full((2, 1, 1, 1), 50.0, dtype=torch.float64)
    levels = sampling_sigmas(Karras(), 6)
    states = [x]
    for now, step in zip(
        levels,
        sampler.iterate(lambda x, s: denoised(x, s, 0.2), x, levels, lambda: torch.ones_like(x)),
        strict=False,
    ):
        torch.testing.assert_close(step.x0, denoised(states[-1], now, 0.2))
        states.append(step.x)
    # The last state is the last estimate: nothing is left to add at sigma 0.
    torch.testing.assert_close(step.x, step.x0)


def test_in_between_eta_scales_the_fresh_noise_of_ddim():
    # Song et al. 2020, equations 12 and 16, in x_t and alpha_bar.
    eta, levels = 0.6, LinearBeta(1000).levels()[[600, 400]]
    xt, x0, z = torch.randn(3, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    now, then = 1 / (1 + levels**2)
    std = eta * ((1 - then) / (1 - now)).sqrt() * (1 - now / then).sqrt()
    eps = (xt - now.sqrt() * x0) / (1 - now).sqrt()
    expected = then.sqrt() * x0 + (1 - then - std**2).sqrt() * eps + std * z
    (step,) = Ancestral(eta).iterate(lambda x, s: x0, xt / now.sqrt(), levels, lambda: z)
    torch.testing.assert_close(step.x * then.sqrt(), expected, rtol=0, atol=1e-12)


def test_ddim_asks_for_no_noise_twice_the_same():
    def refuse():
        raise AssertionError("eta 0 asked for noise")

    x, levels = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64), sampling_sigmas(Karras(), 5)
    twice = [
        list(Ancestral(0.0).iterate(lambda x, s: denoised(x, s, 0.2), x, levels, refuse))[-1].x
        for _ in range(2)
    ]
    assert torch.equal(*twice)


@pytest.mark.parametrize(
    ("mean", "deviation"), [(0.0, 0.0), (0.0, 1.0), (-0.4, 0.6)], ids=["pure", "ddpm", "data"]
)
def test_the_initial_state_has_the_moments_of_noised_data(mean, deviation):
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0)).double()
    noise = (noise - noise.mean()) / noise.std()
    sigma = LinearBeta(100).levels()[-1]
    x = initial_state(noise, sigma, mean, deviation)
    # x = x0 + sigma eps with x0 of that mean and deviation; for pure noise there is no x0.
    assert float(x.mean()) == pytest.approx(mean, abs=1e-9)
    assert float(x.var()) == pytest.approx(deviation**2 + float(sigma) ** 2, rel=1e-9)
    if (mean, deviation) == (0.0, 1.0):
        torch.testing.assert_close(x / (1 + sigma**2).sqrt(), noise)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Ancestral(-0.1),
        lambda: Ancestral(1.1),
        lambda: Ancestral(order=3),
        lambda: Multistep(0),
        lambda: Multistep(4),
        lambda: Ipndm(0),
        lambda: Ipndm(5),
    ],
)
def test_impossible_samplers_are_refused(build):
    with pytest.raises(ValueError, match="got"):
        build()
