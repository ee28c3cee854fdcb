"""Kernel distance: how far two sets of features are apart, without bias at any size.

Binkowski et al. 2018 (arXiv 1801.01401): the squared maximum mean discrepancy of Gretton et al.
2012 with the cubic kernel k(x, y) = (x . y / D + 1)^3 of features of width D,

    MMD^2 = mean_{i != j} k(a_i, a_j) + mean_{i != j} k(b_i, b_j) - 2 mean_{i, j} k(a_i, b_j),

averaged over disjoint blocks. Its expectation is the same for every number of images, and 0 for
two draws from one distribution; so it can come out below 0, and works with few images.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.metrics.frechet import check_features
from mezzotint.metrics.metric import Group, Metric, Number, Read

__all__ = ["KD", "KernelDistance", "kernel_distance"]

CHUNK = 1024


@dataclass(frozen=True)
class KernelDistance:
    """The mean over blocks, and how well it is known."""

    value: float
    """MMD^2; about 0 for equal distributions, on either side of it."""

    error: float | None
    """Standard error of `value`, from the spread of the blocks. None: there was one block, and
    one number has no spread. From few blocks it is itself rough."""

    blocks: int


def kernel_distance(
    a: Tensor, b: Tensor, generator: torch.Generator, block: int = 1000
) -> KernelDistance:
    """Between features (N, D) and (M, D), N, M >= 2; the order of the two does not matter.

    block: images of the smaller set in a block, at least 2. Both sets are shuffled and cut into
        as many parts as whole blocks fit into the smaller one, at least 1; no image is left out.
    """
    check_features(a, b)
    fewest = min(len(a), len(b))
    if fewest < 2 or block < 2:
        raise InputError(
            f"the kernel distance compares pairs within a set and a block: given {len(a)} and "
            f"{len(b)} images in blocks of {block}, give at least 2 of each"
        )
    count = max(1, fewest // block)
    blocks = zip(_cut(a, count, generator), _cut(b, count, generator), strict=True)
    values = torch.tensor(
        [_unbiased(x.double(), y.double()) for x, y in blocks], dtype=torch.float64
    )
    error = float(values.std() / count**0.5) if count > 1 else None
    return KernelDistance(float(values.mean()), error, count)


def _unbiased(a: Tensor, b: Tensor) -> float:
    """MMD^2 of one block."""
    n, m = len(a), len(b)
    same_a = (_total(a, a) - _diagonal(a)) / (n * (n - 1))
    same_b = (_total(b, b) - _diagonal(b)) / (m * (m - 1))
    return same_a + same_b - 2 * _total(a, b) / (n * m)


def _total(a: Tensor, b: Tensor) -> float:
    """Sum of k over all pairs."""
    width = a.shape[1]
    return sum(float((part @ b.T / width + 1).pow(3).sum()) for part in a.split(CHUNK))


def _diagonal(a: Tensor) -> float:
    """Sum of k(a_i, a_i)."""
    return float((a.square().mean(1) + 1).pow(3).sum())


def _cut(features: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Shuffled, in `count` parts of nearly equal size."""
    return features[torch.randperm(len(features), generator=generator)].tensor_split(count)


def _measure(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    found = kernel_distance(samples.features, real.features, draws)
    return {"kd": Number(found.value, found.error)}


KD = Group(
    {"kd": Metric("kernel distance", "lower", counted=True, online=True)}, _measure, fewest=6
)
