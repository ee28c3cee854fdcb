"""Windows that heed each other against exact denoisers: closed forms, and counting pictures."""

import itertools

import pytest
import torch

from mezzotint.editing.compose import Layout, Windows
from mezzotint.editing.compose.windows import STRENGTH

GROUND = -1.0
PATTERNS = torch.tensor(
    [
        [[0, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 0]],
        [[0, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 0]],
        [[0, 0, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0]],
        [[0, 1, 0, 0, 1, 0], [0, 0, 1, 1, 1, 0]],
    ],
    dtype=torch.float64,
)
"""The only four inks in a set of images of 2 x 6 pixels, where B is the pixel itself."""


def chain(lefts, size=(2, 6)):
    """A canvas with one row of windows."""
    corners = tuple((0, left) for left in lefts)
    return Layout(size[0], max(lefts) + size[1], corners, (0,) * len(lefts))


def exact(x, sigma):
    """The exact denoiser of that set, by counting: (N, 1, 2, 6)."""
    apart = ((x - GROUND - PATTERNS) ** 2).sum((2, 3))  # (N, 4)
    return GROUND + torch.einsum(
        "nk,khw->nhw", torch.softmax(-apart / (2 * sigma**2), 1), PATTERNS
    ).unsqueeze(1)


def exact_together(x, sigma, windows):
    """E[images | x] of all windows of a canvas under the coupled distribution, by counting."""
    logs, choices = [], []
    for choice in itertools.product(range(4), repeat=len(x)):
        ink = PATTERNS[list(choice)][:, None]
        collision = (windows.add(ink) ** 2 - windows.add(ink**2)).sum() / 2  # sum over pairs
        apart = ((x - GROUND - ink) ** 2).sum()
        logs.append(-apart / (2 * sigma**2) - STRENGTH * collision)
        choices.append(ink)
    return GROUND + torch.einsum(
        "k,knchw->nchw", torch.softmax(torch.stack(logs), 0), torch.stack(choices)
    )


def noisy(windows, sigma, draws):
    """States of windows whose images were drawn each for itself."""
    ink = PATTERNS[torch.randint(4, (len(windows),), generator=draws)][:, None]
    return GROUND + ink + sigma * torch.randn(ink.shape, generator=draws, dtype=torch.float64)


def test_cut_is_the_transpose_of_add():
    windows = Windows([chain([0, 3, 5], (4, 6)), chain([0, 6], (4, 6))], (4, 6))
    draws = torch.Generator().manual_seed(0)
    canvases = torch.randn(2, 3, *windows.shape, generator=draws, dtype=torch.float64)
    pictures = torch.randn(5, 3, 4, 6, generator=draws, dtype=torch.float64)
    torch.testing.assert_close(
        (windows.cut(canvases) * pictures).sum(), (canvases * windows.add(pictures)).sum()
    )


def test_neighbours_ink_is_the_mean_about_a_pixel_by_loop():
    windows = Windows([Layout(30, 48, ((0, 0), (2, 20)), (0, 0))], (28, 28))
    ink = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    found = windows.around(ink)
    for y, x in [(0, 25), (5, 20), (14, 24), (27, 27), (13, 3)]:
        cells = [(y + i - 2, x + j - 20) for i in range(-2, 3) for j in range(-2, 3)]
        inside = [
            (u, v)
            for u, v in cells
            if 0 <= u < 28 and 0 <= v < 28 and u + 2 < 28 and v + 20 < 28  # of both windows
        ]
        expected = sum(float(ink[1, 0, u, v]) for u, v in inside) / 25
        assert float(found[0, 0, y, x]) == pytest.approx(expected, abs=1e-5)


def test_windows_that_do_not_meet_are_separate_images_in_one_look():
    calls = []

    def denoise(x, sigma):
        calls.append(len(x))
        return exact(x, sigma)

    windows = Windows([chain([0, 6, 13])], (2, 6))
    x = noisy(windows, 1.0, torch.Generator().manual_seed(2))
    sigma = torch.tensor(1.0)
    found = windows.apart(denoise)(x, sigma)
    assert calls == [3]
    assert torch.equal(found, exact(x, sigma))
    canvas = windows.joined(found)
    for i, left in enumerate((0, 6, 13)):
        torch.testing.assert_close(canvas[0, :, :, left : left + 6], found[i])
    assert (canvas[..., 12] == GROUND).all()  # between them: the ground


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
def test_beside_a_known_neighbour_the_denoiser_is_exact(sigma):
    """The second window can only hold one picture: what the first look finds of it is true."""
    windows = Windows([chain([0, 2])], (2, 6), GROUND)
    sigma = torch.tensor(sigma, dtype=torch.float64)
    known = PATTERNS[3]

    def denoise(x, sigma):
        return torch.stack([exact(x[:1], sigma)[0], GROUND + known[None]])

    draws = torch.Generator().manual_seed(3)
    x = noisy(windows, sigma, draws)
    covered = torch.zeros(2, 6, dtype=torch.float64)
    covered[:, 2:] = known[:, :4]
    energy = ((x[0, 0] - GROUND - PATTERNS) ** 2).sum((1, 2)) / (2 * sigma**2)
    energy += STRENGTH * (PATTERNS * covered).sum((1, 2))
    expected = GROUND + torch.einsum("k,khw->hw", torch.softmax(-energy, 0), PATTERNS)
    torch.testing.assert_close(windows.apart(denoise)(x, sigma)[0, 0], expected)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_of_gaussian_images_it_is_the_closed_form(sigma):
    """N(m, v) times exp(-strength r x) is N(m - strength v r, v)."""
    mean, variance = 0.2, 0.5
    sigma = torch.tensor(sigma, dtype=torch.float64)
    shrink = variance / (variance + sigma**2)

    def denoise(x, sigma):
        return mean + shrink * (x - mean)

    windows = Windows([chain([0, 4])], (2, 6), GROUND)
    x = torch.randn(2, 1, 2, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    neighbour = torch.zeros_like(x)
    first = denoise(x, sigma).clamp(-1, 1) - GROUND
    neighbour[0, ..., 4:], neighbour[1, ..., :2] = first[1, ..., :2], first[0, ..., 4:]
    tilted = mean - STRENGTH * variance * neighbour
    expected = tilted + shrink * (x - tilted)
    torch.testing.assert_close(windows.apart(denoise)(x, sigma), expected)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_it_comes_nearer_to_the_exact_denoiser_of_the_canvas_than_windows_alone(sigma):
    windows = Windows([chain([0, 3, 6])], (2, 6), GROUND)
    sigma = torch.tensor(sigma, dtype=torch.float64)
    draws = torch.Generator().manual_seed(5)
    single = apart = 0.0
    for _ in range(8):
        x = noisy(windows, sigma, draws)
        together = exact_together(x, sigma, windows)
        single += float(((exact(x, sigma) - together) ** 2).sum())
        apart += float(((windows.apart(exact)(x, sigma) - together) ** 2).sum())
    assert apart < 0.5 * single, (apart, single)


def test_a_canvas_is_the_same_whatever_else_is_in_the_batch():
    short, long = chain([0, 3]), chain([0, 3, 5, 9])
    both, sigma = Windows([short, long], (2, 6), GROUND), torch.tensor(0.8)
    x = noisy(both, 0.8, torch.Generator().manual_seed(6))
    together = both.apart(exact)(x, sigma)
    single = Windows([short], (2, 6), GROUND)
    assert torch.equal(together[:2], single.apart(exact)(x[:2], sigma))
    assert torch.equal(both.joined(together)[:1, ..., :9], single.joined(together[:2]))
    assert (both.joined(together)[0, ..., 9:] == GROUND).all()


@pytest.mark.parametrize("ground", [-1.0, 1.0])
def test_of_two_inks_the_stronger_is_seen_on_black_and_on_white(ground):
    windows = Windows([chain([0, 3])], (2, 6), ground)
    x0 = ground * (1 - torch.rand(2, 1, 2, 6, generator=torch.Generator().manual_seed(7)))
    canvas = windows.joined(x0)
    first, second = x0[0, 0, :, 3:], x0[1, 0, :, :3]
    stronger = torch.maximum(first, second) if ground < 0 else torch.minimum(first, second)
    torch.testing.assert_close(canvas[0, 0, :, 3:6], stronger)
    torch.testing.assert_close(canvas[0, 0, :, :3], x0[0, 0, :, :3])
