"""Styles: what an image is like beside its class, as a number or as a choice.

A style is a measure of every image (`measures`), or a column that came with the data. A number is
cut into named levels (thin, medium, thick) at quantiles of the train images, and stays a number
for the network, which hears z = (value - mean) / deviation; a choice is an index. Values of N
images under K styles are one table, float64 (N, K), a choice as its index; nan: not known, or not
asked for.
"""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.errors import InputError, suggest

__all__ = ["Style"]

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
        """Values (N,) as a network hears them: float32 of the order of 1, or int64 choices."""
        if self.choice:
            return values.nan_to_num(-1).long()
        return ((values - self.mean) / self.deviation).float()

    def level(self, values: Tensor) -> Tensor:
        """The level of each value, int64 (N,); -1 where it is not known."""
        if self.choice:
            return values.nan_to_num(-1).long()
        cuts = torch.tensor(self.cuts, dtype=values.dtype, device=values.device)
        return torch.bucketize(values, cuts, right=True).where(~values.isnan(), -1)

    def asked(self, text: str) -> float:
        """The value that a person means: a level by name, its median, or a number with its unit.

        >>> style.asked("thick"), style.asked("2.5px"), style.asked("-20deg")
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
