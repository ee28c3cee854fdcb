"""Nearest images against a plain search; who is called a copyist, and who is not."""

import math

import numpy as np
import pytest
import torch

from mezzotint.data import load
from mezzotint.errors import InputError
from mezzotint.metrics import memorisation as module
from mezzotint.metrics.memorisation import memorisation, nearest, neighbours
from mezzotint.runtime.rng import generator


def pixels(n, *key, shape=(1, 5, 4)):
    return torch.randint(256, (n, *shape), generator=generator(*key), dtype=torch.uint8)


def by_plain_search(images, reference, *, self_excluded=False):
    """Root mean square differences in NumPy, image by image."""
    ours = images.flatten(1).numpy().astype(np.float64)
    theirs = reference.flatten(1).numpy().astype(np.float64)
    distances, indices = [], []
    for i, image in enumerate(ours):
        apart = np.sqrt(((theirs - image) ** 2).mean(1))
        if self_excluded:
            apart[i] = np.inf
        distances.append(apart.min())
        indices.append(int(apart.argmin()))
    return distances, indices


@pytest.mark.parametrize("self_excluded", [False, True])
@pytest.mark.parametrize(("n", "m"), [(50, 50), (23, 50), (50, 47)])
def test_neighbours_are_those_of_a_plain_search(n, m, self_excluded, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    monkeypatch.setattr(module, "PAIRS", 60)
    images, reference = pixels(n, "images"), pixels(m, "reference")
    found = neighbours(images, reference, self_excluded=self_excluded)
    if self_excluded:
        n = min(n, m)  # beyond it there is no self
        found = module.Neighbours(found.distance[:n], found.index[:n])
    distances, indices = by_plain_search(images[:n], reference, self_excluded=self_excluded)
    np.testing.assert_allclose(found.distance, distances, rtol=1e-12)
    assert found.index.tolist() == indices


def test_real_digits_have_the_neighbours_of_a_plain_search(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 200)
    images = load("digits").images
    found = neighbours(images[:100], images, self_excluded=True)
    distances, indices = by_plain_search(images[:100], images, self_excluded=True)
    np.testing.assert_allclose(found.distance, distances, rtol=1e-12)
    assert found.index.tolist() == indices
    torch.testing.assert_close(
        nearest(images[:100], images, self_excluded=True), torch.tensor(distances).float()
    )


def test_a_copy_is_at_exactly_0_and_the_first_of_equals_is_named(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 16)
    reference = pixels(60, "reference", shape=(3, 8, 8))
    reference[[30, 5, 50]] = reference[40].clone()
    found = neighbours(reference, reference)
    assert (found.distance == 0).all()
    assert found.index[[5, 30, 40, 50]].tolist() == [5] * 4
    assert neighbours(reference, reference, self_excluded=True).index[5] == 30


def test_one_grey_level_in_one_bright_pixel_is_no_copy():
    """|a|^2 - 2 a b + |b|^2 in float32 has steps of 16 here; the answer is exact all the same."""
    reference = torch.full((200, 3, 32, 32), 255, dtype=torch.uint8)
    reference[:, 0, 0, 0] -= torch.arange(200, dtype=torch.uint8)
    images = reference.clone()
    images[:, 0, 0, 0] += 1  # 255 becomes 0: image 0 is nearest to the darkest
    found = neighbours(images, reference)
    assert found.index.tolist() == [199, *range(199)]
    assert (found.distance[1:] == 0).all()
    assert found.distance[0] == pytest.approx(56 / 3072**0.5, rel=1e-12)


def test_features_far_from_0_lose_no_digits():
    x = torch.randn(300, 6, generator=generator("x")) + 3000
    y = torch.randn(400, 6, generator=generator("y")) + 3000
    distances, indices = by_plain_search(x, y)
    found = neighbours(x, y)
    np.testing.assert_allclose(found.distance, distances, rtol=1e-12)
    assert found.index.tolist() == indices


def test_two_clumps_far_apart_lose_no_digits(monkeypatch):
    """No origin is near both: float32 products are off by more than the distances inside one."""
    monkeypatch.setattr(module, "CHUNK", 64)
    g = generator("clumps")
    clump = 300 * (-1.0) ** torch.arange(200)[:, None]
    x, y = (clump + 0.03 * torch.randn(200, 20, generator=g) for _ in range(2))
    distances, indices = by_plain_search(x, y)
    found = neighbours(x, y)
    np.testing.assert_allclose(found.distance, distances, rtol=1e-12)
    assert found.index.tolist() == indices


def test_with_nothing_to_compare_with_the_distance_is_infinite():
    one = pixels(1, "one")
    assert neighbours(one, one, self_excluded=True).distance.tolist() == [math.inf]


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"\(1, 5, 4\).*\(3, 5, 4\)"):
        neighbours(pixels(2, "a"), pixels(2, "b", shape=(3, 5, 4)))


@pytest.fixture(scope="module")
def digits():
    images = load("digits").images
    return images[torch.randperm(len(images), generator=generator("digits"))]


SIZES = pytest.mark.parametrize("sizes", [(140, 30), (140, 600), (900, 300)], ids=str)


def split_of(images, sizes):
    """Train, held-out, and 400 others."""
    train, held_out = sizes
    return images[:train], images[train : train + held_out], images[-400:]


def copies(train, n, *key, noise=0.0):
    g = generator("copies", *key)
    chosen = train[torch.randint(len(train), (n,), generator=g)].float()
    return (chosen + noise * torch.randn(chosen.shape, generator=g)).round().clamp(0, 255).byte()


@SIZES
@pytest.mark.parametrize("noise", [0.0, 12.0], ids=["copies", "near copies"])
def test_copies_are_flagged(digits, sizes, noise):
    train, held_out, _ = split_of(digits, sizes)
    samples = copies(train, 400, noise=noise)
    found = memorisation(samples, train, held_out, generator(0), worst=5)
    assert found.flagged
    assert found.tail > 0.95
    assert found.auc > 0.5 + 2 * found.error or len(held_out) < len(train)
    assert "are memorised" in found.summary
    distances, indices = by_plain_search(samples, train)
    np.testing.assert_allclose(found.train.distance, distances, rtol=1e-12)
    assert found.train.index.tolist() == indices
    if len(held_out) <= len(train):
        assert found.held_out.index.tolist() == by_plain_search(samples, held_out)[1]
    if noise == 0:
        assert (found.train.distance == 0).all()
        assert [(one.distance, one.ratio) for one in found.worst] == [(0, 0)] * 5


@SIZES
def test_one_copy_in_ten_is_flagged_and_tops_the_list(digits, sizes):
    train, held_out, samples = split_of(digits, sizes)
    samples = samples.clone()
    samples[200:240] = copies(train, 40, noise=8.0)
    found = memorisation(samples, train, held_out, generator(0), worst=40)
    assert found.flagged
    assert len(set(range(200, 240)) & {one.sample for one in found.worst}) >= 38
    ratios = [one.ratio for one in found.worst]
    assert ratios == sorted(ratios)
    for one in found.worst[:3]:
        apart = (samples[one.sample].double() - train[one.train].double()).square().mean().sqrt()
        other = (samples[one.sample].double() - held_out.double()).square().mean((1, 2, 3)).sqrt()
        assert one.distance == pytest.approx(float(apart), rel=1e-12)
        if len(held_out) <= len(train):
            assert one.ratio == pytest.approx(float(apart / other.min()), rel=1e-12)


@SIZES
def test_fresh_images_are_not_flagged_and_their_numbers_are_those_of_chance(digits, sizes):
    aucs, errors, tails = [], [], []
    for draw in range(12):
        g = generator("fresh", draw)
        shuffled = digits[torch.randperm(len(digits), generator=g)]
        train, held_out, samples = split_of(shuffled, sizes)
        found = memorisation(samples, train, held_out, g)
        assert not found.flagged
        assert "no sign" in found.summary
        aucs.append(found.auc)
        errors.append(found.error)
        tails.append(found.tail)
    # Each share's error, over 12 draws that have images in common.
    scatter = float(np.mean(errors))
    assert np.mean(aucs) == pytest.approx(0.5, abs=2 * scatter)
    assert np.std(aucs) < 1.5 * scatter
    held_out = sizes[1]
    assert found.expected == max(1, held_out // 100) / (held_out + 1)
    assert np.mean(tails) == pytest.approx(found.expected, abs=0.6 * found.expected + 0.004)


def test_held_out_images_posing_as_samples_are_not_flagged(digits):
    train, held_out = digits[:900], digits[900:1500]
    found = memorisation(held_out, train, held_out, generator(0))
    assert not found.flagged
    assert found.auc == 0
    assert found.tail == 0


def test_noise_is_poor_but_no_copy(digits):
    train, held_out, _ = split_of(digits, (900, 300))
    found = memorisation(pixels(400, "noise", shape=(1, 8, 8)), train, held_out, generator(0))
    assert not found.flagged


def test_auc_and_error_are_counted_by_hand():
    """Four samples on a line; two training and two held-out images, so nothing is drawn."""
    train = torch.tensor([[0.0], [10.0]])
    held_out = torch.tensor([[1.0], [20.0]])
    samples = torch.tensor([[0.0], [0.5], [0.9], [16.0]])  # train, a tie, held-out, held-out
    found = memorisation(samples, train, held_out, generator(0), worst=2)
    assert found.auc == (1 + 0.5) / 4
    # Nearest to: training image 0; held-out 1.0 (the tie), again 1.0; 20.0.
    assert found.error == pytest.approx(
        0.5 * math.sqrt((1 / 4) ** 2 + (2 / 4) ** 2 + (1 / 4) ** 2)
    )
    assert found.held_out.index.tolist() == [0, 0, 0, 1]
    assert found.train.index.tolist() == [0, 0, 0, 1]
    assert [one.sample for one in found.worst] == [0, 1]
    assert found.worst[0] == (0, 0, 0.0, 0.0)
    assert found.worst[1] == (1, 0, 0.5, 1.0)


def test_an_image_in_both_sets_speaks_for_neither():
    """A repeated image is at distance 0 from itself in train and in held-out: ratio 1."""
    train, held_out = torch.tensor([[0.0], [9.0]]), torch.tensor([[0.0], [5.0]])
    found = memorisation(torch.tensor([[0.0]]), train, held_out, generator(0))
    assert found.auc == 0.5
    assert found.worst[0].ratio == 1


def test_the_floor_shows_features_that_know_the_training_images():
    """Features that pull training images to their cluster's centre: real images look copied.

    The AUC alone would accuse fresh samples; beside the held-out images' own it does not.
    """
    g = generator("floor")
    centres = 10 * torch.randn(300, 8, generator=g)
    of = torch.arange(1500) % 300
    images = centres[of] + torch.randn(1500, 8, generator=g)
    train = centres[of[:600]] + 0.2 * (images[:600] - centres[of[:600]])
    found = memorisation(images[1200:], train, images[600:1200], g)
    assert found.auc > 0.7
    assert found.floor == pytest.approx(found.auc, abs=0.08)
    assert not found.flagged


def test_the_answer_is_a_function_of_the_generator(digits):
    train, held_out, samples = split_of(digits, (900, 300))
    first, again, other = (
        memorisation(samples, train, held_out, generator(seed)) for seed in (1, 1, 2)
    )
    assert (first.auc, first.floor) == (again.auc, again.floor)
    assert first.auc != other.auc
    assert (first.tail, first.worst) == (other.tail, other.worst)


@pytest.mark.parametrize(("n", "train", "held_out"), [(0, 5, 5), (5, 1, 5), (5, 5, 1)])
def test_too_few_images_are_refused(n, train, held_out):
    with pytest.raises(InputError, match=f"{n} samples, {train} training and {held_out} held-out"):
        memorisation(pixels(n, 1), pixels(train, 2), pixels(held_out, 3), generator(0))
