"""Selection: draw a pool, keep the best, and say what that did.

Keeping the best k of a pool of m by a score raises whatever the score sees and lowers variety:
the images that are left are typical ones. `effect` measures both, by rulers other than the
score itself, at equal numbers of images.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.evaluation.accuracy import accuracy
from mezzotint.evaluation.kernel import kernel_distance
from mezzotint.evaluation.measures import Read, even_coverage

__all__ = ["Effect", "Kept", "best_of", "effect", "refilled"]

Score = Callable[[Tensor, Tensor], Tensor]
"""From images uint8 (N, C, H, W) and labels (N,) to scores (N,): larger is better."""

ROUNDS = 50
"""Rounds after which `refilled` gives up."""

HOPELESS = 500
"""Draws of a class of which not one passed, after which it gives up at once."""


@dataclass(frozen=True)
class Kept:
    """Images that passed, and how many it took."""

    images: Tensor
    """uint8 (N, C, H, W)."""

    labels: Tensor
    """int64 (N,)."""

    scores: Tensor
    """float32 (N,)."""

    draws: Tensor
    """int64 (N,): position in the stream of draws."""

    drawn: int
    """Images drawn in all."""

    passed: int
    """Of them those that were good enough, also where no more were wanted."""


@dataclass(frozen=True)
class Effect:
    """What keeping `keep` of `pool` does, measured on `n` images each time."""

    pool: int
    keep: int
    n: int
    score: float
    """Mean of the kept images' scores."""

    accuracy: float
    kd: float
    coverage: float
    density: float
    spread: float
    """Variance of the features within a class, as a share of the real images': variety alone,
    while coverage also rises as bad images go."""


def best_of(scores: Tensor, labels: Tensor, pool: int, keep: int) -> Tensor:
    """Rows of the best `keep` in every pool of `pool` images of one label, ascending.

    Pools are taken in the order of the images; a last one that is not full is left out.
    """
    if not 1 <= keep <= pool:
        raise InputError(f"keep {keep} of a pool of {pool}: keep at least 1 and at most all")
    rows = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        pools = own[: len(own) // pool * pool].view(-1, pool)  # (pools, pool)
        best = scores[pools].topk(keep, dim=1).indices
        rows.append(pools.gather(1, best).flatten())
    return torch.cat(rows).sort().values


def effect(
    samples: Read,
    scores: Tensor,
    real: Read,
    pools: Sequence[int],
    keep: int,
    draws: torch.Generator,
) -> list[Effect]:
    """Quality and variety as the pool grows; the first pool equal to `keep` selects nothing.

    samples: read with labels and probabilities; scores (N,) of the same images.
    """
    assert samples.labels is not None
    assert samples.probabilities is not None
    chosen = {pool: best_of(scores, samples.labels, pool, keep) for pool in pools}
    n = min(len(rows) for rows in chosen.values())
    assert real.labels is not None
    usual = _spread(real.features, real.labels)
    found = []
    for pool, rows in chosen.items():
        # The same number each time: coverage grows with n.
        rows = rows[torch.randperm(len(rows), generator=draws)[:n]]
        features = samples.features[rows]
        shares = even_coverage(real.features, features, draws)
        found.append(
            Effect(
                pool=pool,
                keep=keep,
                n=n,
                score=float(scores[rows].mean()),
                accuracy=accuracy(samples.probabilities[rows], samples.labels[rows]),
                kd=kernel_distance(features, real.features, draws).value,
                coverage=shares.coverage,
                density=shares.density,
                spread=_spread(features, samples.labels[rows]) / usual,
            )
        )
    return found


def _spread(features: Tensor, labels: Tensor) -> float:
    """Total variance of the features (N, D) within a class, mean over classes of 2 or more."""
    groups = [features[labels == label] for label in labels.unique()]
    return statistics.fmean(float(g.double().var(0).sum()) for g in groups if len(g) > 1)


def refilled(
    draw: Callable[[Tensor, int], Tensor],
    score: Score,
    labels: Sequence[int],
    wanted: int,
    threshold: float,
) -> Iterator[Kept]:
    """Draw until `wanted` images of each label score at least `threshold`; one `Kept` a round.

    draw: from labels (n,) and the position of the first in the stream to images (n, C, H, W).
    The last `Kept` is whole. InputError where too few pass in `ROUNDS` rounds, or none at all.
    """
    missing = dict.fromkeys(labels, wanted)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    drawn, passed, tried = 0, dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    for _ in range(ROUNDS):
        asked = torch.cat(
            [torch.full((_ask(count, passed[label], tried[label]),), label)
             for label, count in missing.items() if count > 0]
        )  # fmt: skip
        images = draw(asked, drawn)
        scores = score(images, asked)
        good = scores >= threshold
        for label in missing:
            own = asked == label
            tried[label] += int(own.sum())
            passed[label] += int((own & good).sum())
            extra = (own & good).nonzero()[:, 0][max(0, missing[label]) :]
            good[extra] = False  # more passed than were missing
            missing[label] -= int((own & good).sum())
        rows = good.nonzero()[:, 0]
        parts.append((images[rows], asked[rows], scores[rows], rows + drawn))
        drawn += len(asked)
        whole = [torch.cat(part) for part in zip(*parts, strict=True)]
        yield Kept(whole[0], whole[1], whole[2], whole[3], drawn, sum(passed.values()))
        if not any(missing.values()):
            return
        if any(tried[label] >= HOPELESS and not passed[label] for label in missing):
            break
    short = {label: count for label, count in missing.items() if count > 0}
    raise InputError(
        f"after {drawn:,} draws {sum(short.values())} images that score {threshold:g} are still "
        f"missing, of labels {', '.join(map(str, short))}: lower --threshold"
    )


def _ask(missing: int, passed: int, tried: int) -> int:
    """Draws for the next round: as many as should do, by the share that passed so far."""
    if not tried:
        return missing
    share = (passed + 1) / (tried + 2)
    return min(4 * missing + 16, int(missing / share) + 1)
