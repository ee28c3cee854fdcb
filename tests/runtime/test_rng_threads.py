"""Builders that seed torch's global generator, in several threads at once."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from mezzotint.config.build import build_denoiser
from mezzotint.config.presets import load_preset
from mezzotint.config.schema import Config
from mezzotint.config.tables import override, parse_config
from mezzotint.data import Augment
from mezzotint.errors import DataError
from mezzotint.metrics.clip.clip import TransformersClip
from mezzotint.metrics.clip.small_clip import _encoders
from mezzotint.metrics.extractors.classifier import Domain, Recipe, fit
from mezzotint.runtime.rng import seeded_globally

SEEDS = (3, 4, 5)


def denoiser(seed):
    changes = ["network.levels=[{width=8}, {width=8, attention=true}]", f"training.seed={seed}"]
    return build_denoiser(parse_config(override(load_preset("digits"), changes), Config), 1, 10)


def classifier(seed):
    images = torch.randint(0, 256, (8, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    recipe = Recipe(images=8, batch=8)
    return fit(
        images.to(torch.uint8), torch.arange(8) % 2, Domain(("a", "b"), "tiny", Augment()),
        recipe=recipe, seed=seed,
    ).network  # fmt: skip


def small_clip(seed):
    return _encoders(1, seed)


def weights(module):
    return [p.detach().clone() for p in module.state_dict().values()]


def equal(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture
def slow_layers(monkeypatch):
    """After each layer's draw other threads have their turn."""
    draw = nn.init.kaiming_uniform_

    def slow(*arguments, **named):
        result = draw(*arguments, **named)
        time.sleep(0.002)
        return result

    monkeypatch.setattr(nn.init, "kaiming_uniform_", slow)


@pytest.mark.parametrize("build", [denoiser, classifier, small_clip])
def test_threads_that_build_at_once_get_the_weights_that_each_gets_alone(slow_layers, build):
    single = [weights(build(seed)) for seed in SEEDS]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        together = list(pool.map(lambda seed: weights(build(seed)), SEEDS))
    for ours, expected in zip(together, single, strict=True):
        assert equal(ours, expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_seed_is_that_of_manual_seed_and_the_state_is_restored_after_an_error():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        expected = torch.rand(4)
    before = torch.get_rng_state()
    with seeded_globally(9):
        drawn = torch.rand(4)
        with seeded_globally(9):  # the same thread may come again
            assert torch.equal(torch.rand(4), expected)
    assert torch.equal(drawn, expected)

    def breaks():
        with seeded_globally(9):
            torch.rand(4)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_is_not_built_while_transformers_has_replaced_the_initialisers(monkeypatch):
    """As `no_init_weights` of transformers does while it loads a model."""
    transformers = pytest.importorskip("transformers")
    expected = weights(denoiser(3))

    def load(*arguments, **named):
        with monkeypatch.context() as patch:
            patch.setattr(nn.init, "kaiming_uniform_", lambda tensor, *arguments, **named: tensor)
            loading.append(True)
            time.sleep(0.3)
        raise OSError("no such model")

    loading = []
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", load)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(TransformersClip.load, "nowhere")
        while not loading:
            time.sleep(0.001)
        found = weights(denoiser(3))
        assert isinstance(future.exception(), DataError)
    assert equal(found, expected)
