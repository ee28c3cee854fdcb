"""What a classifier reads in images: do they show the class that was asked for?

Everything here is a function of `probabilities` (N, K), rows of a classifier that sum to 1, and
`labels` int64 (N,), the classes asked for. An image is read as its most probable class.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.metrics.metric import Group, Metric, Number, Read

__all__ = ["ACCURACY", "SCORE", "accuracy", "classifier_score", "confusion", "per_class"]


def accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Share of images read as the class asked for, 0 to 1; guessing gives 1 / K."""
    counts = confusion(probabilities, labels, probabilities.shape[1])
    return int(counts.diagonal().sum()) / len(labels)


def per_class(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The same for each class asked for: float64 (K,), NaN where no image was asked for."""
    counts = confusion(probabilities, labels, probabilities.shape[1]).double()
    return counts.diagonal() / counts.sum(1)


def confusion(probabilities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Number of images asked for as class i and read as class j: int64 (classes, classes)."""
    _check(probabilities)
    if probabilities.shape[1] != classes:
        raise InputError(
            f"probabilities of {probabilities.shape[1]} classes, but {classes} are counted"
        )
    if labels.shape != probabilities.shape[:1]:
        raise InputError(
            f"{len(probabilities)} images and labels of shape {tuple(labels.shape)}: give one "
            "label an image"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())}: the classifier knows "
            f"0 to {classes - 1}"
        )
    cells = labels * classes + probabilities.argmax(1)
    return torch.bincount(cells, minlength=classes**2).view(classes, classes)


def classifier_score(probabilities: Tensor) -> float:
    """exp of the mean Kullback-Leibler divergence from p(y) to p(y | x), 1 to K.

    The formula of the Inception score (Salimans et al. 2016, arXiv 1606.03498, section 4) on
    the classifier at hand, over all images at once instead of ten parts. High where each image
    is read with confidence and all classes come up alike; it knows nothing of real images.
    """
    _check(probabilities)
    p = probabilities.double()
    p = p / p.sum(1, keepdim=True)  # float32 rows sum to 1 only nearly
    entropy_of_mean = -torch.xlogy(p.mean(0), p.mean(0)).sum()
    mean_entropy = -torch.xlogy(p, p).sum(1).mean()
    return math.exp(max(0.0, float(entropy_of_mean - mean_entropy)))


def _check(probabilities: Tensor) -> None:
    if probabilities.ndim != 2 or probabilities.numel() == 0:
        raise InputError(
            f"probabilities of shape {tuple(probabilities.shape)}: give (N, K), N and K >= 1"
        )


def _measure(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    assert samples.probabilities is not None
    assert samples.labels is not None
    value = accuracy(samples.probabilities, samples.labels)
    return {"accuracy": Number(value, (value * (1 - value) / len(samples.labels)) ** 0.5)}


def _score(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    assert samples.probabilities is not None
    return {"classifier_score": Number(classifier_score(samples.probabilities))}


ACCURACY = Group(
    {"accuracy": Metric("label accuracy", "higher", online=True, swept=True)},
    _measure,
    ("probabilities", "labels"),
)

SCORE = Group(
    {"classifier_score": Metric("classifier score", "higher")}, _score, ("probabilities",)
)
