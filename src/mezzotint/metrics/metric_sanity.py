"""Check the metrics: real images, damaged more and more, and what each metric says.

    python -m mezzotint.metrics.metric_sanity mnist

prints the table of docs/evaluation.md: train images in the samples' place, against the test
split, with growing blur, noise and erased squares, with classes missing, labels shuffled, and
half of the images replaced by copies of the other half.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.data import ImageSet, load
from mezzotint.metrics.corruption import blur, erase, missing_classes, noise
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.metrics.reference import Reference
from mezzotint.metrics.registry import GROUPS
from mezzotint.runtime.log import log
from mezzotint.runtime.rng import generator

__all__ = ["Row", "damaged", "sanity_rows", "table"]

BLURS = (0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0)
NOISES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
ERASED = (0.02, 0.05, 0.1, 0.2, 0.4)
MISSING = (1, 2, 3, 5, 8)

Damage = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Row:
    """One kind and amount of damage."""

    damage: str
    amount: float
    values: Mapping[str, float]
    """By metric."""


def damaged(classes: int) -> Iterator[tuple[str, float, Damage]]:
    """Every damage, by kind and amount; each begins with none."""
    for radius in (0.0, *BLURS):
        yield "blur", radius, lambda x, y, g, r=radius: (blur(x, r), y)  # type: ignore[misc]
    for share in (0.0, *NOISES):
        yield "noise", share, lambda x, y, g, s=share: (noise(x, s, g), y)  # type: ignore[misc]
    for share in (0.0, *ERASED):
        yield "erased", share, lambda x, y, g, s=share: (erase(x, s, g), y)  # type: ignore[misc]
    for count in (0, *(m for m in MISSING if m < classes)):
        yield "classes missing", count, lambda x, y, g, c=count: missing_classes(x, y, c, g)  # type: ignore[misc]
    yield "labels shuffled", 1.0, lambda x, y, g: (x, y[torch.randperm(len(y), generator=g)])
    yield "half duplicated", 0.5, _halved


def sanity_rows(data: ImageSet, classifier: Classifier, n: int = 10_000) -> list[Row]:
    """All metrics of `GROUPS` for every damage."""
    reference = Reference.of(data, classifier, classifier, n=n, anchors=())
    rows = data.splits["train"]
    rows = rows[torch.randperm(len(rows), generator=generator("rulers"))[:n]]
    images, labels = data.images[rows], data.labels[rows]
    found = []
    for kind, amount, damage in damaged(len(data.classes)):
        draws = generator("rulers", kind, str(amount))
        samples = reference.read(*damage(images, labels, draws))
        values: dict[str, float] = {}
        for group in GROUPS.values():
            numbers = group.measure(samples, reference.real, generator("rulers"))
            values |= {name: number.value for name, number in numbers.items()}
        found.append(Row(kind, amount, values))
    return found


def table(rows: list[Row]) -> str:
    """As Markdown."""
    names = list(rows[0].values)
    lines = [f"| damage | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for row in rows:
        cells = " | ".join(f"{row.values[name]:.4g}" for name in names)
        lines.append(f"| {row.damage} {row.amount:g} | {cells} |")
    return "\n".join(lines)


def _halved(images: Tensor, labels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    half = torch.randperm(len(images), generator=draws)[: len(images) // 2]
    rows = torch.cat([half, half])
    return images[rows], labels[rows]


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    for source in sys.argv[1:]:
        chosen = load(source)
        print(f"\n{source}\n\n{table(sanity_rows(chosen, classifier_for(chosen)))}")
