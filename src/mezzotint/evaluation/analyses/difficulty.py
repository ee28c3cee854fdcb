"""Difficulty: which properties of the real images go with badly drawn classes."""

from collections.abc import Sequence
from typing import cast

from mezzotint.evaluation.context import Case, Json
from mezzotint.metrics import difficulty
from mezzotint.metrics.registry import DIRECTIONS, chosen
from mezzotint.runtime.rng import generator

__all__ = ["judge_difficulty"]


def judge_difficulty(case: Case) -> Json | None:
    """Correlate properties of the real images with the quality of each class."""
    rows, real = case.per_class, case.reference.real
    if rows is None:
        return None
    assert real.probabilities is not None
    assert real.labels is not None
    n, seed = len(case.subject.images), case.question.seed
    # The images that `reference` read.
    picks = chosen(case.data, case.question.split, n, seed)
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
            name, DIRECTIONS[name], tuple(row[name] for row in rows), _all(rows, f"{name}_error")
        )
        for name in ("accuracy", "kd")
        if all(name in row for row in rows)
    ]
    draws = generator("difficulty", case.question.seed)
    return difficulty.difficulty(table, qualities, draws).to_json()


def _all(rows: Sequence[Json], key: str) -> tuple[float, ...] | None:
    """The column, if no class lacks it."""
    found = tuple(row.get(key) for row in rows)
    return None if None in found else cast(tuple[float, ...], found)
