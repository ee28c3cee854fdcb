"""The same network sampled by diffusers, an independent implementation, from the same noise.

There a network is called with (x_t, t); here with (x / sqrt(1 + sigma^2), log(sigma) / 4). The
two are the same numbers, t being found in the table of levels. diffusers keeps its tables in
float32: hence a tolerance of 1e-4 on images of order 1.
"""

import pytest
import torch
from torch import Tensor, nn

from mezzotint.diffusion import (
    Ancestral,
    Condition,
    Cosine,
    Denoiser,
    Edm,
    Eps,
    Heun,
    Karras,
    LinearBeta,
    Multistep,
    V,
    ZeroTerminal,
    clamp_x0,
    samplers,
    sampling_sigmas,
    with_condition,
)

from .gaussian import no_noise
from .published import published_third

diffusers = pytest.importorskip("diffusers")

SHAPE = (2, 2, 6, 6)
LEVELS = LinearBeta(1000).levels()
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def noise_from(seed: int):
    """A function that draws what diffusers draws from a generator with this seed."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(SHAPE, generator=generator, dtype=torch.float64)


class Waves(nn.Module):
    """A fixed random network of (x_t, t), near what data of unit variance would ask for."""

    def __init__(self, prediction: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        draw = torch.randn(4, 2, 2, 3, 3, generator=generator, dtype=torch.float64)
        self.kernels = nn.Parameter(draw / 3)
        self.prediction = prediction

    def forward(self, xt: Tensor, t: Tensor) -> Tensor:
        """xt (B, 2, H, W) at t (B,) from 0 to 999."""
        t = t.double()[:, None, None, None] / 1000
        inner = torch.conv2d(xt, self.kernels[0], padding=1) + 3 * t
        waves = 0.3 * torch.conv2d(torch.sin(inner), self.kernels[1], padding=1)
        if self.prediction == "epsilon":
            # The noise's share of x_t: without it x0 would grow with sigma.
            bar = 1 / (1 + LEVELS[(1000 * t).round().long()] ** 2)
            return (1 - bar).sqrt() * xt + bar.sqrt() * waves
        return waves


class AtLevels(nn.Module):
    """The network of (x_t, t) as one of ours: t is where exp(4 noise) stands among the levels."""

    def __init__(self, network: Waves, levels: Tensor) -> None:
        super().__init__()
        self.network, self.levels = network, levels.log()

    def forward(self, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        t = (self.levels[None] - 4 * noise[:, None]).abs().argmin(1)
        return self.network(x, t)


def theirs(scheduler, network: Waves, x: Tensor, **options) -> Tensor:
    """diffusers' own loop."""
    for t in scheduler.timesteps:
        with torch.no_grad():
            inp = scheduler.scale_model_input(x, t)
            raw = network(inp, t.expand(len(x)))
        x = scheduler.step(raw, t, x, **options).prev_sample
    return x


def ours(sampler, denoise, xt: Tensor, levels: Tensor, noise=no_noise) -> Tensor:
    """Our sampler's path from DDPM's x_t at the first level."""
    x = xt * (1 + levels[0] ** 2).sqrt()
    with torch.no_grad():
        *_, last = sampler.iterate(denoise, x, levels, noise)
    assert 0.3 < float(last.x.abs().max()) < 10, "the images should be of order 1"
    return last.x


def levels_at(timesteps: Tensor, levels: Tensor = LEVELS) -> Tensor:
    """The sigmas of diffusers' time steps, and then 0."""
    return torch.cat([levels[timesteps.long()], torch.zeros(1, dtype=torch.float64)])


PREDICTIONS = pytest.mark.parametrize(
    ("prediction", "parameterization"), [("epsilon", Eps()), ("v_prediction", V())]
)


def ours_of(prediction: str, parameterization) -> tuple[Waves, object]:
    """The network for diffusers and the same one as a callable for our samplers."""
    network = Waves(prediction)
    return network, with_condition(Denoiser(AtLevels(network, LEVELS), parameterization))


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (LinearBeta(1000), {}),
        (LinearBeta(100), {"num_train_timesteps": 100}),
        (Cosine(1000), {"beta_schedule": "squaredcos_cap_v2"}),
        (ZeroTerminal(LinearBeta(1000)), {"rescale_betas_zero_snr": True}),
    ],
    ids=repr,
)
def test_the_levels_are_those_of_diffusers(schedule, options):
    bar = 1 / (1 + schedule.levels() ** 2)
    scheduler = diffusers.DDPMScheduler(**options)
    torch.testing.assert_close(bar.float(), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-7)


@PREDICTIONS
@pytest.mark.parametrize("clipped", [False, True], ids=["free", "clipped"])
def test_ancestral_is_ddpm(prediction, parameterization, clipped):
    network, denoise = ours_of(prediction, parameterization)
    scheduler = diffusers.DDPMScheduler(prediction_type=prediction, clip_sample=clipped)
    scheduler.set_timesteps(50)
    xt = noise_from(0)()
    expected = theirs(scheduler, network, xt, generator=torch.Generator().manual_seed(9))
    levels = levels_at(scheduler.timesteps)
    denoise = clamp_x0(denoise) if clipped else denoise
    got = ours(Ancestral(1.0), denoise, xt, levels, noise_from(9))
    torch.testing.assert_close(got, expected, **TOLERANCE)


@PREDICTIONS
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_ancestral_is_ddim_with_the_same_eta(prediction, parameterization, eta):
    network, denoise = ours_of(prediction, parameterization)
    scheduler = diffusers.DDIMScheduler(
        prediction_type=prediction, clip_sample=False, set_alpha_to_one=True
    )
    scheduler.set_timesteps(20)
    xt = noise_from(1)()
    # Its last step is a step like any other for eta > 0, but has a variance of 0 like ours.
    expected = theirs(scheduler, network, xt, eta=eta, generator=torch.Generator().manual_seed(9))
    levels = levels_at(scheduler.timesteps)
    noise = noise_from(9) if eta else no_noise
    got = ours(Ancestral(eta), denoise, xt, levels, noise)
    torch.testing.assert_close(got, expected, **TOLERANCE)


def test_zero_terminal_sampling_with_v_is_that_of_diffusers():
    # Lin et al. 2023: rescaled betas, v prediction, from the last time step.
    network = Waves("v_prediction")
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction",
        clip_sample=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(20)
    schedule = ZeroTerminal(LinearBeta(1000))
    denoise = with_condition(Denoiser(AtLevels(network, schedule.levels()), V()))
    xt = noise_from(2)()
    levels = levels_at(scheduler.timesteps, schedule.levels())
    got = ours(Ancestral(0.0), denoise, xt, levels)
    torch.testing.assert_close(got, theirs(scheduler, network, xt), **TOLERANCE)


def multistep_scheduler(prediction: str, order: int):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type=prediction,
        solver_order=order,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(20)
    return scheduler


@PREDICTIONS
@pytest.mark.parametrize("order", [1, 2])
def test_multistep_is_dpm_solver(prediction, parameterization, order):
    network, denoise = ours_of(prediction, parameterization)
    scheduler = multistep_scheduler(prediction, order)
    xt = noise_from(3)()
    expected = theirs(scheduler, network, xt.clone())
    got = ours(Multistep(order), denoise, xt, levels_at(scheduler.timesteps))
    torch.testing.assert_close(got, expected, **TOLERANCE)


def test_the_third_order_of_diffusers_has_half_the_last_weight(monkeypatch):
    network, denoise = ours_of("epsilon", Eps())
    scheduler = multistep_scheduler("epsilon", 3)
    xt, levels = noise_from(3)(), levels_at(scheduler.timesteps)
    expected = theirs(scheduler, network, xt.clone())
    whole = ours(Multistep(3), denoise, xt, levels)
    assert float((whole - expected).abs().max()) > 1e-3

    update = samplers.multistep_update

    def halved(x, then, history):
        full = len(history) == 3 and then > 0
        return (published_third if full else update)(x, then, history)

    monkeypatch.setattr(samplers, "multistep_update", halved)
    torch.testing.assert_close(ours(Multistep(3), denoise, xt, levels), expected, **TOLERANCE)


@PREDICTIONS
def test_heun_is_heun(prediction, parameterization):
    network, denoise = ours_of(prediction, parameterization)
    scheduler = diffusers.HeunDiscreteScheduler(
        beta_start=1e-4, beta_end=0.02, prediction_type=prediction
    )
    steps = 28  # 27 divides 999: whole time steps
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == 2 * steps - 1
    levels = levels_at(torch.linspace(999, 0, steps))
    xt = noise_from(5)()
    # Its state is our x, not x_t; its time steps come in pairs, one for each evaluation.
    expected = theirs(scheduler, network, xt * (1 + levels[0] ** 2).sqrt())
    torch.testing.assert_close(ours(Heun(), denoise, xt, levels), expected, **TOLERANCE)


class Edmlike(nn.Module):
    """A fixed random network of (inp x, log(sigma) / 4), as EDM's schedulers call it."""

    def __init__(self) -> None:
        super().__init__()
        self.waves = Waves("v_prediction")

    def forward(self, x: Tensor, noise: Tensor, condition: Condition | None = None) -> Tensor:
        return self.waves(x, 100 * noise)


@pytest.mark.parametrize(
    ("sampler", "name", "options"),
    [
        (Ancestral(0.0), "EDMEulerScheduler", {}),
        (Multistep(2), "EDMDPMSolverMultistepScheduler", {"solver_order": 2}),
    ],
    ids=["euler", "2M"],
)
def test_edm_sampling_is_that_of_diffusers(sampler, name, options):
    network = Edmlike()
    scheduler = getattr(diffusers, name)(
        sigma_min=0.01, sigma_max=50.0, sigma_data=0.7, final_sigmas_type="zero", **options
    )
    scheduler.set_timesteps(18)
    levels = sampling_sigmas(Karras(sigma_min=0.01, sigma_max=50.0), 18)
    torch.testing.assert_close(levels.float(), scheduler.sigmas, rtol=1e-5, atol=0)
    xt = noise_from(6)()
    expected = theirs(scheduler, network, xt * (1 + levels[0] ** 2).sqrt())
    denoise = with_condition(Denoiser(network, Edm(sigma_data=0.7)))
    torch.testing.assert_close(ours(sampler, denoise, xt, levels), expected, **TOLERANCE)
