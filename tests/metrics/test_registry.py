"""Numbers with their protocol, against scipy, scikit-learn and plain counting on real digits."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from mezzotint.errors import InputError
from mezzotint.metrics import registry
from mezzotint.metrics.coverage import coverage, even_coverage
from mezzotint.metrics.extractors.extractor import shipped
from mezzotint.metrics.measured import compare, measure, thousands
from mezzotint.metrics.metric import Read
from mezzotint.metrics.reference import ANCHORS, Reference, chosen
from mezzotint.metrics.registry import GROUPS
from mezzotint.runtime.rng import generator


@pytest.fixture(scope="module")
def classifier(digits):
    return shipped(digits)


@pytest.fixture(scope="module")
def reference(digits, classifier):
    return Reference.of(digits, classifier, classifier, n=270)


@pytest.fixture(scope="module")
def posed(digits, reference):
    """Validation images posing as 150 samples, with every third label wrong."""
    images, labels = digits.split("validation")
    labels = labels.clone()
    labels[::3] = (labels[::3] + 1) % 10
    return images[:150], labels[:150], reference.read(images[:150], labels[:150])


@pytest.fixture(scope="module")
def measured(posed, reference):
    return measure(posed[2], reference)


class Pixels:
    """An extractor of another make: means over quarters of the image."""

    name, digest, resize = "quarters", "0123", "none"

    def features(self, images):
        return torch.nn.functional.avg_pool2d(images.float(), 4).flatten(1) / 255


# --- what the numbers are ---------------------------------------------------------------------


def test_numbers_are_those_of_independent_programs(measured, posed, reference, digits):
    images, labels, _ = posed
    classifier = reference.classifier
    ours = classifier.features(images).double().numpy()
    rows = chosen(digits, "test", 270, 0)
    theirs = classifier.features(digits.images[rows]).double().numpy()

    first, second = np.cov(ours.T), np.cov(theirs.T)
    root = scipy.linalg.sqrtm(first @ second + 1e-12 * np.eye(128)).real
    distance = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert measured["fd150"].value == pytest.approx(distance, rel=1e-3)

    def kernel(a, b):
        return polynomial_kernel(a, b, degree=3, gamma=1 / 128, coef0=1)

    def inside(a):
        return (kernel(a, a).sum() - kernel(a, a).trace()) / (len(a) * (len(a) - 1))

    distance = inside(ours) + inside(theirs) - 2 * kernel(ours, theirs).mean()
    assert measured["kd150"].value == pytest.approx(distance, rel=1e-6)

    p = classifier.read(images).probabilities.double().numpy()
    right = (p.argmax(1) == labels.numpy()).mean()
    assert measured["accuracy"].value == pytest.approx(right)
    assert measured["accuracy"].error == pytest.approx(np.sqrt(right * (1 - right) / 150))
    p = np.maximum(p, 1e-300)
    score = np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert measured["classifier_score"].value == pytest.approx(score, rel=1e-4)
    assert measured["distinct"].value == len(np.unique(images.numpy(), axis=0)) / 150


def test_coverage_compares_equal_numbers(measured, posed, reference):
    """150 samples and 270 real images: 150 of each, in both orders of size."""
    draws = generator("measure", 0, "coverage")
    _, _, samples = posed
    rows = torch.randperm(270, generator=draws)[:150]
    order = torch.randperm(150, generator=draws)
    expected = coverage(reference.real.features[rows], samples.features[order])
    for name in ("density", "coverage", "clipped_density", "clipped_coverage"):
        assert measured[name].value == pytest.approx(getattr(expected, name)), name
    many = even_coverage(samples.features, reference.real.features, generator(0))
    assert 0.8 < many.coverage <= 1


def test_a_distance_names_its_n_and_is_extrapolated_only_from_many(measured, reference, digits):
    assert list(measured) == [
        "fd150", "kd150", "density", "coverage", "clipped_density", "clipped_coverage",
        "accuracy", "classifier_score", "distinct",
    ]  # fmt: skip
    many = Read(torch.randn(1280, 128, generator=generator("many")))
    groups = {"fd": GROUPS["fd"]}
    found = measure(many, reference, groups)
    assert list(found) == ["fd1280", "fd_infinite"]
    assert found["fd_infinite"].value < found["fd1280"].value
    assert found["fd_infinite"].error > 0
    assert found["fd_infinite"].floor is None  # 270 images are too few for one
    few = dataclasses.replace(many, features=many.features[:1279])
    assert list(measure(few, reference, groups)) == ["fd1279"]


@pytest.mark.parametrize(
    ("n", "text"),
    [(270, "270"), (999, "999"), (1000, "1k"), (1500, "1500"), (5000, "5k"), (10_000, "10k")],
)
def test_n_is_written_in_thousands_where_it_is_whole(n, text):
    assert thousands(n) == text


def test_numbers_that_need_what_is_missing_are_left_out(posed, reference, digits):
    images, _, _ = posed
    unlabelled = measure(reference.read(images, None), reference)
    assert "accuracy" not in unlabelled
    assert "classifier_score" in unlabelled
    bare = Reference.of(digits, Pixels(), None, n=270, anchors=("noise",))
    found = measure(bare.read(images, torch.zeros(150)), bare)
    assert not {"accuracy", "classifier_score"} & set(found)
    assert set(found["kd150"].anchors) == {"noise"}


def test_the_same_call_gives_the_same_numbers(measured, posed, reference):
    again = measure(posed[2], reference)
    assert list(again) == list(measured)
    for name, number in measured.items():
        assert again[name].value == pytest.approx(number.value, rel=1e-9), name
        assert again[name].anchors == pytest.approx(number.anchors, rel=1e-9), name
        assert again[name].protocol == number.protocol
    assert json.loads(json.dumps(measured["fd150"].to_json()))["value"] == measured["fd150"].value


def test_too_few_for_the_rank_is_one_line_that_offers_kd(reference, digits):
    few = reference.read(digits.images[:100], None)
    with pytest.raises(InputError, match=r"100 images.*129.*kd") as caught:
        measure(few, reference)
    assert "\n" not in str(caught.value)
    groups = {name: group for name, group in GROUPS.items() if name != "fd"}
    assert "kd100" in measure(few, reference, groups)


# --- floor and anchors ------------------------------------------------------------------------


def test_the_floor_is_real_train_images_and_every_anchor_is_worse(measured, reference, digits):
    """`one class missing` takes coverage, the noise and the blur of the others take all."""
    rows = chosen(digits, "train", 270, 0)
    assert torch.equal(
        reference.floor.features, reference.read(digits.images[rows], None).features
    )
    by_hand = measure(reference.floor, reference, {"kd": GROUPS["kd"]})["kd270"]
    assert by_hand.value == by_hand.floor == measured["kd150"].floor
    for name, number in measured.items():
        assert set(number.anchors) == set(ANCHORS), name
    assert min(measured["fd150"].anchors.values()) > measured["fd150"].floor
    assert min(measured["kd150"].anchors.values()) > measured["kd150"].floor
    missing = measured["coverage"].anchors["one class missing"]
    assert missing == pytest.approx(0.9 * measured["coverage"].floor, abs=0.03)
    assert measured["accuracy"].floor > 0.98
    assert measured["accuracy"].anchors["one class missing"] > 0.98
    assert measured["distinct"].anchors["one class missing"] < 1 == measured["distinct"].floor


def test_anchors_are_the_damage_that_they_say(digits):
    images, labels = digits.split("test")
    noisy, same = ANCHORS["noise"](images, labels, generator(0))
    assert torch.equal(same, labels)
    middle = (images > 80) & (images < 175)  # where nothing is clamped
    change = (noisy.double() - images.double())[middle]
    assert float(change.std()) == pytest.approx(25.5, rel=0.03)
    blurred, _ = ANCHORS["blur"](images, labels, generator(0))
    point = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    point[0, 0, 4, 4] = 255
    spread, _ = ANCHORS["blur"](point, labels[:1], generator(0))
    assert int(spread[0, 0, 4, 4]) == pytest.approx(255 / (2 * np.pi), abs=1)  # one pixel
    assert not torch.equal(blurred, images)
    fewer, left = ANCHORS["one class missing"](images, labels, generator(0))
    assert len(fewer) == len(images)
    assert 0 not in left
    kept = labels != 0
    assert torch.equal(fewer[kept], images[kept])
    assert torch.equal(left[kept], labels[kept])
    pairs = {(x.tobytes(), int(y)) for x, y in zip(images.numpy(), labels, strict=True)}
    assert all((x.tobytes(), int(y)) in pairs for x, y in zip(fewer.numpy(), left, strict=True))


def test_a_set_of_one_class_keeps_it():
    images, labels = torch.zeros(5, 1, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)
    kept, left = ANCHORS["one class missing"](images, labels, generator(0))
    assert torch.equal(kept, images)
    assert torch.equal(left, labels)


# --- the reference ----------------------------------------------------------------------------


def test_rows_are_drawn_without_repetition_from_the_split_alone(digits):
    test = set(digits.splits["test"].tolist())
    rows = chosen(digits, "test", 100, seed=1)
    assert len(rows) == len(set(rows.tolist())) == 100
    assert set(rows.tolist()) <= test
    assert rows.tolist() == sorted(rows.tolist())
    assert set(chosen(digits, "test", 10_000, seed=1).tolist()) == test
    assert not torch.equal(rows, chosen(digits, "test", 100, seed=2))
    # Fewer of the same seed are some of the more: n is all that differs.
    assert set(chosen(digits, "test", 50, seed=1).tolist()) <= set(rows.tolist())


def test_against_the_train_split_the_floor_is_of_test_images(digits, classifier):
    found = Reference.of(digits, classifier, classifier, n=200, split="train", anchors=())
    rows = chosen(digits, "test", 200, 0)
    assert torch.equal(found.floor.labels, digits.labels[rows])
    assert not found.anchors
    assert found.facts["split"] == "train"


def test_a_split_that_is_empty_or_unknown_is_one_line(digits, classifier):
    empty = {**digits.splits, "test": torch.empty(0, dtype=torch.int64)}
    for data, split in ((dataclasses.replace(digits, splits=empty), "test"), (digits, "tset")):
        with pytest.raises(InputError, match=f"digits has no {split} images") as caught:
            Reference.of(data, classifier, classifier, n=10, split=split)
        assert "\n" not in str(caught.value)


# --- protocols --------------------------------------------------------------------------------


def test_the_protocol_says_all_that_a_number_depends_on(measured, reference, digits):
    assert measured["fd150"].protocol == {
        "metric": "fd", "extractor": "digits classifier", "hash": reference.classifier.digest,
        "resize": "none", "n": 150, "against": "digits", "fingerprint": digits.fingerprint,
        "split": "test", "n_reference": 270, "n_floor": 270, "seed": 0,
    }  # fmt: skip


def test_the_classifiers_numbers_name_the_classifier_whatever_the_extractor(digits, classifier):
    found = Reference.of(digits, Pixels(), classifier, n=270, anchors=())
    numbers = measure(found.read(*digits.split("validation")), found)
    assert (numbers["kd153"].protocol["extractor"], numbers["kd153"].protocol["hash"]) == (
        "quarters", "0123",
    )  # fmt: skip
    for name in ("accuracy", "classifier_score"):
        protocol = numbers[name].protocol
        assert (protocol["extractor"], protocol["hash"]) == (
            "digits classifier",
            classifier.digest,
        )


def as_json(measured):
    return json.loads(json.dumps({name: number.to_json() for name, number in measured.items()}))


def test_equal_protocols_are_subtracted(measured):
    ours, theirs = as_json(measured), as_json(measured)
    theirs["kd150"]["value"] += 0.25
    assert compare(ours, theirs, "kd150") == pytest.approx(-0.25)
    assert compare(ours, theirs, "accuracy") == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hash", "ffff"), ("n", 151), ("split", "validation"), ("seed", 7), ("resize", "bicubic"),
        ("fingerprint", "abc"), ("n_reference", 10_000), ("extractor", "inception"),
    ],
)  # fmt: skip
def test_different_protocols_are_refused_and_the_field_is_named(measured, field, value):
    ours, theirs = as_json(measured), as_json(measured)
    theirs["accuracy"]["protocol"][field] = value
    here = ours["accuracy"]["protocol"][field]
    with pytest.raises(InputError, match=f"{field} {here} here and {value} there$") as caught:
        compare(ours, theirs, "accuracy")
    assert "\n" not in str(caught.value)
    del theirs["accuracy"]["protocol"][field]
    with pytest.raises(InputError, match=f"{field} {here} here and None there"):
        compare(ours, theirs, "accuracy")
    with pytest.raises(InputError, match=f"{field} None here and {here} there"):
        compare(theirs, ours, "accuracy")
    assert compare(ours, theirs, "kd150") == 0


def test_a_number_that_one_side_lacks_is_one_line(measured):
    ours = as_json(measured)
    bare = {"kd150": {"value": 0.1}}  # an older or somebody's own, without its protocol
    sides = (
        (ours, {}, "kd150"),
        ({}, ours, "kd150"),
        (ours, ours, "fd10k"),
        (ours, bare, "kd150"),
    )
    for a, b, name in sides:
        with pytest.raises(InputError, match=f"not both evaluations hold {name}"):
            compare(a, b, name)


# --- copies -----------------------------------------------------------------------------------


def test_half_of_the_images_twice_is_seen(digits, reference):
    images, labels = digits.split("test")
    twice = torch.cat([images[:135], images[:135]])
    found = measure(reference.read(twice, labels), reference, {"distinct": GROUPS["distinct"]})
    assert found["distinct"].value == 0.5
    assert found["distinct"].floor == 1
    same = images[:1].expand(40, -1, -1, -1)
    assert reference.read(same, labels[:40]).different == 1
    assert registry.GROUPS["distinct"].metrics["distinct"].better == "higher"


# --- directions -------------------------------------------------------------------------------


def test_directions_are_those_of_the_papers():
    lower, higher = "fd fd_infinite kd", "density coverage clipped_density clipped_coverage"
    higher += " accuracy classifier_score distinct"
    expected = dict.fromkeys(lower.split(), "lower") | dict.fromkeys(higher.split(), "higher")
    groups = GROUPS.values()
    found = {name: each.better for group in groups for name, each in group.metrics.items()}
    assert found == expected
    assert {name for name in expected if registry.sign(name) == 1} == set(higher.split())
    assert {name for name in expected if registry.sign(name) == -1} == set(lower.split())


def test_noise_makes_a_metric_worse_in_its_direction(digits, reference):
    images, labels = digits.split("test")
    damaged = reference.read(*ANCHORS["noise"](images, labels, generator("noise")))
    real = measure(reference.read(images, labels), reference)
    for key, bad in measure(damaged, reference).items():
        name = bad.protocol["metric"]
        assert bad.better == ("higher" if registry.sign(name) == 1 else "lower")
        if name != "distinct":  # noise makes no copies
            assert registry.sign(name) * real[key].value > registry.sign(name) * bad.value, key
