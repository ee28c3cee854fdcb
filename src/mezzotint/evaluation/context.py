"""What all analyses share: samples, real images, and the networks that read them."""

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mezzotint import imaging
from mezzotint.data import ImageSet, load
from mezzotint.data.styles.registry import MEASURES
from mezzotint.errors import DataError, InputError, suggest
from mezzotint.evaluation.analyses import ANALYSES
from mezzotint.evaluation.request import EvaluateRequest
from mezzotint.evaluation.samples import (
    RunSamples,
    SampleSet,
    folder_samples,
    limited,
    npz_samples,
    run_samples,
)
from mezzotint.metrics import cas
from mezzotint.metrics.clip.clip import Clip
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.extractors.extractor import Extractor, classifier_for
from mezzotint.metrics.metric import Read
from mezzotint.metrics.per_class import class_rows
from mezzotint.metrics.reference import Reference
from mezzotint.metrics.registry import GROUPS
from mezzotint.runs.run import Run
from mezzotint.runtime.distributed import current_ranks

__all__ = ["EvaluationContext", "Clock", "Json", "Pictures", "gather"]

Json = dict[str, Any]

MOST = 10_000
"""Samples evaluated where the user names no number."""


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
class EvaluationContext:
    """A request with all that its analyses need."""

    request: EvaluateRequest
    data: ImageSet
    """The real images."""

    stream: RunSamples | None
    """The run that the samples are drawn from; None for images that somebody else made."""

    samples: SampleSet
    """The samples that are evaluated."""

    everything: SampleSet
    """All that a folder or an .npz holds, unless the request has a number; a run's samples."""

    extractor: Extractor
    classifier: Classifier | None
    """The data set's own; None where another extractor was chosen and there is a single class."""

    clip: Clip | None
    """None where it is not requested, or there are no labels."""

    reference: Reference
    reading: Read
    pictures: Pictures

    @property
    def held(self) -> Tensor:
        """Rows of the real images to compare with."""
        return self.data.splits[self.request.split]

    @functools.cached_property
    def per_class(self) -> list[Json] | None:
        """Metrics of each class; None without labels or without a classifier."""
        samples = self.reading
        if samples.probabilities is None or samples.labels is None:
            return None
        return class_rows(samples, self.reference.real, self.data.classes, self.request.seed)


def gather(request: EvaluateRequest, clock: Clock) -> EvaluationContext:
    """Load, draw and read; MezzotintError for whatever cannot be evaluated."""
    parts, path = request.requested(), request.target
    stream, data = _sources(request)
    if "cas" in parts and stream is not None:
        # What it needs is known now: refuse it now, not after everything else.
        cas.check(stream.batch(len(data.splits["train"])).labels, data)
    needed = request.extractor == "classifier" or len(data.classes) > 1
    ranks = current_ranks()
    with ranks.rank0_first():  # what the first makes and keeps, the others find
        classifier = classifier_for(data) if needed else None
        extractor = _extractor(request.extractor, classifier)
    with clock("drawing"):
        n = request.n or min(MOST, len(data.splits[request.split]))
        everything = _everything(request, stream, data, n)
        samples = limited(everything, n, request.seed)
    _refuse_impossible(request, samples, stream)
    if "cas" in parts and stream is None and everything.labels is not None:
        cas.check(everything.labels, data)
    with clock("reading"):
        reference = Reference.of(
            data,
            extractor,
            classifier,
            n=len(samples.images),
            split=request.split,
            seed=request.seed,
        )
        reading = reference.read(samples.images, samples.labels)
    clip = None
    if "clip" in parts and samples.labels is not None:
        with ranks.rank0_first():
            clip = clip_for(data, request.clip)
    out = request.out or (path if stream else None)
    return EvaluationContext(
        request=request,
        data=data,
        stream=stream,
        samples=samples,
        everything=samples if request.n else everything,
        extractor=extractor,
        classifier=classifier,
        clip=clip,
        reference=reference,
        reading=reading,
        pictures=Pictures(out if ranks.first else None),
    )


def _sources(request: EvaluateRequest) -> tuple[RunSamples | None, ImageSet]:
    """Return the run that draws the samples, None for a file or folder, and the real images."""
    path, against = request.target, None
    if not path.exists():
        raise InputError(f"{path} does not exist: give a run, a folder of images or an .npz")
    if request.against:
        with current_ranks().rank0_first():  # the first decodes it, the others find it
            styles = _requested_styles(path)
            against = load(request.against, styles=styles, data_dir=request.data_dir)
    stream = _stream(request, against) if Run.is_at(path) else None
    data = stream.data if stream else against
    if data is None:
        raise InputError(
            f"{path} is not a run: say what its images are held --against, as in --against mnist"
        )
    if len(data.splits.get(request.split, ())) == 0:
        raise InputError(
            f"{data.name} has no {request.split} images to compare with: "
            f"{suggest(request.split, [k for k, rows in data.splits.items() if len(rows)])}"
        )
    return stream, data


def _requested_styles(path: Path) -> tuple[str, ...]:
    """Return the requested styles of the samples, as far as real images can have them."""
    if Run.is_at(path):
        return Run.at(path).config.origin.styles
    if path.suffix.lower() != ".npz":
        return ()
    names = imaging.load_arrays(path, only=("style_names",)).get("style_names")
    return () if names is None else tuple(str(n) for n in names.ravel() if str(n) in MEASURES)


def _stream(request: EvaluateRequest, against: ImageSet | None) -> RunSamples:
    return run_samples(
        request.target,
        against,
        checkpoint=request.checkpoint,
        options=request.options,
        seed=request.seed,
        data_dir=request.data_dir,
        progress=request.progress,
    )


def _everything(
    request: EvaluateRequest, stream: RunSamples | None, data: ImageSet, n: int
) -> SampleSet:
    """What a file or folder holds, n samples of a run."""
    path = request.target
    if stream is not None:
        return stream.samples(n)
    found = folder_samples(path, data) if path.is_dir() else npz_samples(path, data)
    if request.n is not None and request.n > len(found.images):
        raise InputError(
            f"{path} holds {len(found.images):,} images, fewer than --n {request.n:,}"
        )
    return found


def _extractor(name: str, classifier: Classifier | None) -> Extractor:
    if name == "classifier":
        assert classifier is not None
        return classifier
    from mezzotint.metrics.extractors.pretrained import extractor_named

    return extractor_named(name)


def _refuse_impossible(
    request: EvaluateRequest, samples: SampleSet, stream: RunSamples | None
) -> None:
    """Raise an error for what was requested by name and cannot be made.

    What was not requested by name is left out without an error.
    """
    path = samples.facts["path"]
    for part in request.metrics:
        if part == "styles" and not samples.styles:
            raise InputError(
                f"styles compares requested styles with drawn ones, and {path} knows no "
                "styles: train with --style, or give an .npz that sample wrote of such a run"
            )
        if samples.labels is None and _needs_labels(part):
            raise DataError(
                f"{part} needs labels, and {path} has none: put images into class subfolders, "
                "or add an array 'labels' to the .npz"
            )
        if part == "recognition" and stream is None:
            raise InputError(f"recognition watches a run draw, and {path} is none: give a run")


def _needs_labels(name: str) -> bool:
    """Return whether a group of metrics or an analysis needs the intended class of every image."""
    if name in GROUPS:
        return "labels" in GROUPS[name].needs
    return ANALYSES.entries[name].needs_labels
