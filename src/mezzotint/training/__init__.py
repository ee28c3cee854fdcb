"""Training: a generator of typed records, and what survives a restart.

Here: the loop, batches, gradients, steps, validation, the state and its checkpoints, averages,
optimisers, learning rates.
Not here: run directories, progress bars and previews (`runs`).
"""

from mezzotint.training.loop import train
from mezzotint.training.optimizers import Muon
from mezzotint.training.plan import Plan
from mezzotint.training.records import (
    Diverged,
    MicroBatchReduced,
    Record,
    Skipped,
    Stepped,
    Stopped,
    Validated,
)
from mezzotint.training.state import TrainState, fitting_weights
from mezzotint.training.validation import validation_loss

__all__ = [
    "Diverged",
    "Muon",
    "Plan",
    "Record",
    "MicroBatchReduced",
    "Skipped",
    "Stepped",
    "Stopped",
    "TrainState",
    "Validated",
    "fitting_weights",
    "train",
    "validation_loss",
]
