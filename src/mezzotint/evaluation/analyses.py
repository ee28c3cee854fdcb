"""The parts of an evaluation that are more than a metric: functions of a `Case`.

They are independent of each other. CAS draws as many samples as there are training images and
trains classifiers, so it is made only when asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.config.registry import sampler_named
from mezzotint.data import Style
from mezzotint.data.styles.measures import measured
from mezzotint.data.styles.resolve import is_measure
from mezzotint.evaluation.context import Case
from mezzotint.evaluation.samples import RunSubject, limited
from mezzotint.metrics import accuracy, difficulty, registry
from mezzotint.metrics.adherence import adherence
from mezzotint.metrics.cas import SEEDS, cas, real_cas, recipe_for
from mezzotint.metrics.clip.captions import phrase
from mezzotint.metrics.clip.clip import Clip, Prompts, clip_report
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.metrics.memorisation import memorisation
from mezzotint.metrics.recognition import (
    Reader,
    Readings,
    Recognition,
    merged,
    recognise_forward,
    recognise_walk,
    summarise,
)
from mezzotint.runtime.device import pick_device
from mezzotint.runtime.distributed import current
from mezzotint.runtime.log import counted
from mezzotint.runtime.rng import generator
from mezzotint.sampling import trajectories
from mezzotint.sampling.model import Drawing, Model

__all__ = [
    "add_sheets",
    "evaluations_spent",
    "judge_cas",
    "judge_classes",
    "judge_clip",
    "judge_difficulty",
    "judge_memorisation",
    "judge_recognition",
    "judge_styles",
]

Json = dict[str, Any]

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

LEVELLED = 10
"""Images of each class that are asked for each level of a style."""

COMMON = 0.05
"""Least share of a class's training images that have a level, for it to be asked of the class."""

LEVEL_SHOWN = 4
"""Of them, on a style's sheet."""

SHOWN = 10
"""Images of each class on a sheet."""


def judge_classes(case: Case) -> Json:
    """A row for each class, and the confusion matrix."""
    samples, real = case.samples, case.reference.real
    assert samples.probabilities is not None
    assert samples.labels is not None
    assert real.probabilities is not None
    assert real.labels is not None
    names = case.data.classes
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
            draws = generator("class", case.question.seed, label)
            features, real_features = samples.features[own], real.features[real_own]
            shares = registry.even_coverage(real_features, features, draws)
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


def evaluations_spent(model: Model) -> list[int]:
    """Return the evaluations of the network spent by each step of a walk, from 0 on."""
    steps = len(model.ladder()) - 1
    total = sampler_named(model.sampling.sampler).evaluations(steps)
    each = -(-total // steps)  # Heun's two, but one in its last step
    return [min(each * i, total) for i in range(steps + 1)]


def judge_recognition(case: Case, stream: RunSubject, classifier: Classifier) -> Json:
    """When noise becomes a picture, and a picture noise."""
    model, classes = stream.model, case.data.classes
    readers: dict[str, Reader] = {
        "the classifier": lambda images: classifier.read(images).probabilities
    }
    if case.clip is not None:
        readers[CLIP_READER] = _zero_shot(case.clip, classes)
    drawing = Drawing.of(torch.arange(len(classes)).repeat_interleave(WALKED), stream.seed)
    free = model.free() if "label" in model.freed else None
    spent = evaluations_spent(model)

    def chunks() -> Iterator[list[Readings]]:
        for start in range(0, len(drawing), model.chunk()):
            part = drawing[start : start + model.chunk()]
            yield recognise_walk(
                model.walk(part), readers, part.labels, denoise=free, evaluations=spent
            )

    reverse = [summarise(readings, classes) for readings in merged(chunks())]
    draws = generator("lost", case.question.seed)
    rows = case.held[torch.randperm(len(case.held), generator=draws)]
    rows = rows[: WALKED * len(classes)]
    forward = [
        summarise(readings, classes)
        for readings in recognise_forward(
            case.data.images[rows], case.data.labels[rows], model.schedule, readers,
            generator("forward", case.question.seed), denoise=free,
        )
    ]  # fmt: skip
    for which, rank in (("earliest", 0), ("latest", -1)):
        label = classes.index(_headline(reverse).ranking[rank])
        few = Drawing.of(torch.full((STRIP,), label), stream.seed)
        case.pictures.keep(which, trajectories.reverse_strip(trajectories.walk_frames(model, few)))
    return {
        "sentences": [*_headline(reverse).sentences, *_headline(forward).sentences],
        "reverse": [each.to_json() for each in reverse],
        "forward": [each.to_json() for each in forward],
    }


def judge_cas(case: Case) -> Json:
    """Train on as many samples as there are training images, and on those."""
    train = case.data.splits["train"]
    made = case.stream.samples(len(train)) if case.stream else case.everything
    made = limited(made, len(train), case.question.seed)
    assert made.labels is not None

    total = recipe_for(case.data).images

    def watch(what: str) -> Callable[[int, int], None]:
        lines = {seed: counted(f"cas: {what}, seed {seed}", total, case.say) for seed in SEEDS}
        return lambda seed, seen: lines[seed](seen)

    device = pick_device(case.question.pick.device)
    ours = cas(made.images, made.labels, case.data, device=device, watch=watch("synthetic"))
    with current().in_turn():
        real = real_cas(case.data, case.say, device, watch("real"))
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
            "recipe": recipe_for(case.data).digest,
            "seeds": list(SEEDS),
            "against": case.data.name,
            "fingerprint": case.data.fingerprint,
            "split": "test",
        },
    }


def judge_memorisation(case: Case) -> Json:
    """Samples against training and held-out images, in pixels and in features."""
    subject, extractor = case.subject, case.extractor
    images, train = case.data.images, case.data.splits["train"]
    # Cut from what train was cut from: a test split may have other writers.
    held = case.data.splits["validation"]
    if len(held) < HELD_OUT:
        held = torch.cat([held, case.data.splits["test"]])
    draws = generator("memorisation", case.question.seed)
    pixels = memorisation(subject.images, images[train], images[held], draws)
    features = memorisation(
        case.samples.features,
        extractor.features(images[train]),
        extractor.features(images[held]),
        generator("memorisation", case.question.seed),
    )
    worst = pixels.worst[:SHOWN]
    rows = torch.tensor([offender.sample for offender in worst])
    near = torch.tensor([offender.train for offender in worst])
    other = pixels.held_out.index[rows]
    case.pictures.keep(
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


def judge_difficulty(case: Case, rows: Sequence[Json]) -> Json:
    """Which properties of the real images go with the classes that are drawn badly."""
    real = case.reference.real
    assert real.probabilities is not None
    assert real.labels is not None
    n, seed = len(case.subject.images), case.question.seed
    # The images that `reference` read.
    picks = registry.chosen(case.data, case.question.split, n, seed)
    table = difficulty.properties(
        case.data.images[picks],
        case.data.labels[picks],
        case.data.classes,
        features=real.features,
        probabilities=real.probabilities,
        train_labels=case.data.labels[case.data.splits["train"]],
    )
    qualities = [
        difficulty.Quality(
            name, better, tuple(row[name] for row in rows), _all(rows, f"{name}_error")
        )
        for name, better in (("accuracy", "higher"), ("kd", "lower"))
        if all(name in row for row in rows)
    ]
    draws = generator("difficulty", case.question.seed)
    return difficulty.difficulty(table, qualities, draws).to_json()


def judge_styles(case: Case) -> Json:
    """How samples follow the styles that were asked of them, and how good they are at each level.

    A style that came as a column of the user's is left out: nobody can measure it on samples.
    """
    found: Json = {}
    for index, style in enumerate(case.data.styles):
        if not is_measure(style) or style.name not in case.subject.styles:
            case.say(f"{style.name} is no measure: whether samples have it is not known")
            continue
        if bool(case.subject.styles[style.name].isnan().all()):  # nobody asked for it
            continue
        found[style.name] = _followed(case, index, style)
        if case.stream is not None:
            found[style.name]["named"] = _named_levels(case, case.stream, index, style)
    return found


def _followed(case: Case, index: int, style: Style) -> Json:
    """Requested against measured: overall, in each class; quality at each level."""
    data, subject = case.data, case.subject
    assert subject.labels is not None
    asked, labels = subject.styles[style.name], subject.labels
    got = measured(subject.images, (style.name,))[:, 0]
    real, real_labels = data.styles_of(case.held)[:, index], data.labels[case.held]

    def follow(rows: Tensor) -> Json:
        draws = generator("adherence", case.question.seed)
        own = asked[rows], got[rows], labels[rows]
        numbers = asdict(adherence(style, *own, real, real_labels, draws))
        return {key: None if value != value else value for key, value in numbers.items()}  # nan

    classes = [(name, (labels == k).nonzero()[:, 0]) for k, name in enumerate(data.classes)]
    return {
        "unit": style.unit,
        "levels": list(style.levels),
        "deviation": style.deviation,
        **follow(torch.arange(len(asked))),
        "per_class": [
            {"class": name, **follow(rows)} for name, rows in classes if len(rows) >= FEWEST
        ],
        "per_level": _level_rows(case, index, style, asked),
    }


def _level_rows(case: Case, index: int, style: Style, asked: Tensor) -> list[Json]:
    """Label accuracy and distance to real images of the same level, level by level."""
    question, samples, real = case.question, case.samples, case.reference.real
    picks = registry.chosen(case.data, question.split, len(asked), question.seed)
    ours, theirs = style.level(asked), style.level(case.data.styles_of(picks)[:, index])
    rows = []
    for level, name in enumerate(style.levels):
        own, others = ours == level, theirs == level
        row: Json = {"level": name, "n": int(own.sum())}
        if min(int(own.sum()), int(others.sum())) >= FEWEST:
            for key, read, here in (("accuracy", samples, own), ("accuracy_real", real, others)):
                if read.probabilities is not None and read.labels is not None:
                    right = read.probabilities[here].argmax(1) == read.labels[here]
                    row[key] = float(right.double().mean())
            draws = generator("level", question.seed, level)
            features, real_features = samples.features[own], real.features[others]
            distance = kernel_distance(features, real_features, draws, block=CLASS_BLOCK)
            shares = registry.even_coverage(real_features, features, draws)
            row |= {"kd": distance.value, "kd_error": distance.error, "coverage": shares.coverage}
        rows.append(row)
    return rows


def _named_levels(case: Case, stream: RunSubject, index: int, style: Style) -> Json:
    """Images asked for by a level's name, other styles free: which level do they have?

    All are drawn, and those are counted whose class has that level: nobody draws wide trousers.
    """
    model, levels, classes = stream.model, len(style.levels), len(case.data.classes)
    wanted = torch.arange(levels).repeat_interleave(LEVELLED).repeat(classes)
    values = torch.tensor([style.asked(name) for name in style.levels], dtype=torch.float64)
    styles = model.style_values({}, len(wanted))
    styles[:, index] = values[wanted]
    labels = torch.arange(classes).repeat_interleave(levels * LEVELLED)
    images = model.draw(Drawing.of(labels, stream.seed, styles))
    got = style.level(measured(images, (style.name,))[:, 0])
    known = (got >= 0) & _has_level(case, index, style)[labels, wanted]
    table = torch.bincount(wanted[known] * levels + got[known], minlength=levels**2)
    table = table.reshape(levels, levels)
    rows = images.unflatten(0, (classes, levels, LEVELLED))[:, :, :LEVEL_SHOWN].flatten(1, 2)
    sheet = imaging.labelled_grid(list(zip(case.data.classes, rows, strict=True)))
    case.pictures.keep(f"style-{style.name}", sheet)
    return {
        "n": int(known.sum()),
        "confusion": table.tolist(),
        "accuracy": float(table.trace()) / max(1, int(known.sum())),
    }


def _has_level(case: Case, index: int, style: Style) -> Tensor:
    """Which levels are at all common among the training images of each class, (classes, L)."""
    train = case.data.splits["train"]
    labels, own = case.data.labels[train], style.level(case.data.styles_of(train)[:, index])
    counts = torch.zeros(len(case.data.classes), len(style.levels))
    counts.index_put_((labels[own >= 0], own[own >= 0]), torch.tensor(1.0), accumulate=True)
    return counts >= COMMON * torch.bincount(labels, minlength=len(counts))[:, None]


def judge_clip(case: Case, clip: Clip) -> Json:
    """What a CLIP says, beside real and damaged images; its highest and lowest images."""
    draws = generator("clip", case.question.seed)
    rows = case.held[torch.randperm(len(case.held), generator=draws)[:CLIPPED]]
    chosen = limited(case.subject, CLIPPED, case.question.seed)
    assert chosen.labels is not None
    found = dict(
        clip_report(
            clip, chosen.images, chosen.labels, case.data.classes,
            case.data.images[rows], case.data.labels[rows], generator=draws,
        )
    )  # fmt: skip
    rated = [row for row in cast(list[Json], found["classes"]) if row["highest"]]
    for end in ("highest", "lowest"):
        page = imaging.labelled_grid([(r["name"], chosen.images[r[end]]) for r in rated])
        case.pictures.keep(f"clip-{end}", page)
    return found


def add_sheets(case: Case) -> None:
    """Pictures of samples and real images, and of both processes."""
    subject, held = case.subject, case.held
    real = (case.data.images, case.data.labels, held)
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
                    for label, title in enumerate(case.data.classes)
                    if (labels[rows] == label).any()
                ]
            )
        case.pictures.keep(name, page)
    if case.stream is not None:
        model = case.stream.model
        labels = model.labels(None, min(STRIP, len(case.data.classes)))
        steps = trajectories.walk_frames(model, Drawing.of(labels, case.question.seed))
        case.pictures.keep("reverse", trajectories.reverse_strip(steps))
        few = case.data.images[held[:STRIP]]
        case.pictures.keep("forward", trajectories.forward_strip(few, model.schedule))


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
