"""Numbers with their protocol: every metric by name, its extractor, its floor and anchors.

    metric group --measure(samples, reference)--> numbers
    fd           Frechet distance, and the same at infinite n
    kd           kernel distance
    coverage     density, coverage and their clipped forms
    accuracy     share of samples read as their label
    score        the Inception score's formula on the set's own classifier
    distinct     share of samples that are left when copies of each other count once

A number alone says nothing. Each comes with the *floor*, the same number of real train images
in the samples' place (nobody can be expected below it; for what the classifier reads, held-out
images, since it knows the train images by heart), and *anchors*: those images blurred, with
noise, and with one class missing. `compare` refuses numbers of different protocols.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.errors import InputError
from mezzotint.metrics import corruption
from mezzotint.metrics.accuracy import accuracy, classifier_score
from mezzotint.metrics.coverage import Coverage, coverage
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.extractors.extractor import Extractor
from mezzotint.metrics.frechet import extrapolated, frechet_distance, moments
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.runtime.rng import generator

__all__ = [
    "ANCHORS",
    "DIRECTIONS",
    "GROUPS",
    "Direction",
    "Measured",
    "Number",
    "Read",
    "Reference",
    "chosen",
    "compare",
    "even_coverage",
    "measure",
    "sign",
]

Direction = Literal["lower", "higher"]
"""Which values of a metric are better."""

BLUR = 1.0
"""Of the anchor: the deviation of a Gaussian, in pixels of the images."""

NOISE = 0.1
"""Of the anchor: a deviation of a tenth of the range."""


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


@dataclass(frozen=True)
class Metric:
    """One name in the table."""

    title: str
    better: Direction
    counted: bool = False
    """Whether its value depends on n so much that the name says n: fd10k."""


@dataclass(frozen=True)
class Group:
    """Metrics that are computed together."""

    metrics: Mapping[str, Metric]
    measure: Callable[[Read, Read, torch.Generator], Mapping[str, Number]]
    needs: tuple[str, ...] = ()
    """Fields of `Read` that may be missing and are needed here."""


def even_coverage(real: Tensor, samples: Tensor, draws: torch.Generator) -> Coverage:
    """Coverage of equally many images: of the larger set, so many are drawn at random."""
    n = min(len(real), len(samples))
    real, samples = (x[torch.randperm(len(x), generator=draws)[:n]] for x in (real, samples))
    return coverage(real, samples)


def _fd(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    reference = moments(real.features)
    value = Number(frechet_distance(moments(samples.features), reference))
    if len(samples.features) < 10 * samples.features.shape[1]:  # too few to extrapolate from
        return {"fd": value}
    limit = extrapolated(samples.features, reference, draws)
    return {"fd": value, "fd_infinite": Number(limit.value, limit.error)}


def _kd(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    found = kernel_distance(samples.features, real.features, draws)
    return {"kd": Number(found.value, found.error)}


def _coverage(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    found = even_coverage(real.features, samples.features, draws)
    return {name: Number(value) for name, value in asdict(found).items()}


def _accuracy(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    assert samples.probabilities is not None
    assert samples.labels is not None
    value = accuracy(samples.probabilities, samples.labels)
    return {"accuracy": Number(value, (value * (1 - value) / len(samples.labels)) ** 0.5)}


def _score(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    assert samples.probabilities is not None
    return {"classifier_score": Number(classifier_score(samples.probabilities))}


def _distinct(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    assert samples.different is not None
    return {"distinct": Number(samples.different / len(samples.features))}


GROUPS: Mapping[str, Group] = {
    "fd": Group(
        {
            "fd": Metric("Frechet distance", "lower", counted=True),
            "fd_infinite": Metric("Frechet distance, extrapolated to infinitely many", "lower"),
        },
        _fd,
    ),
    "kd": Group({"kd": Metric("kernel distance", "lower", counted=True)}, _kd),
    "coverage": Group(
        {
            "density": Metric("density", "higher"),
            "coverage": Metric("coverage", "higher"),
            "clipped_density": Metric("clipped density", "higher"),
            "clipped_coverage": Metric("clipped coverage", "higher"),
        },
        _coverage,
    ),
    "accuracy": Group(
        {"accuracy": Metric("label accuracy", "higher")}, _accuracy, ("probabilities", "labels")
    ),
    "score": Group(
        {"classifier_score": Metric("classifier score", "higher")}, _score, ("probabilities",)
    ),
    "distinct": Group(
        {"distinct": Metric("share of different images", "higher")}, _distinct, ("different",)
    ),
}
"""By the names that `evaluate --metrics` takes."""

DIRECTIONS: Mapping[str, Direction] = {
    name: metric.better for group in GROUPS.values() for name, metric in group.metrics.items()
}
"""The better direction of each metric in `GROUPS`."""


def sign(name: str) -> int:
    """Return 1 for a metric of which higher is better, -1 for one of which lower is.

    >>> sign("coverage"), sign("fd")
    (1, -1)
    """
    return 1 if DIRECTIONS[name] == "higher" else -1


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
        if any(getattr(samples, field) is None for field in group.needs):
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
