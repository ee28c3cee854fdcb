"""Scores by name: the classifier's by hand, CLIP's by a stand-in that knows what it is shown."""

import dataclasses

import pytest
import torch

from mezzotint.errors import InputError
from mezzotint.metrics.clip import scorers, small_clip
from mezzotint.metrics.clip.clip import TransformersClip, quality_scores
from mezzotint.metrics.clip.scorers import clip_for, scorer
from mezzotint.metrics.corruption import blur
from mezzotint.metrics.extractors.extractor import shipped


@pytest.fixture
def fits(monkeypatch):
    """The calls of the small CLIP's training, cut to next to nothing."""
    calls = []

    def short(*args, **kwargs):
        calls.append((args, kwargs))
        recipe = small_clip.Recipe(images=256)
        return small_clip.fit(*args, **{**kwargs, "recipe": recipe})

    monkeypatch.setattr(scorers, "fit", short)
    return calls


def test_the_classifiers_score_is_the_probability_of_the_intended_class(digits, quiet):
    images, labels = digits.split("test")
    score = scorer(digits, "classifier")
    probabilities = shipped(digits).read(images).probabilities
    found = score(images, labels)
    assert found.tolist() == [float(p[k]) for p, k in zip(probabilities, labels, strict=True)]
    wrong = score(images, (labels + 1) % 10)
    assert (found > wrong).double().mean() > 0.97
    assert score(blur(images, 3), labels).mean() < found.mean() - 0.2


def test_the_small_clip_is_trained_once_and_kept(digits, cache, fits, logged):
    first = clip_for(digits, "clip")
    assert len(fits) == 1
    (images, labels, captioner), kwargs = fits[0]
    expected = digits.split("train")
    assert torch.equal(images, expected[0])
    assert torch.equal(labels, expected[1])
    assert kwargs["name"] == "digits"
    assert logged[0].startswith("training the small CLIP of digits, once")
    assert [path.name for path in cache.iterdir()] == [small_clip.file_name(digits.fingerprint)]
    again = clip_for(digits, "clip")
    assert len(fits) == len(logged) == 1
    assert torch.equal(again.embed_images(images[:9]), first.embed_images(images[:9]))
    clip_for(dataclasses.replace(digits, fingerprint="other"), "clip")
    assert len(fits) == 2


def test_clips_score_is_the_quality_by_that_clip(digits, cache, fits):
    images, labels = digits.split("test")
    images, labels = images[:20], labels[:20]
    score = scorer(digits, "clip")
    clip = clip_for(digits, "clip")
    expected = quality_scores(clip, images, labels, digits.classes)
    assert torch.equal(score(images, labels), expected)
    assert expected.shape == (20,)


def test_a_named_clip_is_handed_to_transformers(digits, monkeypatch, quiet):
    asked = []
    monkeypatch.setattr(TransformersClip, "load", lambda name: asked.append(name) or "it")
    assert clip_for(digits, "clip:some/model") == "it"
    assert clip_for(digits, "clip:C:/folder") == "it"
    assert asked == ["some/model", "C:/folder"]


def test_a_cache_that_cannot_be_written_is_said_and_survived(
    digits, fits, tmp_path, monkeypatch, logged
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "file" / "cache"))
    clip_for(digits, "clip")
    assert "keeps no CLIP" in logged[-1]


@pytest.mark.parametrize("name", ["beauty", "", "classifier:x", "Clip"])
def test_an_unknown_score_is_one_line(digits, name, quiet):
    with pytest.raises(InputError, match=f"'{name}' is no score: give clip, clip:ID") as caught:
        scorer(digits, name)
    assert "\n" not in str(caught.value)


def test_an_unknown_clip_is_one_line(digits, quiet):
    with pytest.raises(InputError, match="'classifier' is no CLIP"):
        clip_for(digits, "classifier")
