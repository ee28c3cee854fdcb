"""The training loop: a generator of typed records; the caller saves, logs and draws.

Progress is counted in `images_seen`. The batch of a step, with its noise and levels, depends only
on (seed, images_seen) and the data. A run that stops and resumes from a saved state therefore
continues exactly as if it had not stopped. A learned schedule also depends on the losses so far,
and the state keeps their means.

The records of one step come in this order: `MicroBatchReduced`, `Skipped`, `Validated`, `Stepped`.
The state is complete, and may be saved, after `Stepped`.

Several processes train as one. Each rank computes the gradient of its share of the batch, an
all-reduce sums the gradients, and every rank then makes the same update (`runtime.distributed`).
"""

import math
import time
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.data import ImageSet, spread
from mezzotint.diffusion import Condition, Denoiser, Learned, loss, positions
from mezzotint.errors import InputError, first_line, is_out_of_memory
from mezzotint.runtime.cuda_graphs import CudaGraphs
from mezzotint.runtime.device import Compute
from mezzotint.runtime.rng import generator
from mezzotint.training.batches import Batch, held_out, next_batch
from mezzotint.training.ema import follow
from mezzotint.training.plan import Plan
from mezzotint.training.state import TrainState

__all__ = [
    "Diverged",
    "Record",
    "MicroBatchReduced",
    "Skipped",
    "Stepped",
    "Stopped",
    "Validated",
    "train",
    "validation_loss",
]

BAD_STEPS_IN_A_ROW = 10
"""Number of consecutive non-finite steps after which `train` yields `Diverged` and ends."""

LOSSES_OVER = 10_000
"""Number of images over which a learned schedule averages its squared losses."""

VALIDATION_CHUNK = 250
"""Number of validation images per chunk.

It is fixed: each chunk draws its noise from one generator, so another size changes the noise.
"""


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

    Either BAD_STEPS_IN_A_ROW consecutive steps were not finite, or the last step was not.
    """

    images_seen: int


@dataclass(frozen=True)
class Stopped:
    """Training ended before its budget was used up; `reason` says why."""

    images_seen: int
    reason: str


Record = Stepped | Skipped | Validated | MicroBatchReduced | Diverged | Stopped


def train(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> Iterator[Record]:
    """Train until the budget is used up, and yield the records that the module describes.

    Args:
        state: Weights, optimiser state and counters; updated in place.
        data: Images with the splits "train" and "validation".
        plan: Budget, schedule, learning rate and the other settings of the training.
        compute: Device, precision, CUDA graphs and ranks.

    Raises:
        InputError: Memory runs out even with one image at a time.

    """
    state.denoiser.train()
    graphs, upcoming = CudaGraphs(compute.cuda_graphs), None
    graph_key: tuple[Hashable, ...] = ()
    prefetch = compute.cuda_graphs and not isinstance(plan.schedule, Learned)
    ranks = compute.ranks

    def batch_after(images_seen: int) -> Batch:
        moments = state.second_moments
        share = ranks.share(plan.batch)
        return next_batch(data, plan, images_seen, compute.device, share, moments)

    while state.images_seen < plan.images:
        if reason := _stop_reason(state, plan):
            yield Stopped(state.images_seen, reason)
            return
        start = time.perf_counter()
        batch = upcoming or batch_after(state.images_seen)
        learning_rate = plan.learning_rate * state.lr_scale
        learning_rate *= plan.lr_schedule(state.images_seen, plan.images, state.history)
        if _graph_key(state, batch) != graph_key:  # free the memory of the old key's graphs
            graphs.clear()
        losses, shrunk = _gradients(state, batch, plan, compute, graphs)
        graph_key = _graph_key(state, batch)
        total, length = (losses * batch.weight).sum(), _clip(state, plan)
        # Prepare the next batch first: float() below waits for the device.
        upcoming = batch_after(state.images_seen + plan.batch) if prefetch else None
        value, norm = float(total) / plan.batch, float(length)
        _step(state, value, norm, learning_rate, graphs, graph_key)
        if isinstance(plan.schedule, Learned) and not state.bad_run:
            _follow_losses(state, batch, losses, plan.schedule.pieces)
        state.images_seen += plan.batch
        follow(state.ema, state.denoiser.network, plan.ema, plan.batch, state.images_seen)
        if shrunk:
            yield MicroBatchReduced(state.images_seen, state.micro_batch)
        if state.bad_run:
            yield Skipped(state.images_seen, state.skipped)
        if state.bad_run >= BAD_STEPS_IN_A_ROW:
            yield Diverged(state.images_seen)
            return
        if _validation_due(state.images_seen, plan):
            held_out_loss = validation_loss(state, data, plan, compute)
            best = held_out_loss < state.best
            state.history.append(held_out_loss)
            yield Validated(state.images_seen, held_out_loss, best)
        state.seconds += time.perf_counter() - start
        yield Stepped(state.images_seen, value, norm, learning_rate)
    if state.bad_run:  # the budget ended on a skipped step, and such a state is never saved
        yield Diverged(state.images_seen)


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
        losses, size = _losses_of(denoiser, batch.to(compute.device), plan, compute, size)
        total += losses.cpu().double().sum()
    ranks.all_reduce_([total])
    return float(total) / len(chosen)


def _losses_of(
    denoiser: Denoiser, batch: Batch, plan: Plan, compute: Compute, size: int
) -> tuple[Tensor, int]:
    """Return the losses (B,), without gradient, and the micro-batch size that fitted in memory."""
    while True:
        parts = batch.micro_batches(size, compute.device)
        try:
            each = [_losses(denoiser, batch, *part, plan, compute) for part in parts]
            return torch.cat(each), size
        except (RuntimeError, MemoryError) as error:
            size = _halved(size, error)
        _empty_cuda_cache(compute)


def _gradients(
    state: TrainState, batch: Batch, plan: Plan, compute: Compute, graphs: CudaGraphs
) -> tuple[Tensor, bool]:
    """Store the gradient of the mean loss in the parameters, summed over all ranks.

    If memory runs out, the micro-batch is halved and the whole batch is computed again. The noise
    is the same, and so is the gradient. Only BatchNorm differs, as it sees smaller batches.

    Returns:
        The losses (B,) of all ranks, and whether memory ran out.

    """
    shrunk = False
    while True:
        try:
            losses = _accumulate(state, batch, plan, compute, graphs)
            break
        except (RuntimeError, MemoryError) as error:
            now = min(state.micro_batch, len(batch.x0))
            state.micro_batch = _halved(now, error)
        graphs.clear()
        _empty_cuda_cache(compute)
        shrunk = True
    # All-reduce after the last retry: ranks that needed none wait here for the others.
    parameters = state.denoiser.network.parameters()
    compute.ranks.all_reduce_([p.grad for p in parameters if p.grad is not None])
    compute.ranks.all_reduce_([losses])
    return losses, shrunk


def _halved(images: int, error: Exception) -> int:
    """Return half of `images` after running out of memory; raise where that cannot help."""
    if not is_out_of_memory(error):
        raise error
    if images == 1:
        raise InputError(
            f"memory runs out even with one image at a time ({first_line(error)}): use a smaller "
            "network"
        ) from error
    return images // 2


def _empty_cuda_cache(compute: Compute) -> None:
    """Return unused cached memory to the CUDA driver.

    Call it after the `except` block: the exception's traceback keeps the failed tensors alive.
    """
    if compute.device.startswith("cuda"):
        torch.cuda.empty_cache()


def _accumulate(
    state: TrainState, batch: Batch, plan: Plan, compute: Compute, graphs: CudaGraphs
) -> Tensor:
    """Run this rank's micro-batches, and store the gradient of its part of the mean loss.

    Returns:
        The losses (B,), 0 for the images of other ranks.

    """
    parts = batch.micro_batches(state.micro_batch, compute.device)

    # A CUDA graph may capture this function, so every tensor that changes is an argument.
    def work(x0: Tensor, sigma: Tensor, eps: Tensor, weight: Tensor, *factors: Tensor) -> Tensor:
        condition = Condition(dict(zip(batch.condition.factors, factors, strict=True)))
        inputs = Batch(x0, condition, sigma, eps, weight, batch.position, batch.share)
        state.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(plan.batch, device=compute.device)
        own, weight = losses[batch.share], weight[batch.share]
        for part, guided in parts:
            each = _losses(state.denoiser, inputs, part, guided, plan, compute)
            value = (each * weight[part]).sum() / plan.batch
            (state.scaler.scale(value) if state.scaler else value).backward()
            own[part] = each.detach()
        return losses

    inputs = batch.x0, batch.sigma, batch.eps, batch.weight
    factors, name = batch.condition.factors.values(), ("gradients", *_graph_key(state, batch))
    losses: Tensor = graphs(name, work, *inputs, *factors)
    return losses


def _graph_key(state: TrainState, batch: Batch) -> tuple[Hashable, ...]:
    """Return the key of the CUDA graphs of this step.

    A captured backward pass owns the gradient tensors that it writes. The optimiser's step must
    therefore be captured again for every key.
    """
    return (state.micro_batch, *batch.condition.factors)


def _losses(
    denoiser: Denoiser,
    batch: Batch,
    part: slice,
    guided: Tensor | None,
    plan: Plan,
    compute: Compute,
) -> Tensor:
    """Return the losses (n,) of one part of a batch.

    `guided` holds the indices in the part of the images that train model guidance, as in `loss`.
    """
    with compute.autocast():
        return loss(
            denoiser,
            batch.x0[part],
            batch.condition[part],
            batch.sigma[part],
            batch.eps[part],
            plan.weight,
            guided,
        )


def _follow_losses(state: TrainState, batch: Batch, losses: Tensor, pieces: int) -> None:
    """Update a learned schedule's mean squared loss per piece with the losses (B,) of a batch."""
    squares = losses.cpu().double().square()
    piece = (batch.position * pieces).long().clamp(max=pieces - 1)
    before = state.second_moments or [float(squares.mean())] * pieces
    state.second_moments = []
    for index, known in enumerate(before):
        new = squares[piece == index]
        share = min(1.0, len(new) * pieces / LOSSES_OVER)
        state.second_moments.append(
            known + share * (float(new.mean()) - known) if len(new) else known
        )


def _clip(state: TrainState, plan: Plan) -> Tensor:
    """Clip the gradient to the norm `plan.clip`, and return its norm () before that."""
    if state.scaler:
        state.scaler.unscale_(state.optimizer)
    parameters = state.denoiser.network.parameters()
    limit = plan.clip if plan.clip > 0 else float("inf")
    return torch.nn.utils.clip_grad_norm_(parameters, limit)


def _step(
    state: TrainState,
    value: float,
    norm: float,
    learning_rate: float,
    graphs: CudaGraphs,
    graph_key: tuple[Hashable, ...],
) -> None:
    """Update the weights, unless the mean loss `value` or the gradient's `norm` is not finite.

    `graph_key` selects the captured step of the optimiser; see `_graph_key`.
    """
    for group in state.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # a CUDA graph reads this tensor: change it in place
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
    finite = math.isfinite(value) and math.isfinite(norm)
    if finite:
        graphs(("optimizer", *graph_key), state.optimizer.step)
    if state.scaler:  # lowers its scale after a non-finite gradient
        state.scaler.update()
    state.bad_run = 0 if finite else state.bad_run + 1
    state.skipped += int(not finite)


def _validation_due(images_seen: int, plan: Plan) -> bool:
    """Return whether this step crossed a multiple of `validate_every` or was the last one."""
    before = images_seen - plan.batch
    crossed = images_seen // plan.validate_every > before // plan.validate_every
    return crossed or images_seen >= plan.images


def _stop_reason(state: TrainState, plan: Plan) -> str | None:
    """Return why to stop before the budget is used up, or None to go on."""
    if plan.target and state.best < plan.target:
        return f"validation loss {state.best:.4f} is below the target {plan.target:g}"
    finite = math.isfinite(state.best)
    waited = len(state.history) - (state.history.index(state.best) + 1 if finite else 0)
    if plan.patience and waited >= plan.patience:
        return f"no improvement in {plan.patience} validations"
    return None
