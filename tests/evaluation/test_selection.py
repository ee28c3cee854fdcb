"""Selection against a loop in plain Python, a stand-in for the model, and real digits."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.data import load
from mezzotint.errors import InputError
from mezzotint.evaluation import selection as module
from mezzotint.evaluation.selection import best_of, effect, refilled
from mezzotint.metrics.corruption import noise
from mezzotint.metrics.extractors.extractor import shipped
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.metrics.reference import Reference
from mezzotint.runtime.rng import generator

# --- the best of every pool -------------------------------------------------------------------


def by_loop(scores, labels, pool, keep):
    """Fill one pool per label, image by image; a full pool gives its best and is emptied."""
    open_pools, kept = {}, []
    for row, (score, label) in enumerate(zip(scores, labels, strict=True)):
        waiting = open_pools.setdefault(label, [])
        waiting.append((score, row))
        if len(waiting) == pool:
            kept += [row for _, row in sorted(waiting, reverse=True)[:keep]]
            waiting.clear()
    return sorted(kept)


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    seed=st.integers(0, 1000),
)
def test_the_best_of_every_pool_are_those_of_the_loop(labels, sizes, seed):
    keep, pool = sorted(sizes)
    scores = torch.rand(len(labels), generator=generator("scores", seed))
    rows = best_of(scores, torch.tensor(labels), pool, keep)
    assert rows.tolist() == by_loop(scores.tolist(), labels, pool, keep)


def test_fifteen_make_three_and_a_pool_of_the_kept_keeps_all():
    labels = torch.arange(10).repeat_interleave(30)
    scores = torch.rand(300, generator=generator("s"))
    rows = best_of(scores, labels, 15, 3)
    assert len(rows) == 10 * 2 * 3
    assert labels[rows].bincount().tolist() == [6] * 10
    assert best_of(scores, labels, 3, 3).tolist() == list(range(300))
    assert scores[rows].mean() > scores.mean() + 0.25


@pytest.mark.parametrize(("pool", "keep"), [(3, 4), (3, 0), (0, 0), (-1, 1)])
def test_an_impossible_choice_is_one_line(pool, keep):
    with pytest.raises(InputError, match=f"keep {keep} of a pool of {pool}") as caught:
        best_of(torch.rand(9), torch.zeros(9, dtype=torch.int64), pool, keep)
    assert "\n" not in str(caught.value)


# --- filled up again --------------------------------------------------------------------------


class Stream:
    """Images that show their place in the stream; what they score is known in advance."""

    def __init__(self, share):
        self.share, self.calls = share, []

    def draw(self, labels, start):
        self.calls.append((labels.tolist(), start))
        places = torch.arange(start, start + len(labels))
        return torch.stack([places % 256, places // 256, labels], 1).byte()[:, :, None, None]

    def score(self, images, labels):
        places = (images[:, 0].int() + 256 * images[:, 1].int()).flatten()
        assert torch.equal(images[:, 2].flatten().long(), labels)
        return torch.tensor(
            [self.worth(int(p), int(k)) for p, k in zip(places, labels, strict=True)]
        )

    def worth(self, place, label):
        luck = float(torch.rand(1, generator=generator("luck", place)))
        return 1 - luck * (1 if label else self.share[1] / self.share[0])

    @property
    def threshold(self):
        """What a share passes: `share[1]` of all labels but 0, `share[0]` of label 0."""
        return 1 - self.share[1]


def collect(source, into):
    for each in source:
        into.append(each)


def test_exactly_the_wanted_number_of_each_label_passes():
    stream = Stream((0.1, 0.6))
    rounds = list(refilled(stream.draw, stream.score, [0, 4, 7], 25, stream.threshold))
    kept = rounds[-1]
    assert Counter(kept.labels.tolist()) == {0: 25, 4: 25, 7: 25}
    assert (kept.scores >= stream.threshold).all()
    # Whoever is kept is the image, label and score of the place in the stream that it names.
    asked = [label for labels, _ in stream.calls for label in labels]
    assert [asked[place] for place in kept.draws.tolist()] == kept.labels.tolist()
    assert torch.equal(stream.score(kept.images, kept.labels), kept.scores)
    shown = kept.images[:, 0].int() + 256 * kept.images[:, 1].int()
    assert shown.flatten().tolist() == kept.draws.tolist()
    assert len(set(kept.draws.tolist())) == 75


def test_of_each_label_the_first_that_pass_are_kept():
    stream = Stream((0.3, 0.3))
    kept = list(refilled(stream.draw, stream.score, [1, 2], 10, stream.threshold))[-1]
    asked = [label for labels, _ in stream.calls for label in labels]
    for label in (1, 2):
        passing = [
            place for place, own in enumerate(asked)
            if own == label and stream.worth(place, own) >= stream.threshold
        ]  # fmt: skip
        assert kept.draws[kept.labels == label].tolist() == passing[:10]


def test_what_passed_is_counted_whether_it_was_wanted_or_not():
    stream = Stream((0.3, 0.9))
    for kept in refilled(stream.draw, stream.score, [0, 1], 10, stream.threshold):
        asked = [label for labels, _ in stream.calls for label in labels]
        good = [stream.worth(place, own) >= stream.threshold for place, own in enumerate(asked)]
        assert (kept.passed, kept.drawn) == (sum(good), len(good))
    assert kept.passed > len(kept.labels) == 20


def test_the_stream_has_no_gaps_and_no_place_twice_and_what_is_full_is_asked_no_more():
    stream = Stream((0.05, 0.9))
    rounds = list(refilled(stream.draw, stream.score, [0, 1], 30, stream.threshold))
    position = 0
    for (labels, start), kept in zip(stream.calls, rounds, strict=True):
        assert start == position
        position += len(labels)
        assert kept.drawn == position
    numbers = [len(kept.labels) for kept in rounds]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 60
    full = min(i for i, kept in enumerate(rounds) if int((kept.labels == 1).sum()) == 30)
    assert full < len(rounds) - 1
    assert all(1 not in labels for labels, _ in stream.calls[full + 1 :])


def test_few_more_are_drawn_than_the_share_that_passes_asks_for():
    stream = Stream((0.5, 0.5))
    kept = list(refilled(stream.draw, stream.score, [1], 500, stream.threshold))[-1]
    assert 900 < kept.drawn < 1300


def test_when_nothing_passes_it_ends_with_one_line_and_nothing_lost():
    stream, rounds = Stream((0.5, 0.5)), []
    with pytest.raises(InputError, match=r"4 images that score 2 .* labels 3: lower") as caught:
        collect(refilled(stream.draw, stream.score, [3], 4, 2.0), rounds)
    assert "\n" not in str(caught.value)
    assert len(rounds) < module.ROUNDS
    assert module.HOPELESS <= rounds[-1].drawn < 2 * module.HOPELESS
    assert len(rounds[-1].labels) == 0
    assert rounds[-1].images.shape == (0, 3, 1, 1)
    assert f"after {rounds[-1].drawn:,} draws" in str(caught.value)


def test_the_label_that_never_passes_is_the_one_that_is_named():
    def score(images, labels):
        return (labels != 5).float()

    stream, rounds = Stream((0.5, 0.5)), []
    with pytest.raises(InputError, match=r"2 images .* of labels 5:"):
        collect(refilled(stream.draw, score, [2, 5], 2, 0.5), rounds)
    assert rounds[-1].labels.tolist() == [2, 2]


def test_not_a_number_does_not_pass():
    stream = Stream((0.5, 0.5))

    def score(images, labels):
        scores = stream.score(images, labels)
        scores[::2] = torch.nan
        return scores

    kept = list(refilled(stream.draw, score, [1], 5, stream.threshold))[-1]
    assert len(kept.labels) == 5
    assert kept.scores.isfinite().all()


# --- what it does -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    return load("digits")


@pytest.fixture(scope="module")
def evaluated(digits):
    """Digits of which half are noisy, with their reference, and the classifier's score."""
    classifier = shipped(digits)
    images, labels = digits.split("train")
    order = labels.argsort(stable=True)
    images, labels = images[order].clone(), labels[order]
    images[::2] = noise(images[::2], 0.5, generator("noise"))
    reference = Reference.of(digits, classifier, classifier, n=270, anchors=())
    samples = reference.read(images, labels)
    scores = samples.probabilities[torch.arange(len(labels)), labels]
    return samples, scores, reference.real


def test_larger_pools_raise_quality_at_equal_numbers(evaluated):
    samples, scores, real = evaluated
    found = effect(samples, scores, real, [2, 4, 10, 20], 2, generator("effect"))
    assert [(row.pool, row.keep) for row in found] == [(2, 2), (4, 2), (10, 2), (20, 2)]
    assert len({row.n for row in found}) == 1
    assert found[0].n == len(best_of(scores, samples.labels, 20, 2))
    for name in ("score", "accuracy"):
        values = [getattr(row, name) for row in found]
        assert values == sorted(values), name
        assert values[-1] > values[0] + 0.1
    assert found[-1].kd < found[0].kd


def test_numbers_are_those_of_the_chosen_rows(evaluated):
    samples, scores, real = evaluated
    found, larger = effect(samples, scores, real, [5, 30], 1, generator("one"))
    rows = best_of(scores, samples.labels, 5, 1)
    # As many as the larger pool leaves, at random: the same number in both.
    rows = rows[torch.randperm(len(rows), generator=generator("one"))]
    rows = rows[: len(best_of(scores, samples.labels, 30, 1))]
    assert larger.n == len(rows)
    own = samples.labels[rows]
    right = (samples.probabilities[rows].argmax(1) == own).double().mean()
    assert found.n == len(rows)
    assert found.accuracy == pytest.approx(float(right))
    assert found.score == pytest.approx(float(scores[rows].double().mean()), rel=1e-6)
    kept = [samples.features[rows][own == k].numpy() for k in range(10)]
    usual = [real.features[real.labels == k].numpy() for k in range(10)]
    spread, real_spread = (
        np.mean([group.var(0, ddof=1).sum() for group in groups if len(group) > 1])
        for groups in (kept, usual)
    )
    assert found.spread == pytest.approx(spread / real_spread, rel=1e-4)
    distance = kernel_distance(samples.features[rows], real.features, generator(0))
    assert found.kd == pytest.approx(distance.value, rel=1e-6)  # one block: the order is nothing


def test_copies_of_one_image_lower_coverage(evaluated):
    """A score that likes one image of each class leaves no variety."""
    samples, _, real = evaluated
    favourite = torch.stack([samples.features[samples.labels == k][1] for k in range(10)])
    copies = dataclasses.replace(samples, features=samples.features.clone())
    liked = torch.arange(len(samples.labels)) % 10 == 3
    copies.features[liked] = favourite[samples.labels[liked]]
    found = effect(copies, liked.float(), real, [1, 10], 1, generator("copies"))
    assert found[1].coverage < 0.5 * found[0].coverage
    assert found[1].spread < 0.1 * found[0].spread
    assert found[1].score == pytest.approx(1, abs=0.01)
