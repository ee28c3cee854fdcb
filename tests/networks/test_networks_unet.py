"""The U-Net as a whole: every combination of its choices, every size of image."""

from itertools import combinations, product

import pytest
import torch
from torch import nn

from mezzotint.diffusion import Condition
from mezzotint.networks import Block, Embedding, Factor, Level, UNet, UNetSpec
from mezzotint.networks.blocks import ConvBlock

CHOICES = {
    "norm": ("group", "batch", "rms", "none"),
    "activation": ("gelu", "silu"),
    "residual": (True, False),
    "condition": ("add", "scale-shift"),
    "projection": ("linear", "conv"),
    "factors": ("table", "one-hot"),
    "join": ("sum", "concat"),
    "skips": (True, False),
    "conditioned_blocks": ("everywhere", "bottleneck"),
}


def pairs(row):
    return set(combinations(enumerate(row), 2))


def pairwise_rows():
    """A few rows of the product in which every two values of two choices meet."""
    rows = list(product(*CHOICES.values()))
    left, chosen = set().union(*map(pairs, rows)), []
    while left:
        best = max(rows, key=lambda row: len(pairs(row) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen


ROWS = pairwise_rows()
ALL = pytest.mark.parametrize("row", ROWS, ids=["-".join(map(str, row)) for row in ROWS])
LEVELS = (Level(8), Level(16, blocks=2, attention=True))


def unet(row, levels=LEVELS, channels=1, classes=4):
    norm, activation, residual, condition, projection, factors, join, skips, messages = row
    spec = UNetSpec(
        levels,
        Block(norm, activation, residual, condition, projection),
        Embedding(width=12, features=8, factors=factors, join=join),
        skips,
        messages,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(channels, [Factor("label", classes)], spec).double().eval()


def awake(network):
    """The network with small noise where it started at zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if not parameter.detach().any():
            nn.init.normal_(parameter, 0.0, 0.2, generator=generator)
    return network


def arguments(n, channels=1, height=9, width=6):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(n, channels, height, width, generator=generator, dtype=torch.float64)
    return x, torch.linspace(-1, 1, n, dtype=torch.float64)


def labels(*values):
    return Condition({"label": torch.tensor(values)})


def test_the_rows_cover_every_pair_of_choices():
    seen = set().union(*map(pairs, ROWS))
    ways = [len(values) for values in CHOICES.values()]
    assert len(seen) == sum(a * b for a, b in combinations(ways, 2))
    assert len(ROWS) < 30


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_a_fresh_network_answers_exactly_0(row, training):
    network = unet(row).train(training)
    x, noise = arguments(3)
    assert torch.equal(network(x, noise, labels(0, 3, -1)), torch.zeros_like(x))
    assert awake(network)(x, noise, labels(0, 3, -1)).abs().min() > 0


@ALL
def test_labels_differ_and_a_missing_one_is_null(row):
    network = awake(unet(row))
    x, noise = (value[:1] for value in arguments(1))
    answers = [network(x, noise, labels(label)) for label in (-1, 0, 1, 2, 3)]
    for one, other in combinations(answers, 2):
        assert (one - other).abs().max() > 1e-6
    assert torch.equal(network(x, noise, Condition()), answers[0])


@ALL
def test_noise_levels_differ(row):
    network = awake(unet(row))
    x, _ = arguments(1)
    low, high = (
        network(x, torch.tensor([v], dtype=torch.float64), Condition()) for v in (-1.0, 1.0)
    )
    assert (low - high).abs().max() > 1e-6


@ALL
def test_an_image_is_the_same_alone_and_in_a_batch(row):
    network = awake(unet(row))
    x, noise = arguments(4)
    together = network(x, noise, labels(0, 3, -1, 1))
    for i, label in enumerate((0, 3, -1, 1)):
        single = network(x[i : i + 1], noise[i : i + 1], labels(label))
        torch.testing.assert_close(single[0], together[i], rtol=1e-10, atol=1e-10)


@ALL
def test_every_parameter_is_of_use(row):
    network = awake(unet(row)).train()
    x, noise = arguments(6)
    network(x, noise, labels(0, 1, 2, 3, -1, 0)).square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(28, 28), (7, 5), (1, 1), (33, 20), (8, 8), (1, 9)])
def test_an_image_of_any_size_keeps_it(size, channels, depth):
    levels = tuple(Level(8, attention=i == depth - 1) for i in range(depth))
    row = ("group", "silu", True, "scale-shift", "linear", "table", "sum", True, "everywhere")
    network = awake(unet(row, levels, channels))
    x, noise = arguments(2, channels, *size)
    got = network(x, noise, labels(0, 1))
    assert got.shape == x.shape
    # Padding is zeros to the right and below: an image padded so by hand gives the same.
    multiple = 2 ** (depth - 1)
    more = nn.functional.pad(x, (0, -size[1] % multiple, 0, -size[0] % multiple))
    by_hand = network(more, noise, labels(0, 1))[:, :, : size[0], : size[1]]
    torch.testing.assert_close(got, by_hand, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("messages", ["everywhere", "bottleneck"])
def test_who_is_conditioned_on_what(messages):
    row = ("group", "silu", True, "add", "linear", "table", "sum", True, messages)
    blocks = {n: m for n, m in unet(row).named_modules() if isinstance(m, ConvBlock)}
    hearing = {name for name, block in blocks.items() if block.modulation is not None}
    middle = {"middle.0", "middle.2"}
    assert hearing == (set(blocks) if messages == "everywhere" else middle)
    assert middle < set(blocks)


@pytest.mark.parametrize("skips", [True, False])
def test_skips_widen_what_the_way_up_is_given(skips):
    row = ("group", "silu", True, "add", "linear", "table", "sum", skips, "everywhere")
    up = unet(row, (Level(8), Level(16), Level(24))).up
    wanted = [24 + 24, 24 + 16, 16 + 8] if skips else [24, 24, 16]
    assert [stage[0].conv1.in_channels for stage in up] == wanted


def test_without_skips_only_the_bottom_reaches_the_way_up():
    row = ("none", "silu", False, "add", "linear", "table", "sum", False, "everywhere")
    network = awake(unet(row, (Level(8), Level(8))))
    with torch.no_grad():
        network.downsample[0].weight.zero_()  # what goes down is now the same for every image
    x, noise = arguments(2, 1, 8, 8)
    got = network(x, noise[:1].repeat(2), labels(1, 1))
    torch.testing.assert_close(got[0], got[1], rtol=0, atol=1e-12)
    assert not torch.equal(x[0], x[1])


@pytest.mark.parametrize("levels", [(), (Level(0),), (Level(8, blocks=0),)])
def test_a_network_without_levels_is_refused(levels):
    with pytest.raises(ValueError, match="at least one level"):
        UNetSpec(levels)


def test_a_network_of_patches_is_one_of_images_with_their_pixels_as_channels():
    patched, plain = (
        awake(UNet(channels, [Factor("label", 4)], UNetSpec(LEVELS, patch=patch)).double().eval())
        for channels, patch in ((3, 2), (12, 1))
    )
    plain.load_state_dict(patched.state_dict())
    x, noise = arguments(2, channels=3, height=8, width=12)
    condition = labels(1, 3)
    # Channel 4 c + 2 i + j of an unshuffled image is channel c of the pixels (2 y + i, 2 x + j).
    rows = x.unflatten(2, (4, 2)).unflatten(4, (6, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
    out = plain(rows, noise, condition).unflatten(1, (3, 2, 2))
    back = out.permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)
    torch.testing.assert_close(patched(x, noise, condition), back)


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 10), (28, 28)])
def test_patches_of_any_size_fit_images_of_any_size(patch, height, width):
    network = awake(UNet(1, [Factor("label", 4)], UNetSpec(LEVELS, patch=patch)).double().eval())
    x, noise = arguments(2, height=height, width=width)
    assert network(x, noise, labels(0, 1)).shape == x.shape


def test_a_patch_below_one_is_refused():
    with pytest.raises(ValueError, match="patch"):
        UNetSpec(LEVELS, patch=0)
