"""When does noise become a picture? What a reader reads at every level, in both processes.

A *reader* is any callable from uint8 images (N, C, H, W) to class probabilities (N, K): the set's
own classifier, CLIP's zero-shot softmax. It *reads* the most probable class where that has at
least `threshold` (0.5) of the probability, and nothing otherwise.

    process   view            what is read at a level                          its share
    reverse   x0              the estimate D(x; sigma, label) made at it       evaluations / all
    reverse   x               the state, shown as x / sqrt(1 + sigma^2)        the same
    reverse   unconditional   the estimate of that state without its label     the same
    forward   x               x0 + sigma eps of a real image, shown likewise   u of the schedule
    forward   unconditional   the estimate of it without its label             the same

The three differ much. A conditional model's first x0 is the average image of the class asked
for, and is read as that class. A reader of clean pictures loses x in noise long before a person
does. `unconditional` says from which level on the state itself holds the class, whoever looks.

Levels run from noise to picture in both processes. An image is *recognised* at a level where its
intended class is read. `first` is the noisiest level where that is so; `final` the noisiest from
which on it is so at every level. In the forward process, read the other way, `final` is thus
the last level before the image is lost, and `first` the last at which it is seen at all.

Readers find classes in pure noise: a classifier that calls all noise "8" would recognise 8 before
anything is drawn. So a level counts for a class only where the reading is evidence: where the
class's own images are read as it at least three times as often as the images of other classes
(a likelihood ratio of 3; Kass & Raftery 1995, section 3.2). Both shares are in the result. Where
all images are of one class there is nothing to compare with, and every level counts.

Quartiles are order statistics (the smallest level by which that share of the images is
recognised), with images never recognised at the far end, so they need no correction for them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from mezzotint.diffusion import Denoise, Schedule, Step
from mezzotint.errors import InputError
from mezzotint.imaging import check_batch, to_float, to_uint8
from mezzotint.imaging.pixels import shown

__all__ = [
    "EVIDENCE",
    "NOTHING",
    "Arrival",
    "ClassRecognition",
    "Level",
    "Reader",
    "Readings",
    "Recognition",
    "merged",
    "recognise_forward",
    "recognise_reverse",
    "shown",
    "summarise",
    "read_classes",
]

Reader = Callable[[Tensor], Tensor]
"""uint8 images (N, C, H, W) -> probabilities (N, K)."""

NOTHING = -1
"""What is read where no class is probable enough."""

EVIDENCE = 3.0
"""How many times as often as in other images a class must be read in its own."""

CHUNK = 128


@dataclass(frozen=True)
class Level:
    """A moment of a process."""

    share: float
    """Of the reverse process, 0 noise and 1 finished; of the forward process, 1 noise."""

    sigma: float
    """For an x0 estimate, the level at which it was made."""

    snr: float | None
    """1 / sigma^2; None at sigma 0."""

    evaluations: int | None
    """Of the network, up to here; None in the forward process."""


@dataclass(frozen=True, eq=False)
class Readings:
    """What one reader read in N images at L levels, noisiest first."""

    reader: str
    process: str
    """reverse or forward."""

    view: str
    """x0, x or unconditional."""

    threshold: float
    levels: tuple[Level, ...]
    labels: Tensor
    """int64 (N,), the intended classes."""

    read: Tensor
    """int16 (N, L), the class read or `NOTHING`."""

    def recognised(self) -> Tensor:
        """bool (N, L): the intended class is read, and at a level where that is evidence."""
        hits = self.read == self.labels[:, None]
        for label in self.labels.unique():
            own = self.labels == label
            mistaken = _mean(self.read[~own] == label)
            hits[own] &= hits[own].double().mean(0) >= EVIDENCE * mistaken
        return hits

    def first(self) -> Tensor:
        """int64 (N,): index of the noisiest level at which an image is recognised; L for never."""
        return (self.recognised().cumsum(1) == 0).sum(1)

    def final(self) -> Tensor:
        """int64 (N,): index of the noisiest level from which on it always is; L for never."""
        after = self.recognised().flip(1).int().cumprod(1).sum(1)
        return len(self.levels) - after


@dataclass(frozen=True)
class Arrival:
    """When the images of a class get there."""

    reached: tuple[float, ...]
    """Share of the images that are there by each level."""

    quarter: Level | None
    """By when a quarter of the images is there; None where fewer ever are."""

    half: Level | None
    three_quarters: Level | None
    never: float
    """Share of the images that never are."""


@dataclass(frozen=True)
class ClassRecognition:
    """One class, or all of them together."""

    name: str
    images: int
    recognised: tuple[float, ...]
    """Share of its images read as their class, at each level."""

    mistaken: tuple[float, ...]
    """Share of the images of other classes read as this one; for all classes together, share of
    the images read as another class than theirs."""

    first: Arrival
    final: Arrival


@dataclass(frozen=True)
class Recognition:
    """What one reader says of one process; `to_json` is a contract."""

    reader: str
    process: str
    view: str
    threshold: float
    levels: tuple[Level, ...]
    overall: ClassRecognition
    classes: tuple[ClassRecognition, ...]
    """In the order of the data set; those without images are left out."""

    ranking: tuple[str, ...]
    """Classes from the one that half of its images show at the noisiest level (`final`) on; at
    the same level, the one with more of its images there over the whole process goes first."""

    @property
    def sentences(self) -> tuple[str, ...]:
        """The same in words: all images, then the first and the last class."""
        forward = self.process == "forward"
        words, gone = (_lost, "lost") if forward else (_found, "recognised")
        whole, half = words(self)
        named = {each.name: half(each.final.half) for each in self.classes}
        ranking = self.ranking[::-1] if forward else self.ranking
        first, last = ranking[0], ranking[-1]
        if len(ranking) == 1:
            return (whole,)
        if named[first] == named[last]:
            return (
                whole,
                f"The classes are {gone} together: half of the images of each {named[first]}.",
            )
        return (
            whole,
            f"{first} is {gone} first: half of its images {named[first]}.",
            f"{last} is {gone} last: half of its images {named[last]}.",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the fields, and `sentences`."""
        return {**asdict(self), "sentences": list(self.sentences)}


def read_classes(probabilities: Tensor, threshold: float = 0.5) -> Tensor:
    """What is read, int16 (N,), from probabilities (N, K): a class, or `NOTHING`."""
    best, read = probabilities.max(1)
    return read.where(best >= threshold, NOTHING).to(torch.int16).cpu()


def recognise_reverse(
    steps: Iterable[Step],
    readers: Mapping[str, Reader],
    labels: Tensor,
    *,
    denoise: Denoise | None = None,
    evaluations: Sequence[int] | None = None,
    threshold: float = 0.5,
) -> list[Readings]:
    """Read the x0 estimate and x of every step of one chunk of images, as the steps come.

    steps: all steps of a sampler; the first is the starting point, its x0 an estimate without
        evaluation.
        Each is dropped when read, so memory does not grow with the number of steps.
    readers: by name.
    labels: int64 (N,), what the images are meant to become.
    denoise: the unconditional model, (x, sigma) -> x0, for the view `unconditional`, at the price
        of one more evaluation a level; None: without that view.
    evaluations: of the network spent by each step, ascending from 0; None: one a step.
    threshold: least probability of a class that is read, above 0 and at most 1.

    Returns one `Readings` for each reader and view.
    """
    _check(threshold)
    sigmas: list[float] = []

    def looks() -> Iterator[Mapping[str, Tensor]]:
        for step in steps:
            sigmas.append(float(step.sigma))
            estimate = {"x0": to_uint8(step.x0.float().cpu())}
            yield estimate | _views(step.x, sigmas[-1], denoise)

    found = _read(looks(), readers, labels, threshold)
    spent = range(len(sigmas)) if evaluations is None else evaluations
    if len(sigmas) < 2 or len(spent) != len(sigmas) or spent[-1] < 1:
        raise InputError(
            "a reverse process has at least 2 steps, each with the evaluations spent by then, "
            f"which end above 0; given {len(sigmas)} steps and evaluations {list(spent)}"
        )
    made = [sigmas[0], *sigmas[:-1]]  # the estimate that led to a level was made at the one before
    levels = {
        view: tuple(_level(n / spent[-1], s, n) for s, n in zip(each, spent, strict=True))
        for view, each in (("x0", made), ("x", sigmas), ("unconditional", sigmas))
    }
    return [
        Readings(name, "reverse", view, threshold, levels[view], labels, read)
        for (name, view), read in found.items()
    ]


def recognise_forward(
    images: Tensor,
    labels: Tensor,
    schedule: Schedule,
    readers: Mapping[str, Reader],
    draws: torch.Generator,
    *,
    denoise: Denoise | None = None,
    levels: int = 21,
    threshold: float = 0.5,
) -> list[Readings]:
    """Drown real images uint8 (N, C, H, W) in noise and read them at levels evenly spaced in u.

    Each image keeps its eps from level to level: one path into the noise. Memory beyond the
    images does not grow with N.

    levels: from u = 0 to u = 1, both included, at least 2.
    The rest, and what is returned, as in `recognise_reverse`.
    """
    _check(threshold)
    check_batch(images)
    _match(images, labels)
    if levels < 2:
        raise InputError(f"the forward process is read at 2 levels or more, got {levels}")
    u = torch.linspace(1, 0, levels, dtype=torch.float64)
    sigmas = schedule.sigma(u).tolist()
    moments = tuple(_level(*at, None) for at in zip(u.tolist(), sigmas, strict=True))

    def looks(x0: Tensor) -> Iterator[Mapping[str, Tensor]]:
        eps = torch.randn(x0.shape, generator=draws)
        for sigma in sigmas:
            yield _views(x0 + sigma * eps, sigma, denoise)

    def chunks() -> Iterator[list[Readings]]:
        for start in range(0, len(images), CHUNK):
            part, intended = images[start : start + CHUNK], labels[start : start + CHUNK]
            found = _read(looks(to_float(part).double()), readers, intended, threshold)
            yield [
                Readings(name, "forward", view, threshold, moments, intended, read)
                for (name, view), read in found.items()
            ]

    return merged(chunks())


def merged(chunks: Iterable[Sequence[Readings]]) -> list[Readings]:
    """The readings of all images from those of chunks of them, in the order of the chunks."""
    whole = []
    for parts in zip(*chunks, strict=True):
        facts = {(p.reader, p.process, p.view, p.threshold, p.levels) for p in parts}
        if len(facts) > 1:
            raise InputError(
                "chunks of different samplers do not merge: draw all of them with one sampler, "
                "number of evaluations, set of readers and threshold"
            )
        labels, read = torch.cat([p.labels for p in parts]), torch.cat([p.read for p in parts])
        whole.append(replace(parts[0], labels=labels, read=read))
    return whole


def summarise(readings: Readings, classes: Sequence[str]) -> Recognition:
    """Curves and quartiles per class; classes: the name of each label."""
    hits = readings.read == readings.labels[:, None]
    first, final = readings.first(), readings.final()
    rows = []
    for label in readings.labels.unique().tolist():
        own = readings.labels == label
        rows.append(
            ClassRecognition(
                name=classes[label],
                images=int(own.sum()),
                recognised=_curve(hits[own]),
                mistaken=_curve(readings.read[~own] == label),
                first=_arrival(first[own], readings.levels),
                final=_arrival(final[own], readings.levels),
            )
        )
    overall = ClassRecognition(
        name="all",
        images=len(readings.labels),
        recognised=_curve(hits),
        mistaken=_curve(~hits & (readings.read != NOTHING)),
        first=_arrival(first, readings.levels),
        final=_arrival(final, readings.levels),
    )

    def earliness(row: ClassRecognition) -> tuple[int, float]:
        reached = row.final.reached
        return sum(share < 0.5 for share in reached), -sum(reached)

    return Recognition(
        reader=readings.reader,
        process=readings.process,
        view=readings.view,
        threshold=readings.threshold,
        levels=readings.levels,
        overall=overall,
        classes=tuple(rows),
        ranking=tuple(row.name for row in sorted(rows, key=earliness)),
    )


def _check(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold is {threshold:g}: give a probability above 0, at most 1")


def _read(
    looks: Iterable[Mapping[str, Tensor]],
    readers: Mapping[str, Reader],
    labels: Tensor,
    threshold: float,
) -> dict[tuple[str, str], Tensor]:
    """What each reader reads in each view, int16 (N, L), from the images of each level."""
    columns: dict[tuple[str, str], list[Tensor]] = {}
    for views in looks:
        _match(next(iter(views.values())), labels)
        for (name, reader), (view, images) in product(readers.items(), views.items()):
            probabilities = reader(images)
            if probabilities.shape[1] <= labels.max():
                raise InputError(
                    f"reader '{name}' knows {probabilities.shape[1]} classes and the labels go up "
                    f"to {int(labels.max())}: give it images of classes that it knows"
                )
            columns.setdefault((name, view), []).append(read_classes(probabilities, threshold))
    return {key: torch.stack(reads, 1) for key, reads in columns.items()}


def _match(images: Tensor, labels: Tensor) -> None:
    if len(images) != len(labels):
        raise InputError(f"{len(images)} images have {len(labels)} labels: give each image one")


def _views(x: Tensor, sigma: float, denoise: Denoise | None) -> dict[str, Tensor]:
    """A state as it is shown, and what can be made of it without a label."""
    views = {"x": shown(x, sigma)}
    if denoise is not None:
        with torch.no_grad():
            estimate = denoise(x, torch.tensor(sigma).to(x)) if sigma > 0 else x
        views["unconditional"] = to_uint8(estimate.float().cpu())
    return views


def _level(share: float, sigma: float, evaluations: int | None) -> Level:
    return Level(share, sigma, sigma**-2 if sigma > 0 else None, evaluations)


def _mean(seen: Tensor) -> Tensor:
    """Share (L,) of images in bool (N, L); 0 of none."""
    return seen.double().sum(0) / max(1, len(seen))


def _curve(seen: Tensor) -> tuple[float, ...]:
    return tuple(_mean(seen).tolist())


def _arrival(index: Tensor, levels: Sequence[Level]) -> Arrival:
    """From the index (N,) of the level at which each image gets there, L for never."""
    reached = _curve(index[:, None] <= torch.arange(len(levels)))

    def quantile(share: float) -> Level | None:
        return next((level for r, level in zip(reached, levels, strict=True) if r >= share), None)

    return Arrival(reached, quantile(0.25), quantile(0.5), quantile(0.75), 1 - reached[-1])


VIEWS = {
    "x0": "in the x0 estimate",
    "x": "in x itself",
    "unconditional": "in the estimate without label",
}


def _found(of: Recognition) -> tuple[str, Callable[[Level | None], str]]:
    """The reverse process in words: all images, and how to say the moment of a class."""
    total = of.levels[-1].evaluations
    all_of = of.overall.final

    def after(level: Level | None) -> str:
        if level is None:
            return "never"
        at = f"sigma {level.sigma:.2g}, {level.evaluations} of {total} evaluations"
        return f"after {_percent(level.share)} of the process ({at})"

    return (
        f"Recognised for good by {of.reader} {VIEWS[of.view]}: a quarter of all images "
        f"{after(all_of.quarter)}, half {after(all_of.half)}, three quarters "
        f"{after(all_of.three_quarters)}; {_percent(all_of.never)} never."
    ), after


def _lost(of: Recognition) -> tuple[str, Callable[[Level | None], str]]:
    """The forward process in words, likewise."""
    all_of = of.overall.final

    def until(level: Level | None) -> str:
        if level is None:
            return "not even in the least noise"
        at = f"sigma {level.sigma:.2g}, SNR {1 / level.sigma**2:.2g}"
        return f"up to {_percent(level.share)} of the way ({at})"

    return (
        f"On the way to noise {of.reader} {VIEWS[of.view]} still recognises three quarters of all "
        f"images {until(all_of.three_quarters)}, half {until(all_of.half)}, a quarter "
        f"{until(all_of.quarter)}; {_percent(all_of.never)} not even in the least noise."
    ), lambda level: f"recognised {until(level)}"


def _percent(share: float) -> str:
    """A share in percent, with a decimal where it would round to 0 or 100.

    >>> [_percent(share) for share in (0.0, 0.004, 0.417, 1.0)]
    ['0 %', '0.4 %', '42 %', '100 %']
    """
    close = 0 < share < 0.01 or 0.99 < share < 1
    return f"{100 * share:.{1 if close else 0}f} %"
