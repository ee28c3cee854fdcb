"""Frechet distance between two sets of features, taken as two Gaussians.

Heusel et al. 2017 (arXiv 1706.08500), equation 6, after Dowson and Landau 1982:

    FD = |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2))

with means m and covariances A, B. The last trace is the sum of the singular values of F^T G for
any factors A = F F^T and B = G G^T; these come from eigenvalues in float64, never from a general
matrix square root, which fails on covariances without full rank.

FD is in squared units of the features, 0 for equal moments, and too large by about slope / n
with n images (Chong and Forsyth 2019, arXiv 1911.07023). So n belongs to its name, and
`extrapolated` estimates the value without that bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.metrics.metric import Group, Metric, Number, Read

__all__ = [
    "FD",
    "Extrapolation",
    "Moments",
    "check_features",
    "extrapolated",
    "frechet_distance",
    "moments",
]

CHUNK = 4096
SUBSETS = 5  # extrapolation: the whole set, halves, ... fifths


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of n feature vectors."""

    mean: Tensor
    """float64 (D,)."""

    covariance: Tensor
    """float64 (D, D); divided by n - 1."""

    n: int


@dataclass(frozen=True)
class Extrapolation:
    """The straight line value + slope / n through Frechet distances at several n."""

    value: float
    """At n = infinity. Below 0 where the two sets cannot be distinguished."""

    slope: float
    """In units of FD times images: n images cost about slope / n."""

    error: float | None
    """Standard error of `value` as the line's end, from how far the points lie off it. Another
    draw of images moves `value` by more. None: two points only, and every line fits those."""

    sizes: tuple[int, ...]
    """The n of each point, largest first."""


def check_features(*sets: Tensor) -> None:
    """InputError unless all are floating point (N, D), N >= 1, finite, and of one D."""
    for features in sets:
        if features.ndim != 2 or not features.is_floating_point() or len(features) == 0:
            raise InputError(
                f"features are {features.dtype} {tuple(features.shape)}: give float32 (N, D) of "
                "at least one image"
            )
        if not features.isfinite().all():
            raise InputError("features hold NaN or infinity: look at the images behind them")
    _check_widths({features.shape[1] for features in sets})


def moments(features: Tensor) -> Moments:
    """Of features (N, D), N >= 2, summed in float64 a chunk at a time."""
    check_features(features)
    n, width = features.shape
    if n < 2:
        raise InputError("one image has no covariance: give at least 2")
    mean = torch.stack([part.double().sum(0) for part in features.split(CHUNK)]).sum(0) / n
    scatter = torch.zeros(width, width, dtype=torch.float64)
    for part in features.split(CHUNK):
        centred = part.double() - mean
        scatter.addmm_(centred.T, centred)
    return Moments(mean, scatter / (n - 1), n)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared distance >= 0 of two Gaussians; equation in the module's head.

    Needs more images than features on both sides: below that a covariance has no full rank,
    and the distance says more about n than about the images.
    """
    _check_widths({len(a.mean), len(b.mean)})
    _check_rank(min(a.n, b.n), len(a.mean))
    return max(0.0, _distance(a, b, _factor(b.covariance)))


def extrapolated(
    features: Tensor, reference: Moments, generator: torch.Generator
) -> Extrapolation:
    """FD without the bias that comes from having only N images (Chong and Forsyth 2019).

    The features (N, D) are shuffled and cut into k parts, k = 1 ... 5 as long as each part has
    more than D images; the mean FD of the parts, which have n = N / k, is fitted by
    value + slope / n. Every point of the line uses all N images, so that their chance is the
    same in each and does not tilt it. The reference keeps the bias of its own n.
    """
    check_features(features)
    n, width = features.shape
    _check_widths({width, len(reference.mean)})
    _check_rank(n // 2, width, needed=2 * (width + 1))
    factor = _factor(reference.covariance)
    features = features[torch.randperm(n, generator=generator)]
    # As many parts as the rank allows: the smallest of k parts has n // k images.
    counts = [count for count in range(1, SUBSETS + 1) if n // count > width]
    distances = [
        sum(_distance(moments(part), reference, factor) for part in features.tensor_split(count))
        / count
        for count in counts
    ]
    y = torch.tensor(distances, dtype=torch.float64)
    x = torch.tensor([[1, count / n] for count in counts], dtype=torch.float64)
    line = torch.linalg.lstsq(x, y).solution
    error = None
    if len(counts) > 2:
        variance = (y - x @ line).square().sum() / (len(counts) - 2)
        error = float((variance * torch.linalg.inv(x.T @ x)[0, 0]).sqrt())
    value, slope = line.tolist()
    return Extrapolation(value, slope, error, tuple(n // count for count in counts))


def _distance(a: Moments, b: Moments, factor: Tensor) -> float:
    """FD, which rounding may leave just below 0; `factor` is b's."""
    apart = (a.mean - b.mean).square().sum()
    common = torch.linalg.svdvals(_factor(a.covariance).T @ factor).sum()
    return float(apart + a.covariance.trace() + b.covariance.trace() - 2 * common)


def _factor(covariance: Tensor) -> Tensor:
    """F with F F^T = covariance; directions without variance are exactly 0 in it."""
    values, vectors = torch.linalg.eigh(covariance)
    # The root of a rounding error is no rounding error: 1e-16 would become 1e-8.
    rounding = len(values) * torch.finfo(torch.float64).eps * values[-1]
    root: Tensor = vectors * values.where(values > rounding, 0.0).sqrt()
    return root


def _check_widths(widths: set[int]) -> None:
    if len(widths) > 1:
        first, second = sorted(widths)[:2]
        raise InputError(f"features {first} and {second} wide: use one extractor for all images")


def _check_rank(n: int, width: int, needed: int | None = None) -> None:
    if n <= width:
        raise InputError(
            f"too few samples for the rank: {n} images, {width} features each; give at least "
            f"{needed or width + 1}, or use the kernel distance (kd), which works with few"
        )


def _measure(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    reference = moments(real.features)
    value = Number(frechet_distance(moments(samples.features), reference))
    if len(samples.features) < 10 * samples.features.shape[1]:  # too few to extrapolate from
        return {"fd": value}
    limit = extrapolated(samples.features, reference, draws)
    return {"fd": value, "fd_infinite": Number(limit.value, limit.error)}


def _quick(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    """Return the distance alone, where there are enough images for a covariance."""
    ours, theirs = samples.features, real.features
    if min(len(ours), len(theirs)) <= ours.shape[1]:
        return {}
    return {"fd": Number(frechet_distance(moments(ours), moments(theirs)))}


FD = Group(
    {
        "fd": Metric("Frechet distance", "lower", counted=True, online=True, swept=True),
        "fd_infinite": Metric("Frechet distance, extrapolated to infinitely many", "lower"),
    },
    _measure,
    quick=_quick,
)
