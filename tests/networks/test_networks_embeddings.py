"""From noise level and condition to one vector, by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mezzotint.diffusion import Condition
from mezzotint.networks import Embedding, Factor
from mezzotint.networks.embeddings import ConditionEmbedding, noise_features

CHOICES = [(f, j) for f in ("table", "one-hot") for j in ("sum", "concat")]
TWO = (Factor("label", 5), Factor("style", 3))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def mapping(factors="table", join="sum", known=TWO, activation="silu"):
    spec = Embedding(width=6, features=8, factors=factors, join=join)
    return ConditionEmbedding(spec, known, activation).double()


def condition(labels, styles):
    return Condition({"label": torch.tensor(labels), "style": torch.tensor(styles)})


def through(layers, x):
    """Linear, activation, Linear."""
    h = F.silu(x @ layers[0].weight.T + layers[0].bias)
    return h @ layers[2].weight.T + layers[2].bias


@pytest.mark.parametrize("count", [2, 8, 64])
def test_noise_features_are_sines_and_cosines_at_geometric_frequencies(count):
    noise = torch.tensor([-1.7, 0.0, 0.3, 3.4], dtype=torch.float64)
    got = noise_features(noise, count)
    half = count // 2
    for b, value in enumerate(noise.tolist()):
        for k in range(half):
            frequency = 0.25 * 128 ** (k / (half - 1)) if half > 1 else 0.25
            assert float(got[b, k]) == pytest.approx(math.sin(frequency * value), abs=1e-12)
            assert float(got[b, half + k]) == pytest.approx(math.cos(frequency * value), abs=1e-12)
    assert got.shape == (4, count)


def test_noise_features_tell_every_level_from_every_other():
    sigma = torch.logspace(-3, 6, 400, dtype=torch.float64)
    features = noise_features(sigma.log() / 4, 64)
    apart = torch.cdist(features, features) + 99 * torch.eye(400, dtype=torch.float64)
    assert float(apart.min()) > 0.05


@pytest.mark.parametrize(("factors", "join"), CHOICES)
def test_the_vector_is_put_together_as_written(factors, join):
    m = mapping(factors, join)
    noise = torch.tensor([0.1, -0.4, 0.9, 0.0], dtype=torch.float64)
    labels, styles = [3, -1, 0, 4], [2, 1, -1, -1]
    parts = [through(m.noise, noise_features(noise, 8))]
    for factor, values in zip(TWO, (labels, styles), strict=True):
        table, rows = m.tables[factor.name], []
        for value in values:
            if factors == "table":
                rows.append(table.weight[value if value >= 0 else factor.classes])
            else:
                hot = torch.zeros(factor.classes, dtype=torch.float64)
                if value >= 0:
                    hot[value] = 1
                rows.append(through(table, hot))
        parts.append(torch.stack(rows))
    if join == "sum":
        wanted = F.silu(parts[0] + parts[1] + parts[2])
    else:
        wanted = F.silu(torch.cat(parts, dim=1) @ m.join.weight.T + m.join.bias)
    torch.testing.assert_close(m(noise, condition(labels, styles)), wanted)


@pytest.mark.parametrize(("factors", "join"), CHOICES)
def test_a_missing_factor_is_a_null_one(factors, join):
    m = mapping(factors, join)
    noise = torch.tensor([0.1, -0.4], dtype=torch.float64)
    free = m(noise, condition([-1, -1], [-1, -1]))
    assert torch.equal(m(noise, Condition()), free)
    assert torch.equal(m(noise, Condition({"style": torch.tensor([-1, -1])})), free)
    assert torch.equal(
        m(noise, Condition({"label": torch.tensor([1, 2])})), m(noise, condition([1, 2], [-1, -1]))
    )


@pytest.mark.parametrize(("factors", "join"), CHOICES)
def test_every_class_and_no_class_differ(factors, join):
    m = mapping(factors, join)
    noise = torch.zeros(6, dtype=torch.float64)
    vectors = m(noise, Condition({"label": torch.tensor([-1, 0, 1, 2, 3, 4])}))
    assert len(vectors.unique(dim=0)) == 6


@pytest.mark.parametrize(("activation", "function"), [("gelu", F.gelu), ("silu", F.silu)])
def test_without_factors_the_noise_level_alone_speaks(activation, function):
    m = mapping(known=(), activation=activation, join="concat")
    noise = torch.tensor([0.1, -0.4], dtype=torch.float64)
    h = function(noise_features(noise, 8) @ m.noise[0].weight.T + m.noise[0].bias)
    wanted = function(h @ m.noise[2].weight.T + m.noise[2].bias)
    torch.testing.assert_close(m(noise, Condition()), wanted)
    assert isinstance(m.join, nn.Identity)


@pytest.mark.parametrize("bad", [{"features": 7}, {"features": 0}, {"width": 0}])
def test_an_embedding_that_cannot_be_built_is_refused(bad):
    with pytest.raises(ValueError, match="embedding needs"):
        Embedding(**bad)


def test_a_number_starts_as_if_it_were_null_and_then_counts():
    torch.manual_seed(0)
    factors = [Factor("label", 5), Factor("size", None)]
    mapping = ConditionEmbedding(Embedding(width=16), factors, "silu").double()
    noise, label = torch.linspace(-1, 1, 3).double(), torch.tensor([0, 4, -1])
    size = torch.tensor([0.5, 2.0, torch.nan])
    without = mapping(noise, Condition({"label": label}))
    assert torch.equal(mapping(noise, Condition({"label": label, "size": size})), without)
    torch.nn.init.normal_(mapping.tables["size"][-1].weight)
    torch.nn.init.normal_(mapping.tables["size"][-1].bias)
    apart = (mapping(noise, Condition({"label": label, "size": size})) - without).abs().amax(1)
    assert apart[:2].min() > 1e-3
    assert apart[2] == 0
