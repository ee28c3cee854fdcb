"""Metrics of each class, against plain counting and the same metrics of one class alone."""

import torch

from mezzotint.metrics.coverage import coverage
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.metrics.metric import Read
from mezzotint.metrics.per_class import CLASS_BLOCK, FEWEST, class_rows
from mezzotint.runtime.rng import generator


def made(counts, seed):
    """Readings with counts[k] images of class k, read right with a chance of two thirds."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    features = torch.randn(len(labels), 4, generator=draws) + labels[:, None]
    right = torch.rand(len(labels), generator=draws) < 2 / 3
    said = torch.where(right, labels, (labels + 1) % len(counts))
    return Read(features, torch.nn.functional.one_hot(said, len(counts)).float(), labels)


def test_rows_hold_what_the_class_alone_would_give():
    counts = [40, FEWEST - 1, 0, 40]
    samples, real = made(counts, 0), made([40, 40, 40, FEWEST - 1], 1)
    rows = class_rows(samples, real, "abcd", seed=3)
    assert [(row["class"], row["n"]) for row in rows] == list(zip("abcd", counts, strict=True))
    for label, row in enumerate(rows):
        own = samples.labels == label
        if counts[label] == 0:
            assert set(row) == {"class", "n"}
            continue
        right = samples.probabilities[own].argmax(1) == label
        value = int(right.sum()) / counts[label]
        assert row["accuracy"] == value
        assert abs(row["accuracy_error"] ** 2 - value * (1 - value) / counts[label]) < 1e-12
        assert ("kd" in row) == (label == 0)
    ours, theirs = samples.features[:40], real.features[:40]
    draws = generator("class", 3, 0)
    first, second = (torch.randperm(40, generator=draws) for _ in range(2))
    assert rows[0]["coverage"] == coverage(theirs[first], ours[second]).coverage
    assert rows[0]["density"] == coverage(theirs[first], ours[second]).density
    distance = kernel_distance(ours, theirs, draws, block=CLASS_BLOCK)
    assert (rows[0]["kd"], rows[0]["kd_error"]) == (distance.value, distance.error)
