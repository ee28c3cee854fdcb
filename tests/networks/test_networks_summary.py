"""What `inspect` shows, against textbook counts and against PyTorch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mezzotint.diffusion import Condition
from mezzotint.networks import Block, Embedding, Factor, Level, UNet, UNetSpec
from mezzotint.networks.summary import summarise

SPECS = {
    "residual": UNetSpec(
        (Level(8), Level(16, blocks=2, attention=True)), Block(), Embedding(width=12, features=8)
    ),
    "plain": UNetSpec(
        (Level(8), Level(16), Level(24)),
        Block("batch", "gelu", False, "add", "conv"),
        Embedding(12, 8, "one-hot", "concat"),
        skips=False,
        conditioned_blocks="bottleneck",
    ),
}
SHAPE = (3, 10, 12)


@pytest.fixture(params=SPECS)
def network(request):
    return UNet(3, [Factor("label", 5)], SPECS[request.param])


def test_parameters_add_up_to_all_there_are(network):
    layers = summarise(network, SHAPE)
    assert sum(layer.parameters for layer in layers) == sum(
        p.numel() for p in network.parameters()
    )


def test_flops_add_up_to_what_the_counter_says(network):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, *SHAPE), torch.zeros(1), Condition())
    assert sum(layer.flops for layer in summarise(network, SHAPE)) == counter.get_total_flops() > 0


def test_a_convolution_costs_two_for_every_weight_at_every_pixel(network):
    layers = [layer for layer in summarise(network, SHAPE) if layer.kind == "Conv2d"]
    modules = dict(network.named_modules())
    for layer in layers:
        module, (out, height, width) = modules[layer.name], layer.shape
        inputs = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        assert layer.flops == 2 * out * height * width * inputs, layer.name
        assert layer.parameters == out * (inputs + 1)
    assert len(layers) > 5


def test_a_linear_layer_costs_two_for_every_weight_and_token(network):
    layers = [layer for layer in summarise(network, SHAPE) if layer.kind == "Linear"]
    modules = dict(network.named_modules())
    for layer in layers:
        module, tokens = modules[layer.name], layer.shape[0] if len(layer.shape) == 2 else 1
        assert layer.flops == 2 * tokens * module.in_features * module.out_features, layer.name
        assert layer.parameters == module.out_features * (module.in_features + 1)
    assert len(layers) > 2


def test_attention_costs_its_two_products():
    network = UNet(3, [Factor("label", 5)], SPECS["residual"])
    attention = [layer for layer in summarise(network, SHAPE) if layer.kind == "Attention"]
    pixels = 5 * 6
    assert [layer.flops for layer in attention] == [2 * 2 * pixels**2 * 16] * 5
    assert {layer.shape for layer in attention} == {(16, 5, 6)}


def test_layers_come_in_the_order_they_run_and_end_in_the_padded_image(network):
    layers = summarise(network, SHAPE)
    names = [layer.name for layer in layers]
    starts = [
        next(i for i, name in enumerate(names) if name.startswith(part))
        for part in ("mapping", "first", "down", "downsample", "middle", "up", "last")
    ]
    assert starts == sorted(starts)
    multiple = 2 ** (len(network.spec.levels) - 1)  # the image is cropped after the last layer
    assert layers[-1].shape == (3, *(size + -size % multiple for size in SHAPE[1:]))
    assert len(names) == len(set(names))


def test_looking_leaves_the_network_as_it_was(network):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    summarise(network, SHAPE)
    assert network.training
    assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
