"""Numbers with their protocol: samples measured against a reference, and two evaluations compared.

`measure` puts floor and anchors beside each number; `compare` refuses numbers of different
protocols.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mezzotint.errors import InputError
from mezzotint.metrics.metric import Direction, Group, Number, Read
from mezzotint.metrics.reference import Reference
from mezzotint.metrics.registry import GROUPS
from mezzotint.runtime.rng import generator

__all__ = ["Measured", "compare", "measure", "thousands"]


@dataclass(frozen=True)
class Measured:
    """A number with all that it takes to read it; `asdict` of it is a contract (JSON)."""

    title: str
    value: float
    error: float | None
    better: Direction

    floor: float | None
    """The same of real train images in the samples' place."""

    anchors: Mapping[str, float]
    """The same of those images, damaged."""

    protocol: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def measure(
    samples: Read, reference: Reference, groups: Mapping[str, Group] = GROUPS
) -> dict[str, Measured]:
    """All metrics of some groups; those that need labels or a classifier only where there are.

    Returns name -> number, in the order of the table; `fd` and `kd` carry n in their names.
    """
    seed = int(reference.facts["seed"])
    n = len(samples.features)
    found: dict[str, Measured] = {}
    for name, group in groups.items():
        if not group.able(samples):
            continue

        def numbers(read: Read, group: Group = group, name: str = name) -> Mapping[str, Number]:
            return group.measure(read, reference.real, generator("measure", seed, name))

        extractor, floor_images = reference.extractor, reference.floor
        if "probabilities" in group.needs and reference.classifier is not None:
            extractor, floor_images = (
                reference.classifier,
                reference.unseen,
            )  # these know no features
        ours, floor = numbers(samples), numbers(floor_images)
        anchors = {anchor: numbers(read) for anchor, read in reference.anchors.items()}
        for key, number in ours.items():
            metric = group.metrics[key]
            found[f"{key}{thousands(n)}" if metric.counted else key] = Measured(
                title=metric.title,
                value=number.value,
                error=number.error,
                better=metric.better,
                floor=floor[key].value if key in floor else None,
                anchors={a: value[key].value for a, value in anchors.items() if key in value},
                protocol={
                    "metric": key,
                    "extractor": extractor.name,
                    "hash": extractor.digest,
                    "resize": extractor.resize,
                    "n": n,
                    **reference.facts,
                },
            )
    return found


def thousands(n: int) -> str:
    """n as a metric's name carries it.

    >>> [thousands(n) for n in (270, 5000, 10000)]
    ['270', '5k', '10k']
    """
    return f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> float:
    """Ours minus theirs for one metric of two evaluations (their JSON); InputError if the
    protocols differ.
    """
    a, b = (found.get(name, {}).get("protocol") for found in (ours, theirs))
    if not a or not b:
        raise InputError(
            f"not both evaluations hold {name} with its protocol: evaluate both alike"
        )
    if other := [key for key in {**a, **b} if a.get(key) != b.get(key)]:
        what = ", ".join(f"{key} {a.get(key)} here and {b.get(key)} there" for key in other)
        raise InputError(f"{name} has two protocols and is not compared: {what}")
    return float(ours[name]["value"] - theirs[name]["value"])
