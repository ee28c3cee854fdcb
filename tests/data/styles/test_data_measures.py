"""Measures against the closed forms of drawn strokes, published formulas and scikit-image."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.morphology import medial_axis

from mezzotint.data import load
from mezzotint.data.styles.measures import _distances, measured, shows_figures
from mezzotint.data.styles.registry import MEASURES
from mezzotint.errors import InputError
from mezzotint.runtime.rng import generator

SIZE, FINER = 28, 10
ANGLES = range(0, 180, 15)


def drawn(shape, angle=0.0, offset=(0.0, 0.0)):
    """A shape of (along, across), turned by degrees and moved, as antialiased uint8 (H, W)."""
    steps = (np.arange(SIZE * FINER) + 0.5) / FINER - SIZE / 2
    y, x = np.meshgrid(steps - offset[1], steps - offset[0], indexing="ij")
    turn = math.radians(angle)
    along, across = (
        x * math.cos(turn) + y * math.sin(turn),
        y * math.cos(turn) - x * math.sin(turn),
    )
    cells = shape(along, across).reshape(SIZE, FINER, SIZE, FINER)
    return np.rint(cells.mean((1, 3)) * 255).astype(np.uint8)


def pen(width, length):
    """A round pen's stroke."""
    return lambda x, y: np.hypot(np.maximum(abs(x) - length / 2, 0), y) <= width / 2


def values(images, name):
    batch = torch.from_numpy(np.stack(images))
    return measured(batch if batch.dim() == 4 else batch[:, None], [name])[:, 0].numpy()


def rotated(shape, angles=ANGLES):
    random = np.random.default_rng(0)
    return [drawn(shape, angle, random.random(2) - 0.5) for angle in angles for _ in range(3)]


@pytest.mark.parametrize("width", [2, 2.5, 3, 4, 5, 6])
def test_a_pens_stroke_has_its_thickness_and_length_at_any_angle_and_place(width):
    images = rotated(pen(width, 16))
    np.testing.assert_allclose(values(images, "thickness"), width, rtol=0.05)
    lengths = values(images, "length")
    np.testing.assert_allclose(lengths, 16, rtol=0.08)
    assert lengths.mean() == pytest.approx(16, rel=0.06)


def test_a_stroke_of_less_than_two_pixels_has_its_thickness_on_average():
    # Upright and level ones are left out: where none of their pixels is full, they are the same
    # image as a wider, fainter stroke.
    images = rotated(pen(1.5, 16), [angle for angle in ANGLES if angle % 90])
    got = values(images, "thickness")
    assert got.mean() == pytest.approx(1.5, rel=0.05)
    np.testing.assert_allclose(got, 1.5, rtol=0.12)


def test_rings_and_discs_have_their_closed_forms():
    ring = drawn(lambda x, y: abs(np.hypot(x, y) - 8) <= 1.5, offset=(0.3, 0.1))
    disc = drawn(lambda x, y: np.hypot(x, y) <= 4, offset=(0.2, -0.3))
    got = measured(torch.from_numpy(np.stack([ring, disc]))[:, None], ["thickness", "length"])
    assert got[0, 0] == pytest.approx(3, rel=0.05)
    assert got[0, 1] == pytest.approx(16 * math.pi, rel=0.05)
    # Near P^2 = 4 pi M the root magnifies what is wrong with P: a blob comes out long and thin.
    assert got[1, 0] == pytest.approx(8, rel=0.2)
    assert got[1, 1] < 3


def crooked(random):
    """A round pen's stroke along two segments that meet."""
    (ax, ay, bx, by, cx, cy), radius = random.uniform(-9, 9, 6), random.uniform(0.9, 2.5)

    def distance(x, y, px, py, qx, qy):
        along = ((x - px) * (qx - px) + (y - py) * (qy - py)) / ((qx - px) ** 2 + (qy - py) ** 2)
        along = along.clip(0, 1)
        return np.hypot(x - px - along * (qx - px), y - py - along * (qy - py))

    return lambda x, y: (
        np.minimum(distance(x, y, ax, ay, bx, by), distance(x, y, bx, by, cx, cy)) <= radius
    )


def test_thickness_agrees_with_the_medial_axis_of_morpho_mnist():
    random = np.random.default_rng(3)
    images = [drawn(crooked(random)) for _ in range(25)]
    expected = []
    for image in images:
        large = ndimage.zoom(image / 255, 4, order=3, grid_mode=True, mode="grid-constant")
        axis, distance = medial_axis(large >= 0.5, return_distance=True, rng=0)
        expected.append(2 * distance[axis].mean() / 4)
    got = values(images, "thickness")
    assert np.corrcoef(got, expected)[0, 1] > 0.95
    assert np.median(got / expected) == pytest.approx(1, abs=0.06)


def test_ink_dark_on_light_is_the_same_stroke():
    image = drawn(pen(3, 16), 30)
    for name in ("thickness", "length", "slant", "width", "consistency"):
        one, other = values([image], name), values([255 - image], name)
        np.testing.assert_allclose(one, other, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("degrees", [-35, -20, -10, 0, 15, 30])
def test_a_sheared_bar_has_its_slant_and_keeps_its_width(degrees):
    tangent = math.tan(math.radians(degrees))

    def bar(x, y):
        return (abs(y) <= 9) & (abs(x + tangent * y) <= 2)

    assert values([drawn(bar)], "slant")[0] == pytest.approx(
        degrees, abs=max(0.5, 0.05 * abs(degrees))
    )
    assert values([drawn(bar)], "width")[0] == pytest.approx(4 / 18, rel=0.05)


@pytest.mark.parametrize(("thin", "thick"), [(2, 4), (3, 5), (3, 4)])
def test_a_stroke_of_two_widths_has_their_deviation(thin, thick):
    def halves(x, y):
        return (abs(x) <= 11) & (abs(y) <= np.where(x < 0, thin, thick) / 2)

    got = values(rotated(halves), "consistency")
    assert got.mean() == pytest.approx(1 - (thick - thin) / (thick + thin), rel=0.05)
    even = values(rotated(pen((thin + thick) / 2, 16)), "consistency")
    assert even.mean() > 0.95


def test_symmetry_is_one_of_mirror_images_wherever_the_figure_stands():
    figure = drawn(lambda x, y: (abs(x) < 4 + y / 4) & (abs(y) < 8))
    moved = np.roll(figure, 4, 1)
    np.testing.assert_allclose(values([figure, moved], "symmetry"), 1, atol=1e-9)
    lopsided = drawn(lambda x, y: (abs(y) < 8) & (x > -4) & (x < y))
    assert values([lopsided], "symmetry")[0] < 0.8
    noise = torch.randint(256, (1, 3, 8, 8), generator=generator("noise"), dtype=torch.uint8)
    both = torch.cat([noise, noise.flip(3)], 3)
    anti = torch.cat([noise, 255 - noise.flip(3)], 3)
    got = measured(torch.cat([both, anti]), ["symmetry"])[:, 0]
    assert got[0] == pytest.approx(1)
    assert got[1] == pytest.approx(-1, abs=0.02)


def test_colourfulness_is_the_published_formula():
    flat = torch.tensor([200, 50, 80], dtype=torch.uint8)[:, None, None].expand(3, 4, 4)
    halves = torch.tensor([[255, 0, 0], [0, 0, 255]], dtype=torch.uint8).T[:, None].repeat(1, 4, 2)
    got = measured(torch.stack([flat, halves]), ["colourfulness"])[:, 0]
    assert got[0] == pytest.approx(0.3 * math.hypot(150, 125 - 80))
    # rg 255 and 0, yb 127.5 and -255: deviations 127.5 and 191.25, means 127.5 and -63.75.
    assert got[1] == pytest.approx(math.hypot(127.5, 191.25) + 0.3 * math.hypot(127.5, 63.75))


def test_brightness_contrast_and_edges_are_those_of_a_ramp():
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).expand(1, 3, 24, 24)
    got = measured(ramp, ["brightness", "contrast", "edges"])[0].tolist()
    steps = np.arange(0, 240, 10) / 255
    assert got == pytest.approx([steps.mean(), steps.std(), 10.0])


@pytest.mark.parametrize("width", [1.5, 2, 3, 4])
def test_the_outline_of_a_disc_has_its_width(width):
    steps = (np.arange(320) + 0.5) / 10 - 16
    radius = np.hypot(*np.meshgrid(steps - 0.3, steps + 0.2))
    images = []
    for outside in (220, 150):
        tones = np.where(radius < 10, 220, outside)
        cells = np.where(abs(radius - 10) <= width / 2, 20, tones).reshape(32, 10, 32, 10)
        images.append(np.rint(cells.mean((1, 3))).astype(np.uint8))
    same, other = values([np.stack([image] * 3) for image in images], "outline")
    assert same == pytest.approx(width, rel=0.05)
    # Between two tones the line's own is not the same on both sides: a quarter pixel is lost.
    assert other == pytest.approx(width, abs=0.3)


def test_a_measure_has_the_name_of_its_line():
    assert {name: each.name for name, each in MEASURES.items()} == {
        name: name for name in MEASURES
    }


def test_an_empty_image_is_not_known_and_pieces_do_not_matter(digits):
    names = [name for name, m in MEASURES.items() if m.fits != "colour"]
    blank = torch.full((2, 1, 8, 8), 7, dtype=torch.uint8)
    got = dict(zip(names, measured(blank, names).T, strict=True))
    for name, column in got.items():
        known = name in ("brightness", "contrast", "edges")
        assert bool(column.isfinite().all()) == known, name
    whole = measured(digits.images[:300], names)
    single = torch.cat([measured(image[None], names) for image in digits.images[:300:50]])
    assert torch.allclose(whole[::50], single, equal_nan=True)


def test_what_is_no_measure_or_no_colour_is_one_line():
    with pytest.raises(InputError, match="did you mean 'thickness'"):
        measured(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), ["thicknes"])
    with pytest.raises(InputError, match="colour"):
        measured(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), ["colourfulness"])


def test_digits_are_figures_and_noise_is_none(digits):
    assert shows_figures(digits.images)
    noise = torch.randint(256, (20, 3, 8, 8), generator=generator("noise"), dtype=torch.uint8)
    assert not shows_figures(noise)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_distances_to_the_ground_are_scipys():
    grey = load("digits").images[:200, 0].numpy()
    draws = np.random.default_rng(0)
    blobs = ndimage.gaussian_filter(draws.normal(size=(20, 60, 40)), (0, 4, 4)) > 0
    for inside in (np.kron(grey, np.ones((1, 4, 4))) > 127, blobs):
        inside = np.pad(inside, ((0, 0), (2, 2), (2, 2)))
        expected = np.stack([ndimage.distance_transform_edt(each) for each in inside])
        assert np.array_equal(_distances(inside), expected.astype(np.float32))
