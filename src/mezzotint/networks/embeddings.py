"""One vector of the noise level and every factor together, by which the network is conditioned.

`Embedding` is the specification, `ConditionEmbedding` the module:
(noise (B,), condition) -> emb (B, E).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mezzotint.diffusion.condition import Condition, is_null
from mezzotint.networks.blocks import ACTIVATIONS, zeroed

__all__ = ["Embedding", "Factor", "ConditionEmbedding", "noise_features"]


@dataclass(frozen=True)
class Factor:
    """A factor of the condition, as the network must know it."""

    name: str
    classes: int | None
    """None: it is no choice among classes but a number, of the order of 1."""


@dataclass(frozen=True)
class Embedding:
    """How noise level and factors become one vector."""

    width: int = 256
    """E, the length of the vector."""

    features: int = 64
    """Sines and cosines that describe the noise level; even."""

    factors: Literal["table", "one-hot"] = "table"
    """table: a learned row a class; one-hot: Linear and activation on the one-hot vector. Null
    (no class) is a row of its own in a table and the zero vector in one-hot."""

    join: Literal["sum", "concat"] = "sum"
    """How the vectors of the noise level and of the factors are put together."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.features < 2 or self.features % 2:
            raise ValueError(
                "an embedding needs width >= 1 and an even number of features >= 2, got "
                f"{self.width} and {self.features}"
            )


def noise_features(noise: Tensor, count: int) -> Tensor:
    """Sines and cosines (B, count) of noise = log(sigma) / 4 (B,), wavelengths 25 to 0.2.

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, with frequencies for values in [-2, 4]
    instead of positions: geometric from 1/4 to 32.
    """
    frequency = torch.logspace(-2, 5, count // 2, base=2, device=noise.device, dtype=noise.dtype)
    angle = noise[:, None] * frequency  # (B, count / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def number_features(values: Tensor, count: int) -> Tensor:
    """Sines and cosines (B, count) of numbers (B,), wavelengths 25 to 1.6; nan gives zeros."""
    frequency = torch.logspace(-2, 2, count // 2, base=2, device=values.device, dtype=values.dtype)
    angle = values[:, None] * frequency  # (B, count / 2)
    return torch.cat([angle.sin(), angle.cos()], dim=1).nan_to_num(0.0)


class ConditionEmbedding(nn.Module):
    """(noise (B,), condition) -> e (B, E)."""

    def __init__(
        self, spec: Embedding, factors: Sequence[Factor], activation: Literal["gelu", "silu"]
    ) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        parts = 1 + len(factors) if spec.join == "concat" else 1
        self.spec = spec
        self.factors = tuple(factors)
        self.noise = nn.Sequential(
            nn.Linear(spec.features, spec.width), act(), nn.Linear(spec.width, spec.width)
        )
        self.tables = nn.ModuleDict({factor.name: _table(factor, spec, act) for factor in factors})
        self.join = nn.Linear(parts * spec.width, spec.width) if parts > 1 else nn.Identity()
        self.activation = act()

    def forward(self, noise: Tensor, condition: Condition) -> Tensor:
        """noise (B,), condition of B images; a factor it does not name is null. -> (B, E)."""
        vectors = [self.noise(noise_features(noise, self.spec.features))]
        for factor in self.factors:
            values = condition.factors.get(factor.name)
            if values is None:
                missing = -1 if factor.classes else float("nan")
                values = torch.full((len(noise),), missing, device=noise.device)
            vectors.append(self._embed(factor, values, noise.dtype))
        if self.spec.join == "concat":
            joined = self.join(torch.cat(vectors, dim=1))
        else:
            joined = torch.stack(vectors).sum(0)
        embedding: Tensor = self.activation(joined)
        return embedding

    def _embed(self, factor: Factor, values: Tensor, dtype: torch.dtype) -> Tensor:
        null = is_null(values)
        table: Callable[[Tensor], Tensor] = self.tables[factor.name]
        if factor.classes is None:
            features = number_features(values.to(dtype), self.spec.features)
            return table(features) * ~null[:, None]
        index = values.masked_fill(null, factor.classes)  # the row after the classes is null
        if self.spec.factors == "table":
            return table(index)
        each = torch.arange(factor.classes, device=index.device)
        one_hot = index[:, None] == each  # (B, classes); null: all zeros
        return table(one_hot.to(dtype))


def _table(factor: Factor, spec: Embedding, act: type[nn.Module]) -> nn.Module:
    if factor.classes is None:  # starts as if it were null
        last = zeroed(nn.Linear(spec.width, spec.width))
        return nn.Sequential(nn.Linear(spec.features, spec.width), act(), last)
    if spec.factors == "table":
        return nn.Embedding(factor.classes + 1, spec.width)
    return nn.Sequential(
        nn.Linear(factor.classes, spec.width), act(), nn.Linear(spec.width, spec.width)
    )
