"""Training: a generator of typed records, and what survives a restart.

Here: the loop, batches, the state and its checkpoints, averages, optimisers, learning rates.
Not here: run directories, progress bars and previews (`runs`).
"""

from mezzotint.training.loop import (
    Diverged,
    MicroBatchReduced,
    Record,
    Skipped,
    Stepped,
    Stopped,
    Validated,
    train,
    validation_loss,
)
from mezzotint.training.optimizers import Muon
from mezzotint.training.plan import Plan
from mezzotint.training.state import TrainState, fitting_weights

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
