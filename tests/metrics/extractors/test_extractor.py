"""Which classifier evaluates a set: shipped, cached, or trained once; and what goes wrong."""

import dataclasses
import json
import types

import pytest
import torch

from mezzotint.errors import DataError, InputError
from mezzotint.metrics.extractors import extractor as module
from mezzotint.metrics.extractors.classifier import VERSION, Classifier, Domain, Recipe
from mezzotint.metrics.extractors.extractor import WEIGHTS, classifier_for, shipped

SHORT = Recipe(images=640)


@pytest.fixture
def mine(digits):
    """Somebody's own set: digits under a name that nobody ships weights for."""
    return dataclasses.replace(digits, name="mine")


@pytest.fixture
def fits(monkeypatch):
    """The calls of `fit`, which are made all the same."""
    calls = []

    def counting(*args, **kwargs):
        calls.append({"domain": args[2], **kwargs})
        return fit(*args, **kwargs)

    fit = module.fit
    monkeypatch.setattr(module, "fit", counting)
    return calls


def of_classes(data, count):
    """Only the first classes of a set."""
    kept = {
        name: rows[data.labels[rows] < count] for name, rows in data.splits.items()
    }  # the images stay; nobody looks at them
    return dataclasses.replace(
        data, name=f"{count} of them", classes=data.classes[:count], splits=kept,
        fingerprint=f"{data.fingerprint}-{count}",
    )  # fmt: skip


def test_digits_are_evaluated_by_the_shipped_weights_in_silence(digits, cache, fits, quiet):
    found = classifier_for(digits)
    assert found.digest == Classifier.load(WEIGHTS / "digits.safetensors").digest
    assert found.name == "digits classifier"
    assert (found.resize, found.shape, found.classes) == ("none", (1, 8, 8), digits.classes)
    assert not fits
    assert not cache.exists()


def test_shipped_weights_are_for_the_very_set_only(digits, mine):
    assert shipped(digits) is not None
    assert shipped(mine) is None
    assert shipped(dataclasses.replace(digits, name="digits/")) is None
    assert shipped(dataclasses.replace(digits, classes=tuple("abcdefghij"))) is None
    larger = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    assert shipped(dataclasses.replace(digits, images=larger)) is None


def test_another_set_gets_its_own_trained_once_and_kept(mine, cache, fits, logged):
    first = classifier_for(mine, SHORT)
    assert len(fits) == 1
    assert (fits[0]["domain"], fits[0]["recipe"]) == (Domain.of(mine), SHORT)
    assert "640 images" in logged[0]
    images, labels = mine.split("test")
    right = (first.read(images).probabilities.argmax(1) == labels).double().mean()
    assert f"it reads {right:.1%} of 270 held-out images right" in logged
    assert [path.name for path in cache.iterdir()] == [
        f"classifier-{mine.fingerprint}-{SHORT.digest}-v{VERSION}.safetensors"
    ]
    lines = len(logged)
    again = classifier_for(mine, SHORT)
    assert (len(fits), len(logged)) == (1, lines)
    assert again.digest == first.digest
    assert torch.equal(again.features(images[:9]), first.features(images[:9]))


def test_it_is_trained_on_the_train_split_alone(mine, cache, monkeypatch):
    arguments = []

    def watching(images, labels, *args, **kwargs):
        arguments.append((images, labels))
        return fit(images, labels, *args, **kwargs)

    fit = module.fit
    monkeypatch.setattr(module, "fit", watching)
    classifier_for(mine, Recipe(images=128))
    (images, labels), (expected, truth) = arguments[0], mine.split("train")
    assert torch.equal(images, expected)
    assert torch.equal(labels, truth)


def test_other_data_and_another_recipe_have_files_of_their_own(mine, cache, fits):
    one = Recipe(images=128)
    classifier_for(mine, one)
    classifier_for(mine, dataclasses.replace(one, rate=0.1))
    classifier_for(dataclasses.replace(mine, fingerprint="other"), one)
    assert len(fits) == len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_cache_file_is_one_line(mine, cache, content):
    classifier_for(mine, Recipe(images=128))
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:5000] if content is None else content)
    with pytest.raises(DataError, match=r"v\d+\.safetensors is damaged: delete it") as caught:
        classifier_for(mine, Recipe(images=128))
    assert "\n" not in str(caught.value)
    path.unlink()
    classifier_for(mine, Recipe(images=128))


def test_a_cache_that_cannot_be_written_is_said_and_survived(mine, tmp_path, monkeypatch, logged):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "file" / "cache"))
    found = classifier_for(mine, Recipe(images=128))
    assert found.shape == (1, 8, 8)
    assert "keeps no classifier (Not a directory)" in logged[-1]


def test_one_class_has_no_classifier(digits, cache, quiet):
    with pytest.raises(InputError, match=r"single class.*--extractor") as caught:
        classifier_for(of_classes(digits, 1))
    assert "\n" not in str(caught.value)


@dataclasses.dataclass
class Guesser:
    """Reads a share of the images that it is shown right."""

    labels: torch.Tensor
    classes: int
    share: float

    def read(self, images):
        wrong = torch.arange(len(self.labels)) >= self.share * len(self.labels)
        read = (self.labels + wrong) % self.classes
        return types.SimpleNamespace(probabilities=torch.nn.functional.one_hot(read).float())

    def save(self, path):
        pass


@pytest.mark.parametrize(
    ("classes", "share", "warns"),
    [(2, 0.98, False), (2, 0.7, True), (3, 0.7, False), (10, 0.6, False), (10, 0.5, True)],
)
def test_only_a_classifier_nearer_to_chance_than_to_all_is_warned_of(
    digits, cache, monkeypatch, classes, share, warns, logged
):
    """98 % of two classes is no few, 70 % is: chance alone reads half of them."""
    data = of_classes(digits, classes)
    guesser = Guesser(data.split("test")[1], classes, share)
    monkeypatch.setattr(module, "fit", lambda *args, **kwargs: guesser)
    classifier_for(dataclasses.replace(data, name="mine"))
    assert any("that is few" in line for line in logged) == warns


def test_without_a_test_split_it_is_checked_on_validation(mine, cache, logged):
    splits = {**mine.splits, "test": torch.empty(0, dtype=torch.int64)}
    classifier_for(dataclasses.replace(mine, splits=splits), Recipe(images=128))
    assert "of 153 held-out images" in logged[1]


def test_nothing_in_a_file_is_code(mine, cache):
    """Weights and JSON alone: the facts are readable without torch."""
    classifier_for(mine, Recipe(images=128))
    (path,) = cache.iterdir()
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    facts = json.loads(header["__metadata__"]["classifier"])
    assert facts == {
        "name": "mine", "classes": list(mine.classes), "shape": [1, 8, 8], "mirrored": False,
    }  # fmt: skip
