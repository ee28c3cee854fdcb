"""Cheap metrics in training: a few samples in few evaluations, measured at intervals.

They show the course, not the final number: the samples are few, the evaluations too, and the
reference is the validation split (a checkpoint must not be chosen on the images that evaluate it).
"""

import time
from dataclasses import dataclass

import torch

from mezzotint.data import ImageSet
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.metrics.reference import Reference, chosen
from mezzotint.metrics.registry import GROUPS, sign
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch

__all__ = ["EVALUATIONS", "OnlineMetrics", "beats"]

EVALUATIONS = 10
"""Of the network per sample, at most."""

PROBE = 64
"""Samples drawn to estimate what a measurement costs."""


def beats(name: str, new: float, old: float) -> bool:
    """Return whether a metric's new value is better than its old one."""
    return sign(name) * new > sign(name) * old


@dataclass(frozen=True)
class OnlineMetrics:
    """The reference, read once, and how many samples are drawn each time."""

    reference: Reference
    drawing: SampleBatch
    """What to draw: the reference's own labels and styles, repeated to n."""

    @staticmethod
    def of(data: ImageSet, n: int, device: str) -> "OnlineMetrics":
        """Read the reference for n samples; make the set's classifier if there is none yet.

        Args:
            data: The data set.
            n: Number of samples that are drawn at each measurement.
            device: Where the classifier reads images, such as "cuda".

        """
        classifier = classifier_for(data).on(device)
        reference = Reference.of(data, classifier, classifier, n=n, split="validation", anchors=())
        held = chosen(data, "validation", n, seed=0)
        rows = held[torch.arange(n) % len(held)]
        return OnlineMetrics(reference, SampleBatch.of(data.labels[rows], 0, data.styles_of(rows)))

    def cost(self, model: Model) -> float:
        """Seconds that a measurement will take, about."""
        probe = self.drawing[:PROBE]
        model.changed(evaluations=1).sample_batch(
            probe
        )  # starting up is paid once, not by every sample
        started = time.perf_counter()
        _draw(model, probe)
        return (time.perf_counter() - started) / len(probe) * len(self.drawing)

    def measure(self, model: Model) -> dict[str, float]:
        """Return the numbers of `registry.online_metrics` for a model's samples.

        A metric is missing where the samples do not suffice for it.
        """
        samples = self.reference.read(_draw(model, self.drawing), self.drawing.labels)
        draws = generator("gauge")
        values: dict[str, float] = {}
        images = min(len(samples.features), len(self.reference.real.features))
        for group in GROUPS.values():
            online = [name for name, metric in group.metrics.items() if metric.online]
            if online and group.able(samples) and images >= group.fewest:
                found = (group.quick or group.measure)(samples, self.reference.real, draws)
                values |= {name: found[name].value for name in online if name in found}
        return values


def _draw(model: Model, drawing: SampleBatch) -> torch.Tensor:
    few = model.changed(evaluations=min(EVALUATIONS, model.sampling.evaluations))
    return few.sample_batch(drawing)
