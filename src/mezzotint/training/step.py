"""The update after a backward pass: clipping, the optimiser, and a learned schedule's losses."""

import math

import torch
from torch import Tensor

from mezzotint.training.batches import Batch
from mezzotint.training.gradients import GradientComputer
from mezzotint.training.plan import Plan
from mezzotint.training.state import TrainState

__all__ = ["clip_gradient", "learning_rate", "update_second_moments", "update_weights"]

LOSS_WINDOW_IMAGES = 10_000
"""Number of images over which a learned schedule averages its squared losses."""


def learning_rate(state: TrainState, plan: Plan) -> float:
    """Return the learning rate of the next step."""
    base = plan.learning_rate * state.lr_scale
    return base * plan.lr_schedule(state.images_seen, plan.images, state.history)


def clip_gradient(state: TrainState, plan: Plan) -> Tensor:
    """Clip the gradient to the norm `plan.clip`, and return its norm () before that."""
    if state.scaler:
        state.scaler.unscale_(state.optimizer)
    parameters = state.denoiser.network.parameters()
    limit = plan.clip if plan.clip > 0 else float("inf")
    return torch.nn.utils.clip_grad_norm_(parameters, limit)


def update_weights(
    state: TrainState, computer: GradientComputer, loss: float, norm: float, rate: float
) -> None:
    """Make the optimiser's step, or skip and count it if the loss or the norm is not finite.

    Args:
        state: Weights, optimiser state and counters; updated in place.
        computer: Computer of the gradient in the parameters; captures the step as a CUDA graph.
        loss: Mean loss of the batch.
        norm: Norm of the gradient.
        rate: Learning rate of this step.

    """
    for group in state.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # a CUDA graph reads this tensor: change it in place
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite:
        computer.graphed("optimizer", state.optimizer.step)
    if state.scaler:  # lowers its scale after a non-finite gradient
        state.scaler.update()
    state.nonfinite_run = 0 if finite else state.nonfinite_run + 1
    state.skipped += int(not finite)


def update_second_moments(state: TrainState, batch: Batch, losses: Tensor, pieces: int) -> None:
    """Update a learned schedule's mean squared loss per piece with the losses (B,) of a batch."""
    squares = losses.cpu().double().square()
    piece = (batch.position * pieces).long().clamp(max=pieces - 1)
    before = state.second_moments or [float(squares.mean())] * pieces
    state.second_moments = []
    for index, known in enumerate(before):
        new = squares[piece == index]
        share = min(1.0, len(new) * pieces / LOSS_WINDOW_IMAGES)
        state.second_moments.append(
            known + share * (float(new.mean()) - known) if len(new) else known
        )
