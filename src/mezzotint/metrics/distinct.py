"""Share of samples that are left when copies of each other count once."""

from collections.abc import Mapping

import torch

from mezzotint.metrics.metric import Group, Metric, Number, Read

__all__ = ["DISTINCT"]


def _measure(samples: Read, real: Read, draws: torch.Generator) -> Mapping[str, Number]:
    assert samples.different is not None
    return {"distinct": Number(samples.different / len(samples.features))}


DISTINCT = Group(
    {"distinct": Metric("share of different images", "higher")}, _measure, ("different",)
)
