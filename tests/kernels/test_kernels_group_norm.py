"""The fused pass against torch's group_norm and its automatic gradients in float64."""

import copy
import sys
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from normed import by_torch, fused, with_gradients
from torch import nn

from mezzotint.kernels import fits, group_norm, library
from mezzotint.networks.blocks import Block, ConvBlock, GroupNorm
from mezzotint.runtime.rng import generator


@pytest.fixture(autouse=True, scope="module")
def built():
    if library() is None:
        pytest.skip("no C++ compiler")


@pytest.fixture
def without(monkeypatch):
    """What makes everything after it run as torch operations."""
    module = sys.modules[fits.__module__]  # its name in the package is the function's
    return lambda: monkeypatch.setattr(module, "library", lambda: None)


def draw(*shape, key=0):
    return torch.randn(shape, generator=generator("kernels", key, *shape))


def drawn(shape, dtype=torch.float32):
    """x, gain, bias, scale, shift."""
    batch, width = shape[:2]
    x = (2 * draw(*shape) + 1).to(dtype)
    messages = (draw(batch, width, key=key) for key in (3, 4))
    return [x, 1 + draw(width, key=1), draw(width, key=2), *messages]


def in_float64(inputs, groups, silu, dy):
    double = [None if t is None else t.double() for t in inputs]
    return with_gradients(by_torch, double, groups, silu, dy)


def near(got, wanted, digits=2e-6):
    """Each number to its own type's precision, and all to `digits` of the largest."""
    rounding = 2**-8 if got.dtype == torch.bfloat16 else digits
    most = digits * wanted.abs().max().item()
    torch.testing.assert_close(got.double(), wanted.double(), rtol=rounding, atol=most)


SHAPES = [
    ((2, 8, 5, 7), 1),
    ((3, 12, 9, 3), 1),
    ((2, 24, 4, 4), 3),
    ((1, 64, 14, 14), 8),
    ((5, 33, 3, 5), 11),
    ((2, 7, 6, 1), 7),
    ((2, 40, 1, 1), 5),
    ((1, 1, 4, 4), 1),
    ((40, 16, 2, 2), 2),
]


@pytest.mark.parametrize(("shape", "groups"), SHAPES)
@pytest.mark.parametrize("messages", ["scale and shift", "shift", "nothing"])
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_all_gradients_are_torchs_in_float64(shape, groups, messages, silu, dtype):
    inputs = drawn(shape, dtype)
    if messages != "scale and shift":
        inputs[3] = None
    if messages == "nothing":
        inputs[4] = None
    dy = draw(*shape, key=5).to(dtype)
    got = with_gradients(fused, inputs, groups, silu, dy)
    assert got[0].dtype == got[1].dtype == dtype
    for one, wanted in zip(got, in_float64(inputs, groups, silu, dy), strict=True):
        near(one, wanted)


def test_a_scale_without_a_shift():
    inputs = drawn((2, 16, 3, 3))
    inputs[4] = None
    dy = draw(2, 16, 3, 3, key=5)
    got = with_gradients(fused, inputs, 2, True, dy)
    for one, wanted in zip(got, in_float64(inputs, 2, True, dy), strict=True):
        near(one, wanted)


def test_silu_and_its_derivative_are_right_from_minus_120_to_120():
    z = torch.linspace(-120, 120, 24001)
    zero = torch.zeros_like(z)
    inputs = torch.zeros(1, len(z), 1, 1), zero, zero, zero[None], z[None]  # so that y = f(z)
    y, *_, slope = with_gradients(fused, inputs, 1, True, torch.ones(1, len(z), 1, 1))
    exact = z.double().requires_grad_()
    wanted = F.silu(exact)
    # Below -87 the exponential stands still: what should be less than 1e-35 is not more than that.
    torch.testing.assert_close(y.flatten().double(), wanted, rtol=3e-6, atol=1e-35)
    (derivative,) = torch.autograd.grad(wanted.sum(), exact)
    far = (z + 1.2785).abs() > 0.1  # its zero
    got = slope.flatten().double()
    torch.testing.assert_close(got[far], derivative[far], rtol=3e-6, atol=1e-35)
    torch.testing.assert_close(got, derivative, rtol=3e-6, atol=1e-7)


def written(bias):
    """The numbers of a float32 tensor as they come out in bfloat16."""
    zero = torch.zeros_like(bias)
    x = torch.zeros(1, len(bias), 1, 1, dtype=torch.bfloat16)
    return fused(x, zero, bias, None, None, 1, False).flatten()


def test_bfloat16_is_rounded_to_the_nearest_and_ties_to_even():
    every = 1 + torch.arange(2**12) * 2.0**-11  # 16 steps for each bfloat16, halves among them
    for numbers in (every, -3e-39 * every, 1e38 * every):
        assert torch.equal(written(numbers), numbers.bfloat16())
    assert written(torch.tensor([3.4e38, -3.4e38])).isinf().all()


def test_rounding_makes_no_number_of_what_is_none():
    bits = torch.tensor([0x7FFFFFFF, 0x7FC00000, 0x7FC0FFFF, -1], dtype=torch.int32)
    assert written(bits.view(torch.float32)).isnan().all()


# --- numbers that are easily lost -------------------------------------------------------------


@pytest.mark.parametrize("value", [1000.0, 0.1, -3e7, 0.0])
def test_an_image_of_one_value_is_its_bias(value):
    x, *rest = drawn((2, 16, 9, 7))
    inputs, dy = [torch.full_like(x, value), *rest], draw(2, 16, 9, 7, key=5)
    got = with_gradients(fused, inputs, 2, True, dy)
    _, gain, bias, scale, shift = (t.double() for t in inputs)
    y = F.silu(bias * (1 + scale) + shift)[..., None, None].expand_as(x)
    near(got[0], y)
    # The gradient is divided by sqrt(epsilon): 300 times the digits of a rounding.
    near(got[1], in_float64([torch.zeros_like(x), *rest], 2, True, dy)[1])


def test_a_large_mean_costs_no_more_than_its_own_rounding():
    shape = 3, 16, 14, 14
    inputs = [1000 + 1e-2 * draw(*shape), torch.ones(16), torch.zeros(16), None, None]
    dy = draw(*shape, key=5)
    got = with_gradients(fused, inputs, 2, False, dy)
    # The mean as a float32 is wrong by up to 2^-15, of a deviation of sqrt(1e-4 + epsilon).
    for one, wanted in zip(got, in_float64(inputs, 2, False, dy), strict=True):
        near(one, wanted, 3.1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("pixel", [0, 7])
def test_what_is_not_a_number_shows_in_its_image_and_in_no_other(bad, dtype, pixel):
    shape = 3, 16, 3, 4
    clean, dy = drawn(shape, dtype), draw(*shape, key=5).to(dtype)
    spoilt = copy.deepcopy(clean)
    spoilt[0][1].flatten(1)[3, pixel] = bad
    before = with_gradients(fused, clean, 2, True, dy)
    after = with_gradients(fused, spoilt, 2, True, dy)
    wanted = in_float64(spoilt, 2, True, dy)
    for one, other in zip(after, wanted, strict=True):
        assert torch.equal(one.isnan(), other.isnan())
    assert after[0][1, :8].isnan().all()  # the whole group
    assert after[1][1, :8].isnan().all()
    for one, other in zip(after[:2], before[:2], strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])


def test_a_gradient_that_is_not_a_number_is_not_lost():
    inputs, dy = drawn((2, 16, 3, 3)), draw(2, 16, 3, 3, key=5)
    dy[0, 2, 1, 1] = float("nan")
    _, dx, dgain, *_ = with_gradients(fused, inputs, 2, True, dy)
    assert dx[0, :8].isnan().all()
    assert dx[0, 8:].isfinite().all()
    assert dx[1].isfinite().all()
    assert dgain.isnan().nonzero().tolist() == [[2]]


# --- the same whatever surrounds it -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 24, 9, 7), (1, 8, 3, 3), (300, 256, 1, 2)])
def test_one_thread_and_two_give_the_same_bytes(shape, dtype):
    inputs, dy = drawn(shape, dtype), draw(*shape, key=5).to(dtype)
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(with_gradients(fused, inputs, 1, True, dy))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "a part of more channels": lambda t: torch.cat([t, t + 1], 1)[:, : t.shape[1]],
    "every second pixel": lambda t: t.repeat_interleave(2, dim=3)[..., ::2],
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_in_memory_does_not_matter(layout):
    inputs, dy = drawn((3, 16, 5, 4)), draw(3, 16, 5, 4, key=5)
    plain = with_gradients(fused, inputs, 2, True, dy.to(memory_format=torch.channels_last))
    x = LAYOUTS[layout](inputs[0]).requires_grad_()
    rest = [t.clone().requires_grad_() for t in inputs[1:]]
    y = fused(x, *rest, 2, True)
    gradients = torch.autograd.grad(y, [x, *rest], LAYOUTS[layout](dy))
    assert y.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip((y, *gradients), plain, strict=True):
        assert torch.equal(one, other)


def test_the_same_number_everywhere_as_a_gradient():
    """What a sum sends back has no memory of its own for each number."""
    inputs = [t.requires_grad_() for t in drawn((2, 8, 3, 3))]
    got = torch.autograd.grad(fused(*inputs, 1, True).sum(), inputs)
    wanted = in_float64(inputs, 1, True, torch.ones(2, 8, 3, 3))[1:]
    for one, other in zip(got, wanted, strict=True):
        near(one, other)


@pytest.mark.parametrize("wanted", range(5))
def test_one_gradient_alone_is_the_one_of_all(wanted):
    inputs, dy = drawn((2, 16, 3, 4)), draw(2, 16, 3, 4, key=5)
    everything = with_gradients(fused, inputs, 2, True, dy)[1:]
    inputs[wanted].requires_grad_()
    (single,) = torch.autograd.grad(fused(*inputs, 2, True), inputs[wanted], dy)
    assert torch.equal(single, everything[wanted])


def test_weights_and_embeddings_in_bfloat16_are_read_as_they_are():
    x, *rest = drawn((2, 16, 3, 4), torch.bfloat16)
    rest = [t.bfloat16() for t in rest]
    dy = draw(2, 16, 3, 4, key=5)
    got = with_gradients(fused, [x, *rest], 2, True, dy)
    wanted = with_gradients(fused, [x, *(t.float() for t in rest)], 2, True, dy)
    assert all(t.dtype == torch.bfloat16 for t in got)
    for one, other in zip(got, wanted, strict=True):
        assert torch.equal(one, other.bfloat16())


def test_a_scale_and_a_shift_for_all_images():
    x, gain, bias, scale, shift = drawn((3, 16, 3, 3))
    inputs, dy = [x, gain, bias, scale[:1], shift[:1]], draw(3, 16, 3, 3, key=5)
    got = with_gradients(fused, inputs, 2, True, dy)
    for one, wanted in zip(got, in_float64(inputs, 2, True, dy), strict=True):
        near(one, wanted)


def test_halves_of_one_projection():
    x, gain, bias, scale, shift = drawn((3, 16, 3, 3))
    together = torch.cat([scale, shift], 1)
    parts = together.chunk(2, dim=1)
    assert torch.equal(
        fused(x, gain, bias, *parts, 2, True), fused(x, gain, bias, scale, shift, 2, True)
    )


@pytest.mark.parametrize("shape", [(0, 8, 3, 3), (2, 8, 0, 3)])
def test_nothing_in_nothing_out(shape):
    inputs = drawn(shape)
    y, dx, dgain, *_ = with_gradients(fused, inputs, 2, True, torch.zeros(shape))
    assert y.shape == dx.shape == shape
    assert torch.equal(dgain[:0], dgain.new_zeros(0))


def test_in_inference_mode():
    inputs = drawn((2, 16, 3, 3))
    wanted = fused(*inputs, 2, True)
    with torch.inference_mode():
        assert torch.equal(fused(*(t.clone() for t in inputs), 2, True), wanted)


# --- what must be refused ---------------------------------------------------------------------


@pytest.mark.parametrize(("which", "shape"), [(1, 8), (2, 24), (3, (3, 16)), (4, (2, 8))])
def test_a_wrong_shape_is_an_error_and_never_read(which, shape):
    inputs = drawn((2, 16, 3, 3))
    inputs[which] = torch.zeros(shape)
    with pytest.raises(RuntimeError, match="expand"):
        fused(*inputs, 2, True)


@pytest.mark.parametrize("groups", [3, 5, 32])
def test_groups_that_do_not_divide_the_channels_are_an_error(groups):
    with pytest.raises(ValueError, match="equal groups"):
        fused(*drawn((2, 16, 3, 3)), groups, True)


def test_a_weight_changed_before_the_way_back_is_an_error():
    inputs = [t.requires_grad_() for t in drawn((2, 16, 3, 3))]
    for index in (0, 1, 3):  # x, gain, scale
        y = fused(inputs[0].to(memory_format=torch.channels_last), *inputs[1:], 2, True)
        with torch.no_grad():
            inputs[index].add_(1)
        if index == 0:  # was copied, as it was not channels_last
            y.sum().backward()
        else:
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                y.sum().backward()


def test_a_second_derivative_is_an_error_and_not_a_wrong_number():
    inputs = [t.requires_grad_() for t in drawn((2, 16, 3, 3))]
    loss = fused(*inputs, 2, True).square().sum()
    (dx,) = torch.autograd.grad(loss, inputs[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


# --- in a network -----------------------------------------------------------------------------


def whole(block, x, e, autocast=False):
    """The output and all gradients of a block."""
    x, e = x.clone().requires_grad_(), e.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = block(x, e)
    dy = draw(*y.shape, key=5).to(y.dtype)
    return y, *torch.autograd.grad(y, [x, e, *block.parameters()], dy)


def awake(spec, arguments=8, width=24):
    block = ConvBlock(arguments, width, 6, spec)
    for index, parameter in enumerate(block.parameters()):
        parameter.data = 0.3 * draw(*parameter.shape, key=index)
    return block


@pytest.mark.parametrize(
    ("residual", "condition", "activation"),
    list(product([True, False], ["scale-shift", "add"], ["silu", "gelu"])),
)
@pytest.mark.parametrize("autocast", [False, True])
def test_a_block_is_the_same_without_the_kernels(
    residual, condition, activation, autocast, without, monkeypatch
):
    block = awake(Block(activation=activation, residual=residual, condition=condition))
    x, e, used = draw(3, 8, 5, 7), draw(3, 6), []

    def counted(x, *rest, **named):
        used.append(x.dtype)
        return group_norm(x, *rest, **named)

    monkeypatch.setattr("mezzotint.networks.blocks.group_norm", counted)
    got = whole(block, x, e, autocast)
    half = torch.bfloat16 if autocast else torch.float32
    # A residual block's first norm sees the block's input.
    assert used == [torch.float32 if residual else half, half]
    without()
    wanted = whole(block, x, e, autocast)
    assert len(used) == 2
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == other.dtype
        distance = (one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-3)
        assert distance < (0.03 if autocast else 3e-6)


def test_other_types_run_as_torch_operations(monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("mezzotint.networks.blocks.group_norm", never)
    norm, inputs = GroupNorm(2, 16), drawn((2, 16, 3, 3))
    x, _, _, scale, shift = (t.double() for t in inputs)
    got = norm.double()(x, scale, shift, silu=True)
    wanted = by_torch(x, norm.weight, norm.bias, scale, shift, 2, True)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    assert not fits(x)
    assert not fits(x.half())
    assert not fits(torch.empty(1, 8, 2, 2, device="meta"))


def test_without_kernels_each_step_is_optional(without):
    without()
    norm, (x, _, _, scale, shift) = GroupNorm(2, 16), drawn((2, 16, 3, 3))
    for a, b, silu in product([scale, None], [shift, None], [True, False]):
        wanted = by_torch(x, norm.weight, norm.bias, a, b, 2, silu)
        torch.testing.assert_close(norm(x, a, b, silu), wanted, rtol=2e-6, atol=2e-6)


def test_frozen_weights_still_pass_the_gradient_on():
    block = awake(Block())
    x, e = draw(2, 8, 4, 4), draw(2, 6)
    wanted = whole(block, x, e)[1]
    copied = copy.deepcopy(block).requires_grad_(False)  # as a classifier that guides
    x.requires_grad_()
    y = copied(x, e)
    (dx,) = torch.autograd.grad(y, x, draw(*y.shape, key=5))
    assert torch.equal(dx, wanted)


def test_a_copy_has_its_own_weights_under_the_usual_names():
    norm = GroupNorm(2, 16)
    copied = copy.deepcopy(norm)
    nn.init.constant_(copied.weight, 3.0)
    x = draw(2, 16, 3, 3)
    torch.testing.assert_close(copied(x), 3 * norm(x))
    usual = nn.GroupNorm(2, 16)
    usual.load_state_dict(copied.state_dict())
    torch.testing.assert_close(copied(x), usual(x), rtol=2e-6, atol=2e-6)
