"""The styles of a data set: which fit it, their values for every image, what train says of them.

A style is a column that came with the data, or a measure. A column of numbers stays a number; one
of texts, of truths or of at most `FEW` different whole numbers is a choice. Where a column is
called like a measure, the column is meant.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mezzotint.data.cache import kept_measures
from mezzotint.data.encoded import Encoded
from mezzotint.data.styles.measures import Measure, shows_figures
from mezzotint.data.styles.registry import MEASURES
from mezzotint.data.styles.style import Style, choice_style, number_style
from mezzotint.errors import DataError, InputError, suggest
from mezzotint.runtime.log import log

__all__ = ["Styled", "is_measure", "styled"]

SEEN = 2000  # train images that decide whether a set shows figures
FEW = 12  # different whole numbers that are a choice and no amount
MOST = 100  # levels of a choice
LEVELS = ("low", "middle", "high")
LONGEST = 40  # characters of somebody's text that a message repeats

Columns = Mapping[str, Callable[[], Sequence[Any]]]


@dataclass(frozen=True, eq=False)
class Styled:
    """Styles, K of them, and their values float64 (N, K)."""

    styles: tuple[Style, ...] = ()
    values: Tensor = torch.zeros(0, 0, dtype=torch.float64)


def styled(
    encoded: Encoded,
    size: int | None,
    images: Tensor,
    train: Tensor,
    names: Sequence[str] | None,
) -> Styled:
    """The styles of these names, for uint8 images (N, C, H, W) decoded at `size`.

    train  int64 (n,), the images that say how values are spread
    names  None: every column and measure that fits; what does not is said
    """
    if names is not None and not names:
        return Styled()
    if names is not None and len(set(names)) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise InputError(f"style {twice} is given twice: give it once")
    columns = encoded.columns()
    asked = list({**columns, **MEASURES}) if names is None else list(names)
    figures = shows_figures(images[train[:: max(1, len(train) // SEEN)]])
    for name in asked:
        if name not in columns and name not in MEASURES:
            raise InputError(f"'{name}' is no style: {suggest(name, {*MEASURES, *columns})}")
        if name in columns and name in MEASURES:
            log.info(f"style {name} is the data's own column, not the measure")
    refused = {
        name: why
        for name in asked
        if name not in columns
        if (why := _refusal(MEASURES[name], images.shape[1], figures))
    }
    if names is not None and refused:
        raise InputError(f"{next(iter(refused.values()))}: leave it out")
    wanted = [name for name in asked if name not in columns and name not in refused]
    measured = kept_measures(encoded, size, images, wanted)
    by_name = dict(zip(wanted, measured.T, strict=True))
    found, values = [], []
    for name in (name for name in asked if name not in refused):
        try:
            if name in columns:
                style, own = _column(name, columns[name](), train)
            else:
                own = by_name[name]
                style = number_style(name, own[train], MEASURES[name].levels, MEASURES[name].unit)
        except DataError as error:
            if names is not None:
                raise
            log.info(str(error))
            continue
        found.append(style)
        values.append(own)
    if not found:
        return Styled()
    return Styled(tuple(found), torch.stack(values, 1))


def is_measure(style: Style) -> bool:
    """Whether it can be measured on any image: it is no column that is called like a measure."""
    own = MEASURES.get(style.name)
    return own is not None and not style.choice and style.levels == own.levels


def _refusal(measure: Measure, channels: int, figures: bool) -> str | None:
    """Why a measure does not fit a set."""
    if measure.fits == "colour" and channels == 1:
        return f"style {measure.name} is of colour images, these are grey"
    if measure.fits == "figures" and not figures:
        return f"style {measure.name} is of figures on flat ground, these are photographs"
    if measure.fits == "photographs" and figures:
        return f"style {measure.name} is of photographs, these are figures on flat ground"
    return None


def _column(name: str, raw: Sequence[Any], train: Tensor) -> tuple[Style, Tensor]:
    """Somebody's own style: None, "" and nan are not known."""
    cleaned = [None if _unknown(value) else value for value in raw]
    known = {value for value in cleaned if value is not None}
    numbers = _numbers(name, known)
    whole = numbers is not None and all(number == int(number) for number in numbers.values())
    if numbers is not None and not (whole and len(set(numbers.values())) <= FEW):
        values = [math.nan if value is None else numbers[value] for value in cleaned]
        column = torch.tensor(values, dtype=torch.float64)
        return number_style(name, column[train], LEVELS), column
    if numbers is not None:
        texts = {value: f"{number:.0f}" for value, number in numbers.items()}
        levels = [f"{number:.0f}" for number in sorted(set(numbers.values()))]
    else:
        texts = {value: " ".join(str(value).split()) for value in known}
        levels = sorted(set(texts.values()))
    if not 2 <= len(levels) <= MOST:
        raise DataError(
            f"style {name} has {len(levels):,} different values: a choice is between 2 and {MOST}"
        )
    index = {level: i for i, level in enumerate(levels)}
    choices = [math.nan if value is None else float(index[texts[value]]) for value in cleaned]
    return choice_style(name, levels), torch.tensor(choices, dtype=torch.float64)


def _unknown(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in ("", "nan")
    return value is None or (isinstance(value, float) and math.isnan(value))


def _numbers(name: str, known: set[Any]) -> dict[Any, float] | None:
    """Each value as a number; None where they are texts or truths."""
    if not known or any(isinstance(value, bool) for value in known):
        return None
    try:
        numbers = {value: float(value) for value in known}
    except (TypeError, ValueError, OverflowError):
        return None
    for value, number in numbers.items():
        if not math.isfinite(number):
            raise DataError(
                f"style {name} has the value {str(value)[:LONGEST]}: give finite numbers, or "
                "nothing where it is not known"
            )
    return numbers
