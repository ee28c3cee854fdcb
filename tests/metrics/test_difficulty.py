"""Difficulty, against scipy, closed forms and images with known gradients."""

import json
import math

import numpy as np
import pytest
import torch

from mezzotint.errors import InputError
from mezzotint.metrics.difficulty import (
    PROPERTIES,
    ClassProperties,
    Quality,
    answers,
    correlations,
    difficulty,
    frequency_effect,
    properties,
    thinned,
)
from mezzotint.runtime.rng import generator


def measured(images, labels, classes, *, features=None, probabilities=None, train=None):
    """Properties with everything that a test does not speak of made up."""
    n = len(images)
    return properties(
        images,
        labels,
        classes,
        features=torch.randn(n, 4, generator=generator("f")) if features is None else features,
        probabilities=torch.ones(n, len(classes)) if probabilities is None else probabilities,
        train_labels=labels if train is None else train,
    )


def made(classes=10, **columns):
    """A table of classes "0", "1", …, with the columns given and zeros elsewhere."""
    values = {name: columns.get(name, [0] * classes) for name in PROPERTIES}
    looks = columns.get("lookalike", ["0"] * classes)
    return [
        ClassProperties(
            name=columns.get("names", [str(k) for k in range(classes)])[k],
            images=100,
            lookalike=looks[k],
            **{name: values[name][k] for name in PROPERTIES},
        )
        for k in range(classes)
    ]


def test_images_with_known_gradients():
    ramp = torch.arange(10).view(1, 1, 1, 10) * 12 + torch.zeros(2, 1, 9, 1)
    slope = ramp + torch.arange(9).view(1, 1, 9, 1) * 5  # 12 across, 5 down: length 13
    flat = torch.full((2, 1, 9, 10), 77)
    images = torch.cat([flat, ramp, slope]).to(torch.uint8)
    flat, ramp, slope = measured(images, torch.tensor([0, 0, 1, 1, 2, 2]), ["f", "r", "s"])
    assert (flat.edge_density, flat.flatness, flat.contrast, flat.brightness) == (0, 1, 0, 77)
    assert (ramp.edge_density, ramp.flatness) == (12, 0)
    assert ramp.brightness == 4.5 * 12
    assert ramp.contrast == pytest.approx(12 * math.sqrt((10**2 - 1) / 12))  # of 0 … 9, uniform
    assert slope.edge_density == pytest.approx(13)
    assert slope.pixel_variability == 0


def test_edges_are_those_of_scipy():
    from scipy.ndimage import sobel

    images = torch.randint(256, (6, 3, 11, 8), generator=generator("noise"))
    (row, _) = measured(images.to(torch.uint8), torch.tensor([0, 0, 0, 0, 1, 1]), "ab")
    planes = images[:4].flatten(0, 1).double().numpy()  # scipy smooths over every other axis
    length = np.stack([np.hypot(sobel(x, 0), sobel(x, 1))[1:-1, 1:-1] / 8 for x in planes])
    assert row.edge_density == pytest.approx(length.mean(), rel=1e-6)
    assert row.flatness == pytest.approx((length < 8).mean(), abs=1e-9)


def test_variability_is_the_mean_over_all_pairs():
    images = torch.randint(256, (7, 1, 5, 5), generator=generator("pairs")).to(torch.uint8)
    features = torch.randn(7, 3, generator=generator("pairs")).double()
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    (row, _) = measured(images, labels, "ab", features=features)
    squares = [
        (images[i].double() - images[j].double()).square().mean()
        for i in range(5) for j in range(i)
    ]  # fmt: skip
    assert row.pixel_variability == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-6)
    own, every = np.cov(features[:5].numpy().T), np.cov(features.numpy().T)
    assert row.feature_variability == pytest.approx(np.trace(own) / np.trace(every))


def test_separation_of_gaussian_classes_is_their_distance_in_deviations():
    # Three classes on a line in 5-d at 0, 3 and 10, of deviation 1, 2 and 1 along it; they are
    # wide across the line, which must not matter.
    draws = generator("gaussians")
    labels = torch.arange(3).repeat_interleave(20_000)
    features = torch.randn(60_000, 5, generator=draws).double()
    features[:, 1:] *= 4
    features[labels == 1, 0] *= 2
    features[:, 0] += torch.tensor([0.0, 3.0, 10.0])[labels]
    turn = torch.linalg.qr(torch.randn(5, 5, generator=draws).double()).Q
    images = torch.zeros(60_000, 1, 3, 3, dtype=torch.uint8)
    rows = measured(images, labels, "abc", features=features @ turn)
    assert [row.lookalike for row in rows] == ["b", "a", "b"]
    assert [row.separation for row in rows] == pytest.approx(
        [3 / 2.5**0.5, 3 / 2.5**0.5, 7 / 2.5**0.5], rel=0.03
    )


def test_counts_and_confusions():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    probabilities = torch.tensor([[0.9, 0.1]] * 3 + [[0.2, 0.8]] * 3)
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    a, b = measured(
        images, labels, "ab", probabilities=probabilities, train=torch.tensor([1] * 7 + [0])
    )
    assert (a.images, a.frequency, a.confused) == (4, 1, 0.25)
    assert (b.images, b.frequency, b.confused) == (2, 7, 0)


@pytest.mark.parametrize("count", [5, 10])
def test_correlations_are_those_of_scipy(count):
    from scipy.stats import permutation_test, spearmanr

    draws = np.random.default_rng(count)
    columns = {name: draws.integers(0, 7, count).tolist() for name in PROPERTIES}  # with ties
    columns["brightness"] = draws.normal(size=count).tolist()
    table = made(count, **columns)
    up = Quality("coverage", "higher", tuple(draws.normal(size=count)))
    down = Quality("distance", "lower", tuple(draws.normal(size=count)))
    found = correlations(table, [up, down], generator("permutations"))
    assert [(each.name, each.quality) for each in found] == [
        (name, quality) for name in PROPERTIES for quality in ("coverage", "distance")
    ]
    for each in found:
        x = columns[each.name]
        y = np.array(up.values) if each.quality == "coverage" else -np.array(down.values)
        assert each.rho == pytest.approx(spearmanr(x, y).statistic)
    # p: of 5 classes exact, of 10 near Student's approximation (scipy's default).
    for each in found[::2]:
        x = columns[each.name]
        if count == 10:
            assert each.p == pytest.approx(spearmanr(x, up.values).pvalue, abs=0.03)
        elif each.name == "brightness":
            exact = permutation_test(
                (x,),
                lambda x: spearmanr(x, up.values).statistic,
                permutation_type="pairings",
                n_resamples=math.inf,
            )
            assert each.p == pytest.approx(exact.pvalue, abs=1e-9)


def test_p_is_what_the_published_table_says():
    # Two-sided 5 % of Spearman's rho for 10 classes is at 0.648 (exact; Zar 1972, table 1).
    # Sums of squared rank differences d: rho = 1 - 6 d / 990.
    table = made(10, brightness=list(range(10)))
    order = [3, 0, 1, 2, 5, 4, 9, 6, 7, 8]  # d = 12 + 2 + 12 = 26
    mixed = [4, 0, 1, 5, 2, 3, 8, 9, 6, 7]
    for values in (order, mixed):
        d = sum((i - v) ** 2 for i, v in enumerate(values))
        (found,) = [
            each
            for each in correlations(
                table, [Quality("q", "higher", tuple(values))], generator("table")
            )
            if each.name == "brightness"
        ]
        assert found.rho == pytest.approx(1 - 6 * d / 990)
        assert (found.p < 0.05) == (abs(found.rho) > 0.648)


def test_a_constant_property_has_no_correlation():
    table = made(10, brightness=list(range(10)))
    found = correlations(table, [Quality("q", "higher", tuple(range(10)))], generator("c"))
    by_name = {each.name: each for each in found}
    assert (by_name["frequency"].rho, by_name["frequency"].p) == (None, None)
    assert by_name["frequency"].words == "the same in all 10 classes"
    assert by_name["brightness"].rho == pytest.approx(1)
    assert by_name["brightness"].p == pytest.approx(1 / 20_001)


def said(table, quality):
    found = correlations(table, [quality], generator("answers"))
    return {each.experiment: each for each in answers(table, quality, found)}


def test_hypotheses_are_answered_from_the_numbers():
    ten = list(range(10))
    table = made(
        edge_density=ten[::-1],  # the best class has the fewest edges: A holds here,
        separation=[3, 9, 1, 6, 0, 7, 2, 8, 4, 5],  # and not here
        pixel_variability=ten,  # B is wrong here,
        feature_variability=[3, 9, 1, 6, 0, 7, 2, 8, 4, 5],  # without a sign here; frequency equal
        confused=[0, 3, 9, 1, 6, 2, 7, 4, 8, 5],
        flatness=ten,
        contrast=ten[::-1],
        lookalike=["6", "7", "1", "5", "9", "6", "5", "9", "3", "4"],
    )
    values = [90.0 + k for k in ten]
    values[8], values[9] = 80.0, 81.0
    accuracy = Quality("label accuracy", "higher", tuple(values), (0.5,) * 10)
    found = said(table, Quality("label accuracy", "higher", tuple(90.0 + k for k in ten)))
    assert found["A"].outcome == "partly supported"
    assert found["A"].evidence[0].startswith("edge density (rho = -1.00, p = 5e-05, 10 classes)")
    assert found["B"].outcome == "contradicted"
    assert found["B"].evidence[2].endswith("the same in all 10 classes): cannot be tested")
    assert "nearest to 5 is 6, to 6 5: supported" in found["C"].evidence
    assert found["D"].outcome == "supported"
    assert "no standard errors" in found["E"].evidence[0]
    assert found["E"].outcome == "cannot be tested"
    # With standard errors: (91 + 97) / 2 against (80 + 81) / 2.
    found = said(table, accuracy)["E"]
    assert found.outcome == "supported"
    assert found.sentence == (
        "Experiment E, '8 and 9 are harder than 1 and 7': supported by label accuracy; "
        "1 and 7 94 against 80.5 of 8 and 9, two standard errors 1: supported."
    )
    # The other way round, and for a distance, where less is better.
    assert said(table, Quality("d", "lower", accuracy.values, accuracy.errors))["E"].outcome == (
        "contradicted"
    )


def test_named_classes_are_held_against_the_others():
    from mezzotint.data.sources import FASHION

    values = [0.95, 0.99] + [0.9] * 8
    table = made(names=FASHION, lookalike=["Shirt"] * 10)
    found = said(table, Quality("coverage", "higher", tuple(values), (0.01,) * 10))
    # Errors: 0.01 / sqrt(2) and 0.01 / sqrt(8), so two of both are 0.0158.
    text = "T-shirt/top and Trouser 0.97 against 0.9 of the others, two standard errors 0.016"
    assert f"{text}: supported" in found["A"].evidence
    assert found["E"].evidence == ("the classes it names are not here",)


def test_each_of_several_properties_needs_a_smaller_p():
    # rho = 1 - 6 * 52 / 990 = 0.685, p about 0.03: enough alone, not as one of two.
    table = made(flatness=[5, 0, 1, 4, 2, 3, 8, 9, 6, 7], contrast=list(range(10)))
    quality = Quality("q", "higher", tuple(range(10)))
    found = said(table, quality)["D"]
    assert found.evidence[0].startswith("share of flat area (rho = 0.68, p = 0.03")
    assert found.evidence[0].endswith("not supported")
    assert found.evidence[1].endswith("contradicted")
    # And where one says yes and another no, the answer is neither.
    assert said(made(flatness=range(10), contrast=range(10)), quality)["D"].outcome == "mixed"


def test_few_classes_decide_nothing():
    table = made(4, flatness=[1, 2, 3, 4], contrast=[4, 3, 2, 1])
    found = said(table, Quality("coverage", "higher", (0.1, 0.2, 0.3, 0.4)))
    assert found["D"].outcome == "cannot be tested"
    assert "rho = 1.00, p = 0.083, 4 classes" in found["D"].sentence


def test_json_is_plain_and_names_its_tests():
    table = made(brightness=list(range(10)), contrast=list(range(10)))
    whole = difficulty(table, [Quality("q", "lower", tuple(range(10)))], generator("json"))
    again = json.loads(json.dumps(whole.to_json(), allow_nan=False))
    assert set(again) == {
        "classes", "qualities", "correlations", "answers", "sentences", "caution",
    }  # fmt: skip
    assert again["classes"][3]["brightness"] == 3
    assert again["correlations"][0] == {
        "name": "frequency", "quality": "q", "rho": None, "p": None, "classes": 10,
    }  # fmt: skip
    assert len(again["answers"]) == len(again["sentences"]) == 5
    assert again["caution"].startswith("2 correlations were tested")


def test_thinning_takes_of_one_class_alone():
    labels = torch.randint(3, (1000,), generator=generator("labels"))
    rows = torch.arange(100, 900)
    kept = thinned(labels, rows, 1, 0.1, generator("thin"))
    before, after = (torch.bincount(labels[r], minlength=3).tolist() for r in (rows, kept))
    assert after == [before[0], round(before[1] / 10), before[2]]
    assert kept.tolist() == sorted(set(kept.tolist()) & set(rows.tolist()))
    assert torch.equal(kept, thinned(labels, rows, 1, 0.1, generator("thin")))
    assert not torch.equal(kept, thinned(labels, rows, 1, 0.1, generator("other")))
    assert torch.equal(thinned(labels, rows, 1, 1.0, generator("all")), rows)
    assert len(thinned(labels, rows, 1, 1e-6, generator("one"))) == len(rows) - before[1] + 1


def test_the_effect_of_frequency_beside_the_other_classes():
    from scipy.stats import t

    before = Quality("label accuracy", "higher", (0.9, 0.9, 0.9, 0.9))
    after = Quality("label accuracy", "higher", (0.91, 0.89, 0.6, 0.9))
    found = frequency_effect(before, after, ["a", "b", "Coat", "d"], "coat")
    assert (found.name, found.before, found.after) == ("Coat", 0.9, 0.6)
    assert found.change == pytest.approx(-0.3)
    assert (found.others, found.deviation) == pytest.approx((0, 0.01))
    # The two-sided p of a new value, from the prediction interval whose end it is.
    half_width = t.ppf(1 - found.p / 2, 2) * 0.01 * math.sqrt(1 + 1 / 3)
    assert half_width == pytest.approx(0.3)
    assert found.sentence.startswith(
        "Coat thinned out: its label accuracy went from 0.9 to 0.6, the other classes'"
    )
    assert found.sentence.endswith("frequency matters.")
    # Less of a distance is better: the same numbers are then a gain.
    gain = frequency_effect(
        Quality("kd", "lower", before.values), Quality("kd", "lower", after.values), "abcd", "c"
    )
    assert gain.change == pytest.approx(0.3)
    assert gain.sentence.endswith("frequency is not shown to matter.")


def test_the_p_of_a_class_like_the_others_is_uniform():
    # 2000 pairs of runs in which thinning does nothing: p < 0.1 in a tenth of them.
    noise = torch.randn(2000, 8, generator=generator("nothing")).double()
    zero = Quality("q", "higher", (0.0,) * 8)
    names = [f"class {k}" for k in range(8)]
    p = [
        frequency_effect(zero, Quality("q", "higher", tuple(row)), names, "class 3").p
        for row in noise.tolist()
    ]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.02)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.035)


def test_real_digits_have_properties_that_one_can_see():
    import mezzotint.data

    digits = mezzotint.data.load("digits")
    images, labels = digits.split("train")
    rows = measured(images, labels, digits.classes, features=images.flatten(1).float())
    by_name = {row.name: row for row in rows}
    assert sum(row.frequency for row in rows) == len(images)
    assert max(rows, key=lambda row: row.separation).name in ("0", "6")  # closed, large loops
    assert by_name["0"].feature_variability < 1
    ink = {row.name: float(images[labels == int(row.name)].double().mean()) for row in rows}
    assert {row.name: row.brightness for row in rows} == pytest.approx(ink, rel=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Quality("fd", "small", (1.0,)), "lower or higher"),
        (lambda: Quality("fd", "lower", (1.0, math.nan)), "of a class is nan"),
        (
            lambda: correlations(made(3), [Quality("fd", "lower", (1.0,))], generator("k")),
            "1 values for 3 classes",
        ),
        (
            lambda: measured(torch.zeros(3, 1, 4, 4).byte(), torch.tensor([0, 0, 2]), "abc"),
            "0 of 'b', 1 of 'c'",
        ),
        (
            lambda: measured(torch.zeros(2, 1, 2, 8).byte(), torch.tensor([0, 0]), "a"),
            "3x3 pixels",
        ),
        (
            lambda: thinned(torch.zeros(3).long(), torch.arange(3), 1, 0.1, generator("k")),
            "no image of class 1",
        ),
        (
            lambda: thinned(torch.zeros(3).long(), torch.arange(3), 0, 0.0, generator("k")),
            "share to keep is 0",
        ),
        (
            lambda: frequency_effect(
                Quality("fd", "lower", (1.0,) * 3), Quality("kd", "lower", (1.0,) * 3), "abc", "a"
            ),
            "fd and kd",
        ),
        (
            lambda: frequency_effect(
                Quality("fd", "lower", (1.0,) * 2), Quality("fd", "lower", (1.0,) * 2), "ab", "a"
            ),
            "3 classes or more",
        ),
    ],
    ids=[
        "better",
        "nan",
        "values",
        "missing",
        "tiny",
        "class",
        "share",
        "two metrics",
        "two classes",
    ],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
