"""The records that `train` yields.

The records of one step come in this order: `MicroBatchReduced`, `Skipped`, `Validated`, `Stepped`.
The state is complete, and may be saved, after `Stepped`.
"""

from dataclasses import dataclass

__all__ = [
    "Diverged",
    "MicroBatchReduced",
    "Record",
    "Skipped",
    "Stepped",
    "Stopped",
    "Validated",
]


@dataclass(frozen=True)
class Stepped:
    """One step is complete; the state may be saved now."""

    images_seen: int
    loss: float
    gradient_norm: float
    """Before clipping."""

    learning_rate: float


@dataclass(frozen=True)
class Skipped:
    """The loss or the gradient was not finite, so the weights were not updated."""

    images_seen: int
    total: int
    """Number of skipped steps so far."""


@dataclass(frozen=True)
class Validated:
    """The averaged (EMA) weights were evaluated on held-out images; see `validation_loss`."""

    images_seen: int
    loss: float
    best: bool
    """Whether this loss is the lowest so far."""


@dataclass(frozen=True)
class MicroBatchReduced:
    """Memory ran out, so batches now go through the network in smaller micro-batches."""

    images_seen: int
    micro_batch: int
    """Number of images in each micro-batch from now on."""


@dataclass(frozen=True)
class Diverged:
    """Training ended on non-finite steps, and the caller must roll back to a checkpoint.

    Either `loop.MAX_NONFINITE_STEPS` consecutive steps were not finite, or the last step was not.
    """

    images_seen: int


@dataclass(frozen=True)
class Stopped:
    """Training ended before its budget was used up; `reason` says why."""

    images_seen: int
    reason: str


Record = Stepped | Skipped | Validated | MicroBatchReduced | Diverged | Stopped
