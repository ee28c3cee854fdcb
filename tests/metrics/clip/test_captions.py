"""Styles against closed forms and plain numpy; captions against a reader that knows no masks."""

import math

import numpy as np
import pytest
import torch

from mezzotint.errors import InputError
from mezzotint.metrics.clip.captions import (
    HELD_OUT_TEMPLATES,
    MEASURES,
    TEMPLATES,
    Captioner,
    Styles,
    names_of,
    phrase,
    tokens,
)
from mezzotint.runtime.rng import generator

ALL_FIGURES = Styles(True, {n: (0.0, 1.0) for n, m in MEASURES.items() if m.figures is not False})
ALL_PHOTOS = Styles(False, {n: (0.0, 1.0) for n, m in MEASURES.items() if m.figures is not True})


def box(height, width, *, size=28, ink=255, ground=0):
    image = np.full((size, size), ground, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    image[top : top + height, left : left + width] = ink
    return torch.from_numpy(image)[None, None]


def test_the_thickness_of_a_stroke_is_its_width_in_28ths():
    # A long box's two edges are each as long as the box: 2 h w / (2 h) = w. Its short ends add
    # to the edges, hence below w, and by no more than their share.
    for width in (2, 4, 6):
        got = float(ALL_FIGURES.measured(box(26, width))["thickness"])
        assert got == pytest.approx(26 * width / (26 + width), rel=0.03)
        doubled = ALL_FIGURES.measured(box(52, 2 * width, size=56))["thickness"]
        assert float(doubled) == pytest.approx(got, rel=0.02)


@pytest.mark.parametrize("degrees", [-30, -10, 0, 20, 40])
def test_the_slant_of_a_leaning_stroke_is_its_angle(degrees):
    # Rows of a wide picture, each moved by tan(angle) per row upwards, in soft quarter pixels.
    size, image = 64, np.zeros((64, 64))
    for y in range(16, 48):
        middle = 31.5 + math.tan(math.radians(degrees)) * (31.5 - y)
        left = int(middle)
        image[y, left], image[y, left + 1] = 1 - (middle - left), middle - left
    picture = torch.from_numpy((image * 255).round().astype(np.uint8))[None, None]
    assert float(ALL_FIGURES.measured(picture)["slant"]) == pytest.approx(degrees, abs=0.2)
    assert size == picture.shape[-1]


def test_width_is_the_ratio_of_the_spreads_of_a_box():
    # The variance of n equal steps is (n^2 - 1) / 12.
    got = float(ALL_FIGURES.measured(box(6, 20))["width"])
    assert got == pytest.approx(math.sqrt((20**2 - 1) / (6**2 - 1)), rel=1e-5)


@pytest.mark.parametrize(("ink", "ground"), [(200, 0), (40, 255)])
def test_brightness_is_that_of_the_figure_not_of_its_ground(ink, ground):
    got = float(ALL_FIGURES.measured(box(5, 9, ink=ink, ground=ground))["brightness"])
    assert got == pytest.approx(ink / 255)


def test_measures_of_photographs_agree_with_numpy():
    images = torch.randint(256, (5, 3, 6, 7), generator=generator("photos"), dtype=torch.uint8)
    got, x = ALL_PHOTOS.measured(images), images.numpy() / 255
    expected = {
        "brightness": x.mean((1, 2, 3)),
        "contrast": x.mean(1).std((1, 2)),
        "colour": (x.max(1) - x.min(1)).mean((1, 2)),
        "warmth": (x[:, 0] - x[:, 2]).mean((1, 2)),
    }
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(got[name].numpy(), values, atol=1e-12)


def test_a_blank_image_has_finite_measures():
    for values in ALL_FIGURES.measured(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).values():
        assert values.isfinite().all()


def test_digits_are_figures_cut_into_thirds(digits):
    images, _ = digits.split("train")
    styles = Styles.found(images)
    assert styles.figures
    assert "thickness" in styles.cuts
    assert "slant" in styles.cuts
    assert "warmth" not in styles.cuts  # grey images do not differ in it
    for name, column in zip(styles.cuts, styles.levels(images).T, strict=True):
        values = styles.measured(images)[name].numpy()
        thirds = np.quantile(values, [1 / 3, 2 / 3], method="lower")
        assert styles.cuts[name] == pytest.approx(tuple(thirds), rel=1e-12)
        assert torch.bincount(column).tolist() == pytest.approx([len(images) / 3] * 3, abs=2)


def test_images_without_a_flat_border_are_photographs():
    images = torch.randint(256, (30, 3, 8, 8), generator=generator("photos"), dtype=torch.uint8)
    grey = torch.linspace(0, 1, 30)[:, None, None, None]
    styles = Styles.found((images * grey).byte())
    assert not styles.figures
    assert "brightness" in styles.cuts
    assert "slant" not in styles.cuts


def test_what_is_no_batch_of_images_is_refused():
    with pytest.raises(InputError, match="uint8"):
        Styles.found(torch.zeros(3, 1, 8, 8))


def test_classes_have_the_names_that_people_use():
    assert names_of("T-shirt/top") == ("t-shirt/top", "t-shirt", "top")
    assert names_of("Ankle boot") == ("ankle boot",)
    assert names_of("traffic_light") == ("traffic light",)
    assert set(names_of("7")) >= {"7", "seven", "digit seven"}


def test_a_phrase_needs_no_word_for_the_picture():
    assert phrase("a * photo of a {}", "bag") == "a photo of a bag"
    assert phrase("a * photo of a {}", "thick 7", "blurry") == "a blurry photo of a thick 7"
    assert tokens("A T-shirt/top, out-of-focus!") == ["a", "t-shirt", "top", "out-of-focus"]


def test_held_out_templates_bring_words_that_training_never_says():
    said = {word for template in TEMPLATES for word in tokens(template)}
    assert not set(TEMPLATES) & set(HELD_OUT_TEMPLATES)
    for template in HELD_OUT_TEMPLATES:
        assert set(tokens(template)) - said, template


def make(captions=400, unsaid=frozenset()):
    styles = Styles(True, {"thickness": (1.0, 2.0), "slant": (-5.0, 5.0)})
    captioner = Captioner(("0", "1", "T-shirt/top", "Bag"), styles, unsaid=unsaid)
    g = generator("captions")
    labels = torch.randint(4, (captions,), generator=g)
    quality, levels = (torch.randint(3, (captions, k), generator=g) for k in (1, 2))
    values = captioner.values(labels, quality[:, 0], levels)
    texts, denied = captioner.sample(values, g)
    facts = torch.cat([labels[:, None], quality, levels], 1).tolist()
    return captioner, facts, values, texts, denied


def read(captioner, text):
    """Per factor the values that a text allows, found by looking for the words in it."""
    padded, allowed = f" {' '.join(tokens(text))} ", []
    for factor in captioner.factors:
        found = {w.values for w in factor.words if f" {' '.join(tokens(w.text))} " in padded}
        kept = set(range(factor.size))
        for values in found:
            kept &= set(values)
        allowed.append(kept)
    return allowed


def test_the_truth_of_every_caption_for_every_image_is_what_its_words_say():
    captioner, facts, values, texts, denied = make()
    truth = (values @ denied.T == 0).numpy()
    readings = [read(captioner, text) for text in texts]
    expected = np.array(
        [
            [all(v in a for v, a in zip(own, said, strict=True)) for said in readings]
            for own in facts
        ]
    )
    np.testing.assert_array_equal(truth, expected)
    assert truth.diagonal().all()
    assert 0.02 < truth.mean() < 0.3  # neither trivial nor about one image each


def test_captions_mention_every_factor_alone_and_together():
    captioner, _, _, texts, denied = make(2000)
    sizes = [factor.size for factor in captioner.factors]
    mentioned = torch.stack([part.any(1) for part in denied.split(sizes, 1)], 1)
    assert mentioned.any(1).all()  # no caption says nothing
    assert (mentioned.float().mean(0) > 0.2).all()
    assert len({tuple(row) for row in mentioned.tolist()}) == 2 ** len(sizes) - 1
    assert len(set(texts)) > 1500


def test_what_is_held_out_is_never_said_together_but_each_alone():
    unsaid = frozenset({("class", 3), ("thickness", 2), ("quality", 1)})
    captioner, *_, texts, _ = make(3000, frozenset({unsaid}))
    readings = [read(captioner, text) for text in texts]
    names = [factor.name for factor in captioner.factors]

    def says(reading, fact):
        return reading[names.index(fact[0])] == {fact[1]}

    assert not any(all(says(r, fact) for fact in unsaid) for r in readings)
    for left_out in unsaid:
        rest = unsaid - {left_out}
        assert any(all(says(r, fact) for fact in rest) for r in readings)
    *_, unrestricted, _ = make(3000)
    assert any(all(says(read(captioner, t), fact) for fact in unsaid) for t in unrestricted)


def test_captions_depend_on_the_generator_alone():
    captioner, _, values, *_ = make(50)
    first, again, other = (captioner.sample(values, generator(k))[0] for k in (1, 1, 2))
    assert first == again
    assert first != other
