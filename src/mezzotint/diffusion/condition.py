"""The condition of images: an ordered record of named factors, label first.

A factor is a tensor with one row per image: integers (B,) for a choice among classes, floats
(B,) or (B, K) for a measure. Each factor can be null image by image: -1 for integers,
NaN for floats. No other file depends on these values. The order of the factors is the order
of nested guidance: null -> label -> label and styles.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

__all__ = ["GUIDANCE", "Condition", "is_null"]

GUIDANCE = "guidance"
"""Name of the factor that holds the model-guidance scale, above 1; null: no guidance."""


def is_null(values: Tensor) -> Tensor:
    """Return which rows (B,) of a factor are null (unconditional)."""
    if values.is_floating_point():
        return values.flatten(1).isnan().any(1) if values.ndim > 1 else values.isnan()
    return values < 0


def _null_like(values: Tensor) -> Tensor:
    """Return the same factor with every row null."""
    return torch.full_like(values, float("nan") if values.is_floating_point() else -1)


def _broadcast_rows(rows: Tensor, values: Tensor) -> Tensor:
    """Return rows (B,) in a shape that broadcasts with values (B,) or (B, K)."""
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
        """Return the same images with every factor null but those named in `keep`."""
        return Condition(
            {
                name: values if name in keep else _null_like(values)
                for name, values in self.factors.items()
            }
        )

    def with_factor(self, name: str, values: Tensor) -> Condition:
        """Return the condition with one more factor (B,), null where all before it are null."""
        free = torch.stack([is_null(known) for known in self.factors.values()]).all(0)
        return Condition({**self.factors, name: torch.where(free, _null_like(values), values)})

    def dropout(self, probabilities: Mapping[str, float], generator: Generator) -> Condition:
        """Set each factor to null with its own probability, independently for each image.

        Probability 0 is the identity, 1 is `null`. A factor without a probability stays. This
        is how one network learns to work with and without a condition (Ho & Salimans 2022,
        arXiv 2207.12598, algorithm 1).
        """
        if unknown := probabilities.keys() - self.factors.keys():
            raise ValueError(f"no factor {sorted(unknown)} here, only {list(self.factors)}")
        result = {}
        for name, values in self.factors.items():
            gone = torch.rand(len(values), generator=generator) < probabilities.get(name, 0.0)
            here = _broadcast_rows(gone.to(values.device), values)
            result[name] = torch.where(here, _null_like(values), values)
        return Condition(result)

    def drop_styles_jointly(self, probability: float, generator: Generator) -> Condition:
        """Set all factors but the first to null, where the first is null and else by chance.

        The chance is `probability`, drawn once per image.

        Nested guidance compares the null condition, the first factor alone, and all factors.
        Independent dropout would hardly ever show these cases to a network with several factors.
        """
        (first, values), *rest = self.factors.items()
        bare = torch.rand(len(values), generator=generator).to(values.device) < probability
        bare |= is_null(values)
        kept = {name: torch.where(_broadcast_rows(bare, v), _null_like(v), v) for name, v in rest}
        return Condition({first: values, **kept})

    def concat(self, *others: Condition) -> Condition:
        """The rows of this condition, then those of the others; all have the same factors."""
        return Condition(
            {
                name: torch.cat([values, *(other.factors[name] for other in others)])
                for name, values in self.factors.items()
            }
        )
