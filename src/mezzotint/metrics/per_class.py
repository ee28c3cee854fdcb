"""Metrics of each class by itself."""

from collections.abc import Sequence
from typing import Any

from mezzotint.metrics import accuracy
from mezzotint.metrics.coverage import even_coverage
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.metrics.metric import Read
from mezzotint.runtime.rng import generator

__all__ = ["CLASS_BLOCK", "FEWEST", "class_rows"]

FEWEST = 20
"""Least number of images of a class for which distances are computed."""

CLASS_BLOCK = 100
"""Images in a block of a class's kernel distance; its error is that over blocks."""


def class_rows(
    samples: Read, real: Read, classes: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Compute accuracy, kernel distance, density and coverage of every class.

    Args:
        samples: Readings of the samples, with probabilities and labels.
        real: Readings of the real images, with probabilities and labels.
        classes: One name per class.
        seed: Seed of the random blocks and subsets.

    Returns:
        A row per class, as plain JSON: `class` and `n`; `accuracy`, its error and that of real
        images where the class has samples; `kd`, its error, `density` and `coverage` where it has
        `FEWEST` samples and real images or more.

    """
    assert samples.probabilities is not None
    assert samples.labels is not None
    assert real.probabilities is not None
    assert real.labels is not None
    ours = accuracy.per_class(samples.probabilities, samples.labels)
    theirs = accuracy.per_class(real.probabilities, real.labels)
    rows = []
    for label, name in enumerate(classes):
        own, real_own = samples.labels == label, real.labels == label
        row: dict[str, Any] = {"class": name, "n": int(own.sum())}
        if own.any():
            right = float(ours[label])
            row |= {
                "accuracy": right,
                "accuracy_error": (right * (1 - right) / int(own.sum())) ** 0.5,
                "accuracy_real": float(theirs[label]),
            }
        if min(int(own.sum()), int(real_own.sum())) >= FEWEST:
            draws = generator("class", seed, label)
            features, real_features = samples.features[own], real.features[real_own]
            shares = even_coverage(real_features, features, draws)
            distance = kernel_distance(features, real_features, draws, block=CLASS_BLOCK)
            row |= {
                "kd": distance.value,
                "kd_error": distance.error,
                "density": shares.density,
                "coverage": shares.coverage,
            }
        rows.append(row)
    return rows
