"""Fused attention against the formula and its automatic gradient in float64."""

import sys

import pytest
import torch

from mezzotint.kernels import attention, fits, library
from mezzotint.networks.blocks import NARROW, Attention, Block
from mezzotint.runtime.rng import generator


@pytest.fixture(autouse=True, scope="module")
def built():
    if library() is None:
        pytest.skip("no C++ compiler")


def draw(*shape, key=0):
    return torch.randn(shape, generator=generator("attention", key, *shape))


def formula(qkv):
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D)
    weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    return (weights @ v).transpose(1, 2)


def with_gradient(function, qkv, dy):
    qkv = qkv.detach().clone().requires_grad_()
    y = function(qkv)
    return y, torch.autograd.grad(y, qkv, dy.to(y.dtype))[0]


# (B, N, heads, D): rows and columns that fill tiles of 8 and blocks of 16, and that do not.
SHAPES = [
    (2, 49, 2, 8),
    (1, 196, 3, 8),
    (3, 16, 1, 16),
    (2, 17, 4, 5),
    (2, 7, 3, 33),
    (1, 64, 2, 64),
    (4, 1, 2, 3),
    (1, 9, 1, 1),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_the_formulas_in_float64(shape, dtype):
    batch, tokens, heads, width = shape
    qkv = (2 * draw(batch, tokens, 3, heads, width)).to(dtype)
    dy = draw(*shape, key=1).to(dtype)
    got = with_gradient(attention, qkv, dy)
    wanted = with_gradient(formula, qkv.double(), dy.double())
    assert got[0].dtype == got[1].dtype == dtype
    # y is rounded to bfloat16 before the gradient is computed from it.
    rounding, digits = (2**-8, 2**-7) if dtype == torch.bfloat16 else (1e-5, 2e-6)
    for one, exact in zip(got, wanted, strict=True):
        most = digits * exact.abs().max().item()
        torch.testing.assert_close(one.double(), exact, rtol=rounding, atol=most)


def test_large_scores_do_not_overflow():
    qkv = 60 * draw(2, 20, 3, 2, 8)  # scores in the thousands
    got, wanted = attention(qkv), formula(qkv.double())
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=0.01)


def test_the_result_does_not_depend_on_the_threads():
    qkv, dy = draw(3, 50, 3, 2, 8), draw(3, 50, 2, 8, key=1)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(with_gradient(attention, qkv, dy))
    torch.set_num_threads(before)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_a_number_that_is_none_stays_in_its_head_and_image():
    qkv = draw(2, 20, 3, 2, 8)
    qkv[0, 3, 1, 1, 2] = torch.nan  # a key of the first image's second head
    y = attention(qkv)
    assert y[0, :, 1].isnan().all()
    assert y[0, :, 0].isfinite().all()
    assert y[1].isfinite().all()


def test_other_strides_are_read_as_they_are():
    whole = draw(2, 3, 4, 12, 8)
    qkv = whole.permute(0, 3, 1, 2, 4)  # (2, 12, 3, 4, 8), not contiguous
    torch.testing.assert_close(attention(qkv), formula(qkv))
    dy = draw(2, 4, 12, 8, key=1).transpose(1, 2)
    got, wanted = with_gradient(attention, qkv, dy), with_gradient(formula, qkv, dy)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_wrong_shape_is_refused():
    for shape in [(2, 5, 3, 8), (2, 5, 2, 4, 8)]:
        with pytest.raises(ValueError, match=r"\(B, N, 3, heads, D\)"):
            attention(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_of_narrow_heads_computes_the_same_with_and_without(dtype, monkeypatch):
    layer = Attention(32, Block(head=NARROW // 2))
    assert layer.heads == 4
    torch.nn.init.normal_(layer.out.weight, std=0.2)
    x = draw(2, 32, 5, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        fused = layer(x)
        monkeypatch.setattr(sys.modules[fits.__module__], "library", lambda: None)
        plain = layer(x)
    digits = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(fused, plain, rtol=digits, atol=digits)
