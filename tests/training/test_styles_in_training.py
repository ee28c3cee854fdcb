"""Styles in training: what a batch asks for, what is dropped, what a network learns of them."""

import dataclasses

import pytest
import torch

from mezzotint.data import Style
from mezzotint.diffusion import Denoiser, Edm, is_null
from mezzotint.networks import Factor, Level, UNet, UNetSpec
from mezzotint.training import Stepped, TrainState, train
from mezzotint.training.batches import condition_of, next_batch
from tiny import make_data

SIZE = Style("size", ("small", "large"), (0.0,), (-1.0, 1.0), (-2.0, 2.0), 1.0, 2.0)
HAND = Style("hand", ("print", "cursive"))


@pytest.fixture
def styled():
    data = make_data()
    g = torch.Generator().manual_seed(7)
    size = torch.randn(len(data.images), generator=g, dtype=torch.float64)
    hand = torch.arange(len(data.images)).double() % 2
    hand[3] = torch.nan
    return dataclasses.replace(
        data, styles=(SIZE, HAND), style_values=torch.stack([size, hand], 1)
    )


def test_a_set_without_styles_asks_for_labels_alone():
    data = make_data()
    rows = torch.tensor([2, 0, 1])
    assert list(condition_of(data, rows).factors) == ["label"]
    assert data.styles_of(rows).shape == (3, 0)


def test_images_are_asked_for_by_label_and_standardised_styles(styled):
    rows = torch.tensor([5, 3])
    factors = condition_of(styled, rows).factors
    assert list(factors) == ["label", "size", "hand"]
    expected = (styled.style_values[rows, 0] - 1.0) / 2.0
    torch.testing.assert_close(factors["size"], expected.float())
    assert factors["hand"].tolist() == [1, -1]


def test_a_batch_sets_styles_to_null_alone_and_together(styled, new_plan):
    plan = new_plan(
        batch=20_000, dropout={"label": 0.1, "size": 0.2, "hand": 0.0}, joint_style_dropout=0.3
    )
    factors = next_batch(styled, plan, 0, "cpu").condition.factors
    free = {name: is_null(values) for name, values in factors.items()}
    known = ~free["label"]
    assert float(free["label"].double().mean()) == pytest.approx(0.1, abs=0.011)
    assert bool((free["size"] & free["hand"])[~known].all())
    assert float(free["size"][known].double().mean()) == pytest.approx(1 - 0.7 * 0.8, abs=0.02)


def styled_state():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        factors = [Factor("label", 2), Factor("size", None), Factor("hand", 2)]
        network = UNet(1, factors, UNetSpec((Level(8),)))
    network = network.to(memory_format=torch.channels_last)
    denoiser = Denoiser(network, Edm(0.58))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2, fused=True)
    return TrainState(denoiser, optimizer, 8)


def test_a_network_learns_a_style(styled, new_plan, compute):
    """Images that are their style: grey levels, which only a network with that factor can know."""
    level = styled.style_values[:, 0].sigmoid() * 255
    images = level.round().to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    data = dataclasses.replace(styled, images=images)
    state = styled_state()
    plan = new_plan(images=2400, batch=16, validate_every=2400, dropout={"label": 0.1}, ema=0.0)
    list(train(state, data, plan, compute))
    wanted = torch.tensor([-1.5, 0.0, 1.5], dtype=torch.float64)
    table = torch.stack([wanted, torch.full((3,), torch.nan, dtype=torch.float64)], 1)
    rows = dataclasses.replace(data, style_values=table, labels=torch.zeros(3, dtype=torch.int64))
    with torch.no_grad():
        x0 = state.denoiser(
            torch.zeros(3, 1, 4, 4), torch.tensor(10.0), condition_of(rows, torch.arange(3))
        )
    grey = x0.mean((1, 2, 3)).double()
    truth = 2 * wanted.sigmoid() - 1
    assert (grey - truth).abs().max() < 0.25
    assert grey[0] < grey[1] < grey[2]


def test_stopping_and_going_on_changes_nothing_with_styles(styled, new_plan, compute):
    plan = new_plan(dropout={"label": 0.1, "size": 0.1, "hand": 0.1}, joint_style_dropout=0.1)
    whole, halves = styled_state(), styled_state()
    expected = [r.loss for r in train(whole, styled, plan, compute) if isinstance(r, Stepped)]
    found = []
    for _ in range(2):
        for record in train(halves, styled, plan, compute):
            if isinstance(record, Stepped):
                found.append(record.loss)
                if record.images_seen == 40:
                    break
    assert found == expected
