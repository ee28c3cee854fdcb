"""The real images that samples are compared with, their floor and their anchors.

A number alone says nothing. Each comes with the *floor*, the same number of real train images
in the samples' place (nobody can be expected below it; for what the classifier reads, held-out
images, since it knows the train images by heart), and *anchors*: those images blurred, with
noise, and with one class missing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.errors import InputError
from mezzotint.metrics import corruption
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.extractors.extractor import Extractor
from mezzotint.metrics.metric import Read
from mezzotint.runtime.rng import generator

__all__ = ["ANCHORS", "Reference", "chosen"]

BLUR = 1.0
"""Of the anchor: the deviation of a Gaussian, in pixels of the images."""

NOISE = 0.1
"""Of the anchor: a deviation of a tenth of the range."""

ANCHORS: Mapping[str, Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]] = {
    "noise": lambda images, labels, draws: (corruption.noise(images, NOISE, draws), labels),
    "blur": lambda images, labels, draws: (_blurred(images), labels),
    "one class missing": lambda images, labels, draws: corruption.missing_classes(
        images, labels, 1, draws
    ),
}
"""Images and labels with something wrong with them."""


def _blurred(images: Tensor) -> Tensor:
    return corruption.blur(images, BLUR * 28 / images.shape[-1])


@dataclass(frozen=True)
class Reference:
    """The real images that samples are held against, read once, with floor and anchors."""

    real: Read
    floor: Read
    anchors: Mapping[str, Read]
    facts: Mapping[str, Any]
    """Of the protocol: source, fingerprint, split, numbers of images, seed."""

    extractor: Extractor
    classifier: Classifier | None

    @property
    def unseen(self) -> Read:
        """Real images that the classifier was not trained on: it reads its own too well."""
        return self.floor if self.facts["split"] == "train" else self.real

    @staticmethod
    def of(
        data: ImageSet,
        extractor: Extractor,
        classifier: Classifier | None,
        *,
        n: int,
        split: str = "test",
        seed: int = 0,
        anchors: Iterable[str] = tuple(ANCHORS),
    ) -> "Reference":
        """At most n images of a split; floor and anchors of train images (or, where that is the
        split, of test images) as many.
        """
        other = "test" if split == "train" else "train"
        rows_of = {name: chosen(data, name, n, seed) for name in (split, other)}
        real, floor = ((data.images[rows], data.labels[rows]) for rows in rows_of.values())
        read = _reader(extractor, classifier)
        return Reference(
            real=read(*real),
            floor=read(*floor),
            anchors={
                name: read(*ANCHORS[name](*floor, generator("anchor", seed, name)))
                for name in anchors
            },
            facts={
                "against": data.name,
                "fingerprint": data.fingerprint,
                "split": split,
                "n_reference": len(real[0]),
                "n_floor": len(floor[0]),
                "seed": seed,
            },
            extractor=extractor,
            classifier=classifier,
        )

    def read(self, images: Tensor, labels: Tensor | None) -> Read:
        """Images uint8 (N, C, H, W) as extractor and classifier see them."""
        return _reader(self.extractor, self.classifier)(images, labels)


def chosen(data: ImageSet, split: str, n: int, seed: int) -> Tensor:
    """Rows of at most n images of a split, drawn without repetition, ascending."""
    rows = data.splits.get(split, torch.empty(0))
    if len(rows) == 0:
        raise InputError(f"{data.name} has no {split} images to measure with")
    order = torch.randperm(len(rows), generator=generator("reference", seed, split))
    return rows[order[:n]].sort().values


def _reader(
    extractor: Extractor, classifier: Classifier | None
) -> Callable[[Tensor, Tensor | None], Read]:
    def read(images: Tensor, labels: Tensor | None) -> Read:
        different = len({image.tobytes() for image in images.numpy()})
        if classifier is None:
            return Read(extractor.features(images), None, labels, different)
        reading = classifier.read(images)
        own = extractor is classifier
        features = reading.features if own else extractor.features(images)
        return Read(features, reading.probabilities, labels, different)

    return read
