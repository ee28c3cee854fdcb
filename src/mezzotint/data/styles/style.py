"""Styles: what an image is like besides its class, as a number or as a choice.

A style is a measure of every image (`measures`), or a column that came with the data. A number is
cut into named levels (thin, medium, thick) at quantiles of the train images, and stays a number
for the network, whose input is z = (value - mean) / deviation; a choice is an index. Values of N
images under K styles are one table, float64 (N, K), a choice as its index; nan: not known, or not
requested.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mezzotint.errors import DataError, InputError, suggest

__all__ = ["Style", "choice_style", "number_style", "standards"]

NUMBER = re.compile(r"([+-]?[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([^0-9\s]*)")


@dataclass(frozen=True)
class Style:
    """What is known of one style of a data set, from its train images.

    name       what a person calls it
    levels     their names, lowest first; of a choice, what there is to choose from
    cuts       the values between levels, ascending, one fewer than levels; () for a choice
    middles    the median of each level; () for a choice
    range      2 % and 98 % quantile: beyond, there is little to learn from; a choice: (0, 0)
    mean       of the values; a choice: 0
    deviation  their standard deviation; a choice: 1
    unit       of the values, as it is written behind a number; "" for none
    """

    name: str
    levels: tuple[str, ...]
    cuts: tuple[float, ...] = ()
    middles: tuple[float, ...] = ()
    range: tuple[float, float] = (0.0, 0.0)
    mean: float = 0.0
    deviation: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        cuts, middles = len(self.cuts), len(self.middles)
        if not self.levels or (cuts, middles) not in ((0, 0), (len(self.levels) - 1, cuts + 1)):
            raise ValueError(
                f"style {self.name}: {len(self.levels)} levels need {len(self.levels) - 1} cuts "
                f"and as many middles as levels, or none of both; got {cuts} and {middles}"
            )

    @property
    def choice(self) -> bool:
        """Whether it is one of several and no number."""
        return not self.middles

    def steps(self, n: int) -> Tensor:
        """n values from low to high, float64 (n,); of a choice, each there is."""
        if self.choice:
            return torch.arange(len(self.levels), dtype=torch.float64)
        return torch.linspace(*self.range, n, dtype=torch.float64)

    def standard(self, values: Tensor) -> Tensor:
        """Return values (N,) as a network's input: float32 of the order of 1, or int64 choices."""
        if self.choice:
            return values.nan_to_num(-1).long()
        return ((values - self.mean) / self.deviation).float()

    def level(self, values: Tensor) -> Tensor:
        """The level of each value, int64 (N,); -1 where it is not known."""
        if self.choice:
            return values.nan_to_num(-1).long()
        cuts = torch.tensor(self.cuts, dtype=values.dtype, device=values.device)
        return torch.bucketize(values.contiguous(), cuts, right=True).where(~values.isnan(), -1)

    def warning(self, value: float) -> str | None:
        """What to say of a number that hardly any train image has; None of any other."""
        low, high = self.range
        if self.choice or math.isnan(value) or low <= value <= high:
            return None
        return (
            f"{self.name} {value:.3g}{self.unit} is beyond the data's {low:.3g} to {high:.3g}"
            f"{self.unit}: the model has hardly seen it, and need not follow"
        )

    def parse(self, text: str) -> float:
        """The value that a person means: a level by name, its median, or a number with its unit.

        >>> style.parse("thick"), style.parse("2.5px"), style.parse("-20deg")
        """
        names = [name.casefold() for name in self.levels]
        if (wanted := text.strip().casefold()) in names:
            index = names.index(wanted)
            return float(index) if self.choice else self.middles[index]
        number = NUMBER.fullmatch(text.strip())
        if not self.choice and number and number[2] in ("", self.unit):
            value = float(number[1])
            if math.isfinite(value):
                return value
        allowed = suggest(text, self.levels)
        if not self.choice:
            low, high = self.range
            allowed += f"; or a number, {low:.3g} to {high:.3g}{self.unit} in the data"
        raise InputError(f"style {self.name} has no level '{text}': {allowed}")


def standards(styles: Sequence[Style], values: Tensor) -> dict[str, Tensor]:
    """Return values (N, K) of K styles as a network's inputs, each (N,), by name."""
    return {style.name: style.standard(own) for style, own in zip(styles, values.T, strict=True)}


def number_style(name: str, values: Tensor, levels: Sequence[str], unit: str = "") -> Style:
    """The style of a number, cut at quantiles into levels that are equally full.

    values  float64 (n,) of the train images; nan where it is not known
    levels  names, lowest first

    `DataError` where the values are too much alike to be cut so.
    """
    found = values[values.isfinite()].sort().values
    shares = torch.arange(1, len(levels), dtype=torch.float64) / len(levels)
    cuts = _quantiles(found, shares)
    middles = _quantiles(
        found, (torch.arange(len(levels), dtype=torch.float64) + 0.5) / len(levels)
    )
    rising = [*middles[:1], *(v for pair in zip(cuts, middles[1:], strict=True) for v in pair)]
    if not found.numel() or any(a >= b for a, b in pairwise(rising)):
        raise DataError(
            f"style {name} is the same in too many of {len(values):,} train images to be cut into "
            f"{', '.join(levels)}: leave it out"
        )
    low, high = _quantiles(found, torch.tensor([0.02, 0.98], dtype=torch.float64))
    mean, deviation = float(found.mean()), float(found.std(correction=0))
    return Style(
        name, tuple(levels), tuple(cuts), tuple(middles), (low, high), mean, deviation, unit
    )


def _quantiles(ordered: Tensor, shares: Tensor) -> list[float]:
    """Of ascending values, linearly between two of them; torch.quantile refuses large sets."""
    if not ordered.numel():
        return [math.nan] * len(shares)
    places = shares * (len(ordered) - 1)
    below = places.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    values: list[float] = torch.lerp(ordered[below], ordered[above], places - below).tolist()
    return values


def choice_style(name: str, levels: Sequence[str]) -> Style:
    """The style of a choice between levels."""
    return Style(name, tuple(levels))
