"""The Frechet distance against scipy's matrix square root and closed forms."""

import numpy as np
import pytest
import torch
from scipy import linalg

from mezzotint.data import load
from mezzotint.errors import InputError
from mezzotint.metrics.frechet import Moments, extrapolated, frechet_distance, moments
from mezzotint.runtime.rng import generator


def random_features(n, width, key, *, shift=0.0):
    g = generator("frechet", key)
    mix = torch.randn(width, width, generator=g) / width**0.5
    return torch.randn(n, width, generator=g) @ mix + shift


def by_scipy(x, y):
    """Heusel et al. 2017, equation 6, word for word in NumPy and SciPy."""
    x, y = x.double().numpy(), y.double().numpy()
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(a @ b)
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * root.real)


def test_moments_are_numpys_over_several_chunks():
    x = random_features(9000, 5, "moments", shift=100.0)
    found = moments(x)
    assert found.n == 9000
    np.testing.assert_allclose(found.mean, x.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        found.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("width", [1, 3, 40])
def test_random_features_have_the_distance_that_scipy_computes(width):
    x, y = random_features(500, width, "x", shift=0.3), random_features(400, width, "y")
    if width == 1:
        expected = (x.mean() - y.mean()) ** 2 + (x.std() - y.std()) ** 2
    else:
        expected = by_scipy(x, y)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(float(expected), rel=1e-6)


def test_real_features_have_the_distance_that_scipy_computes():
    images = load("digits").images.flatten(1).float()
    images = images[:, images.std(0) > 1]  # corners are always black
    x, y = images[::2], images[1::2].flip(1) * 0.9
    expected = by_scipy(x, y)
    assert frechet_distance(moments(x), moments(y)) == pytest.approx(expected, rel=1e-6)
    floor = by_scipy(x, images[1::2])  # small beside the traces it is the difference of
    assert frechet_distance(moments(x), moments(images[1::2])) == pytest.approx(floor, rel=1e-6)


def test_commuting_covariances_without_full_rank_have_the_closed_form():
    """sum (sqrt a - sqrt b)^2 over the eigenvalues of a common basis, some of them 0."""
    g = generator("rank")
    basis, _ = torch.linalg.qr(torch.randn(30, 30, generator=g).double())
    a, b = (torch.rand(2, 30, generator=g) * 4).double()
    a[:10], b[5:15] = 0, 0
    mean = torch.zeros(30).double()
    distance = frechet_distance(
        Moments(mean, basis @ a.diag() @ basis.T, 100),
        Moments(mean + 0.1, basis @ b.diag() @ basis.T, 100),
    )
    expected = 30 * 0.1**2 + float((a.sqrt() - b.sqrt()).square().sum())
    assert distance == pytest.approx(expected, rel=1e-9)


def test_black_pixels_and_repeated_features_change_what_they_should():
    x, y = random_features(200, 6, "x"), random_features(200, 6, "y", shift=1.0)
    plain = frechet_distance(moments(x), moments(y))
    black = torch.zeros(200, 3)
    padded = [moments(torch.cat([z, black], 1)) for z in (x, y)]
    assert frechet_distance(*padded) == pytest.approx(plain, rel=1e-9)
    twice = [moments(torch.cat([z, z], 1)) for z in (x, y)]
    assert frechet_distance(*twice) == pytest.approx(2 * plain, rel=1e-9)


def test_a_set_is_at_distance_0_from_itself_and_never_below():
    a = moments(random_features(200, 30, "x"))
    assert 0 <= frechet_distance(a, a) < 1e-10
    constant = moments(torch.full((50, 4), 3.0))
    assert frechet_distance(constant, constant) == 0


def test_extrapolation_removes_the_bias():
    """Draws of N(0, I) against N(0, I) itself: the truth is 0, each finite n is above it."""
    width, n = 20, 1000
    truth = Moments(torch.zeros(width).double(), torch.eye(width).double(), 10**9)
    values, biased = [], []
    for draw in range(20):
        x = torch.randn(n, width, generator=generator("extrapolation", draw))
        found = extrapolated(x, truth, generator("parts", draw))
        assert found.sizes == (1000, 500, 333, 250, 200)
        assert found.error < 0.03
        values.append(found.value)
        biased.append(frechet_distance(moments(x), truth))
        assert found.slope / n == pytest.approx(biased[-1], rel=0.4)
    # The mean's part of the bias is width / n, the covariance's is about width^2 / (4 n).
    bias = width / n + width * (width + 1) / (4 * n)
    assert np.mean(biased) == pytest.approx(bias, rel=0.1)
    assert abs(np.mean(values)) < 0.1 * bias


def test_extrapolation_keeps_a_true_distance():
    x = torch.randn(2000, 8, generator=generator("far")) + 1.0
    truth = Moments(torch.zeros(8).double(), torch.eye(8).double(), 10**9)
    mean_error = 2 * (8 / 2000) ** 0.5  # standard deviation of |mean|^2
    assert extrapolated(x, truth, generator("parts")).value == pytest.approx(8, abs=4 * mean_error)


def test_parts_with_too_few_images_for_the_rank_are_left_out():
    """Two points remain, and the line goes through both: the whole and the mean of the halves."""
    x, reference = random_features(45, 20, "few"), moments(random_features(60, 20, "reference"))
    found = extrapolated(x, reference, generator("few"))
    assert found.sizes == (45, 22)
    assert found.error is None
    whole = frechet_distance(moments(x), reference)
    assert found.value + found.slope / 45 == pytest.approx(whole, rel=1e-9)
    x = x[torch.randperm(45, generator=generator("few"))]
    halves = sum(frechet_distance(moments(half), reference) for half in (x[:23], x[23:])) / 2
    assert found.value + found.slope / 22.5 == pytest.approx(halves, rel=1e-9)


def test_too_few_images_are_refused_with_their_number_and_the_way_out():
    few, many = moments(random_features(30, 30, "few")), moments(random_features(90, 30, "many"))
    with pytest.raises(InputError, match=r"30 images, 30 features .* at least 31.* \(kd\)"):
        frechet_distance(few, many)
    with pytest.raises(InputError, match="at least 62"):
        extrapolated(random_features(61, 30, "few"), many, generator("few"))
    with pytest.raises(InputError, match="one image"):
        moments(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(4, 3, dtype=torch.uint8), "uint8"),
        (torch.zeros(4, 3, 2), r"\(4, 3, 2\)"),
        (torch.zeros(0, 3), r"\(0, 3\)"),
        (torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), "NaN"),
    ],
)
def test_what_is_no_set_of_features_is_refused(features, message):
    with pytest.raises(InputError, match=message):
        moments(features)


def test_features_of_two_extractors_are_not_compared():
    with pytest.raises(InputError, match="3 and 4 wide"):
        frechet_distance(
            moments(random_features(9, 4, "four")), moments(random_features(9, 3, "three"))
        )
