"""Training: a generator of typed records, and what survives a restart."""

from mezzotint.training.loop import (
    Diverged,
    Plan,
    Record,
    Shrunk,
    Skipped,
    Stepped,
    Stopped,
    Validated,
    train,
    validation_loss,
)
from mezzotint.training.machine import Compute, choose
from mezzotint.training.state import TrainState

__all__ = [
    "Compute",
    "Diverged",
    "Plan",
    "Record",
    "Shrunk",
    "Skipped",
    "Stepped",
    "Stopped",
    "TrainState",
    "Validated",
    "choose",
    "train",
    "validation_loss",
]
