"""The denoiser: D = skip x + out F, and which part works in which precision."""

import pytest
import torch

from mezzotint.diffusion import Condition, Denoiser

from .examples import PARAMETERIZATIONS, every, names
from .networks import Mixed, Zero

ALL = pytest.mark.parametrize(
    "parameterization", every(PARAMETERIZATIONS), ids=names(every(PARAMETERIZATIONS))
)
X = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@ALL
def test_a_fresh_network_that_answers_0_leaves_skip_x(parameterization):
    sigma = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    got = Denoiser(Zero(), parameterization)(X, sigma)
    skip = parameterization(sigma).c_skip
    assert torch.equal(got, torch.stack([s * x for s, x in zip(skip, X, strict=True)]))


@ALL
def test_the_whole_formula_holds_image_by_image(parameterization):
    sigma = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    network = Mixed()
    got = Denoiser(network, parameterization)(X, sigma)
    for k in range(3):
        skip, out, inp, noise = (float(value[k]) for value in parameterization(sigma))
        raw = network(inp * X[k : k + 1], torch.tensor([noise]).double(), Condition())[0]
        torch.testing.assert_close(got[k], skip * X[k] + out * raw)


@ALL
def test_one_sigma_is_the_same_as_one_for_each_image(parameterization):
    denoiser = Denoiser(Mixed(), parameterization)
    sigma = torch.tensor(0.7, dtype=torch.float64)
    assert torch.equal(denoiser(X, sigma), denoiser(X, sigma.repeat(3)))


@ALL
def test_a_float64_state_stays_float64_with_a_float32_network(parameterization):
    network = Zero(torch.float32)
    sigma = torch.tensor(0.7, dtype=torch.float64)
    got = Denoiser(network, parameterization)(X, sigma)
    x, noise, _ = network.seen
    assert (got.dtype, x.dtype, noise.dtype) == (torch.float64, torch.float32, torch.float32)
    # Not through float32 and back: the part that passes the network by keeps every digit.
    assert torch.equal(got, parameterization(sigma).c_skip * X)


@ALL
def test_a_float32_state_stays_float32_with_a_float64_network(parameterization):
    got = Denoiser(Mixed(), parameterization)(X.float(), torch.tensor(0.7))
    wanted = Denoiser(Mixed(), parameterization)(X, torch.tensor(0.7).double())
    torch.testing.assert_close(got, wanted.float())


def test_the_network_gets_the_condition_and_an_empty_one_without():
    network = Zero()
    denoiser = Denoiser(network, every(PARAMETERIZATIONS)[0])
    condition = Condition({"label": torch.tensor([1, 2, 3])})
    denoiser(X, torch.tensor(1.0), condition)
    assert network.seen[2] is condition
    denoiser(X, torch.tensor(1.0))
    assert network.seen[2] == Condition()
