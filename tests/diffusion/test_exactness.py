"""The matrix: every schedule x parameterization x sampler, guided or not, against closed forms.

On Gaussian data everything is known (`gaussian.py`). The matrix is cut once: the exact D, sampled
on fine sigmas, is compared with the solution of the ODE to the sampler's order; and a network
that is perfect for its parameterization, wrapped in `Denoiser` and guidance, must follow the exact
D to rounding. New schedules, parameterizations and samplers join through `examples.py`.
"""

from functools import cache

import pytest
import torch
from torch import Tensor

from mezzotint.diffusion import (
    Ancestral,
    Condition,
    Denoiser,
    Discrete,
    Eps,
    Heun,
    Ipndm,
    guide,
    sampling_sigmas,
    terminal_snr,
    with_condition,
)

from . import examples, gaussian
from .examples import PARAMETERIZATIONS, SAMPLERS, SCHEDULES, TABLES, every, names
from .gaussian import Perfect, S, column, denoised, flowed, mean_of, no_noise

STEPS = 16
SCALE, STYLE = 2.5, {"style": -0.28}
SCALES = (2.5, 2.5 * -0.28)  # of label and style in the closed form
SCHEDULE = pytest.mark.parametrize("schedule", every(SCHEDULES), ids=names(every(SCHEDULES)))
DETERMINISTIC = [sampler for sampler in every(SAMPLERS) if getattr(sampler, "eta", 0) == 0]
PAIRS = [
    (schedule, parameterization)
    for schedule in every(SCHEDULES)
    for parameterization in every(PARAMETERIZATIONS)
    if not (isinstance(parameterization, Eps) and terminal_snr(schedule) == 0)
]


def condition_of(n: int) -> Condition:
    """Labels and styles of n images, one of each free now and then."""
    label = torch.arange(n) % 4 - 1
    style = torch.linspace(-1, 1, n, dtype=torch.float64)
    return Condition({"label": label, "style": style.where(torch.arange(n) != 1, torch.nan)})


def start(sigma: Tensor, n: int = 5) -> Tensor:
    """States (n, 1, 1, 1) at the first level, some standard deviations to each side."""
    return column(sigma * torch.linspace(-2, 2, n, dtype=torch.float64))


@cache
def fine(schedule: object) -> Tensor:
    """Return the sigmas of 500 steps, or of all levels where there are fewer."""
    return sampling_sigmas(
        schedule, min(500, len(schedule.levels()) if isinstance(schedule, Discrete) else 500)
    )


def tolerance(sampler: object, levels: Tensor) -> Tensor:
    """How far from the solution, relatively, a sampler may be at levels[1:-1].

    Along the solution x0 changes by at most w = S^2 sigma^2 / (S^2 + sigma^2)^2 of x per unit of
    log sigma, and so do its derivatives, up to constants; relative errors add up. A step h in log
    sigma of a method of order p errs by w h^(p + 1); the first steps of a multistep method are of
    lower order.
    """
    now, then = levels[:-2], levels[1:-1]
    h = (now / then).log()
    peak = torch.full_like(now, S).clamp(then, now)  # where w is largest within the step
    w = S**2 * peak**2 / (S**2 + peak**2) ** 2
    order = examples.ORDERS[type(sampler)](sampler)
    climbing = torch.arange(1, len(h) + 1).clamp(max=order)
    error = w * h ** (1 + (order if isinstance(sampler, Heun) else climbing))
    if isinstance(sampler, Ipndm):
        # Weights of equal steps, on steps that are not: the slope is off by the change of step.
        error = error + w * h**2 * (1 - torch.cat([h[:1], h[:-1]]) / h).abs()
    if isinstance(sampler, Heun):
        # On a huge step no Taylor bound holds; the trapezoidal rule's |f(a) - f(b)| (a - b) / 2.
        slope_now, slope_then = now / (S**2 + now**2).sqrt(), then / (S**2 + then**2).sqrt()
        wide = (now - then) * (slope_now - slope_then) / 2 / (S**2 + then**2).sqrt()
        error = error + torch.where(now > 10 * then, wide, 0.0)
    return 1.5 * error.cumsum(0)


@pytest.mark.parametrize("room", TABLES)
def test_every_exported_class_is_in_the_matrix(room):
    assert set(TABLES[room]) == examples.exported(room), "give the new class a row in examples.py"


def test_every_sampler_states_its_order():
    assert set(examples.ORDERS) == set(SAMPLERS)


@SCHEDULE
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=repr)
def test_a_sampler_follows_the_solution_of_the_ode_to_its_order(schedule, sampler):
    levels, mean = fine(schedule), gaussian.BASE
    x = mean + start(levels[0])
    process = list(sampler.iterate(lambda x, sigma: denoised(x, sigma, mean), x, levels, no_noise))
    for step, bound in zip(process[:-1], tolerance(sampler, levels), strict=True):
        expected = flowed(x, levels[0], step.sigma, mean)
        torch.testing.assert_close(step.x - mean, expected - mean, rtol=float(bound), atol=1e-12)
    # The last step, to 0, takes the estimate itself, whatever the sampler.
    torch.testing.assert_close(process[-1].x, denoised(process[-2].x, levels[-2], mean))


@SCHEDULE
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=repr)
def test_a_sampler_visits_the_sigmas(schedule, sampler):
    levels = sampling_sigmas(schedule, 7)
    x = start(levels[0])
    process = list(sampler.iterate(lambda x, sigma: denoised(x, sigma, 0.0), x, levels, no_noise))
    assert [float(step.sigma) for step in process] == levels[1:].tolist()


@pytest.mark.parametrize("guided", [False, True], ids=["bound", "guided"])
@pytest.mark.parametrize(("schedule", "parameterization"), PAIRS, ids=names(PAIRS))
@pytest.mark.parametrize("sampler", DETERMINISTIC, ids=repr)
def test_a_perfect_network_is_sampled_like_the_exact_denoiser(
    schedule, parameterization, sampler, guided
):
    levels, condition = sampling_sigmas(schedule, STEPS), condition_of(5)
    mean = mean_of(condition, SCALES if guided else (1.0, 1.0))
    denoiser = Denoiser(Perfect(parameterization), parameterization)
    denoise = (
        guide(denoiser, condition, SCALE, STYLE) if guided else with_condition(denoiser, condition)
    )
    x = mean + start(levels[0])
    with torch.no_grad():
        *_, got = sampler.iterate(denoise, x, levels, no_noise)
    *_, want = sampler.iterate(lambda x, sigma: denoised(x, sigma, mean), x, levels, no_noise)
    # Heun multiplies the rounding of x0 by a step that may be 1e6 long.
    scale = max(1.0, float(want.x.abs().max()))
    torch.testing.assert_close(got.x, want.x, rtol=0, atol=2e-9 * scale)


class Impulses:
    """Noise for row j at step j - 2 and nowhere else, so that one pass shows every response."""

    def __init__(self, rows: int) -> None:
        self.step, self.rows = 1, rows

    def __call__(self) -> Tensor:
        self.step += 1
        return column(torch.nn.functional.one_hot(torch.tensor(self.step), self.rows).double())


def posterior_moments(levels: Tensor, mean: float, start_mean: float, start_std: float):
    """Mean and variance of x0 after DDPM's chain, from Ho et al. 2020, equations 4, 6 and 7.

    In x_t = x / sqrt(1 + sigma^2) and alpha_bar = 1 / (1 + sigma^2); the chain is linear in x_t
    since D is.
    """
    bar = [1 / (1 + float(sigma) ** 2) for sigma in levels]
    m, variance = start_mean * bar[0] ** 0.5, start_std**2 * bar[0]
    for sigma, now, then in zip(levels.tolist(), bar, bar[1:], strict=False):
        alpha = now / then
        beta = 1 - alpha
        noisy = sigma**2 / (1 + sigma**2)  # 1 - alpha_bar_t, without cancellation
        shrink = S**2 / (S**2 + sigma**2)  # D = mean + shrink (x - mean)
        by_x0, by_xt = then**0.5 * beta / noisy, alpha**0.5 * (1 - then) / noisy
        slope = by_x0 * shrink / now**0.5 + by_xt
        m = slope * m + by_x0 * (1 - shrink) * mean
        variance = slope**2 * variance + (1 - then) / noisy * beta
    return m, variance


@pytest.mark.parametrize("guided", [False, True], ids=["bound", "guided"])
@pytest.mark.parametrize(("schedule", "parameterization"), PAIRS, ids=names(PAIRS))
def test_ancestral_sampling_has_the_moments_of_the_ddpm_chain(schedule, parameterization, guided):
    levels, rows = sampling_sigmas(schedule, STEPS), STEPS + 2
    # Row 0 has no noise at all and shows the mean; row 1 starts one deviation away; row j > 1 is
    # pushed by one deviation at step j - 2. The responses are independent: their squares add up.
    condition = Condition(
        {"label": torch.full((rows,), 2), "style": torch.full((rows,), 0.4).double()}
    )
    mean = mean_of(condition, SCALES if guided else (1.0, 1.0))[0].item()
    denoiser = Denoiser(Perfect(parameterization), parameterization)
    denoise = (
        guide(denoiser, condition, SCALE, STYLE) if guided else with_condition(denoiser, condition)
    )
    x = torch.zeros(rows, 1, 1, 1, dtype=torch.float64)
    x[1] += levels[0]
    with torch.no_grad():
        *_, last = Ancestral(1.0).iterate(denoise, x, levels, Impulses(rows))
    m, variance = posterior_moments(levels, mean, 0.0, float(levels[0]))
    final = last.x.flatten()
    assert final[0].item() == pytest.approx(m, abs=1e-8)
    assert (final[1:] - final[0]).square().sum().item() == pytest.approx(variance, abs=1e-8)
