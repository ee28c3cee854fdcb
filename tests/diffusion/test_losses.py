"""The loss against the textbook's, written in the textbook's own terms."""

import pytest
import torch

from mezzotint.diffusion import (
    GUIDANCE,
    NO_SIGNAL,
    X0,
    Condition,
    Denoiser,
    Edm,
    EdmLoss,
    Eps,
    MinSnr,
    Uniform,
    V,
    guide,
    loss,
    with_condition,
    with_guidance_scale,
)

from .examples import PARAMETERIZATIONS, WEIGHTS, every, names
from .networks import Mixed

N = 40
SIGMA = torch.logspace(-2, 2.3, N, dtype=torch.float64)
X0S, EPS = torch.randn(2, N, 2, 5, 5, generator=torch.Generator().manual_seed(3)).double()
X0S = X0S / 2
BAR = (1 / (1 + SIGMA**2))[:, None, None, None]  # alpha_bar
XT = BAR.sqrt() * X0S + (1 - BAR).sqrt() * EPS  # DDPM's x_t, Ho et al. 2020, equation 4
SNR = 1 / SIGMA**2
NETWORK = Mixed()
RAW = NETWORK(XT, SIGMA.log() / 4, Condition()).detach()
VELOCITY = BAR.sqrt() * EPS - (1 - BAR).sqrt() * X0S


def mse(a, b):
    """Mean squared error, image by image."""
    return ((a - b) ** 2).mean(dim=(1, 2, 3))


def ours(parameterization, weight):
    denoiser = Denoiser(NETWORK, parameterization)
    return loss(denoiser, X0S, Condition(), SIGMA, EPS, weight).detach()


@pytest.mark.parametrize(
    ("parameterization", "weight", "expected"),
    [
        (Eps(), Uniform(), mse(RAW, EPS)),
        (V(), Uniform(), mse(RAW, VELOCITY)),
        (X0(), Uniform(), mse(RAW, X0S)),
        # Hang et al. 2023, section 3.4: for x0, eps and v prediction.
        (X0(), MinSnr(5.0), SNR.clamp(max=5.0) * mse(RAW, X0S)),
        (Eps(), MinSnr(5.0), SNR.clamp(max=5.0) / SNR * mse(RAW, EPS)),
        (V(), MinSnr(5.0), SNR.clamp(max=5.0) / (SNR + 1) * mse(RAW, VELOCITY)),
    ],
    ids=["eps", "v", "x0", "min-snr x0", "min-snr eps", "min-snr v"],
)
def test_the_loss_is_that_of_the_paper(parameterization, weight, expected):
    torch.testing.assert_close(ours(parameterization, weight), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("data", [0.5, 1.3])
def test_edm_with_uniform_weight_is_edms_weighted_loss(data):
    # Karras et al. 2022, equations 2, 7 and 8 and table 1, with their names.
    y, n, s = X0S, SIGMA[:, None, None, None] * EPS, SIGMA[:, None, None, None]
    raw = NETWORK((y + n) / (s**2 + data**2).sqrt(), SIGMA.log() / 4, Condition()).detach()
    d = data**2 / (s**2 + data**2) * (y + n) + s * data / (s**2 + data**2).sqrt() * raw
    expected = (SIGMA**2 + data**2) / (SIGMA * data) ** 2 * mse(d, y)
    torch.testing.assert_close(ours(Edm(data), Uniform()), expected, rtol=1e-8, atol=0)
    torch.testing.assert_close(ours(Edm(data), EdmLoss(data)), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("weight", every(WEIGHTS), ids=names(every(WEIGHTS)))
@pytest.mark.parametrize("parameterization", [V(), X0(), Edm(), Edm(1.3)], ids=repr)
def test_the_loss_without_signal_is_that_of_guessing_from_noise(parameterization, weight):
    # In float32, as in training. The network sees eps alone (Edm: eps as well, for inp is 1e-6).
    sigma = torch.full((4,), NO_SIGNAL)
    x0, eps = X0S[:4].float(), EPS[:4].float()
    network = Mixed(dtype=torch.float32)
    got = loss(Denoiser(network, parameterization), x0, Condition(), sigma, eps, weight).detach()
    out = parameterization(sigma).c_out
    guess = out[:, None, None, None] * network(eps, sigma.log() / 4, Condition()).detach()
    expected = weight(sigma, out) * mse(guess, x0)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "parameterization", every(PARAMETERIZATIONS), ids=names(every(PARAMETERIZATIONS))
)
@pytest.mark.parametrize("weight", every(WEIGHTS), ids=names(every(WEIGHTS)))
def test_an_image_has_its_own_loss_whatever_else_is_in_the_batch(parameterization, weight):
    single = [
        loss(
            Denoiser(NETWORK, parameterization),
            X0S[k : k + 1],
            Condition(),
            SIGMA[k : k + 1],
            EPS[k : k + 1],
            weight,
        )
        for k in range(N)
    ]
    torch.testing.assert_close(ours(parameterization, weight), torch.cat(single).detach())


class Table(torch.nn.Module):
    """A constant image for each class, one for the free, and one for each class with guidance."""

    def __init__(self):
        super().__init__()
        self.rows = torch.nn.Parameter(torch.zeros(5, 1, 2, 2, dtype=torch.float64))

    def forward(self, x, noise, condition):
        index = condition.factors["label"] % 3  # free is -1, the third row
        if GUIDANCE in condition.factors:
            index = index + 3 * ~condition.factors[GUIDANCE].isnan()
        return self.rows[index]


@pytest.mark.parametrize("scale", [1.5, 3.0])
def test_model_guidance_is_the_guidance_of_two_evaluations(scale):
    means = torch.tensor([-0.5, 0.3, 0.1], dtype=torch.float64)  # the third is seen when free
    label, asked = torch.tensor([0, 1, -1, 0, 1]), torch.tensor([torch.nan] * 3 + [scale] * 2)
    x0 = means[label % 3][:, None, None, None].expand(5, 1, 2, 2)
    table, sigma = Table(), torch.ones(5, dtype=torch.float64)
    denoiser = Denoiser(table, X0())
    optimizer = torch.optim.SGD(table.parameters(), lr=1.0)
    condition = Condition({"label": label, GUIDANCE: asked})
    for _ in range(300):
        optimizer.zero_grad()
        loss(denoiser, x0, condition, sigma, 0 * x0, Uniform()).sum().backward()
        optimizer.step()
    x, one = x0[:2], torch.tensor(1.0, dtype=torch.float64)
    both = Condition({"label": label[:2]})
    wanted = guide(denoiser, both, scale)(x, one)
    torch.testing.assert_close(
        with_condition(with_guidance_scale(denoiser, scale), both)(x, one), wanted
    )
    free = means[2]
    expected = (free + scale * (means[:2] - free))[:, None, None, None].expand_as(x)
    torch.testing.assert_close(wanted.detach(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        with_condition(denoiser, both)(x, one).detach(), x, rtol=1e-6, atol=0
    )
    # Beyond what was learned the scale means the same.
    twice = guide(denoiser, both, 2 * scale, max_model_guidance=scale)(x, one)
    torch.testing.assert_close(twice, guide(denoiser, both, 2 * scale)(x, one))


def test_no_gradient_is_taken_of_the_target():
    network = Table()
    denoiser, x0 = Denoiser(network, X0()), torch.ones(1, 1, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        network.rows[3], network.rows[2] = 0.5, 0.25
    one = torch.ones(1, dtype=torch.float64)
    condition = Condition({"label": torch.tensor([0]), GUIDANCE: torch.tensor([2.0])})
    loss(denoiser, x0, condition, one, x0, Uniform()).backward()
    # d/dD mean (D - t)^2 = 2 (D - t) / 4 with t = 1 + (0.5 - 0.25) / 2, D = 0.5
    torch.testing.assert_close(network.rows.grad[3], torch.full((1, 2, 2), -0.3125).double())
    assert network.rows.grad[:3].abs().max() == 0


def test_images_without_a_scale_have_the_plain_loss():
    denoiser = Denoiser(Table(), X0())
    label = torch.tensor([0, 1, -1])
    x0 = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    sigma = torch.ones(3, dtype=torch.float64)
    nobody = Condition({"label": label, GUIDANCE: torch.full((3,), torch.nan)})
    ours, theirs = (
        loss(denoiser, x0, c, sigma, x0, Uniform()) for c in (nobody, Condition({"label": label}))
    )
    assert torch.equal(ours, theirs)
