"""Biases for CUDA against torch in float64; on a card, else in Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F

from mezzotint.kernels import bias as biases
from mezzotint.kernels import biased
from mezzotint.networks.blocks import Conv3x3
from mezzotint.runtime.rng import generator

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def chosen(monkeypatch):
    """Every tensor is Triton's."""
    monkeypatch.setattr(biases, "on_triton", lambda x: True)


def draw(*shape, key=0):
    return torch.randn(shape, generator=generator("bias", key, *shape)).to(DEVICE)


@pytest.mark.parametrize("shape", [(3, 32, 28, 28), (2, 96, 7, 7), (5, 8, 3, 5), (1, 256, 4, 4)])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_a_bias_and_a_residual_are_added_and_the_bias_has_their_gradient(shape, residual, kind):
    x, other, dy = (draw(*shape, key=key).to(kind) for key in range(3))
    arguments = [x, draw(shape[1], key=3), other if residual else None]
    ours, theirs = ([None if t is None else t.clone() for t in arguments] for _ in range(2))
    theirs = [None if t is None else t.double() for t in theirs]
    for t in (*ours, *theirs):
        if t is not None:
            t.requires_grad_()
    y = biased(*ours)
    expected = theirs[0] + theirs[1][:, None, None] + (theirs[2] if residual else 0)
    assert y.dtype == kind
    assert y.is_contiguous(memory_format=torch.channels_last)
    close = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}[kind]
    torch.testing.assert_close(y.double(), expected, rtol=close, atol=close)
    y.backward(dy)
    expected.backward(dy.double())
    for mine, other in zip(ours, theirs, strict=True):
        if mine is not None:
            torch.testing.assert_close(mine.grad.double(), other.grad, rtol=2e-5, atol=1e-5)


def test_channels_that_are_no_multiple_of_eight_and_a_residual_of_a_second_type_are_torchs():
    x, bias = draw(2, 3, 4, 4), draw(3, key=1)
    assert torch.equal(biased(x, bias), x + bias[:, None, None])
    x, bias, other = draw(2, 8, 4, 4).bfloat16(), draw(8, key=1), draw(2, 8, 4, 4, key=2)
    torch.testing.assert_close(biased(x, bias, other), biased(x, bias) + other)


def test_a_convolution_with_a_residual_is_the_sum():
    layer, x, other = Conv3x3(8, 16).to(DEVICE), draw(2, 8, 6, 6), draw(2, 16, 6, 6, key=1)
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1) + other
    torch.testing.assert_close(layer(x, other), expected, rtol=1e-5, atol=1e-5)
