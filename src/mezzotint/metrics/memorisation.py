"""Are samples copies of training images? Their distances to those, and the usual ones.

Distances are root mean square differences per number of an image's representation: for pixels,
grey levels of 0 ... 255 per pixel. 0 is a copy. Two questions, both with an answer known for
images that nobody trained on:

    auc    Is a sample nearer to the training set than to as many held-out images? Both are draws
           of one distribution; for a model that knows no training image in particular the answer
           is yes for half of its samples, whatever their quality.
    tail   How many samples have an extreme ratio of the two distances, (to all training images) /
           (to the held-out ones), below the 1 % quantile of the same ratio of held-out images?

The ratio, not the distance: plain images lie near everything (Carlini et al. 2023, arXiv
2301.13188, divide by the distance to the neighbours for the same reason). Held-out images are
the yardstick as in the three-sample test of Meehan et al. 2020 (arXiv 2004.05675). A copy has
ratio 0 and stands out among any number of held-out images. The AUC of copies is far below 1
where the training set is the larger one: most originals are not among those it compares with.

Assumed: train and held-out are random parts of one set (MNIST's test images are by other writers
than its training images, so hold out some of the latter), and the samples have about its class
proportions (MNIST's 1s alone have a tail of 2.7 %, as they lie closer together than the rest).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint.errors import InputError

__all__ = ["Memorisation", "Neighbours", "Offender", "memorisation", "nearest", "neighbours"]

CHUNK = 4096  # images of either set at a time: 64 MB of distances
PAIRS = 2**22  # numbers of candidate pairs at a time: 32 MB
QUANTILE = 0.01
YARDSTICKS = 5000  # held-out images whose ratios are measured: enough for the 1 % quantile
TIMES = 3  # a tail is suspicious from this many times what chance gives ...
CHANCE = 1e-3  # ... if chance does that less often than this
DIMENSION = 4  # images vary in at least so many ways: half a ratio is 2^-4 as frequent
AUC_EXCESS, AUC_ERRORS = 0.1, 4  # an AUC is suspicious from 0.1, and 4 standard errors, too much


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest image of a reference for each of N images."""

    distance: Tensor
    """float64 (N,), exact; infinite where there was nothing to compare with."""

    index: Tensor
    """int64 (N,) into the reference; the first one where several are equally near."""


class Offender(NamedTuple):
    """A sample and the training image it may be a copy of."""

    sample: int
    """Index into the samples."""

    train: int
    """Index into the training images."""

    distance: float
    """Between the two."""

    ratio: float
    """`distance` over the sample's distance to the nearest held-out image: 0 for a copy."""


@dataclass(frozen=True, eq=False)
class Memorisation:
    """What the distances of N samples say.

    `flagged` if any of three things is seen. (1) `auc` exceeds 0.5 and `floor` by more than 0.1
    and four standard errors: all samples lean towards the training set. (2) `tail` is more than
    three times `expected`, and as many samples there would have a probability below 0.001
    (beta-binomial, exact for samples exchangeable with held-out images). (3) The same at half
    the tail's threshold: a few very near ones, hidden among the tail's usual members.
    """

    train: Neighbours
    """Of each sample in the whole training set."""

    held_out: Neighbours
    """Of each sample in the held-out images, of which no more are used than there are training
    images; indices are those of the whole held-out set."""

    auc: float
    """Share of samples nearer to train than to held-out, equally many of both; ties are half."""

    error: float
    """Standard error of `auc` where nothing is memorised, rather too large than too small. Samples
    that share their nearest real image count as one, so that it covers the chance of both."""

    floor: float
    """The same share for held-out images in place of samples: 0.5 in pixels, more in features
    that were themselves learnt from the training images."""

    tail: float
    """Share of samples with a ratio below the held-out images' 1 % quantile."""

    expected: float
    """Its expectation by chance: 0.01, or 1 / (n + 1) if fewer than 99 held-out images say."""

    worst: tuple[Offender, ...]
    """Smallest ratios first."""

    flagged: bool

    @property
    def summary(self) -> str:
        """One sentence."""
        seen = (
            f"{self.auc:.1%} of the samples lie nearer to a training image than to a held-out one "
            f"(of real images {self.floor:.1%}), {self.tail:.1%} suspiciously near "
            f"(of real images {self.expected:.1%})"
        )
        if self.flagged:
            return f"training images are memorised: {seen}; look at the worst offenders"
        return f"no sign of memorised training images: {seen}"


def memorisation(
    samples: Tensor,
    train: Tensor,
    held_out: Tensor,
    generator: torch.Generator,
    *,
    worst: int = 24,
) -> Memorisation:
    """Of samples (N, ...) against images trained on (M, ...) and not (L, ...), M, L >= 2.

    All in one representation: uint8 pixels or float features.
    worst: number of offenders listed.
    """
    if len(samples) < 1 or min(len(train), len(held_out)) < 2:
        raise InputError(
            f"{len(samples)} samples, {len(train)} training and {len(held_out)} held-out images: "
            "give at least 1, 2 and 2 to see whether training images are memorised"
        )
    order = torch.randperm(len(held_out), generator=generator)
    held_out = held_out[order]
    usual = held_out[:YARDSTICKS]
    size = min(len(train), len(held_out))
    other = held_out[:size]
    near_train, near_other = neighbours(samples, train), neighbours(samples, other)
    usual_train = neighbours(usual, train)
    usual_other = neighbours(usual, other, self_excluded=True)
    same_train, same_usual = near_train, usual_train  # among as many as are held out
    if size < len(train):
        same = train[torch.randperm(len(train), generator=generator)[:size]]
        same_train, same_usual = neighbours(samples, same), neighbours(usual, same)
    auc, error = _auc(same_train, near_other), _error(same_train, near_other)
    floor = _auc(same_usual, usual_other)
    ratios = _ratios(near_train, near_other)
    usual_ratios = _ratios(usual_train, usual_other)
    allowed = max(1, math.floor(QUANTILE * (len(usual) + 1)))
    threshold = float(usual_ratios.sort().values[allowed - 1])
    return Memorisation(
        train=near_train,
        held_out=Neighbours(near_other.distance, order[near_other.index]),
        auc=auc,
        error=error,
        floor=floor,
        tail=float((ratios < threshold).double().mean()),
        expected=allowed / (len(usual) + 1),
        worst=tuple(
            Offender(i, int(near_train.index[i]), float(near_train.distance[i]), float(ratios[i]))
            for i in ratios.argsort(stable=True)[:worst].tolist()
        ),
        flagged=auc - max(0.5, floor) > max(AUC_EXCESS, AUC_ERRORS * error)
        or _suspicious(ratios, usual_ratios, threshold),
    )


def nearest(images: Tensor, reference: Tensor, *, self_excluded: bool = False) -> Tensor:
    """Distance (N,) of each image uint8 (N, C, H, W) to the nearest of reference (M, C, H, W).

    With `self_excluded`, image i is not compared with reference i: distances within a set.
    """
    return neighbours(images, reference, self_excluded=self_excluded).distance.float()


def neighbours(images: Tensor, reference: Tensor, *, self_excluded: bool = False) -> Neighbours:
    """The nearest of reference (M, ...) for each of images (N, ...), in flat memory.

    A product of matrices in float32 finds the few candidates that its rounding leaves open, and
    these are compared in float64: exact, at the speed of float32.

    self_excluded: image i is not compared with reference i.
    """
    if images.shape[1:] != reference.shape[1:]:
        raise InputError(
            f"images of shape {tuple(images.shape[1:])} cannot be compared with images of shape "
            f"{tuple(reference.shape[1:])}: give both at one size"
        )
    ours, theirs = images.flatten(1), reference.flatten(1)
    # Distances do not change with the origin, but their rounding does.
    centre = theirs[:CHUNK].float().mean(0)
    best = torch.full((len(ours),), math.inf, dtype=torch.float64)  # squared
    index = torch.zeros(len(ours), dtype=torch.int64)
    for start in range(0, len(theirs), CHUNK):
        part = theirs[start : start + CHUNK]
        for row in range(0, len(ours), CHUNK):
            some = ours[row : row + CHUNK]
            known, where = best[row : row + CHUNK], index[row : row + CHUNK]  # views
            skip = row - start if self_excluded else None
            rows, columns = _candidates(some.float() - centre, part.float() - centre, known, skip)
            squared = _squared(some, part, rows, columns)
            least = known.scatter_reduce(0, rows, squared, "amin")
            won = (squared == least[rows]) & (squared < known[rows])
            where[rows[won]] = len(theirs)
            where.scatter_reduce_(0, rows[won], start + columns[won], "amin")
            known.copy_(least)
    return Neighbours((best / ours.shape[1]).sqrt(), index)


def _candidates(x: Tensor, y: Tensor, known: Tensor, skip: int | None) -> tuple[Tensor, Tensor]:
    """Pairs (row of x, row of y) that may be nearer than any other in y, and than `known`.

    known: float64 (len(x),), the least squared distance so far.
    skip: the diagonal of pairs left out, as in torch.diagonal; None for none.
    """
    lengths, own = y.square().sum(1), x.double().square().sum(1)
    near = torch.addmm(lengths[None], x, y.T, alpha=-2)  # |x - y|^2 - |x|^2
    if skip is not None:
        near.diagonal(skip).fill_(math.inf)
    # A sum of D products is rounded by less than D epsilon / 2 times the vectors' lengths (Higham
    # 2002, section 3.1); twice for the factor 2, and some more for the other sums.
    reach, far = own.sqrt().float(), lengths.max().sqrt()
    epsilon = torch.finfo(torch.float32).eps
    slack = epsilon * ((y.shape[1] + 8) * (reach + far) * far + 4 * reach**2)
    limit = torch.minimum(near.amin(1) + 2 * slack, (known - own).float() + 2 * slack)
    limit = limit.clamp(max=torch.finfo(torch.float32).max)  # never what is left out
    rows, columns = (near <= limit[:, None]).nonzero(as_tuple=True)
    return rows, columns


def _squared(ours: Tensor, theirs: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Squared distances of pairs in float64, from the numbers as they were given."""
    step = max(1, PAIRS // ours.shape[1])
    parts = [
        (ours[i].double() - theirs[j].double()).square().sum(1)
        for i, j in zip(rows.split(step), columns.split(step), strict=True)
    ]
    return torch.cat(parts)


def _auc(train: Neighbours, held_out: Neighbours) -> float:
    nearer = (train.distance < held_out.distance).double()
    return float((nearer + 0.5 * (train.distance == held_out.distance)).mean())


def _error(train: Neighbours, held_out: Neighbours) -> float:
    """Under the hypothesis that train and held-out images could change places.

    Each real image c is the nearest to a share w_c of the samples, and is of either set by the
    toss of a coin: the share on one side has variance sum w_c^2 / 4.
    """
    closer = train.distance < held_out.distance
    # Train images get even numbers, held-out ones odd.
    owner = torch.where(closer, 2 * train.index, 2 * held_out.index + 1)
    shares = torch.bincount(owner).double() / len(owner)
    return float(shares.square().sum().sqrt() / 2)


def _ratios(train: Neighbours, held_out: Neighbours) -> Tensor:
    """Distance to train over distance to held-out; 1 where both are 0, as in a repeated image."""
    both = (train.distance == 0) & (held_out.distance == 0)
    return torch.where(both, 1.0, train.distance / held_out.distance)


def _suspicious(ratios: Tensor, usual: Tensor, threshold: float) -> bool:
    """Are more samples below the threshold, or half of it, than held-out images make likely?"""
    n = len(usual)
    below, far_below = int((usual < threshold).sum()), int((usual < threshold / 2).sum())
    # Where no held-out image got that far, that says little if there are few of them; that the
    # number of images within a distance grows with at least its fourth power says more.
    rank, of = (far_below + 1, n + 1) if far_below else (below + 1, 2**DIMENSION * (n + 1))
    return _too_many(ratios < threshold, below + 1, n + 1) or _too_many(
        ratios < threshold / 2, rank, of
    )


def _too_many(found: Tensor, rank: int, of: int) -> bool:
    """More than by chance? The share below the rank-th of n others is Beta(rank, n + 1 - rank).

    found: bool (N,).
    """
    from scipy.stats import betabinom

    count = int(found.sum())
    chance = float(betabinom(len(found), rank, of - rank).sf(count - 1))
    return count / len(found) > TIMES * rank / of and chance < CHANCE
