"""Validation: the loss on held-out images, when it is due, and when it ends the training."""

import math

import torch
from torch import Tensor

from mezzotint.data import ImageSet, spread
from mezzotint.diffusion import Denoiser, positions
from mezzotint.runtime.device import Compute
from mezzotint.runtime.rng import generator
from mezzotint.training.batches import Batch, held_out
from mezzotint.training.gradients import losses_of
from mezzotint.training.memory import empty_cuda_cache, fit_in_memory
from mezzotint.training.plan import Plan
from mezzotint.training.records import Validated
from mezzotint.training.state import TrainState

__all__ = ["stop_reason", "validate", "validation_due", "validation_loss"]

VALIDATION_CHUNK = 250
"""Number of validation images per chunk.

It is fixed: each chunk draws its noise from one generator, so another size changes the noise.
"""


def validation_due(images_seen: int, plan: Plan) -> bool:
    """Return whether this step crossed a multiple of `validate_every` or was the last one."""
    before = images_seen - plan.batch
    crossed = images_seen // plan.validate_every > before // plan.validate_every
    return crossed or images_seen >= plan.images


def validate(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> Validated:
    """Append the validation loss to the history, and return the record of it."""
    loss = validation_loss(state, data, plan, compute)
    best = loss < state.best
    state.history.append(loss)
    return Validated(state.images_seen, loss, best)


@torch.no_grad()
def validation_loss(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> float:
    """Return the mean loss on held-out images, with the same images, noise and levels every time.

    It is the loss of the averaged (EMA) weights. Without averaging, these equal the network's own.
    The denoiser is evaluated without guidance, even if it is trained with model guidance.

    Args:
        state: The averaged weights to evaluate; unchanged.
        data: Images with the split "validation".
        plan: Settings of the training, `validation_images` among them.
        compute: Device, precision and ranks.

    """
    chosen = spread(data.splits["validation"], plan.validation_images)
    position = positions(len(chosen), generator("validation levels"))
    denoiser = state.ema_denoiser
    ranks, total, size = compute.ranks, torch.zeros((), dtype=torch.float64), VALIDATION_CHUNK
    for start in range(0, len(chosen), VALIDATION_CHUNK)[ranks.rank :: ranks.size]:
        chunk = slice(start, start + VALIDATION_CHUNK)
        batch = held_out(data, plan, chosen[chunk], position[chunk], start)
        losses, size = _losses(denoiser, batch.to(compute.device), plan, compute, size)
        total += losses.cpu().double().sum()
    ranks.all_reduce_([total])
    return float(total) / len(chosen)


def _losses(
    denoiser: Denoiser, batch: Batch, plan: Plan, compute: Compute, size: int
) -> tuple[Tensor, int]:
    """Return the losses (B,), without gradient, and the micro-batch size that fitted in memory."""

    def work(micro_batch: int) -> Tensor:
        parts = batch.micro_batches(micro_batch, compute.device)
        return torch.cat([losses_of(denoiser, batch, *part, plan, compute) for part in parts])

    return fit_in_memory(work, size, lambda: empty_cuda_cache(compute.device))


def stop_reason(state: TrainState, plan: Plan) -> str | None:
    """Return why to stop before the budget is used up, or None to go on."""
    if plan.target and state.best < plan.target:
        return f"validation loss {state.best:.4f} is below the target {plan.target:g}"
    finite = math.isfinite(state.best)
    waited = len(state.history) - (state.history.index(state.best) + 1 if finite else 0)
    if plan.patience and waited >= plan.patience:
        return f"no improvement in {plan.patience} validations"
    return None
