"""What all parts of an evaluation look at: samples, real images, and who reads them."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mezzotint import imaging
from mezzotint.data import ImageSet, load
from mezzotint.data.styles.measures import MEASURES
from mezzotint.errors import InputError, suggest
from mezzotint.evaluation.analyses import ANALYSES
from mezzotint.evaluation.request import Question
from mezzotint.evaluation.samples import (
    RunSubject,
    Subject,
    folder_subject,
    limited,
    npz_subject,
    run_subject,
)
from mezzotint.metrics import cas
from mezzotint.metrics.clip.clip import Clip
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.extractors.extractor import Extractor, classifier_for
from mezzotint.metrics.per_class import class_rows
from mezzotint.metrics.registry import GROUPS, Read, Reference
from mezzotint.runs.run import Run
from mezzotint.runtime.distributed import current

__all__ = ["Case", "Clock", "Json", "Pictures", "gather"]

Json = dict[str, Any]
Say = Callable[[str], None]

MOST = 10_000
"""Samples judged where the user names no number."""

LABELLED = (
    *(name for name, group in GROUPS.items() if "labels" in group.needs),
    *(analysis.name for analysis in ANALYSES if analysis.needs_labels),
)
"""Parts that need to know the intended class of every image."""


@dataclass
class Clock:
    """Seconds that each part took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        started = time.monotonic()
        yield
        self.add(name, started)

    def add(self, name: str, started: float) -> None:
        """Record the time since `started`, a reading of `time.monotonic`."""
        self.seconds[name] = round(time.monotonic() - started, 2)


@dataclass
class Pictures:
    """Pictures of an evaluation, kept where there is a place for them."""

    out: Path | None
    written: dict[str, str] = field(default_factory=dict)
    """Where each lies, below `out`."""

    def keep(self, name: str, image: Tensor) -> None:
        """Write uint8 (C, H, W) as a PNG."""
        if self.out is not None:
            imaging.save_png(image, self.out / "evaluation" / f"{name}.png")
            self.written[name] = f"evaluation/{name}.png"


@dataclass(frozen=True)
class Case:
    """A question with all that it takes to answer it."""

    question: Question
    data: ImageSet
    """The real images."""

    stream: RunSubject | None
    """The run that the samples are drawn from; None for images that somebody else made."""

    subject: Subject
    """The samples that are judged."""

    everything: Subject
    """All that a folder or an .npz holds, unless a number was asked for; a run's samples."""

    extractor: Extractor
    classifier: Classifier | None
    """The data set's own; None where another extractor was chosen and there is a single class."""

    clip: Clip | None
    """None where it is not asked for, or there are no labels."""

    reference: Reference
    samples: Read
    pictures: Pictures
    say: Say

    @property
    def held(self) -> Tensor:
        """Rows of the real images to judge with."""
        return self.data.splits[self.question.split]

    @functools.cached_property
    def per_class(self) -> list[Json] | None:
        """Metrics of each class; None without labels or without a classifier."""
        samples = self.samples
        if samples.probabilities is None or samples.labels is None:
            return None
        return class_rows(samples, self.reference.real, self.data.classes, self.question.seed)


def gather(question: Question, clock: Clock, say: Say) -> Case:
    """Load, draw and read; InputError for whatever cannot be answered."""
    parts, path = question.parts(), question.subject
    if not path.exists():
        raise InputError(f"{path} does not exist: give a run, a folder of images or an .npz")
    against = None
    if question.against:
        with current().in_turn():  # the first decodes it, the others find it
            styles = _styles_asked(path, say)
            against = load(question.against, styles=styles, data_dir=question.data_dir, say=say)
    stream = _stream(question, against, say) if Run.is_at(path) else None
    data = stream.data if stream else against
    if data is None:
        raise InputError(
            f"{path} is not a run: say what its images are held --against, as in --against mnist"
        )
    if len(data.splits.get(question.split, ())) == 0:
        raise InputError(
            f"{data.name} has no {question.split} images to judge with: "
            f"{suggest(question.split, [k for k, rows in data.splits.items() if len(rows)])}"
        )
    if "cas" in parts and stream is not None:
        # What it will ask for is known: now, not after everything else.
        cas.check(stream.drawing(len(data.splits["train"])).labels, data)
    needed = question.extractor == "classifier" or len(data.classes) > 1
    world = current()
    with world.in_turn():  # what the first makes and keeps, the others find
        classifier = classifier_for(data, say) if needed else None
        extractor = _extractor(question.extractor, classifier)
    with clock("drawing"):
        n = question.n or min(MOST, len(data.splits[question.split]))
        everything = _everything(question, stream, data, n, say)
        subject = limited(everything, n, question.seed)
    _refuse_impossible(question, subject, stream)
    if "cas" in parts and stream is None and everything.labels is not None:
        cas.check(everything.labels, data)
    with clock("reading"):
        reference = Reference.of(
            data,
            extractor,
            classifier,
            n=len(subject.images),
            split=question.split,
            seed=question.seed,
        )
        samples = reference.read(subject.images, subject.labels)
    clip = None
    if "clip" in parts and subject.labels is not None:
        with world.in_turn():
            clip = clip_for(data, question.clip, say)
    out = question.out or (path if stream else None)
    return Case(
        question=question,
        data=data,
        stream=stream,
        subject=subject,
        everything=subject if question.n else everything,
        extractor=extractor,
        classifier=classifier,
        clip=clip,
        reference=reference,
        samples=samples,
        pictures=Pictures(out if world.first else None),
        say=say,
    )


def _styles_asked(path: Path, say: Say) -> tuple[str, ...]:
    """What samples were asked for beside their labels, as far as real images can have it."""
    if Run.is_at(path):
        return Run.at(path, say).config.origin.styles
    if path.suffix.lower() != ".npz":
        return ()
    names = imaging.load_arrays(path, only=("style_names",)).get("style_names")
    return () if names is None else tuple(str(n) for n in names.ravel() if str(n) in MEASURES)


def _stream(question: Question, against: ImageSet | None, say: Say) -> RunSubject:
    return run_subject(
        question.subject,
        against,
        pick=question.pick,
        changes=question.changes,
        seed=question.seed,
        data_dir=question.data_dir,
        say=say,
    )


def _everything(
    question: Question, stream: RunSubject | None, data: ImageSet, n: int, say: Say
) -> Subject:
    """What a file or folder holds, n samples of a run."""
    path = question.subject
    if stream is not None:
        return stream.samples(n)
    found = folder_subject(path, data, say) if path.is_dir() else npz_subject(path, data)
    if question.n is not None and question.n > len(found.images):
        raise InputError(
            f"{path} holds {len(found.images):,} images, fewer than --n {question.n:,}"
        )
    return found


def _extractor(name: str, classifier: Classifier | None) -> Extractor:
    if name == "classifier":
        assert classifier is not None
        return classifier
    from mezzotint.metrics.extractors.pretrained import extractor_named

    return extractor_named(name)


def _refuse_impossible(question: Question, subject: Subject, stream: RunSubject | None) -> None:
    """What was asked for by name is made, or refused; what was not may be left out."""
    path = subject.facts["path"]
    for part in question.metrics:
        if part == "styles" and not subject.styles:
            raise InputError(
                f"styles compares what was asked for with what was drawn, and {path} knows no "
                "styles: train with --style, or give an .npz that sample wrote of such a run"
            )
        if part in LABELLED and subject.labels is None:
            raise InputError(
                f"{part} needs labels, and {path} has none: put images into class subfolders, "
                "or add an array 'labels' to the .npz"
            )
        if part == "recognition" and stream is None:
            raise InputError(f"recognition watches a run draw, and {path} is none: give a run")
