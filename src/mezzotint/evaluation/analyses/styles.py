"""Styles: how well samples follow their requested styles, and their quality by level."""

from dataclasses import asdict

import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.data import Style
from mezzotint.data.styles.measures import measured
from mezzotint.data.styles.resolve import is_measure
from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.evaluation.samples import RunSamples
from mezzotint.metrics.adherence import adherence
from mezzotint.metrics.coverage import even_coverage
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.metrics.per_class import CLASS_BLOCK, FEWEST
from mezzotint.metrics.reference import chosen
from mezzotint.runtime.log import log
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import SampleBatch

__all__ = ["analyse"]

LEVELLED = 10
"""Images of each class that are drawn for each level of a style."""

LEVEL_SHOWN = 4
"""Of them, on a style's sheet."""

COMMON = 0.05
"""Least share of a class's training images that have a level, for it to be drawn for the class."""


def analyse(context: EvaluationContext) -> Json | None:
    """Measure how samples follow their requested styles, and their quality by level.

    None where no styles were requested. A style that came as a column of the user's is left out:
    nobody can measure it on samples.
    """
    if not context.samples.styles:
        return None
    found: Json = {}
    for index, style in enumerate(context.data.styles):
        if not is_measure(style) or style.name not in context.samples.styles:
            log.info(f"{style.name} is no measure: whether samples have it is not known")
            continue
        if bool(context.samples.styles[style.name].isnan().all()):  # not requested
            continue
        found[style.name] = _followed(context, index, style)
        if context.stream is not None:
            found[style.name]["named"] = _named_levels(context, context.stream, index, style)
    return found


def _followed(context: EvaluationContext, index: int, style: Style) -> Json:
    """Requested against measured: overall, in each class; quality at each level."""
    data, samples = context.data, context.samples
    assert samples.labels is not None
    asked, labels = samples.styles[style.name], samples.labels
    got = measured(samples.images, (style.name,))[:, 0]
    real, real_labels = data.styles_of(context.held)[:, index], data.labels[context.held]

    def follow(rows: Tensor) -> Json:
        draws = generator("adherence", context.request.seed)
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
        "per_level": _level_rows(context, index, style, asked),
    }


def _level_rows(context: EvaluationContext, index: int, style: Style, asked: Tensor) -> list[Json]:
    """Label accuracy and distance to real images of the same level, level by level."""
    request, samples, real = context.request, context.reading, context.reference.real
    rows_read = chosen(context.data, request.split, len(asked), request.seed)
    ours, theirs = style.level(asked), style.level(context.data.styles_of(rows_read)[:, index])
    rows = []
    for level, name in enumerate(style.levels):
        own, others = ours == level, theirs == level
        row: Json = {"level": name, "n": int(own.sum())}
        if min(int(own.sum()), int(others.sum())) >= FEWEST:
            for key, read, here in (("accuracy", samples, own), ("accuracy_real", real, others)):
                if read.probabilities is not None and read.labels is not None:
                    right = read.probabilities[here].argmax(1) == read.labels[here]
                    row[key] = float(right.double().mean())
            draws = generator("level", request.seed, level)
            features, real_features = samples.features[own], real.features[others]
            distance = kernel_distance(features, real_features, draws, block=CLASS_BLOCK)
            shares = even_coverage(real_features, features, draws)
            row |= {"kd": distance.value, "kd_error": distance.error, "coverage": shares.coverage}
        rows.append(row)
    return rows


def _named_levels(
    context: EvaluationContext, stream: RunSamples, index: int, style: Style
) -> Json:
    """Measure which level images have that were drawn by a level's name, other styles null.

    All are drawn, and those are counted whose class has that level: nobody draws wide trousers.
    """
    model, levels, classes = stream.model, len(style.levels), len(context.data.classes)
    wanted = torch.arange(levels).repeat_interleave(LEVELLED).repeat(classes)
    values = torch.tensor([style.parse(name) for name in style.levels], dtype=torch.float64)
    styles = model.style_values({}, len(wanted))
    styles[:, index] = values[wanted]
    labels = torch.arange(classes).repeat_interleave(levels * LEVELLED)
    images = model.sample_batch(SampleBatch.of(labels, stream.seed, styles))
    got = style.level(measured(images, (style.name,))[:, 0])
    known = (got >= 0) & _has_level(context, index, style)[labels, wanted]
    table = torch.bincount(wanted[known] * levels + got[known], minlength=levels**2)
    table = table.reshape(levels, levels)
    rows = images.unflatten(0, (classes, levels, LEVELLED))[:, :, :LEVEL_SHOWN].flatten(1, 2)
    sheet = imaging.labelled_grid(list(zip(context.data.classes, rows, strict=True)))
    context.pictures.keep(f"style-{style.name}", sheet)
    return {
        "n": int(known.sum()),
        "confusion": table.tolist(),
        "accuracy": float(table.trace()) / max(1, int(known.sum())),
    }


def _has_level(context: EvaluationContext, index: int, style: Style) -> Tensor:
    """Which levels are at all common among the training images of each class, (classes, L)."""
    train = context.data.splits["train"]
    labels, own = context.data.labels[train], style.level(context.data.styles_of(train)[:, index])
    counts = torch.zeros(len(context.data.classes), len(style.levels))
    counts.index_put_((labels[own >= 0], own[own >= 0]), torch.tensor(1.0), accumulate=True)
    return counts >= COMMON * torch.bincount(labels, minlength=len(counts))[:, None]
