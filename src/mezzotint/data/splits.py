"""Which image is for what: train, validation and test, cut once and the same everywhere.

A source's own test and validation splits are kept. A missing test split is cut from train, then
a missing validation split from what is left, class by class, by a random order with a fixed
seed. Indices are int64, ascending; labels int64 (N,).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mezzotint.errors import InputError

__all__ = ["SPLIT_NAMES", "complete", "limited", "spread"]

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
"""What sources call their splits, and what they are called here."""

TEST_SHARE = 0.15
SEED = 1642  # the year of the first mezzotint; any constant would do, but never another one


def complete(splits: Mapping[str, Tensor], labels: Tensor, validation: float) -> dict[str, Tensor]:
    """All three splits; `validation` is the share of train that a missing one takes."""
    train = splits["train"]
    test, validated = splits.get("test"), splits.get("validation")
    if test is None:
        test, train = _cut(train, labels, TEST_SHARE)
    if validated is None:
        validated, train = _cut(train, labels, validation)
    return {"train": train, "validation": validated, "test": test}


def limited(
    splits: Mapping[str, Tensor], labels: Tensor, classes: int, limit: int
) -> dict[str, Tensor]:
    """The splits with `limit` train images, as equal in number per class as the classes allow.

    Validation keeps at most max(classes, limit // 5) images, test all of its own. A smaller
    limit's images are among a larger one's. `InputError` for less than one image per class.
    """
    if limit < classes:
        raise InputError(
            f"limit {limit} leaves less than one train image for each of {classes} classes: "
            f"give {classes} or more"
        )
    return {
        "train": _balanced(splits["train"], labels, limit),
        "validation": _balanced(splits["validation"], labels, max(classes, limit // 5)),
        "test": splits["test"],
    }


def spread(rows: Tensor, n: int) -> Tensor:
    """n of the rows (N,), evenly over them, first and last included; all where N is no more.

    The first n would not do: sets often lie class by class.
    """
    if len(rows) <= n:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, n, dtype=torch.float64).round().long()]


def _cut(indices: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """(taken, left): `share` of each class and of the whole, rounded, at least one per class.

    Classes with fewer than three images stay whole.
    """
    sizes = torch.bincount(labels[indices])
    exact = sizes.double() * share
    counts = exact.floor().long()
    # Largest remainder: the whole gets its exact share although each class is rounded.
    missing = round(share * len(indices)) - int(counts.sum())
    counts[torch.argsort(counts - exact, stable=True)[:missing]] += 1
    counts = torch.where(sizes >= 3, counts.clamp(min=1), torch.zeros_like(counts))
    order, rank = _shuffled(indices, labels)
    taken = rank < counts[labels[order]]
    return order[taken].sort().values, order[~taken].sort().values


def _balanced(indices: Tensor, labels: Tensor, limit: int) -> Tensor:
    """`limit` of the indices: every class's first, then every class's second, and so on."""
    order, rank = _shuffled(indices, labels)
    count = int(labels.max()) + 1
    turn = torch.argsort(rank * count + labels[order])
    return order[turn[:limit]].sort().values


def _shuffled(indices: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The indices in the fixed random order, and each one's rank within its class there."""
    generator = torch.Generator().manual_seed(SEED)
    order = indices[torch.randperm(len(indices), generator=generator)]
    own = labels[order]
    by_class = torch.argsort(own, stable=True)
    sizes = torch.bincount(own)
    starts = sizes.cumsum(0) - sizes
    rank = torch.empty_like(order)
    rank[by_class] = torch.arange(len(order)) - starts[own[by_class]]
    return order, rank
