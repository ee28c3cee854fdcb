"""Metrics that the benchmarks share: Frechet distance of classifier features, and what is read.

Against a whole split, the test split where none is named, by the set's pinned classifier
(`mezzotint evaluate` takes as many test images as there are samples, so its numbers of few
samples are larger); the floor is the same distance of as many real train images, since n moves
both.
"""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import mezzotint
from mezzotint.data import ImageSet, load
from mezzotint.metrics.accuracy import accuracy
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.metrics.frechet import Moments, frechet_distance, moments
from mezzotint.metrics.reference import Reference
from mezzotint.runs.run import Run
from mezzotint.sampling.model import SampleBatch


@dataclass(frozen=True)
class Quality:
    above: float
    """Frechet distance less the floor."""

    accuracy: float
    """Share of samples that are read as their label."""


@dataclass(frozen=True)
class Metric:
    """A data set's held-out images, read once, for samples of a number."""

    data: ImageSet
    n: int
    reference: Reference
    real: Moments
    floor: float

    @staticmethod
    def of(source: str, n: int, split: str = "test") -> "Metric":
        data = load(source)
        classifier = classifier_for(data)
        reference = Reference.of(
            data, classifier, classifier, n=len(data.splits[split]), split=split, anchors=()
        )
        real = moments(reference.real.features)
        train = moments(reference.floor.features[:n])
        return Metric(data, n, reference, real, frechet_distance(train, real))

    def measure(self, images: Tensor, labels: Tensor) -> Quality:
        """Of n images uint8 (n, C, H, W) with the labels that were asked for."""
        assert len(images) == self.n, f"{len(images)} images, the floor is of {self.n}"
        read = self.reference.read(images, labels)
        fd = frechet_distance(moments(read.features), self.real)
        assert read.probabilities is not None
        return Quality(fd - self.floor, accuracy(read.probabilities, labels))

    def measured(self, run: Run, seed: int) -> dict[str, Any]:
        """A run's validation loss and what n samples of it are worth; kept beside the run."""
        asked = {"images": run.images_seen(), "n": self.n, "seed": seed}
        kept = run.path / "quality.json"
        if kept.exists() and (found := json.loads(kept.read_text()))["asked"] == asked:
            return dict(found)
        labels = torch.arange(self.n) % len(self.data.classes)
        model = mezzotint.load(run)
        styles = torch.zeros(self.n, len(model.styles), dtype=torch.float64)  # the first of each
        images = model.sample_batch(SampleBatch.of(labels, seed, styles))
        quality = self.measure(images, labels)
        rows = [json.loads(line) for line in run.metrics.read_text().splitlines()]
        losses = [row["loss"] for row in rows if row["kind"] == "validation"]
        found = {"asked": asked, "loss": losses[-1]}
        found |= {"above": quality.above, "accuracy": quality.accuracy}
        kept.write_text(json.dumps(found))
        return found
