"""Difficulty: which properties of the real images go with badly drawn classes."""

from collections.abc import Sequence
from typing import cast

from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.metrics import difficulty
from mezzotint.metrics.reference import chosen
from mezzotint.metrics.registry import metric_named
from mezzotint.runtime.rng import generator

__all__ = ["analyse"]


def analyse(context: EvaluationContext) -> Json | None:
    """Correlate properties of the real images with the quality of each class."""
    rows, real = context.per_class, context.reference.real
    if rows is None:
        return None
    assert real.probabilities is not None
    assert real.labels is not None
    n, seed = len(context.samples.images), context.request.seed
    # The images that `reference` read.
    rows_read = chosen(context.data, context.request.split, n, seed)
    table = difficulty.properties(
        context.data.images[rows_read],
        context.data.labels[rows_read],
        context.data.classes,
        features=real.features,
        probabilities=real.probabilities,
        train_labels=context.data.labels[context.data.splits["train"]],
    )
    qualities = [
        difficulty.Quality(
            name,
            metric_named(name).better,
            tuple(row[name] for row in rows),
            _all(rows, f"{name}_error"),
        )
        for name in ("accuracy", "kd")
        if all(name in row for row in rows)
    ]
    draws = generator("difficulty", context.request.seed)
    return difficulty.difficulty(table, qualities, draws).to_json()


def _all(rows: Sequence[Json], key: str) -> tuple[float, ...] | None:
    """The column, if no class lacks it."""
    found = tuple(row.get(key) for row in rows)
    return None if None in found else cast(tuple[float, ...], found)
