"""The kernel distance against the double sum, the primal form of its kernel, and its own mean."""

import math

import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from mezzotint.errors import InputError
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.runtime.rng import generator


def draw(n, width, *key, shift=0.0):
    return torch.randn(n, width, generator=generator("kernel", *key)) + shift


def by_double_sum(a, b):
    """The definition, pair by pair in plain Python."""

    def k(x, y):
        return (sum(s * t for s, t in zip(x, y, strict=True)) / len(x) + 1) ** 3

    a, b = a.double().tolist(), b.double().tolist()
    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    ab = sum(k(x, y) for x in a for y in b) / (n * m)
    return aa + bb - 2 * ab


@pytest.mark.parametrize(("n", "m"), [(30, 30), (17, 40), (2, 2)])
def test_one_block_is_the_double_sum(n, m):
    a, b = draw(n, 6, "a"), draw(m, 6, "b", shift=0.5)
    found = kernel_distance(a, b, generator("order"))
    assert found.value == pytest.approx(by_double_sum(a, b), rel=1e-9)
    assert (found.error, found.blocks) == (None, 1)


def test_one_large_block_is_that_of_scikit_learns_kernel():
    a, b = draw(2500, 16, "a"), draw(1500, 16, "b", shift=0.2)
    x, y = a.double().numpy(), b.double().numpy()

    def k(x, y):
        return polynomial_kernel(x, y, degree=3, gamma=1 / 16, coef0=1)

    def inside(x):
        return (k(x, x).sum() - k(x, x).trace()) / (len(x) * (len(x) - 1))

    expected = inside(x) + inside(y) - 2 * k(x, y).mean()
    found = kernel_distance(a, b, generator("order"), block=1500)
    assert found.value == pytest.approx(expected, rel=1e-9)


def test_blocks_are_disjoint_random_and_leave_nobody_out():
    """Features 0 and s_i of width 1: each block's value gives away which s_i are in it."""
    a, b = torch.zeros(7, 1), 10.0 ** torch.arange(7).float()[:, None]
    found = kernel_distance(a, b, generator("cut"), block=3)
    assert found.blocks == 2
    g = generator("cut")
    torch.randperm(7, generator=g)  # of a, whose rows are all the same
    order = torch.randperm(7, generator=g)
    blocks = [
        by_double_sum(torch.zeros(4, 1), b[order[:4]]),
        by_double_sum(torch.zeros(3, 1), b[order[4:]]),
    ]
    assert found.value == pytest.approx(sum(blocks) / 2, rel=1e-9)
    assert found.error == pytest.approx(abs(blocks[0] - blocks[1]) / 2, rel=1e-9)


def test_equal_distributions_have_mean_0_however_few_the_images():
    values = torch.tensor(
        [
            kernel_distance(draw(5, 4, "a", i), draw(5, 4, "b", i), generator(i)).value
            for i in range(600)
        ]
    )
    error = float(values.std()) / math.sqrt(600)
    assert abs(float(values.mean())) < 3 * error
    assert (values < 0).double().mean() > 0.3


def test_the_error_is_the_scatter_of_the_value():
    found = [
        kernel_distance(draw(400, 4, "a", i), draw(400, 4, "b", i, shift=0.3), generator(i), 40)
        for i in range(60)
    ]
    scatter = float(torch.tensor([one.value for one in found]).std())
    stated = sum(one.error for one in found) / 60
    assert stated == pytest.approx(scatter, rel=0.3)


def test_the_mean_does_not_depend_on_the_number_of_images():
    """E MMD^2 of N(s, 1) and N(0, 1): |E phi(x) - E phi(y)|^2 over the monomials of the kernel.

    (x y + 1)^3 = 1 + 3 x y + 3 x^2 y^2 + x^3 y^3; N(s, 1) has moments s, s^2 + 1, s^3 + 3 s.
    """
    shift = 0.7
    expected = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    for n, times in ((4, 1200), (200, 60)):
        values = torch.tensor(
            [
                kernel_distance(
                    draw(n, 1, "a", n, i, shift=shift), draw(n, 1, "b", n, i), generator(i)
                ).value
                for i in range(times)
            ]
        )
        error = float(values.std()) / math.sqrt(times)
        assert float(values.mean()) == pytest.approx(expected, abs=3 * error)


@pytest.mark.parametrize(
    ("a", "b", "block", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(5, 3), 1000, "1 and 5 images"),
        (torch.zeros(5, 3), torch.zeros(5, 3), 1, "blocks of 1"),
        (torch.zeros(5, 3), torch.zeros(5, 4), 1000, "3 and 4 wide"),
        (torch.zeros(5, 3).byte(), torch.zeros(5, 3), 1000, "uint8"),
    ],
)
def test_mistakes_are_named(a, b, block, message):
    with pytest.raises(InputError, match=message):
        kernel_distance(a, b, generator(0), block)
