"""Changes of low rank: gradients and steps in closed form, and weights that are merged exactly."""

import pytest
import torch
from torch import nn

from mezzotint.diffusion import Condition
from mezzotint.errors import InputError
from mezzotint.finetuning.lora import low_rank, merged, numbers
from mezzotint.networks import Factor, Level, UNet, UNetSpec
from mezzotint.runtime.rng import generator

RANK = 3


def drawn():
    return generator("test", 0)


@pytest.fixture
def network():
    """A U-Net with attention of which no weight is zero, laid out as those of a run."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(1, [Factor("label", 2)], UNetSpec((Level(8), Level(16, attention=True))))
    scatter(network.parameters(), 0.1)
    return network.to(memory_format=torch.channels_last)


def scatter(parameters, deviation):
    """Move parameters, always in the same way."""
    draws = generator("scatter")
    with torch.no_grad():
        for p in parameters:
            p += deviation * torch.randn(p.shape, generator=draws)


def answer(network):
    """What it says of three noisy images, float32 (3, 1, 8, 8)."""
    x = torch.randn(3, 1, 8, 8, generator=generator("images"))
    noise, labels = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([0, 1, -1])
    return network(x, noise, Condition({"label": labels}))


def changes(network):
    """Of each layer by name: A (r, in) and B (out, r)."""
    layers = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    found = {n: m.parametrizations.weight[0] for n, m in layers.items()}
    return {n: (change.a, change.b) for n, change in found.items()}


def trained(network):
    return [p for p in network.parameters() if p.requires_grad]


def test_in_the_beginning_nothing_is_changed(network):
    before, weights = answer(network), network.state_dict()
    with low_rank(network, RANK, drawn()):
        assert torch.equal(answer(network), before)
        assert len(changes(network)) > 15
    assert before.std() > 0.1
    after = network.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert all(p.requires_grad for p in network.parameters())


def test_merged_weights_say_what_the_changed_network_said(network):
    with low_rank(network, RANK, drawn()):
        scatter(trained(network), 0.1)
        said = answer(network)
        weights = merged(network)
        with torch.autocast("cpu", dtype=torch.bfloat16):  # where products are coarse
            coarse, again = answer(network), merged(network)
    other = UNet(1, network.mapping.factors, network.spec).to(memory_format=torch.channels_last)
    other.load_state_dict(weights)
    for plain in (other, network):
        assert torch.equal(answer(plain), said)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(answer(plain), coarse)
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_the_gradient_is_the_chain_rules(network):
    """dL/dB = s G A^T and dL/dA = s B^T G, s = sqrt(in / r), G = dL/dW of the merged network."""
    with low_rank(network, RANK, drawn()):
        scatter(trained(network), 0.1)
        found = changes(network)
        answer(network).square().mean().backward()
    answer(network).square().mean().backward()
    for name, (a, b) in found.items():
        g = network.get_submodule(name).weight.grad.flatten(1)
        scale = (a.shape[1] / len(a)) ** 0.5
        close = {"rtol": 1e-3, "atol": 1e-4 * float(g.abs().max())}
        torch.testing.assert_close(b.grad, scale * g @ a.mT, **close)
        torch.testing.assert_close(a.grad, scale * b.mT @ g, **close)


@pytest.mark.parametrize("rank", [1, 4, 8])
def test_adams_first_step_has_the_size_of_its_learning_rate_at_any_rank(rank):
    layers = nn.Sequential(nn.Conv2d(40, 64, 3), nn.Flatten(), nn.Linear(64, 500))
    before = {name: w.clone() for name, w in layers.state_dict().items()}
    with low_rank(layers, rank, drawn()):
        optimizer = torch.optim.Adam(trained(layers), lr=1e-3)
        layers(torch.randn(2, 40, 3, 3, generator=drawn())).square().sum().backward()
        optimizer.step()
    for name in ("0.weight", "2.weight"):
        step = (layers.state_dict()[name] - before[name]).square().mean().sqrt()
        assert float(step) == pytest.approx(1e-3, rel=0.3)
    assert all(torch.equal(layers.state_dict()[n], before[n]) for n in ("0.bias", "2.bias"))


def test_the_numbers_trained_are_counted(network):
    assert numbers(network, None) == sum(p.numel() for p in trained(network))
    layers = nn.Sequential(nn.Conv2d(4, 9, 3), nn.Linear(9, 2))  # (9, 36) and (2, 9)
    assert [numbers(layers, rank) for rank in (1, 2, 3)] == [45 + 11, 90 + 22, 135 + 22]
    with low_rank(network, RANK, drawn()):
        counted = sum(p.numel() for p in trained(network))
    assert numbers(network, RANK) == counted


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        (0, "at least 1, got 0"),
        (-2, "at least 1, got -2"),
        (8, "rank 8 has 382 numbers .* are 342: give a rank of at most 7"),
        (10**12, "are 342: give a rank of at most 7"),
    ],
)
def test_a_rank_that_saves_nothing_is_refused(rank, words):
    layers = nn.Sequential(nn.Conv2d(4, 9, 3), nn.Linear(9, 2))  # 324 + 18 weights
    with pytest.raises(InputError, match=words), low_rank(layers, rank, drawn()):
        pass
    assert numbers(layers, 7) < 342
    assert all(p.requires_grad for p in layers.parameters())


def test_the_changes_are_a_function_of_the_draws(network):
    found = []
    for seed in (0, 0, 1):
        with low_rank(network, RANK, generator("test", seed)):
            found.append(torch.cat([a.detach().flatten() for a, _ in changes(network).values()]))
    assert torch.equal(found[0], found[1])
    assert float(torch.corrcoef(torch.stack(found[1:]))[0, 1].abs()) < 0.1
