"""CAS with trainings of a second: real digits, shuffled labels, and what is kept of it."""

import dataclasses
import json

import pytest
import torch

from mezzotint.errors import InputError
from mezzotint.metrics import cas as module
from mezzotint.metrics.cas import SEEDS, Cas, cas, real_cas, recipe_for
from mezzotint.metrics.extractors.classifier import Classifier, Domain, Recipe
from mezzotint.metrics.extractors.classifier import fit as train
from mezzotint.runtime.rng import generator

LONG, SHORT = Recipe(images=5000), Recipe(images=128)


@pytest.fixture
def trainings(monkeypatch):
    """The seeds trained with, which are trained all the same."""
    seeds = []

    def counting(*args, **kwargs):
        seeds.append(kwargs["seed"])
        return train(*args, **kwargs)

    monkeypatch.setattr(module, "fit", counting)
    return seeds


def recipe(monkeypatch, chosen):
    monkeypatch.setattr(module, "recipe_for", lambda data: chosen)


def test_real_images_are_worth_much_and_shuffled_labels_no_more_than_chance(digits, monkeypatch):
    recipe(monkeypatch, LONG)
    images, labels = digits.split("train")
    found = cas(images, labels, digits, seeds=(0,))
    assert found.mean > 0.95
    shuffled = labels[torch.randperm(len(labels), generator=generator("shuffled"))]
    # 270 test images: guessing gives 27 +- 5 right.
    assert cas(images, shuffled, digits, seeds=(0,)).mean == pytest.approx(0.1, abs=0.08)


def test_the_number_is_that_of_the_same_training_by_hand(digits, monkeypatch):
    recipe(monkeypatch, SHORT)
    images, labels = digits.split("validation")
    found = cas(images, labels, digits, seeds=(3, 4))
    test, truth = digits.split("test")
    for seed, accuracy in zip((3, 4), found.accuracies, strict=True):
        classifier = train(images, labels, Domain.of(digits), recipe=SHORT, seed=seed)
        right = sum(
            int(
                classifier.read(test[i : i + 90])
                .probabilities.argmax(1)
                .eq(truth[i : i + 90])
                .sum()
            )
            for i in (0, 90, 180)
        )
        assert accuracy == pytest.approx(right / 270)


def test_mean_and_spread_are_the_textbooks():
    found = Cas((0.9, 0.92, 0.97))
    assert found.mean == pytest.approx(0.93)
    assert found.spread == pytest.approx(((0.03**2 + 0.01**2 + 0.04**2) / 2) ** 0.5)
    assert Cas((0.9,)).spread == 0


def test_a_missing_class_is_one_line_and_trains_nothing(digits, trainings):
    images, labels = digits.split("train")
    kept = (labels != 3) & (labels != 7)
    with pytest.raises(InputError, match="none of 3, 7") as caught:
        cas(images[kept], labels[kept], digits)
    assert "\n" not in str(caught.value)
    assert not trainings


def test_without_a_test_split_it_is_one_line(digits, trainings):
    empty = {**digits.splits, "test": torch.empty(0, dtype=torch.int64)}
    with pytest.raises(InputError, match="digits has none") as caught:
        cas(*digits.split("train"), dataclasses.replace(digits, splits=empty))
    assert "\n" not in str(caught.value)
    assert not trainings


def test_the_watcher_hears_seed_and_images(digits, monkeypatch):
    recipe(monkeypatch, dataclasses.replace(SHORT, images=256))
    heard = []
    cas(
        *digits.split("train"),
        digits,
        seeds=(5, 6),
        watch=lambda *messages: heard.append(messages),
    )
    assert heard == [(5, 128), (5, 256), (6, 128), (6, 256)]


def test_real_images_are_trained_on_once_and_then_known(
    digits, cache, trainings, monkeypatch, logged
):
    recipe(monkeypatch, SHORT)
    first = real_cas(digits)
    assert trainings == list(SEEDS)
    assert len(first.accuracies) == 3
    assert logged == ["cas: training on the real images of digits, once"]
    (kept,) = cache.iterdir()
    assert tuple(json.loads(kept.read_text())) == first.accuracies
    assert real_cas(digits) == first
    assert len(trainings) == 3
    assert len(logged) == 1

    kept.write_text("[0.9, 0.")  # damaged: made anew, the same again
    assert real_cas(digits) == first
    assert len(trainings) == 6

    recipe(monkeypatch, dataclasses.replace(SHORT, rate=0.1))  # another recipe, another number
    real_cas(digits)
    real_cas(dataclasses.replace(digits, fingerprint="other"))
    assert len(trainings) == 12


def test_numbers_that_come_with_the_library_are_believed(
    digits, cache, trainings, tmp_path, monkeypatch, quiet
):
    known = tmp_path / "cas.json"
    known.write_text(json.dumps({module._key(digits): [0.97, 0.98, 0.99]}))
    monkeypatch.setattr(module, "KNOWN", known)
    assert real_cas(digits).mean == pytest.approx(0.98)
    assert not trainings
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_said_and_survived(
    digits, tmp_path, monkeypatch, logged
):
    recipe(monkeypatch, SHORT)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "file"))
    assert len(real_cas(digits).accuracies) == 3
    assert "does not keep it" in logged[-1]


def test_named_sets_have_their_recipes_and_others_five_epochs(digits):
    assert recipe_for(digits) == Recipe.usual(1374)
    assert recipe_for(dataclasses.replace(digits, name="mnist")).images == 300_000
    assert recipe_for(dataclasses.replace(digits, name="fashion-mnist")).images == 600_000


def test_images_of_another_shape_are_refused(digits, monkeypatch):
    recipe(monkeypatch, Recipe(images=8, batch=8))
    images = torch.zeros(20, 1, 9, 9, dtype=torch.uint8)
    with pytest.raises(InputError, match=r"8x8 grey.*9x9 grey"):
        cas(images, torch.arange(20) % 10, digits, seeds=(0,))


def test_classifiers_are_not_kept(digits, cache, monkeypatch):
    """Numbers only: a classifier of samples would be taken for the reference."""
    recipe(monkeypatch, SHORT)
    monkeypatch.setattr(Classifier, "save", None)
    real_cas(digits)
    assert [path.suffix for path in cache.iterdir()] == [".json"]
