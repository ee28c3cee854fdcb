"""The training loop: a generator of typed records; the caller saves, logs and draws.

Progress is counted in `images_seen`. The batch of a step, with its noise and levels, depends only
on (seed, images_seen) and the data. A run that stops and resumes from a saved state therefore
continues exactly as if it had not stopped. A learned schedule also depends on the losses so far,
and the state keeps their means.

Several processes train as one. Each rank computes the gradient of its share of the batch, an
all-reduce sums the gradients, and every rank then makes the same update (`runtime.distributed`).
"""

import time
from collections.abc import Iterator

from mezzotint.data import ImageSet
from mezzotint.diffusion import Learned
from mezzotint.runtime.device import Compute
from mezzotint.training.batches import TrainingBatches
from mezzotint.training.ema import update_ema
from mezzotint.training.gradients import GradientComputer
from mezzotint.training.plan import Plan
from mezzotint.training.records import (
    Diverged,
    MicroBatchReduced,
    Record,
    Skipped,
    Stepped,
    Stopped,
)
from mezzotint.training.state import TrainState
from mezzotint.training.step import (
    clip_gradient,
    learning_rate,
    update_second_moments,
    update_weights,
)
from mezzotint.training.validation import stop_reason, validate, validation_due

__all__ = ["train"]

MAX_NONFINITE_STEPS = 10
"""Number of consecutive non-finite steps after which `train` yields `Diverged` and ends."""


def train(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> Iterator[Record]:
    """Train until the budget is used up, and yield the records that `training.records` describes.

    Args:
        state: Weights, optimiser state and counters; updated in place.
        data: Images with the splits "train" and "validation".
        plan: Budget, schedule, learning rate and the other settings of the training.
        compute: Device, precision, CUDA graphs and ranks.

    Raises:
        InputError: Memory runs out even with one image at a time.

    """
    state.denoiser.train()
    batches = TrainingBatches(state, data, plan, compute)
    computer = GradientComputer(state, plan, compute)
    while state.images_seen < plan.images:
        if reason := stop_reason(state, plan):
            yield Stopped(state.images_seen, reason)
            return
        start = time.perf_counter()

        # Batch: images, condition, sigmas and noise, a function of (seed, images_seen).
        batch = next(batches)

        # Loss and backward pass: the gradient lies in the parameters, summed over the ranks.
        losses, reduced = computer.backward(batch)
        total, norm = (losses * batch.weight).sum(), clip_gradient(state, plan)
        batches.prefetch()  # before float(), which waits for the device
        loss, gradient_norm = float(total) / plan.batch, float(norm)

        # Step: update the weights, unless the loss or the gradient is not finite.
        rate = learning_rate(state, plan)
        update_weights(state, computer, loss, gradient_norm, rate)
        if isinstance(plan.schedule, Learned) and not state.nonfinite_run:
            update_second_moments(state, batch, losses, plan.schedule.pieces)
        state.images_seen += plan.batch

        # EMA: move the averaged weights towards the new ones.
        update_ema(state.ema, state.denoiser.network, plan.ema, plan.batch, state.images_seen)

        # Report what went wrong.
        if reduced:
            yield MicroBatchReduced(state.images_seen, state.micro_batch)
        if state.nonfinite_run:
            yield Skipped(state.images_seen, state.skipped)
        if state.nonfinite_run >= MAX_NONFINITE_STEPS:
            yield Diverged(state.images_seen)
            return

        # Validate the averaged weights on held-out images.
        if validation_due(state.images_seen, plan):
            yield validate(state, data, plan, compute)

        # Yield: the state is complete and may be saved.
        state.seconds += time.perf_counter() - start
        yield Stepped(state.images_seen, loss, gradient_norm, rate)
    if state.nonfinite_run:  # the budget ended on a skipped step, and such a state is never saved
        yield Diverged(state.images_seen)
