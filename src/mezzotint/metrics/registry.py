"""Every metric by name: where the group lies that computes it.

    metric group --measure(samples, reference)--> numbers
    fd           Frechet distance, and the same at infinite n
    kd           kernel distance
    coverage     density, coverage and their clipped forms
    accuracy     share of samples read as their label
    score        the Inception score's formula on the set's own classifier
    distinct     share of samples that are left when copies of each other count once

The table imports nothing: the command line lists its names without torch.
"""

from typing import TYPE_CHECKING

from mezzotint.runtime.registry import Entry, Registry, entry

if TYPE_CHECKING:
    from mezzotint.metrics.metric import Group, Metric

__all__ = ["GROUPS", "metric_named", "online_metrics", "sign"]

GROUPS: "Registry[Group, Entry]" = Registry(
    "metric",
    {
        "fd": entry("mezzotint.metrics.frechet:FD"),
        "kd": entry("mezzotint.metrics.kernel:KD"),
        "coverage": entry("mezzotint.metrics.coverage:COVERAGE"),
        "accuracy": entry("mezzotint.metrics.accuracy:ACCURACY"),
        "score": entry("mezzotint.metrics.accuracy:SCORE"),
        "distinct": entry("mezzotint.metrics.distinct:DISTINCT"),
    },
)
"""By the names that `evaluate --metrics` takes."""


def _metrics() -> "dict[str, Metric]":
    return {name: each for group in GROUPS.values() for name, each in group.metrics.items()}


def metric_named(name: str) -> "Metric":
    """Return a metric of the groups."""
    return _metrics()[name]


def online_metrics() -> tuple[str, ...]:
    """Return the names of the metrics that are measured in training."""
    return tuple(name for name, metric in _metrics().items() if metric.online)


def sign(name: str) -> int:
    """Return 1 for a metric of which higher is better, -1 for one of which lower is.

    >>> sign("coverage"), sign("fd")
    (1, -1)
    """
    return 1 if metric_named(name).better == "higher" else -1
