"""The pieces of a U-Net against their formulas, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mezzotint.networks.blocks import NORMS, Attention, Block, ConvBlock, RmsNorm, zeroed

ACTIVATE = {"gelu": F.gelu, "silu": F.silu}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def awake(module):
    """The module in float64, every parameter random: what starts at zero too."""
    module = module.double().eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.0, 0.3)
    return module


def images(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# --- normalisations ---------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 4, 7, 8, 12, 16, 24, 32, 48, 64, 100, 192, 256, 512, 520])
def test_group_norm_has_as_many_groups_as_hold_eight_channels(width):
    groups = NORMS["group"](width).num_groups
    allowed = [g for g in range(1, 33) if width % g == 0 and width / g >= 8] or [1]
    assert groups == allowed[-1]


@pytest.mark.parametrize(
    ("width", "groups"), [(8, 1), (16, 2), (64, 8), (192, 24), (256, 32), (512, 32), (12, 1)]
)
def test_group_norm_of_usual_widths(width, groups):
    assert NORMS["group"](width).num_groups == groups


def test_group_norm_standardises_each_group_of_each_image():
    x = 3 * images(2, 16, 5, 4) + 1
    got = NORMS["group"](16).double()(x)
    groups = x.reshape(2, 2, 8 * 20)
    mean = groups.mean(-1, keepdim=True)
    variance = ((groups - mean) ** 2).mean(-1, keepdim=True)
    wanted = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_rms_norm_divides_each_pixel_by_its_root_mean_square():
    norm = awake(RmsNorm(6))
    x = images(2, 6, 3, 4)
    got = norm(x)
    for b, i, j in [(0, 0, 0), (1, 2, 3), (0, 1, 2)]:
        pixel = x[b, :, i, j]
        rms = math.sqrt(sum(float(v) ** 2 for v in pixel) / 6)
        # The mean of squares is taken in float32 so that half precision does not overflow.
        torch.testing.assert_close(got[b, :, i, j], pixel / rms * norm.gain, rtol=2e-6, atol=1e-12)


def test_rms_norm_does_not_overflow_in_half_precision():
    x = torch.full((1, 8, 1, 1), 300.0, dtype=torch.float16)  # 300^2 is more than 65504
    torch.testing.assert_close(RmsNorm(8)(x), torch.ones_like(x), rtol=2e-3, atol=0)


def test_no_norm_is_the_identity():
    x = images(1, 3, 2, 2)
    assert torch.equal(NORMS["none"](3)(x), x)


# --- convolution blocks -----------------------------------------------------------------------


def messages(block, e, spec):
    """What the embedding is brought to, by hand: (B, C or 2 C, 1, 1)."""
    weight = block.modulation.project.weight.flatten(
        1
    )  # a 1x1 convolution's as well as a Linear's
    return (e @ weight.T + block.modulation.project.bias)[:, :, None, None]


def heard(block, h, e, spec):
    p = messages(block, e, spec)
    if spec.condition == "add":
        return h + p
    width = h.shape[1]
    return h * (1 + p[:, :width]) + p[:, width:]


def convolved(layer, x):
    return F.conv2d(x, layer.weight, layer.bias, padding=1)


@pytest.mark.parametrize("projection", ["linear", "conv"])
@pytest.mark.parametrize("condition", ["add", "scale-shift"])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize("norm", ["group", "batch", "rms", "none"])
def test_a_plain_block_is_convolution_norm_activation_twice(
    norm, activation, condition, projection
):
    spec = Block(norm, activation, False, condition, projection)
    block = awake(ConvBlock(4, 16, 6, spec))
    x, e, act = images(3, 4, 5, 5), images(3, 6), ACTIVATE[activation]
    h = act(heard(block, block.norm1(convolved(block.conv1, x)), e, spec))
    wanted = act(block.norm2(convolved(block.conv2, h)))
    torch.testing.assert_close(block(x, e), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("arguments", [16, 4])
@pytest.mark.parametrize("projection", ["linear", "conv"])
@pytest.mark.parametrize("condition", ["add", "scale-shift"])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
@pytest.mark.parametrize("norm", ["group", "batch", "rms", "none"])
def test_a_residual_block_is_its_input_plus_norm_activation_convolution_twice(
    norm, activation, condition, projection, arguments
):
    spec = Block(norm, activation, True, condition, projection)
    block = awake(ConvBlock(arguments, 16, 6, spec))
    x, e, act = images(3, arguments, 5, 5), images(3, 6), ACTIVATE[activation]
    h = convolved(block.conv1, act(block.norm1(x)))
    if condition == "add":  # before the second norm
        h = block.norm2(heard(block, h, e, spec))
    else:  # after it, as in FiLM
        h = heard(block, block.norm2(h), e, spec)
    short = x if arguments == 16 else F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
    wanted = short + convolved(block.conv2, act(h))
    torch.testing.assert_close(block(x, e), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("residual", [True, False])
def test_a_block_without_an_embedding_ignores_it(residual):
    block = awake(ConvBlock(4, 8, 0, Block(residual=residual)))
    assert block.modulation is None
    x = images(2, 4, 3, 3)
    assert torch.equal(block(x, images(2, 6)), block(x, None))


def test_a_fresh_residual_block_is_the_identity():
    block = ConvBlock(8, 8, 6, Block()).double()
    x = images(2, 8, 4, 4)
    assert torch.equal(block(x, images(2, 6)), x)


def test_a_fresh_block_with_scale_and_shift_ignores_the_embedding_and_one_that_adds_does_not():
    x, one, other = images(2, 4, 4, 4), images(2, 6), images(2, 6)
    for condition, same in [("scale-shift", True), ("add", False)]:
        block = ConvBlock(4, 8, 6, Block(residual=False, condition=condition)).double()
        assert torch.equal(block(x, one), block(x, other)) is same


def test_zeroed_sets_everything_to_zero():
    assert all((p == 0).all() for p in zeroed(nn.Linear(3, 4)).parameters())


# --- attention --------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (64, 1), (128, 2), (192, 3), (200, 2)])
def test_attention_is_the_formula_head_by_head(width, heads):
    module = awake(Attention(width, Block(norm="none")))
    x = images(2, width, 3, 2)
    tokens = module.norm(x).flatten(2).transpose(1, 2)  # (B, pixels, C)
    each = width // heads
    q, k, v = F.linear(tokens, module.qkv.weight, module.qkv.bias).chunk(3, dim=2)
    parts = []
    for h in range(heads):
        own = slice(h * each, (h + 1) * each)
        scores = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(each)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        parts.append(weights @ v[..., own])
    mixed = F.linear(torch.cat(parts, dim=2), module.out.weight, module.out.bias)
    wanted = x + mixed.transpose(1, 2).reshape(x.shape)
    assert module.heads == heads
    torch.testing.assert_close(module(x), wanted, rtol=1e-9, atol=1e-9)


def test_attention_is_torchs_multi_head_attention():
    module = awake(Attention(128, Block(norm="group")))
    x = images(2, 128, 4, 3)
    tokens = module.norm(x).flatten(2).permute(2, 0, 1)  # (pixels, B, C)
    wanted, _ = F.multi_head_attention_forward(
        tokens, tokens, tokens, 128, 2, module.qkv.weight, module.qkv.bias, None, None, False,
        0.0, module.out.weight, module.out.bias, training=False, need_weights=False,
    )  # fmt: skip
    wanted = x + wanted.permute(1, 2, 0).reshape(x.shape)
    torch.testing.assert_close(module(x), wanted, rtol=1e-10, atol=1e-10)


def test_fresh_attention_is_the_identity():
    module = Attention(16, Block()).double()
    x = images(2, 16, 3, 3)
    assert torch.equal(module(x), x)


def test_attention_is_normalised_even_where_the_blocks_are_not():
    module = awake(Attention(8, Block(norm="none")))
    x = images(1, 8, 2, 2)
    # Normalised tokens do not grow with x, so neither does what attention adds.
    torch.testing.assert_close(module(10 * x) - 10 * x, module(x) - x, rtol=1e-4, atol=1e-5)
