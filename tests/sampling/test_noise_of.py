"""Noise of a batch: by step, by part, by either generator."""

import pytest
import torch

from mezzotint.config.schema import Sampling
from mezzotint.diffusion import Denoiser, Edm, Karras
from mezzotint.errors import InputError
from mezzotint.networks import Factor, Level, UNet, UNetSpec
from mezzotint.runtime.noise import image_noise
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.noise import image_keys, noise_of

SHAPE = (1, 4, 4)
SHARED = torch.tensor([[0, 52763], [0, 72865]])
"""Two images of seed 0 whose torch generators begin in one of the 2^32 states."""


@pytest.fixture(scope="module")
def model():
    network = UNet(1, [Factor("label", 2)], UNetSpec((Level(8),)))
    return Model(
        denoiser=Denoiser(network, Edm(0.5)),
        sampling=Sampling(evaluations=3),
        schedule=Karras(0.1, 10.0),
        shape=SHAPE,
        classes=("even", "odd"),
        mean=0.0,
        deviation=0.5,
    )


def test_images_whose_torch_generators_coincide_are_different(model):
    drawing = SampleBatch(torch.tensor([1, 1]), SHARED)
    one, other = model.sample_batch(drawing)
    assert not torch.equal(one, other)
    one, other = model.changed(noise="torch").sample_batch(drawing)
    assert torch.equal(one, other)


def test_the_kth_call_is_step_k():
    draw = noise_of("philox", torch.tensor([[5, 3], [6, 2]]), SHAPE)
    for step in range(3):
        expected = image_noise(torch.tensor([5, 6]), torch.tensor([3, 2]), step, SHAPE)
        assert torch.equal(draw(), expected)


@pytest.mark.parametrize(("sampler", "fresh"), [("ddpm", 2), ("dpm++2m-sde", 2), ("heun", 0)])
def test_a_sampler_takes_the_steps_in_order(model, monkeypatch, sampler, fresh):
    steps = []

    def noise(seeds, indices, step, *rest):
        steps.append(step)
        return image_noise(seeds, indices, step, *rest)

    monkeypatch.setattr("mezzotint.sampling.noise.image_noise", noise)
    list(model.changed(sampler=sampler).iterate(SampleBatch.of(torch.tensor([0]))))
    assert steps == list(range(fresh + 1))


def test_the_starting_point_is_the_noise_of_step_0_at_the_first_level(model):
    first = next(model.iterate(SampleBatch.of(torch.tensor([0, 1]), seed=8)))
    noise = image_noise(torch.tensor([8, 8]), torch.tensor([0, 1]), 0, SHAPE)
    torch.testing.assert_close(first.x, (10.0**2 + 0.5**2) ** 0.5 * noise)


def test_torchs_noise_is_that_of_a_generator_for_each_image():
    draw = noise_of("torch", image_keys(4, torch.arange(3)), SHAPE)
    own = [generator("image", 4, i) for i in range(3)]
    for _ in range(2):
        assert torch.equal(draw(), torch.stack([torch.randn(SHAPE, generator=g) for g in own]))


def test_parts_of_a_canvas_share_torchs_generator_and_divide_philoxs_numbers():
    keys, parts = torch.tensor([[4, 0], [4, 0], [4, 1]]), torch.tensor([0, 1, 0])
    draw = noise_of("torch", keys, SHAPE, tiles=parts)
    first, second = generator("image", 4, 0), generator("image", 4, 1)
    for _ in range(2):
        own = [torch.randn(SHAPE, generator=g) for g in (first, first, second)]
        assert torch.equal(draw(), torch.stack(own))
    draw = noise_of("philox", keys, SHAPE, tiles=parts)
    whole = image_noise(torch.tensor([4]), torch.tensor([0]), 0, (2, *SHAPE))[0]
    single = image_noise(torch.tensor([4]), torch.tensor([1]), 0, SHAPE)
    assert torch.equal(draw(), torch.cat([whole, single]))


def test_keys_are_the_seed_and_the_index_of_each_image():
    assert SampleBatch.of(torch.zeros(3), seed=-2).keys.tolist() == [[-2, 0], [-2, 1], [-2, 2]]
    assert SampleBatch.of(torch.zeros(3), seed=7)[1:].keys.tolist() == [[7, 1], [7, 2]]
    assert image_keys(2**63 - 1, torch.tensor([2**40])).tolist() == [[2**63 - 1, 2**40]]


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_a_seed_beyond_64_bits_is_refused_in_one_line(model, seed):
    with pytest.raises(InputError, match=f"the seed is {seed}, beyond 64 bits"):
        model.sample(seed=seed)


def test_a_generator_of_another_name_is_refused(model):
    with pytest.raises(InputError, match="noise"):
        model.sample(noise="philip")
