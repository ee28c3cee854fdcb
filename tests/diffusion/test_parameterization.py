"""Parameterizations: the network's exact output gives back x0, and EDM's demands hold."""

import pytest
import torch

from mezzotint.diffusion import (
    X0,
    Cosine,
    Edm,
    Eps,
    Karras,
    LinearBeta,
    V,
    ZeroTerminal,
    append_dims,
    refuse_pair,
)

from .examples import PARAMETERIZATIONS, SCHEDULES, every, input_scale, names, target

ALL = pytest.mark.parametrize(
    "parameterization", every(PARAMETERIZATIONS), ids=names(every(PARAMETERIZATIONS))
)
SIGMA = torch.logspace(-3, 4, 60, dtype=torch.float64)


@ALL
def test_the_right_prediction_gives_back_x0(parameterization):
    x0, eps = torch.randn(2, 60, 1, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    sigma = append_dims(x0, SIGMA)
    raw = target(parameterization, x0, eps, sigma)
    c = parameterization(SIGMA)
    back = append_dims(x0, c.c_skip) * (x0 + sigma * eps) + append_dims(x0, c.c_out) * raw
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-11)


@ALL
def test_the_input_and_the_noise_level_are_those_of_the_papers(parameterization):
    c = parameterization(SIGMA)
    torch.testing.assert_close(c.c_in, input_scale(parameterization, SIGMA))
    torch.testing.assert_close(torch.exp(4 * c.c_noise), SIGMA)


def test_v_is_edm_of_unit_data_with_the_sign_flipped():
    v, edm = V()(SIGMA), Edm(sigma_data=1.0)(SIGMA)
    for got, expected in zip(v, (edm.c_skip, -edm.c_out, edm.c_in, edm.c_noise), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("data", [0.2, 0.5, 1.0, 1.3])
def test_edm_has_unit_input_and_target_and_the_smallest_out(data):
    # Karras et al. 2022, appendix B.6, for independent x0 and noise.
    c = Edm(data)(SIGMA)
    torch.testing.assert_close(c.c_in**2 * (data**2 + SIGMA**2), torch.ones_like(SIGMA))

    def needed_out(skip):
        """The deviation of x0 - skip x, which the network's output is multiplied by."""
        return torch.sqrt((1 - skip) ** 2 * data**2 + skip**2 * SIGMA**2)

    torch.testing.assert_close(c.c_out, needed_out(c.c_skip))
    for other in (0.9 * c.c_skip, 1.1 * c.c_skip, c.c_skip + 1e-3):
        assert (needed_out(other) > c.c_out).all()


@pytest.mark.parametrize("data", [0.0, -1.0])
def test_edm_refuses_data_without_deviation(data):
    with pytest.raises(ValueError, match="> 0"):
        Edm(data)


@pytest.mark.parametrize("base", [LinearBeta(1000), LinearBeta(100, rescaled=True), Cosine(50)])
def test_eps_is_refused_where_no_signal_is_left(base):
    with pytest.raises(ValueError, match="zero terminal SNR"):
        refuse_pair(ZeroTerminal(base), Eps())


@ALL
@pytest.mark.parametrize("schedule", every(SCHEDULES), ids=names(every(SCHEDULES)))
def test_every_other_pair_is_accepted(schedule, parameterization):
    if not (isinstance(schedule, ZeroTerminal) and isinstance(parameterization, Eps)):
        refuse_pair(schedule, parameterization)


@pytest.mark.parametrize("parameterization", [X0(), V(), Edm(), Edm(sigma_data=1.3)], ids=repr)
def test_coefficients_are_finite_without_signal_in_float32(parameterization):
    sigma = ZeroTerminal(LinearBeta(100)).sigma(torch.ones(1))
    c = parameterization(sigma)
    expected = parameterization(sigma.double())
    for got, wanted in zip(c, expected, strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-6, atol=0)


def test_like_broadcasts_one_value_per_image():
    x = torch.ones(3, 2, 4, 5)
    got = append_dims(x, torch.tensor([1.0, 2.0, 3.0])) * x
    assert torch.equal(got, torch.einsum("bchw,b->bchw", x, torch.tensor([1.0, 2.0, 3.0])))


def test_the_table_of_coefficients_is_the_one_in_the_text():
    sigma = Karras().sigma(torch.linspace(0, 1, 9, dtype=torch.float64))
    eps, clean = Eps()(sigma), X0()(sigma)
    assert torch.equal(eps.c_skip, torch.ones_like(sigma))
    assert torch.equal(eps.c_out, -sigma)
    assert torch.equal(clean.c_skip, torch.zeros_like(sigma))
    assert torch.equal(clean.c_out, torch.ones_like(sigma))
