"""What an image is asked to be: an ordered record of named factors, label first.

A factor is a tensor with one row per image: integers (B,) for a choice among classes, floats
(B,) or (B, K) for a measure. Each factor can be *free* (null) image by image: -1 for integers,
NaN for floats. This file is the only place that knows that. The order of the factors is the order
of nested guidance: free -> label -> label and styles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

__all__ = ["GUIDANCE", "Condition", "is_free"]

GUIDANCE = "guidance"
"""The factor that says how strongly to follow the others: a scale above 1; free: as they are."""


def is_free(values: Tensor) -> Tensor:
    """Which rows (B,) of a factor are free (unconditioned)."""
    if values.is_floating_point():
        return values.flatten(1).isnan().any(1) if values.ndim > 1 else values.isnan()
    return values < 0


def _freed(values: Tensor) -> Tensor:
    """The same factor with every row free."""
    return torch.full_like(values, float("nan") if values.is_floating_point() else -1)


def _beside(rows: Tensor, values: Tensor) -> Tensor:
    """Rows (B,) in a shape that stands beside values (B,) or (B, K)."""
    return rows.reshape(-1, *(1,) * (values.ndim - 1))


@dataclass(frozen=True)
class Condition:
    """Named factors, in order, all with one row per image."""

    factors: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of images; 0 when there is no factor at all."""
        return len(next(iter(self.factors.values()), ()))

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        """The condition of some of the images."""
        return Condition({name: values[rows] for name, values in self.factors.items()})

    def to(self, device: torch.device | str) -> Condition:
        """The same condition on another device."""
        return Condition({name: values.to(device) for name, values in self.factors.items()})

    def null(self, keep: Collection[str] = ()) -> Condition:
        """The same images with every factor free but those named in `keep`."""
        return Condition(
            {
                name: values if name in keep else _freed(values)
                for name, values in self.factors.items()
            }
        )

    def told(self, name: str, values: Tensor) -> Condition:
        """With one more factor (B,); where all before it are free, so is it."""
        free = torch.stack([is_free(known) for known in self.factors.values()]).all(0)
        return Condition({**self.factors, name: torch.where(free, _freed(values), values)})

    def drop(self, rates: Mapping[str, float], generator: Generator) -> Condition:
        """Each factor made free with its own probability, image by image and independently.

        Rate 0 is the identity, rate 1 is `null`; a factor without a rate is never dropped. This
        is how one network learns to work with and without a condition (Ho & Salimans 2022,
        arXiv 2207.12598, algorithm 1).
        """
        if unknown := rates.keys() - self.factors.keys():
            raise ValueError(f"no factor {sorted(unknown)} here, only {list(self.factors)}")
        dropped = {}
        for name, values in self.factors.items():
            gone = torch.rand(len(values), generator=generator) < rates.get(name, 0.0)
            here = _beside(gone.to(values.device), values)
            dropped[name] = torch.where(here, _freed(values), values)
        return Condition(dropped)

    def nested(self, alone: float, generator: Generator) -> Condition:
        """Everything behind the first factor free where that is, and elsewhere with a chance.

        Nested guidance compares free, the first factor alone, and all of them: what dropping each
        by itself would hardly ever show a network that has several.
        """
        (first, values), *rest = self.factors.items()
        bare = torch.rand(len(values), generator=generator).to(values.device) < alone
        bare |= is_free(values)
        kept = {name: torch.where(_beside(bare, v), _freed(v), v) for name, v in rest}
        return Condition({first: values, **kept})

    def concat(self, *others: Condition) -> Condition:
        """The rows of this condition, then those of the others; all have the same factors."""
        return Condition(
            {
                name: torch.cat([values, *(other.factors[name] for other in others)])
                for name, values in self.factors.items()
            }
        )
