"""How fast each sampler converges, and that ancestral sampling is DDPM's posterior."""

import math

import pytest
import torch
from torch import Tensor

from mezzotint.diffusion import (
    Ancestral,
    Heun,
    Ipndm,
    Karras,
    LinearBeta,
    Multistep,
    sampling_sigmas,
)
from mezzotint.diffusion.samplers import multistep_update

from .gaussian import S, column, denoised, flowed, no_noise
from .published import published_third


def exact(x: Tensor, sigma: Tensor) -> Tensor:
    return denoised(x, sigma, 0.0)


def error(sampler, steps: int) -> float:
    """Relative error at the last positive level of the rho = 7 schedule with that many steps."""
    levels = sampling_sigmas(Karras(), steps)
    x = column(levels[:1])
    *_, before_last, _ = sampler.iterate(exact, x, levels, no_noise)
    return float((before_last.x / flowed(x, levels[0], levels[-2]) - 1).abs())


def order(sampler) -> float:
    """The measured order of convergence."""
    return math.log2(error(sampler, 128) / error(sampler, 256))


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [(Ancestral(0.0), 1), (Multistep(1), 1), (Ipndm(1), 1), (Heun(), 2), (Multistep(2), 2)],
    ids=repr,
)
def test_a_sampler_converges_with_its_order(sampler, expected):
    assert order(sampler) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("sampler", [Multistep(3), Ipndm(2), Ipndm(3), Ipndm(4)], ids=repr)
def test_a_higher_sampler_with_a_low_start_is_at_least_of_second_order(sampler):
    # The first step is of order 1 with a local error of order 2, and Adams-Bashforth's weights
    # are those of equal steps: on these sigmas nobody promises more than 2.
    assert order(sampler) >= 1.8


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (Ancestral(0.0), [1.7e-1, 8.8e-2, 4.4e-2, 2.2e-2]),
        (Heun(), [7.2e-2, 1.6e-2, 3.7e-3, 8.8e-4]),
        (Multistep(2), [8.0e-2, 1.7e-2, 3.8e-3, 9.0e-4]),
    ],
    ids=repr,
)
def test_the_errors_are_those_of_plain_python(sampler, expected):
    # Computed once with scalars, outside this library, for S = 0.5 at 16, 32, 64, 128 steps.
    got = [error(sampler, steps) for steps in (16, 32, 64, 128)]
    assert got == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("sampler", [Multistep(1), Ipndm(1)], ids=repr)
def test_order_one_of_every_family_is_ddim(sampler):
    levels = sampling_sigmas(Karras(), 9)
    x = column(levels[:1])
    walks = zip(
        sampler.iterate(exact, x, levels, no_noise),
        Ancestral(0.0).iterate(exact, x, levels, no_noise),
        strict=True,
    )
    for got, want in walks:
        torch.testing.assert_close(got.x, want.x, rtol=1e-12, atol=0)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_is_exact_for_a_polynomial_slope_on_equal_steps(order):
    # What defines Adams-Bashforth: with `order` slopes, degree order - 1 is integrated exactly.
    levels = torch.cat([torch.linspace(3, 1, 9), torch.zeros(1)]).double()

    def slope_integral(a: Tensor, b: Tensor) -> Tensor:
        return sum((b ** (k + 1) - a ** (k + 1)) for k in range(order))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x - sigma * sum((k + 1) * sigma**k for k in range(order))

    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    states = [step.x for step in Ipndm(order).iterate(denoise, x, levels, no_noise)][:-1]
    # Past the first steps, which are of lower order and start from whatever they left.
    for k in range(order - 1, len(states) - 1):
        expected = slope_integral(levels[k + 1], levels[k + 2]).expand(1, 1, 1, 1)
        torch.testing.assert_close(states[k + 1] - states[k], expected, rtol=0, atol=1e-12)


def third_order_error(update, steps: int) -> float:
    """Error of a three-step formula from exact starting values, uniform in log sigma."""
    levels = torch.linspace(math.log(4.0), math.log(0.3), steps + 1, dtype=torch.float64).exp()
    first = levels[0]
    solution = [flowed(first, first, sigma) for sigma in levels]
    history = [(levels[k], exact(solution[k], levels[k])) for k in (2, 1, 0)]
    x = solution[2]
    for sigma, then in zip(levels[2:], levels[3:], strict=False):
        if sigma < levels[2]:
            history = [(sigma, exact(x, sigma)), *history[:2]]
        x = update(x, then, history)
    return float((x / solution[-1] - 1).abs())


@pytest.mark.parametrize(
    ("update", "expected"), [(multistep_update, 3), (published_third, 2)], ids=["ours", "halved"]
)
def test_the_third_order_needs_the_whole_last_weight(update, expected):
    coarse, fine = third_order_error(update, 256), third_order_error(update, 512)
    assert math.log2(coarse / fine) == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("t", [1, 5, 100, 500, 999])
def test_ancestral_is_the_posterior_of_ddpm(t):
    # Ho et al. 2020, equations 6 and 7, from their betas; t counts from 0 here, so that t = 0 is
    # the last step, which adds no noise.
    beta = [1e-4 + (0.02 - 1e-4) * k / 999 for k in range(1000)]
    bar = [math.prod(1 - b for b in beta[: k + 1]) for k in range(1000)]
    xt, x0, z = torch.randn(3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(t)).double()
    mean = math.sqrt(bar[t - 1]) * beta[t] / (1 - bar[t]) * x0
    mean = mean + math.sqrt(1 - beta[t]) * (1 - bar[t - 1]) / (1 - bar[t]) * xt
    std = math.sqrt((1 - bar[t - 1]) / (1 - bar[t]) * beta[t])

    levels = LinearBeta(1000).levels()[[t, t - 1]]
    x = xt * (1 + levels[0] ** 2).sqrt()
    for noise, expected in ((torch.zeros_like(z), mean), (z, mean + std * z)):
        (step,) = Ancestral(1.0).iterate(lambda x, sigma: x0, x, levels, lambda noise=noise: noise)
        got = step.x / (1 + levels[1] ** 2).sqrt()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_without_fresh_noise_the_second_order_is_dpm_solver_plus_plus():
    levels = sampling_sigmas(Karras(), 9)
    x = column(levels[:1])
    walks = zip(
        Ancestral(0.0, order=2).iterate(exact, x, levels, no_noise),
        Multistep(2).iterate(exact, x, levels, no_noise),
        strict=True,
    )
    for got, want in walks:
        torch.testing.assert_close(got.x, want.x, rtol=1e-12, atol=0)


def impulse_responses(levels: Tensor, sampler: Ancestral) -> Tensor:
    """Final states of rows that are pushed once each: at the start, then at each step."""
    rows = len(levels)
    x = torch.zeros(rows, 1, 1, 1, dtype=torch.float64)
    x[0] = levels[0]
    pushes = iter(torch.eye(rows, dtype=torch.float64)[1:])
    *_, last = sampler.iterate(exact, x, levels, lambda: column(next(pushes)))
    return last.x.flatten()


@pytest.mark.parametrize(
    ("steps", "expected"), [(16, 0.356), (64, 0.456), (256, 0.488), (1024, 0.497)]
)
def test_ancestral_sampling_needs_many_steps_for_the_right_deviation(steps, expected):
    # Exact, without drawing anything: the sampler is linear, so variances of the responses add up.
    std = impulse_responses(sampling_sigmas(Karras(), steps), Ancestral(1.0)).square().sum().sqrt()
    assert float(std) == pytest.approx(expected, abs=6e-4)
    assert float(std) < S


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_the_deviation_comes_right_with_the_order(order, eta):
    wrong = [
        float(impulse_responses(sampling_sigmas(Karras(), n), Ancestral(eta, order)).norm()) - S
        for n in (64, 128)
    ]
    assert math.log2(wrong[0] / wrong[1]) == pytest.approx(order, abs=0.2)
