"""The passes for CUDA against torch's group_norm and its automatic gradients in float64.

On a card where there is one, else in Triton's interpreter (see conftest.py).
"""

import sys
from types import SimpleNamespace

import pytest
import torch
from normed import by_torch, fused, with_gradients

from mezzotint.kernels import fits, group_norm, normalises
from mezzotint.kernels.build import triton_builds
from mezzotint.kernels.group_norm import Affine, Norm
from mezzotint.networks.blocks import GroupNorm
from mezzotint.runtime.rng import generator

pytest.importorskip("triton")
from mezzotint.kernels import triton_group_norm as passes  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

# The interpreter's numpy speaks of every infinity.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
needs_cuda = pytest.mark.skipif(DEVICE == "cpu", reason="no CUDA")


@pytest.fixture(autouse=True)
def chosen(monkeypatch):
    """group_norm takes these passes for every tensor."""
    module = sys.modules[group_norm.__module__]  # its name in the package is the function's
    monkeypatch.setattr(module, "_passes", lambda _: (passes.forward, passes.backward))


def draw(*shape, key=0):
    return torch.randn(shape, generator=generator("kernels", key, *shape)).to(DEVICE)


def drawn(shape, dtype=torch.float32, messages="scale and shift"):
    """x, gain, bias, scale, shift; and dy."""
    batch, width = shape[:2]
    x, dy = ((2 * draw(*shape, key=key) + 1).to(dtype) for key in (0, 5))
    scale = draw(batch, width, key=3) if "scale" in messages else None
    shift = draw(batch, width, key=4) if "shift" in messages else None
    return [x, 1 + draw(width, key=1), draw(width, key=2), scale, shift], dy


def is_torchs(inputs, groups, silu, dy, digits=2e-6):
    """Each number is right to its own type's precision, and all to `digits` of the largest."""
    got = with_gradients(fused, inputs, groups, silu, dy)
    double = [None if t is None else t.double() for t in inputs]
    for one, wanted in zip(got, with_gradients(by_torch, double, groups, silu, dy), strict=True):
        rounding = max(torch.finfo(one.dtype).eps, digits)
        most = digits * wanted.abs().max().item()
        torch.testing.assert_close(one.double(), wanted, rtol=rounding, atol=most)
    return got


SHAPES = [
    ((2, 96, 7, 7), 12),
    ((3, 8, 5, 7), 1),
    ((2, 24, 4, 4), 3),
    ((1, 384, 2, 2), 32),  # 12 channels a group, padded to 16
    ((2, 40, 1, 1), 5),
    ((2, 2304, 1, 2), 4),  # more channels than a tile has numbers
]
HALVES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_values_and_all_gradients_are_torchs_in_float64(shape, groups, dtype):
    inputs, dy = drawn(shape, dtype)
    got = is_torchs(inputs, groups, True, dy)
    assert got[0].dtype == got[1].dtype == dtype
    assert got[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("messages", ["scale and shift", "scale", "shift", "nothing"])
@pytest.mark.parametrize("silu", [True, False])
def test_each_step_is_optional(messages, silu):
    inputs, dy = drawn((2, 16, 5, 3), messages=messages)
    is_torchs(inputs, 2, silu, dy)


@pytest.mark.parametrize("programs", [1, 3])
def test_an_image_in_parts_of_many_tiles_the_last_cut_short(programs, monkeypatch):
    monkeypatch.setattr(passes, "PROGRAMS", programs)
    inputs, dy = drawn((1, 32, 28, 28))
    is_torchs(inputs, 4, True, dy)


def test_a_tile_for_each_part():
    inputs, dy = drawn((1, 32, 28, 28))
    assert passes._plan(inputs[0], 4)[:2] == (128, 7)
    is_torchs(inputs, 4, True, dy)


@pytest.mark.parametrize("batch", [1, 3, 64, 256, 5000])
@pytest.mark.parametrize(("width", "groups"), [(8, 1), (96, 12), (128, 16), (768, 32)])
@pytest.mark.parametrize("side", [1, 7, 28, 32, 64])
def test_parts_cover_each_image_once(batch, width, groups, side):
    chunk, splits, lanes = passes._plan(
        torch.empty(batch, width, side, side, device="meta"), groups
    )
    assert (splits - 1) * chunk < side**2 <= splits * chunk
    assert splits <= passes.MOST
    assert chunk % lanes["rows"] == 0
    assert lanes["rows"] * lanes["wide"] * lanes["deep"] <= passes.TILE


# --- numbers that are easily lost -------------------------------------------------------------


@pytest.mark.parametrize("programs", [1, 1024])
def test_a_mean_far_from_zero_costs_no_more_than_its_own_rounding(programs, monkeypatch):
    monkeypatch.setattr(passes, "PROGRAMS", programs)
    inputs, dy = drawn((1, 64, 10, 10))
    # Of 100 a float32 is wrong by up to 4e-6.
    is_torchs([100 + inputs[0] / 2, *inputs[1:]], 8, True, dy, 1e-5)
    # Of 1000 by up to 3e-5, of a deviation of sqrt(2e-5 + epsilon); sums add such errors.
    inputs[0] = 1000 + inputs[0] / 200
    is_torchs([*inputs[:3], None, None], 8, False, draw(*dy.shape, key=5), 6e-3)


def test_one_bright_pixel():
    inputs, dy = drawn((1, 32, 20, 20))
    inputs[0] = torch.zeros_like(inputs[0])
    inputs[0][:, :, 0, 0] = 1000
    is_torchs(inputs, 4, True, dy)


@pytest.mark.parametrize("value", [0.1, -3e7, 3e12])
def test_an_image_of_one_value_is_its_bias(value):
    (x, gain, bias, *_), _ = drawn((1, 16, 12, 12))
    y = fused(torch.full_like(x, value), gain, bias, None, None, 2, False)
    torch.testing.assert_close(y, bias[:, None, None].expand_as(y), rtol=1e-5, atol=1e-5)


def test_silu_and_its_derivative_are_right_from_minus_120_to_120():
    z = torch.linspace(-120, 120, 2048, device=DEVICE)
    zero = torch.zeros_like(z)
    is_torchs((zero[None, :, None, None], zero, z, None, None), 1, True, draw(1, len(z), 1, 1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_shows_in_its_group_and_in_no_other(bad):
    (x, *rest), dy = drawn((2, 16, 12, 12))
    before = with_gradients(fused, (x, *rest), 2, True, dy)
    x[1, 3, 11, 11] = bad
    after = with_gradients(fused, (x, *rest), 2, True, dy)
    for one, other in zip(after[:2], before[:2], strict=True):
        assert one[1, :8].isnan().all()
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1, 8:], other[1, 8:])
    for one in after[2:4]:  # gain and bias
        assert one.isnan().nonzero().flatten().tolist() == list(range(8))


# --- as a network calls it ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", HALVES)
def test_halves_of_one_projection_in_another_type(dtype):
    (x, gain, bias, scale, shift), dy = drawn((3, 16, 3, 3), dtype)
    together = torch.cat([scale, shift], 1).to(dtype)
    parts = together.chunk(2, dim=1)
    plain = [t.float().contiguous() for t in parts]
    norm = Norm(2, 1e-5, True)
    copied, viewed = Affine(gain, bias, *plain), Affine(gain, bias, *parts)
    wanted, got = passes.forward(x, copied, norm), passes.forward(x, viewed, norm)
    back = passes.backward(dy, x, copied, *wanted[1:], norm)
    for one, other in zip(
        (*got, *passes.backward(dy, x, viewed, *got[1:], norm)),
        (*wanted, *back),
        strict=True,
    ):
        assert torch.equal(one, other)
    gradients = with_gradients(fused, (x, gain, bias, *parts), 2, True, dy)[1:]
    assert [t.dtype for t in gradients] == [dtype, torch.float32, torch.float32, dtype, dtype]


def test_one_scale_and_shift_for_all_images():
    (x, gain, bias, scale, shift), dy = drawn((3, 16, 3, 3))
    is_torchs([x, gain, bias, scale[:1], shift[:1]], 2, True, dy)


@pytest.mark.parametrize("shape", [(0, 8, 3, 3), (2, 8, 0, 3)])
def test_nothing_in_nothing_out(shape):
    inputs, dy = drawn(shape)
    y, dx, *rest = with_gradients(fused, inputs, 1, True, dy)
    assert y.shape == dx.shape == shape
    assert not any(t.any() for t in rest)


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_in_a_graph(dtype):
    inputs, dy = drawn((4, 64, 28, 28), dtype)
    inputs = [t.requires_grad_() for t in inputs]
    norm = GroupNorm(8, 64).cuda()

    def step():
        y = fused(*inputs, 8, True)
        z = norm(inputs[0], *inputs[3:], silu=True)
        return y, *torch.autograd.grad(y, inputs, dy), z, *torch.autograd.grad(z, inputs[0], dy)

    wanted = [t.clone() for t in step()]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = step()
    graph.replay()
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other)


# --- when --------------------------------------------------------------------------------------

CALLS = sys.modules[fits.__module__]


@pytest.mark.parametrize(
    ("dtype", "capability", "there", "taken"),
    [
        (torch.float32, (9, 0), True, True),
        (torch.float16, (7, 5), True, True),
        (torch.bfloat16, (8, 0), True, True),
        (torch.bfloat16, (7, 5), True, False),
        (torch.float32, (6, 1), True, False),
        (torch.float64, (9, 0), True, False),
        (torch.float32, (9, 0), False, False),
    ],
)
def test_which_tensors_of_a_card_are_taken(dtype, capability, there, taken, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(CALLS, "triton_builds", lambda: there)
    x = SimpleNamespace(is_cuda=True, dtype=dtype, device="cuda")
    assert normalises(x) == taken
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not normalises(x)


def test_elsewhere_those_that_fit(monkeypatch):
    x = torch.zeros(1, 8, 2, 2)
    assert normalises(x) == fits(x)
    assert not normalises(x.half())
    assert not normalises(x.to("meta"))


def test_triton_is_not_used_where_kernels_are_unwanted_or_there_is_no_card(monkeypatch):
    monkeypatch.delenv("MEZZOTINT_KERNELS", raising=False)
    assert triton_builds.__wrapped__() == (DEVICE == "cuda")
    monkeypatch.setenv("MEZZOTINT_KERNELS", "0")
    assert not triton_builds.__wrapped__()
