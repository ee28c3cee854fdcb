"""Every metric on digits that are damaged more and more: the order is known beforehand."""

import itertools

import pytest
import torch

from mezzotint.metrics.extractors.extractor import shipped
from mezzotint.metrics.metric_sanity import damaged, sanity_rows, table
from mezzotint.runtime.rng import generator


@pytest.fixture(scope="module")
def rows(digits):
    return sanity_rows(digits, shipped(digits))


def course(rows, damage, metric):
    """A metric as a kind of damage grows."""
    own = [row for row in rows if row.damage == damage]
    assert [row.amount for row in own] == sorted(row.amount for row in own)
    return [row.values[metric] for row in own]


@pytest.mark.parametrize("damage", ["blur", "noise", "erased"])
@pytest.mark.parametrize("metric", ["fd", "kd", "fd_infinite"])
def test_distances_rise_with_damage(rows, damage, metric):
    values = course(rows, damage, metric)
    # On 8x8 pixels the least damage changes nothing, or a grey level: that is noise.
    slack = 0.003 * (values[-1] - values[0])
    assert all(b >= a - slack for a, b in itertools.pairwise(values))
    assert all(b > a for a, b in itertools.pairwise(values[-3:]))
    assert values[-1] > values[0] + 0.1


@pytest.mark.parametrize("damage", ["blur", "noise", "erased"])
@pytest.mark.parametrize("metric", ["coverage", "density", "clipped_density", "clipped_coverage"])
def test_coverage_and_density_fall_with_damage(rows, damage, metric):
    values = course(rows, damage, metric)
    assert all(b <= a + 0.02 for a, b in itertools.pairwise(values))
    assert values[-1] < 0.3 * values[0]


@pytest.mark.parametrize("damage", ["blur", "noise", "erased"])
def test_fewer_and_fewer_are_read_right(rows, damage):
    values = course(rows, damage, "accuracy")
    assert values[0] > 0.98
    assert values[-1] < 0.6
    assert all(b <= a + 0.01 for a, b in itertools.pairwise(values))


def test_coverage_falls_by_a_tenth_for_each_class_missing(rows):
    counts = [row.amount for row in rows if row.damage == "classes missing"]
    assert counts == [0, 1, 2, 3, 5, 8]
    values = course(rows, "classes missing", "coverage")
    for count, value in zip(counts, values, strict=True):
        assert value == pytest.approx(values[0] * (1 - count / 10), abs=0.035)
    scores = course(rows, "classes missing", "classifier_score")
    for count, score in zip(counts, scores, strict=True):
        assert score == pytest.approx(10 - count, abs=0.15)
    assert min(course(rows, "classes missing", "accuracy")) > 0.98
    for metric in ("fd", "kd"):
        values = course(rows, "classes missing", metric)
        assert values == sorted(values)


def test_shuffled_labels_are_read_at_chance_and_change_nothing_else(rows):
    (shuffled,) = (row for row in rows if row.damage == "labels shuffled")
    whole = rows[0]
    # The share of pairs with one label, and four standard deviations of 1,374 such draws.
    assert shuffled.values["accuracy"] == pytest.approx(0.1, abs=4 * (0.09 / 1374) ** 0.5)
    for name in set(whole.values) - {"accuracy"}:
        assert shuffled.values[name] == pytest.approx(whole.values[name], rel=1e-9), name


def test_half_duplicated_is_seen_by_distinct(rows):
    (halved,) = (row for row in rows if row.damage == "half duplicated")
    assert halved.values["distinct"] == 0.5
    assert rows[0].values["distinct"] == 1
    assert halved.values["fd"] > rows[0].values["fd"]


def test_every_damage_begins_with_none_and_keeps_the_number(digits):
    images, labels = digits.split("test")
    kinds = {}
    for kind, amount, damage in damaged(10):
        x, y = damage(images, labels, generator("x"))
        assert x.shape == images.shape
        assert y.shape == labels.shape
        assert x.dtype == torch.uint8
        if amount == 0:
            assert torch.equal(x, images)
            assert torch.equal(y, labels)
        kinds.setdefault(kind, []).append(amount)
    assert all(0 in kinds[kind] for kind in ("blur", "noise", "erased", "classes missing"))
    assert [amount for kind, amount, _ in damaged(3) if kind == "classes missing"] == [0, 1, 2]


def test_missing_classes_are_replaced_by_others_of_the_rest(digits):
    images, labels = digits.split("test")
    (damage,) = (d for kind, amount, d in damaged(10) if (kind, amount) == ("classes missing", 3))
    x, y = damage(images, labels, generator("x"))
    assert y.unique().tolist() == [3, 4, 5, 6, 7, 8, 9]

    def pairs(images, labels):
        return {(image.tobytes(), int(k)) for image, k in zip(images.numpy(), labels, strict=True)}

    assert pairs(x, y) <= pairs(images, labels)


def test_the_table_is_markdown_of_as_many_columns(rows):
    lines = table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert {line.count("|") for line in lines} == {len(rows[0].values) + 2}
    assert lines[0].startswith("| damage | fd | fd_infinite | kd | density | coverage |")
    assert lines[3].startswith("| blur 0.4 | ")
    cells = [float(cell) for cell in lines[2].split("|")[2:-1]]
    assert cells == pytest.approx(list(rows[0].values.values()), rel=1e-3)
