"""Learning-rate schedules: multipliers of the base learning rate, pure functions of progress.

The clock is images_seen; `total` is the run's budget in images. `history` holds the validation
losses so far, so that a resumed run needs no hidden state.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Constant", "Plateau", "LrSchedule", "WarmupCosine"]


@runtime_checkable
class LrSchedule(Protocol):
    """A multiplier of the base learning rate."""

    def __call__(self, images_seen: int, total: int, history: Sequence[float]) -> float:
        """The multiplier, > 0, after images_seen of total images."""
        ...


@dataclass(frozen=True)
class Constant:
    """Always 1, after a linear warm-up over `warmup` images (0: none)."""

    warmup: int = 0

    def __call__(self, images_seen: int, total: int, history: Sequence[float]) -> float:
        """See `LrSchedule`."""
        return _warm(images_seen, self.warmup)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up over `warmup` images, then half a cosine down to `floor` at the end.

    Loshchilov & Hutter 2017 (arXiv 1608.03983), equation 5, without restarts.
    """

    warmup: int = 5000
    floor: float = 0.01

    def __post_init__(self) -> None:
        if not (self.warmup >= 0 and 0 <= self.floor <= 1):
            raise ValueError(
                f"WarmupCosine needs warmup >= 0 and 0 <= floor <= 1, got {self.warmup} and "
                f"{self.floor}"
            )

    def __call__(self, images_seen: int, total: int, history: Sequence[float]) -> float:
        """See `LrSchedule`."""
        done = min(1.0, images_seen / max(1, total))
        cosine = (1 + math.cos(math.pi * done)) / 2
        return _warm(images_seen, self.warmup) * (self.floor + (1 - self.floor) * cosine)


@dataclass(frozen=True)
class Plateau:
    """Multiplied by `factor` whenever `patience` validations in a row bring no improvement."""

    factor: float = 0.5
    patience: int = 3

    def __post_init__(self) -> None:
        if not (0 < self.factor <= 1 and self.patience >= 1):
            raise ValueError(
                f"Plateau needs 0 < factor <= 1 and patience >= 1, got {self.factor} and "
                f"{self.patience}"
            )

    def __call__(self, images_seen: int, total: int, history: Sequence[float]) -> float:
        """See `LrSchedule`."""
        rate, best, waited = 1.0, math.inf, 0
        for loss in history:
            best, waited = (loss, 0) if loss < best else (best, waited + 1)
            if waited >= self.patience:
                rate, waited = rate * self.factor, 0
        return rate


def _warm(images_seen: int, warmup: int) -> float:
    """Return the warm-up factor. It rises linearly to 1, from above 0 so that step 1 counts."""
    return min(1.0, (images_seen + 1) / warmup) if warmup > 0 else 1.0
