"""Damage against scipy's Gaussian filter, the clamped Gaussian's moments, and counted squares."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from mezzotint.errors import InputError
from mezzotint.metrics import corruption
from mezzotint.metrics.corruption import blur, erase, missing_classes, noise
from mezzotint.runtime.rng import generator


def pictures(n, channels, height, width):
    g = generator("pictures", n, height)
    return torch.randint(0, 256, (n, channels, height, width), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("shape", "radius"),
    [((4, 1, 28, 28), 1.0), ((3, 3, 32, 32), 2.5), ((2, 1, 8, 8), 6.0), ((2, 3, 12, 20), 0.7)],
)
def test_blur_is_the_gaussian_filter_of_scipy(shape, radius):
    images = pictures(*shape)
    deviation = radius * shape[-1] / 28  # in pixels: the unit is a 28th of the width
    expected = scipy.ndimage.gaussian_filter(
        images.double().numpy(),
        (0, 0, deviation, deviation),
        mode="nearest",
        radius=(0, 0, *2 * [max(1, math.ceil(3 * deviation))]),
    )
    found = blur(images, radius).double().numpy()
    assert np.abs(found - expected).max() < 0.51  # half a level of rounding


def test_a_blurred_edge_is_the_normal_distribution():
    """A step from 0 to 255 becomes 255 Phi(x / deviation), at pixels far from the borders."""
    images = torch.zeros(1, 1, 56, 56, dtype=torch.uint8)
    images[..., 28:] = 255
    found = blur(images, 2.0)[0, 0, 28]  # deviation: 4 pixels
    x = torch.arange(56) - 27.5
    expected = 255 * torch.special.ndtr(x / 4)
    assert (found - expected).abs().max() < 2  # cut off at three deviations


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_noise_has_the_moments_of_a_clamped_gaussian(share):
    images = torch.full((40, 1, 50, 50), 100, dtype=torch.uint8)
    found = noise(images, share, generator("noise", 0)).double()
    deviation = 255 * share
    # E clamp(X) is the integral of P(X > v) over v in 0 .. 255, E clamp(X)^2 that of 2 v P(X > v).
    v = (torch.arange(255_000, dtype=torch.float64) + 0.5) / 1000
    above = 1 - torch.special.ndtr((v - 100) / deviation)
    mean, square = float(above.sum()) / 1000, float((2 * v * above).sum()) / 1000
    spread = (square - mean**2 + 1 / 12) ** 0.5  # 1/12 from rounding
    assert float(found.mean()) == pytest.approx(mean, abs=4 * spread / 100_000**0.5)
    assert float(found.std()) == pytest.approx(spread, rel=0.01)


def test_noise_is_of_its_generator_and_differs_from_pixel_to_pixel():
    images = torch.full((3, 3, 16, 16), 128, dtype=torch.uint8)
    first, again, other = (noise(images, 0.2, generator(key)) for key in ("a", "a", "b"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    flat = first.double().flatten(0, 1).flatten(1)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.3  # channels, too


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ((50, 1, 28, 28), 0.1),
        ((50, 3, 32, 32), 0.25),
        ((50, 1, 8, 8), 0.4),
        ((20, 1, 10, 20), 0.5),
    ],
)
def test_erase_fills_one_square_of_the_share_of_the_area(shape, share):
    n, channels, height, width = shape
    images = torch.full(shape, 7, dtype=torch.uint8)
    gone = erase(images, share, generator("erase", *shape)) != images
    assert (gone == gone[:, :1]).all()  # all channels alike
    area = round(height * share**0.5) * round(width * share**0.5)
    assert area == pytest.approx(share * height * width, rel=0.15)
    corners = set()
    for each in gone[:, 0]:
        rows, columns = each.nonzero().T
        top, left = int(rows.min()), int(columns.min())
        box = each[top : int(rows.max()) + 1, left : int(columns.max()) + 1]
        assert box.all()
        assert box.numel() == int(each.sum()) == area
        corners.add((top, left))
    assert len(corners) > 5
    assert (erase(images, share, generator(0))[gone] == 128).any()


def test_squares_reach_every_place_equally_often():
    """All 5 x 5 places of a 4 x 4 square in 8 x 8, each with a chance of 1 in 25."""
    images = torch.zeros(5000, 1, 8, 8, dtype=torch.uint8)
    gone = (erase(images, 0.25, generator("places")) == 128)[:, 0]
    top = gone.any(2).float().argmax(1)
    left = gone.any(1).float().argmax(1)
    counts = torch.bincount(top * 5 + left, minlength=25)
    chi_squared = float(((counts - 200.0) ** 2 / 200).sum())
    assert chi_squared < 51.2  # 24 degrees of freedom: exceeded once in 1,000


def test_nothing_is_nothing_and_all_is_all():
    images = pictures(5, 1, 8, 8)
    assert torch.equal(blur(images, 0), images)
    assert torch.equal(noise(images, 0, generator(0)), images)
    assert torch.equal(erase(images, 0, generator(0)), images)
    assert (erase(images, 1, generator(0)) == 128).all()
    flat = torch.full((1, 1, 8, 8), 200, dtype=torch.uint8)
    assert torch.equal(blur(flat, 3), flat)


def test_chunks_change_no_blurred_or_erased_image(monkeypatch):
    images = pictures(23, 1, 8, 8)
    whole = blur(images, 3)
    monkeypatch.setattr(corruption, "CHUNK", 5)
    assert torch.equal(blur(images, 3), whole)
    assert noise(images, 0.1, generator(0)).shape == images.shape


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: blur(x, -1), "blur radius is -1"),
        (lambda x: blur(x, math.nan), "blur radius is nan"),
        (lambda x: blur(x, math.inf), "blur radius is inf: give a finite number, 0 .off. or more"),
        (lambda x: noise(x, -0.1, generator(0)), "noise share is -0.1"),
        (lambda x: noise(x, math.inf, generator(0)), "noise share is inf"),
        (lambda x: erase(x, 1.1, generator(0)), "erased share is 1.1: .* 0 .off. to 1"),
        (lambda x: blur(x.float(), 1), "float32"),
        (lambda x: noise(x[:, :, 0], 1, generator(0)), "uint8"),
    ],
)
def test_mistakes_are_named(damage, message):
    with pytest.raises(InputError, match=message) as caught:
        damage(pictures(2, 1, 8, 8))
    assert "\n" not in str(caught.value)


def test_missing_classes_are_replaced_by_images_of_the_others():
    images, labels = pictures(60, 1, 4, 4), torch.arange(60) % 4
    found, own = missing_classes(images, labels, 2, generator("missing"))
    assert found.shape == images.shape
    assert set(own.tolist()) == {2, 3}
    kept = labels >= 2
    assert torch.equal(found[kept], images[kept])
    assert torch.equal(own[kept], labels[kept])
    pairs = {(image.tobytes(), int(k)) for image, k in zip(images.numpy(), labels, strict=True)}
    assert {(image.tobytes(), int(k)) for image, k in zip(found.numpy(), own, strict=True)} < pairs
    assert len({image.tobytes() for image in found[~kept].numpy()}) > 10  # drawn, not repeated


@pytest.mark.parametrize("count", [0, 4])
def test_no_class_or_all_of_them_missing_leaves_the_images_alone(count):
    images, labels = pictures(8, 1, 4, 4), torch.arange(8) % 4
    found, own = missing_classes(images, labels, count, generator("missing"))
    assert torch.equal(found, images)
    assert torch.equal(own, labels)
