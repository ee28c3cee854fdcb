"""Density and coverage against the published program, a double loop, and what they promise."""

import math
import statistics

import pytest
import torch

from mezzotint.errors import InputError
from mezzotint.metrics import coverage as module
from mezzotint.metrics.coverage import coverage
from mezzotint.runtime.rng import generator


def draw(n, width, *key, shift=0.0):
    return torch.randn(n, width, generator=generator("coverage", *key)) + shift


def clusters(n, kept, *key):
    """n points of 16 dimensions in those of ten well separated Gaussian clusters that are kept."""
    g = generator("clusters", *key)
    centres = 6 * torch.randn(10, 16, generator=generator("centres"))
    which = torch.tensor(kept)[torch.randint(len(kept), (n,), generator=g)]
    return centres[which] + torch.randn(n, 16, generator=g)


def by_double_loop(real, fake, k):
    """All four from their definitions in plain Python."""
    real, fake = real.double().tolist(), fake.double().tolist()
    n = len(real)

    def nearest(i):
        return sorted(math.dist(real[i], real[j]) for j in range(n) if j != i)[k - 1]

    radii = [nearest(i) for i in range(n)]
    clipped = [min(radius, statistics.median(radii)) for radius in radii]
    counts = [sum(math.dist(x, y) < r for y in fake) for x, r in zip(real, radii, strict=True)]

    def fidelity(points, own):
        total = 0.0
        for j, y in enumerate(points):
            inside = sum(
                math.dist(real[i], y) <= clipped[i] for i in range(n) if not (own and i == j)
            )
            total += min(1, inside / k)
        return total / len(points)

    filled = sum(min(1, count / k) for count in counts) / n
    low, high = 0.0, float(n)  # f increases: find m by halving
    for _ in range(60):
        middle = (low + high) / 2
        floor = math.floor(middle)
        step = middle - floor
        value = fill(floor, n, k) * (1 - step) + (fill(floor + 1, n, k) * step if step else 0)
        low, high = (middle, high) if value < filled else (low, middle)
    return (
        sum(counts) / (k * n),
        sum(count > 0 for count in counts) / n,
        min(1.0, fidelity(fake, own=False) / fidelity(real, own=True)),
        low / n,
    )


def fill(m, n, k):
    """E min(J, k) / k for J beta-binomial of m, k and n - k, term by term with whole numbers.

    B(k + j, n - k + m - j) / B(k, n - k) is a ratio of binomial coefficients.
    """
    total = 0.0
    for j in range(m + 1):
        chance = math.comb(k + j - 1, j) * math.comb(n - k + m - j - 1, m - j)
        total += min(j, k) * chance / math.comb(n + m - 1, m)
    return total / k


@pytest.mark.parametrize(("n", "k", "shift"), [(60, 5, 0.0), (61, 3, 0.8), (40, 1, 0.3)])
def test_all_four_are_those_of_the_double_loop(n, k, shift):
    real, fake = draw(n, 3, "real", n), draw(n, 3, "fake", n, shift=shift)
    found = coverage(real, fake, k)
    expected = by_double_loop(real, fake, k)
    assert (found.density, found.coverage) == expected[:2]
    assert found.clipped_density == pytest.approx(expected[2], rel=1e-12)
    assert found.clipped_coverage == pytest.approx(expected[3], abs=1e-9)


@pytest.mark.parametrize("far", [0.0, 1000.0])
def test_density_and_coverage_are_those_of_the_published_program(far, monkeypatch):
    published = pytest.importorskip("prdc")
    monkeypatch.setattr(module, "ENTRIES", 300 * 64)  # several chunks, the last one smaller
    real, fake = draw(500, 12, "real", shift=far), 1.1 * draw(500, 12, "fake") + far
    found = coverage(real, fake)
    expected = published.compute_prdc(real.double().numpy(), fake.double().numpy(), nearest_k=5)
    assert found.density == pytest.approx(expected["density"], rel=1e-12)
    assert found.coverage == pytest.approx(expected["coverage"], rel=1e-12)


def test_equal_distributions_have_the_expected_values():
    found = coverage(draw(2000, 6, "real"), draw(2000, 6, "fake"))
    assert found.density == pytest.approx(1, abs=0.05)
    # Naeem et al. 2020: 1 - (N - 1) ... (N - k) / ((2 N - 1) ... (2 N - k)), about 1 - 2^-k.
    expected = 1 - math.prod((2000 - i) / (4000 - i) for i in range(1, 6))
    assert found.coverage == pytest.approx(expected, abs=0.015)
    assert found.clipped_density == pytest.approx(1, abs=0.05)
    assert found.clipped_coverage == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("bad", [0.2, 0.5, 0.8, 1.0])
def test_clipped_values_fall_with_the_share_of_bad_samples(bad):
    n = 1000
    fake = clusters(n, range(10), "fake")
    fake[: round(bad * n)] += 500
    found = coverage(clusters(n, range(10), "real"), fake)
    assert found.clipped_density == pytest.approx(1 - bad, abs=0.05)
    assert found.clipped_coverage == pytest.approx(1 - bad, abs=0.05)


@pytest.mark.parametrize("missing", [1, 3, 5, 8])
def test_coverage_falls_by_a_tenth_for_each_of_ten_classes_missing(missing):
    found = coverage(clusters(1000, range(10), "real"), clusters(1000, range(missing, 10), "fake"))
    assert found.coverage == pytest.approx(1 - missing / 10, abs=0.04)
    assert found.clipped_coverage == pytest.approx(1 - missing / 10, abs=0.06)
    assert found.clipped_density > 0.9


def test_few_far_real_images_let_density_but_not_clipped_density_believe_in_bad_samples():
    """The balls of three outliers are huge; samples near them are nothing like the others."""
    real = draw(300, 8, "real")
    real[:3] += torch.tensor([[100.0], [-100.0], [200.0]])
    bad = real[0] + draw(300, 8, "bad", shift=3.0)
    found = coverage(real, bad)
    assert found.density > 0.1
    assert found.clipped_density == 0


def test_copies_in_one_place_are_not_worth_more_than_one_good_sample():
    real = draw(300, 8, "real")
    middle = real[real.norm(dim=1).argmin()]
    found = coverage(real, middle.expand(300, 8))
    assert found.density > 1.5
    assert found.clipped_density == 1
    assert found.clipped_coverage < 0.2


def test_a_far_sample_does_not_blur_the_others():
    """One sample at 1e9 must not cost the nearby distances their digits."""
    real, fake = draw(200, 4, "real"), draw(200, 4, "fake")
    fake[0] += 1e4
    near = coverage(real, fake)
    fake[0] += 1e9
    assert coverage(real, fake) == near


def test_equal_sets_are_covered_and_equal_points_are_survived():
    real = draw(100, 4, "real")
    same = coverage(real, real)
    assert (same.coverage, same.clipped_density) == (1, 1)
    assert same.density == pytest.approx(1, abs=1e-12)  # itself and the k - 1 inside the ball
    constant = coverage(torch.ones(50, 4), torch.ones(50, 4))
    assert (constant.density, constant.clipped_density) == (0, 1)


def test_memory_is_that_of_a_chunk(monkeypatch):
    sizes = []
    real_distances = module._squared_distances

    def watched(a, b):
        squared = real_distances(a, b)
        sizes.append(squared.numel())
        return squared

    monkeypatch.setattr(module, "_squared_distances", watched)
    monkeypatch.setattr(module, "ENTRIES", 10_000)
    coverage(draw(1000, 4, "real"), draw(1000, 4, "fake"))
    assert max(sizes) == 10_000
    assert sum(sizes) == 2 * 1000 * 1000


@pytest.mark.parametrize(
    ("real", "fake", "k", "message"),
    [
        (torch.zeros(9, 3), torch.zeros(8, 3), 5, "9 real and 8 fake"),
        (torch.zeros(5, 3), torch.zeros(5, 3), 5, "k is 5 with 5 real images: give 1 to 4"),
        (torch.zeros(5, 3), torch.zeros(5, 3), 0, "k is 0"),
        (torch.zeros(9, 3), torch.zeros(9, 2), 5, "2 and 3 wide"),
        (torch.zeros(9, 3), torch.full((9, 3), math.inf), 5, "infinity"),
    ],
)
def test_mistakes_are_named(real, fake, k, message):
    with pytest.raises(InputError, match=message):
        coverage(real, fake, k)
