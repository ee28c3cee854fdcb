"""The judge: everything Mezzotint can say about samples, as one JSON object and some pictures.

    judge(Question(Path("runs/mnist")), say) -> {"metrics": {"fd10k": {...}}, ...}

Its parts are independent of each other: groups of metrics against the real images, then
memorisation, recognition, difficulty, CLIP; and CAS, which draws as many samples as there are
training images and trains classifiers, so it is made only when asked for. What is written:
OUT/evaluation.json, whole or not at all, and pictures under OUT/evaluation/.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from mezzotint import films, imaging
from mezzotint.data import ImageSet, load
from mezzotint.errors import InputError, suggest
from mezzotint.evaluation import accuracy, difficulty, measures
from mezzotint.evaluation.captions import phrase
from mezzotint.evaluation.cas import SEEDS, cas, real_cas, recipe_for
from mezzotint.evaluation.classifier import Classifier
from mezzotint.evaluation.clip import Clip, Prompts, clip_report
from mezzotint.evaluation.features import Extractor, classifier_for
from mezzotint.evaluation.kernel import kernel_distance
from mezzotint.evaluation.measures import Read, Reference
from mezzotint.evaluation.memorisation import memorisation
from mezzotint.evaluation.recognition import (
    Reader,
    Readings,
    Recognition,
    merged,
    recognise_forward,
    recognise_walk,
    summarise,
)
from mezzotint.evaluation.scorers import clip_for
from mezzotint.evaluation_file import hardware, keep
from mezzotint.model import Drawing
from mezzotint.randomness import generator
from mezzotint.subjects import (
    RunSubject,
    Subject,
    folder_subject,
    is_run,
    limited,
    npz_subject,
    run_subject,
)
from mezzotint.verdict import verdict

__all__ = ["EXTRAS", "PARTS", "Question", "judge"]

Say = Callable[[str], None]
Json = dict[str, Any]

MOST = 10_000
"""Samples judged where the user names no number."""

EXTRAS = ("memorisation", "recognition", "difficulty", "clip", "cas")
PARTS = (*measures.GROUPS, *EXTRAS)
"""What `metrics` may name."""

USUAL = tuple(part for part in PARTS if part != "cas")

WALKED = 20
"""Images of each class whose processes are read."""

CLIPPED = 2000
"""Images that CLIP reads, at most: a large one is slow."""

STRIP = 5
"""Images on a film strip."""

HELD_OUT = 1000
"""Validation images from which they suffice as held-out ones; else test images join them."""

FEWEST = 20
"""Images of a class from which its own distances are worth a number."""

CLASS_BLOCK = 100
"""Images in a block of a class's kernel distance; its error is that over blocks."""

CLIP_READER = "CLIP"

LABELLED = ("accuracy", "difficulty", "clip", "cas")
"""Parts that need to know what the images were meant to be."""

SHOWN = 10
"""Images of each class on a sheet."""


@dataclass(frozen=True)
class Question:
    """What is to be judged, and how."""

    subject: Path
    """A run, a folder of images, or an .npz."""

    against: str | None = None
    """The real images, a SOURCE; None: a run's own."""

    metrics: tuple[str, ...] = ()
    """Names among `PARTS`, or "all"; (): all but cas."""

    n: int | None = None
    """Samples; None: as many as the reference split has, at most 10,000."""

    split: str = "test"
    extractor: str = "classifier"
    """classifier (of the data set itself), inception, dinov2, clip; NAME:WHERE: local weights."""

    clip: str = "clip"
    """The CLIP: clip (the data set's own, small), clip:ID (a hub id or a folder)."""

    seed: int = 0
    weights: str = "ema"
    checkpoint: str = "last"
    changes: Mapping[str, object] = field(default_factory=dict)
    """Sampling settings other than the run's."""

    out: Path | None = None
    """Folder for evaluation.json and pictures; None: the run; nothing is written for others."""

    device: str = "auto"
    data_dir: Path | None = None
    command: str = ""
    """What asked for it, for the report."""

    def parts(self) -> tuple[str, ...]:
        """The names, checked."""
        if not self.metrics:
            return USUAL
        for name in self.metrics:
            if name not in (*PARTS, "all"):
                raise InputError(f"no metric is called '{name}': {suggest(name, (*PARTS, 'all'))}")
        return PARTS if "all" in self.metrics else tuple(p for p in PARTS if p in self.metrics)


def judge(question: Question, say: Say) -> Json:
    """Answer it: a JSON object, written beside its pictures where there is a place."""
    return _Judge(question, say).result()


class _Judge:
    """One evaluation: what its parts share."""

    def __init__(self, question: Question, say: Say) -> None:
        self.question, self.say = question, say
        self.parts = question.parts()
        self.seconds: dict[str, float] = {}
        path = question.subject
        if not path.exists():
            raise InputError(f"{path} does not exist: give a run, a folder of images or an .npz")
        self.stream: RunSubject | None = None
        if is_run(path):
            against = question.against
            self.stream = run_subject(
                path,
                self._data(against) if against else None,
                weights=question.weights,
                checkpoint=question.checkpoint,
                changes=question.changes,
                seed=question.seed,
                device=question.device,
                data_dir=question.data_dir,
                say=say,
            )
            self.data = self.stream.data
        else:
            if question.against is None:
                raise InputError(
                    f"{path} is not a run: say what its images are held --against, as in "
                    "--against mnist"
                )
            self.data = self._data(question.against)
        if len(self.data.splits.get(question.split, ())) == 0:
            raise InputError(f"{self.data.name} has no {question.split} images to judge with")
        self.n = question.n or min(MOST, len(self.data.splits[question.split]))
        self.out = question.out or (path if self.stream else None)
        self.pictures: Json = {}

    # what is judged ---------------------------------------------------------------------------

    def _data(self, source: str) -> ImageSet:
        return load(source, data_dir=self.question.data_dir, say=self.say)

    def _subject(self) -> Subject:
        if self.stream is not None:
            return self.stream.samples(self.n)
        path = self.question.subject
        found = (
            folder_subject(path, self.data, self.say)
            if path.is_dir()
            else npz_subject(path, self.data)
        )
        if self.question.n is not None and self.question.n > len(found.images):
            raise InputError(
                f"{path} holds {len(found.images):,} images, fewer than --n {self.question.n:,}"
            )
        return limited(found, self.n, self.question.seed)

    def _refuse_impossible(self, subject: Subject) -> None:
        """What was asked for by name is made, or refused; what was not may be left out."""
        path = subject.facts["path"]
        for part in self.question.metrics:
            if part in LABELLED and subject.labels is None:
                raise InputError(
                    f"{part} needs labels, and {path} has none: put images into class subfolders, "
                    "or add an array 'labels' to the .npz"
                )
            if part == "recognition" and self.stream is None:
                raise InputError(f"recognition watches a run draw, and {path} is none: give a run")

    def _classifier(self) -> Classifier | None:
        """The set's own; None where another extractor was chosen and there is a single class."""
        if len(self.data.classes) < 2 and self.question.extractor != "classifier":
            return None
        return classifier_for(self.data, self.say)

    def _extractor(self, classifier: Classifier | None) -> Extractor:
        if self.question.extractor == "classifier":
            assert classifier is not None
            return classifier
        from mezzotint.evaluation.pretrained import extractor_named

        return extractor_named(self.question.extractor)

    # the parts --------------------------------------------------------------------------------

    def result(self) -> Json:
        """Everything that was asked for."""
        question = self.question
        classifier = self._classifier()
        extractor = self._extractor(classifier)
        with self._timed("drawing"):
            subject = self._subject()
        self.n = len(subject.images)
        self._refuse_impossible(subject)
        with self._timed("reading"):
            reference = Reference.of(
                self.data, extractor, classifier,
                n=self.n, split=question.split, seed=question.seed,
            )  # fmt: skip
            samples = reference.read(subject.images, subject.labels)
        groups = {name: g for name, g in measures.GROUPS.items() if name in self.parts}
        with self._timed("metrics"):
            found = measures.measure(samples, reference, groups)
        metrics: Json = {name: number.to_json() for name, number in found.items()}
        result: Json = {
            "subject": dict(subject.facts),
            "against": {
                "source": self.data.name,
                "fingerprint": self.data.fingerprint,
                "split": question.split,
                "n": reference.facts["n_reference"],
                "classes": list(self.data.classes),
            },
            "metrics": metrics,
        }
        if samples.probabilities is not None and samples.labels is not None:
            result |= self._per_class(samples, reference)
        clip = None
        if "clip" in self.parts and subject.labels is not None:
            clip = clip_for(self.data, question.clip, self.say)
        if "memorisation" in self.parts:
            with self._timed("memorisation"):
                result["memorisation"] = self._memorisation(subject, samples, extractor)
        if self.stream is not None and classifier is not None and "recognition" in self.parts:
            with self._timed("recognition"):
                readers = {"the classifier": lambda images: classifier.read(images).probabilities}
                if clip is not None:
                    readers[CLIP_READER] = _zero_shot(clip, self.data.classes)
                result["recognition"] = self._recognition(self.stream, readers)
        if "difficulty" in self.parts and "per_class" in result:
            with self._timed("difficulty"):
                result["difficulty"] = self._difficulty(result["per_class"], reference)
        if clip is not None:
            with self._timed("clip"):
                result["clip"] = self._clip(subject, clip)
        if "cas" in self.parts:
            with self._timed("cas"):
                metrics["cas"] = self._cas(subject)
        self._sheets(subject)
        return self._finished(result)

    def _per_class(self, samples: Read, reference: Reference) -> Json:
        """A row for each class, and the confusion matrix."""
        assert samples.probabilities is not None
        assert samples.labels is not None
        real = reference.real
        assert real.probabilities is not None
        assert real.labels is not None
        names = self.data.classes
        ours = accuracy.per_class(samples.probabilities, samples.labels)
        theirs = accuracy.per_class(real.probabilities, real.labels)
        rows = []
        for label, name in enumerate(names):
            own, real_own = samples.labels == label, real.labels == label
            row: Json = {"class": name, "n": int(own.sum())}
            if own.any():
                right = float(ours[label])
                row |= {
                    "accuracy": right,
                    "accuracy_error": (right * (1 - right) / int(own.sum())) ** 0.5,
                    "accuracy_real": float(theirs[label]),
                }
            if min(int(own.sum()), int(real_own.sum())) >= FEWEST:
                draws = generator("class", self.question.seed, label)
                features, real_features = samples.features[own], real.features[real_own]
                shares = measures.even_coverage(real_features, features, draws)
                distance = kernel_distance(features, real_features, draws, block=CLASS_BLOCK)
                row |= {
                    "kd": distance.value,
                    "kd_error": distance.error,
                    "density": shares.density,
                    "coverage": shares.coverage,
                }
            rows.append(row)
        table = accuracy.confusion(samples.probabilities, samples.labels, len(names))
        return {
            "per_class": rows,
            "confusion": {"classes": list(names), "rows": table.tolist()},
        }

    def _recognition(self, stream: RunSubject, readers: Mapping[str, Reader]) -> Json:
        """When noise becomes a picture, and a picture noise."""
        model, classes = stream.model, self.data.classes
        drawing = Drawing.of(torch.arange(len(classes)).repeat_interleave(WALKED), stream.seed)
        free = model.free() if model.guidable else None
        steps = len(model.ladder()) - 1
        each = -(-model.sampling.evaluations // steps)  # Heun's two, but one in its last step
        spent = [min(each * i, each * steps - (each - 1)) for i in range(steps + 1)]

        def chunks() -> Iterator[list[Readings]]:
            for start in range(0, len(drawing), model.chunk()):
                part = drawing[start : start + model.chunk()]
                yield recognise_walk(
                    model.walk(part), readers, part.labels, denoise=free, evaluations=spent
                )

        reverse = [summarise(readings, classes) for readings in merged(chunks())]
        held = self.data.splits[self.question.split]
        rows = held[torch.randperm(len(held), generator=generator("lost", self.question.seed))]
        rows = rows[: WALKED * len(classes)]
        forward = [
            summarise(readings, classes)
            for readings in recognise_forward(
                self.data.images[rows], self.data.labels[rows], model.schedule, readers,
                generator("forward", self.question.seed), denoise=free,
            )
        ]  # fmt: skip
        for which, rank in (("earliest", 0), ("latest", -1)):
            label = classes.index(_headline(reverse).ranking[rank])
            few = Drawing.of(torch.full((STRIP,), label), stream.seed)
            self._picture(which, films.reverse_strip(films.walk_frames(model, few)))
        return {
            "sentences": [*_headline(reverse).sentences, *_headline(forward).sentences],
            "reverse": [each.to_json() for each in reverse],
            "forward": [each.to_json() for each in forward],
        }

    def _cas(self, subject: Subject) -> Json:
        """Train on as many samples as there are training images, and on those."""
        train = self.data.splits["train"]
        made = subject if self.stream is None else self.stream.samples(len(train))
        if made.labels is None:
            raise InputError(f"cas needs labels, and {subject.facts['path']} has none")

        def watch(what: str) -> Callable[[int, int], None]:
            def line(seed: int, seen: int) -> None:
                if seen % (100 * 128 * 10) < 128:
                    self.say(f"cas: {what}, seed {seed}: {seen:,} images")

            return line

        ours = cas(made.images, made.labels, self.data, watch=watch("synthetic"))
        real = real_cas(self.data, self.say, watch("real"))
        return {
            "title": "classification accuracy score",
            "value": ours.mean,
            "error": ours.spread,
            "better": "higher",
            "floor": real.mean,
            "anchors": {},
            "accuracies": list(ours.accuracies),
            "real": list(real.accuracies),
            "protocol": {
                "metric": "cas",
                "n": len(made.images),
                "recipe": recipe_for(self.data).digest,
                "seeds": list(SEEDS),
                "against": self.data.name,
                "fingerprint": self.data.fingerprint,
                "split": "test",
            },
        }

    def _memorisation(self, subject: Subject, samples: Read, extractor: Extractor) -> Json:
        """Samples against training and held-out images, in pixels and in features."""
        images, train = self.data.images, self.data.splits["train"]
        # Cut from what train was cut from: a test split may have other writers.
        held = self.data.splits["validation"]
        if len(held) < HELD_OUT:
            held = torch.cat([held, self.data.splits["test"]])
        draws = generator("memorisation", self.question.seed)
        pixels = memorisation(subject.images, images[train], images[held], draws)
        features = memorisation(
            samples.features,
            extractor.features(images[train]),
            extractor.features(images[held]),
            generator("memorisation", self.question.seed),
        )
        worst = pixels.worst[:SHOWN]
        rows = torch.tensor([offender.sample for offender in worst])
        near = torch.tensor([offender.train for offender in worst])
        other = pixels.held_out.index[rows]
        self._picture(
            "memorisation",
            imaging.labelled_grid(
                [
                    ("sample", subject.images[rows]),
                    ("nearest training image", images[train[near]]),
                    ("nearest held-out image", images[held[other]]),
                ]
            ),
        )
        found: Json = {
            name: {
                "auc": each.auc,
                "error": each.error,
                "floor": each.floor,
                "tail": each.tail,
                "expected": each.expected,
                "flagged": each.flagged,
                "verdict": each.verdict,
                "worst": [offender._asdict() for offender in each.worst],
            }
            for name, each in {"pixels": pixels, "features": features}.items()
        }
        flagged = pixels.flagged or features.flagged
        first = features if features.flagged and not pixels.flagged else pixels
        where = "features" if first is features else "pixels"
        return {
            **found,
            "flagged": flagged,
            "verdict": f"{first.verdict} (by {where})",
            "protocol": {
                "n": len(subject.images),
                "n_train": len(train),
                "n_held_out": len(held),
                "extractor": extractor.name,
                "hash": extractor.digest,
            },
        }

    def _difficulty(self, rows: Sequence[Json], reference: Reference) -> Json:
        """Which properties of the real images go with the classes that are drawn badly."""
        real = reference.real
        assert real.probabilities is not None
        assert real.labels is not None
        n, split, seed = self.n, self.question.split, self.question.seed
        picks = measures.chosen(self.data, split, n, seed)  # the images that `reference` read
        table = difficulty.properties(
            self.data.images[picks],
            self.data.labels[picks],
            self.data.classes,
            features=real.features,
            probabilities=real.probabilities,
            train_labels=self.data.labels[self.data.splits["train"]],
        )
        qualities = [
            difficulty.Quality(
                name, better, tuple(row[name] for row in rows), _all(rows, f"{name}_error")
            )
            for name, better in (("accuracy", "higher"), ("kd", "lower"))
            if all(name in row for row in rows)
        ]
        draws = generator("difficulty", self.question.seed)
        return difficulty.difficulty(table, qualities, draws).to_json()

    def _clip(self, subject: Subject, clip: Clip) -> Json:
        """What a CLIP says, beside real and damaged images; its highest and lowest images."""
        assert subject.labels is not None
        rows = self.data.splits[self.question.split]
        most = generator("clip", self.question.seed)
        rows = rows[torch.randperm(len(rows), generator=most)[:CLIPPED]]
        chosen = limited(subject, CLIPPED, self.question.seed)
        assert chosen.labels is not None
        found = dict(
            clip_report(
                clip, chosen.images, chosen.labels, self.data.classes,
                self.data.images[rows], self.data.labels[rows], generator=most,
            )
        )  # fmt: skip
        rated = [row for row in cast(list[Json], found["classes"]) if row["highest"]]
        for end in ("highest", "lowest"):
            page = imaging.labelled_grid([(r["name"], chosen.images[r[end]]) for r in rated])
            self._picture(f"clip-{end}", page)
        return found

    # pictures and words -----------------------------------------------------------------------

    def _picture(self, name: str, image: Tensor) -> None:
        """Keep a picture, where there is a place for it."""
        if self.out is not None:
            imaging.save_png(image, self.out / "evaluation" / f"{name}.png")
            self.pictures[name] = f"evaluation/{name}.png"

    def _sheets(self, subject: Subject) -> None:
        """Samples and real images, and both processes."""
        held = self.data.splits[self.question.split]
        real = (self.data.images, self.data.labels, held)
        for name, (images, labels, rows) in {
            "samples": (subject.images, subject.labels, torch.arange(len(subject.images))),
            "real": real,
        }.items():
            if labels is None:
                page = imaging.grid(images[:100], SHOWN, scale=imaging.scale_for(images.shape[3]))
            else:
                page = imaging.labelled_grid(
                    [
                        (title, images[rows[labels[rows] == label][:SHOWN]])
                        for label, title in enumerate(self.data.classes)
                        if (labels[rows] == label).any()
                    ]
                )
            self._picture(name, page)
        if self.stream is not None:
            model = self.stream.model
            labels = model.labels(None, min(STRIP, len(self.data.classes)))
            steps = films.walk_frames(model, Drawing.of(labels, self.question.seed))
            self._picture("reverse", films.reverse_strip(steps))
            few = self.data.images[held[:STRIP]]
            self._picture("forward", films.forward_strip(few, model.schedule))

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 2)

    def _finished(self, result: Json) -> Json:
        """With words, hardware and pictures; written where there is a place."""
        result["verdict"] = verdict(result)
        result["pictures"] = self.pictures
        result["seconds"] = self.seconds
        result["hardware"] = hardware()
        result["command"] = self.question.command
        return result if self.out is None else keep(self.out, result)


def _zero_shot(clip: Clip, classes: Sequence[str]) -> Reader:
    """CLIP as a reader: the softmax over its class prompts."""
    texts = clip.embed_texts([phrase(Prompts().template, name) for name in classes])

    def read(images: Tensor) -> Tensor:
        return (clip.scale * clip.embed_images(images) @ texts.T).softmax(1)

    return read


def _headline(found: Sequence[Recognition]) -> Recognition:
    """The reading that says most: what the noisy image alone tells, where the model can say it.

    A conditional model's first x0 is already the mean of its class, and a classifier trained on
    clean images fails on x long before a person does.
    """
    views = {each.view: each for each in found if each.reader != CLIP_READER}
    return views.get("free") or views["x"]


def _all(rows: Sequence[Json], key: str) -> tuple[float, ...] | None:
    """The column, if no class lacks it."""
    found = tuple(row.get(key) for row in rows)
    return None if None in found else cast(tuple[float, ...], found)
