"""What a metric is: images as they are read, numbers, and the groups computed together.

A new metric is a file with a `Group` and a line in `registry.GROUPS`. Its titles and directions,
and whether training logs it or a sweep has it, are said in its group and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Direction", "Group", "Measure", "Metric", "Number", "Read"]

Direction = Literal["lower", "higher"]
"""Which values of a metric are better."""


@dataclass(frozen=True)
class Read:
    """Images as an extractor and a classifier read them."""

    features: Tensor
    """float32 (N, D)."""

    probabilities: Tensor | None = None
    """float32 (N, classes) of the set's own classifier; None where there is none."""

    labels: Tensor | None = None
    """int64 (N,), what the images were meant to be; None where nobody says."""

    different: int | None = None
    """How many different images there are among the N."""


@dataclass(frozen=True)
class Number:
    """A value, and its standard error where it is known."""

    value: float
    error: float | None = None


Measure = Callable[[Read, Read, torch.Generator], Mapping[str, Number]]
"""(samples, real images, random generator) -> number by metric; a metric may be missing."""


@dataclass(frozen=True)
class Metric:
    """One name in the table."""

    title: str
    better: Direction
    counted: bool = False
    """Whether its value depends on n so much that the name says n: fd10k."""

    online: bool = False
    """Whether it is measured in training (`training.metrics_every`) and may be `training.best`."""

    swept: bool = False
    """Whether `sweep` has it."""


@dataclass(frozen=True)
class Group:
    """Metrics that are computed together."""

    metrics: Mapping[str, Metric]
    measure: Measure
    needs: tuple[str, ...] = ()
    """Fields of `Read` that may be missing and are needed here."""

    quick: Measure | None = None
    """The same for measurements in training, where `measure` takes long; None: `measure`."""

    fewest: int = 1
    """Least number of samples and of real images; training leaves the group out below it."""

    even_sizes: bool = False
    """Whether as many samples as real images are compared, so that others are left out."""

    def able(self, samples: Read) -> bool:
        """Return whether samples have all that is needed."""
        return all(getattr(samples, field) is not None for field in self.needs)
