"""The training loop: a generator of typed records; the caller saves, logs and draws.

The clock is images_seen. Whatever a step draws is a function of (seed, images_seen) and the data,
so a run that is stopped after any record and taken up again goes on exactly as if it had not been.
A learned schedule depends on the losses so far, which the state keeps.
Within one step the records come in the order skipped/reduced, validated, stepped: after `Stepped`
the state is complete and may be saved.
Several processes train as one: each computes the gradient of its share of the batch, and the sums
move the same weights everywhere (`runtime.distributed`).
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
"""After so many non-finite steps in a row the training goes back to its last good checkpoint."""

LOSSES_OVER = 10_000
"""Images over which a learned schedule averages its squared losses."""

VALIDATION_CHUNK = 250
"""Images validated at once; fixed, since the noise of a chunk is drawn in one go."""


@dataclass(frozen=True)
class Stepped:
    """One step is complete; the state may be saved now."""

    images_seen: int
    loss: float
    gradient_norm: float
    learning_rate: float


@dataclass(frozen=True)
class Skipped:
    """Loss or gradient was not finite; the step was left out."""

    images_seen: int
    total: int


@dataclass(frozen=True)
class Validated:
    """The loss on held-out images, of the averaged weights, at fixed noise and levels."""

    images_seen: int
    loss: float
    best: bool


@dataclass(frozen=True)
class MicroBatchReduced:
    """Memory ran out: batches now go through the network in smaller parts."""

    images_seen: int
    micro_batch: int


@dataclass(frozen=True)
class Diverged:
    """Too many non-finite steps in a row, or the last ones: the caller rolls back."""

    images_seen: int


@dataclass(frozen=True)
class Stopped:
    """The loop has ended before its budget, and why."""

    images_seen: int
    reason: str


Record = Stepped | Skipped | Validated | MicroBatchReduced | Diverged | Stopped


def train(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> Iterator[Record]:
    """Train until the budget is used up, moving `state`; see the module's text."""
    state.denoiser.train()
    graphs, upcoming = CudaGraphs(compute.cuda_graphs), None
    graph_key: tuple[Hashable, ...] = ()
    ahead = compute.cuda_graphs and not isinstance(plan.schedule, Learned)
    ranks = compute.ranks

    def batch_after(images_seen: int) -> Batch:
        moments = state.second_moments
        share = ranks.share(plan.batch)
        return next_batch(data, plan, images_seen, compute.device, share, moments)

    while state.images_seen < plan.images:
        if reason := _enough(state, plan):
            yield Stopped(state.images_seen, reason)
            return
        start = time.perf_counter()
        batch = upcoming or batch_after(state.images_seen)
        learning_rate = plan.learning_rate * state.lr_scale
        learning_rate *= plan.lr_schedule(state.images_seen, plan.images, state.history)
        if _graph_key(state, batch) != graph_key:  # graphs of the key before are not needed again
            graphs.clear()
        losses, shrunk = _gradients(state, batch, plan, compute, graphs)
        graph_key = _graph_key(state, batch)
        total, length = (losses * batch.weight).sum(), _clip(state, plan)
        # While the device computes.
        upcoming = batch_after(state.images_seen + plan.batch) if ahead else None
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
        if _due(state.images_seen, plan):
            value_held = validation_loss(state, data, plan, compute)
            best = value_held < state.best
            state.history.append(value_held)
            yield Validated(state.images_seen, value_held, best)
        state.seconds += time.perf_counter() - start
        yield Stepped(state.images_seen, value, norm, learning_rate)
    if state.bad_run:  # too late for more of them, but nothing to end on
        yield Diverged(state.images_seen)


@torch.no_grad()
def validation_loss(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> float:
    """Mean loss of held-out images; noise, levels and images are the same every time.

    Of the averaged weights, or of the network itself where nothing is averaged (they are equal).
    Of the denoiser without guidance, also with model guidance.
    """
    chosen = spread(data.splits["validation"], plan.validation_images)
    position = positions(len(chosen), generator("validation levels"))
    denoiser = state.ema_denoiser
    ranks, total, at_once = compute.ranks, torch.zeros((), dtype=torch.float64), VALIDATION_CHUNK
    for start in range(0, len(chosen), VALIDATION_CHUNK)[ranks.rank :: ranks.size]:
        chunk = slice(start, start + VALIDATION_CHUNK)
        batch = held_out(data, plan, chosen[chunk], position[chunk], start)
        losses, at_once = _losses_of(denoiser, batch.to(compute.device), plan, compute, at_once)
        total += losses.cpu().double().sum()
    ranks.all_reduce_([total])
    return float(total) / len(chosen)


def _losses_of(
    denoiser: Denoiser, batch: Batch, plan: Plan, compute: Compute, at_once: int
) -> tuple[Tensor, int]:
    """Losses (B,) without gradient, and how many images went through at once in the end."""
    while True:
        parts = batch.micro_batches(at_once, compute.device)
        try:
            each = [_losses(denoiser, batch, *part, plan, compute) for part in parts]
            return torch.cat(each), at_once
        except (RuntimeError, MemoryError) as error:
            at_once = _fewer(at_once, error)
        _give_back(compute)


def _gradients(
    state: TrainState, batch: Batch, plan: Plan, compute: Compute, graphs: CudaGraphs
) -> tuple[Tensor, bool]:
    """Losses (B,), their mean's gradient left in the parameters; and whether memory ran out.

    Where memory runs out the micro-batch is halved and the whole batch done again with the same
    noise, so the gradient is the same (but for BatchNorm, which sees smaller batches).
    """
    shrunk = False
    while True:
        try:
            losses = _accumulate(state, batch, plan, compute, graphs)
            break
        except (RuntimeError, MemoryError) as error:
            now = min(state.micro_batch, len(batch.x0))
            state.micro_batch = _fewer(now, error)
        graphs.clear()
        _give_back(compute)
        shrunk = True
    # Only now that memory has sufficed: while a rank tries again, the others just wait.
    parameters = state.denoiser.network.parameters()
    compute.ranks.all_reduce_([p.grad for p in parameters if p.grad is not None])
    compute.ranks.all_reduce_([losses])
    return losses, shrunk


def _fewer(images: int, error: Exception) -> int:
    """Half as many images at once, where that helps against an error; else raises it."""
    if not is_out_of_memory(error):
        raise error
    if images == 1:
        raise InputError(
            f"memory runs out even with one image at a time ({first_line(error)}): use a smaller "
            "network"
        ) from error
    return images // 2


def _give_back(compute: Compute) -> None:
    """Memory that nobody uses: not while an error is handled, which holds what failed."""
    if compute.device.startswith("cuda"):
        torch.cuda.empty_cache()


def _accumulate(
    state: TrainState, batch: Batch, plan: Plan, compute: Compute, graphs: CudaGraphs
) -> Tensor:
    """Losses (B,), their mean's gradient left in the parameters."""
    parts = batch.micro_batches(state.micro_batch, compute.device)

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

    A captured backward pass owns the gradients that it writes, so the optimiser's step is
    captured anew for every key.
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
    """The loss of each image of a part of a batch; `guided`: see `loss`."""
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
    """Move the mean squared loss of each piece of a learned schedule towards this batch (B,)."""
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
    """The gradient's norm (), which is then at most `plan.clip`."""
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
    """Move the weights, unless loss or gradient is not finite; see `_graph_key`."""
    for group in state.optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # where a CUDA graph reads it
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
    finite = math.isfinite(value) and math.isfinite(norm)
    if finite:
        graphs(("optimizer", *graph_key), state.optimizer.step)
    if state.scaler:  # adapts its scale to whether the gradient was finite
        state.scaler.update()
    state.bad_run = 0 if finite else state.bad_run + 1
    state.skipped += int(not finite)


def _due(images_seen: int, plan: Plan) -> bool:
    """Whether this step crossed a multiple of validate_every, or was the last one."""
    before = images_seen - plan.batch
    crossed = images_seen // plan.validate_every > before // plan.validate_every
    return crossed or images_seen >= plan.images


def _enough(state: TrainState, plan: Plan) -> str | None:
    """Why to stop before the budget is used up, if at all."""
    if plan.target and state.best < plan.target:
        return f"validation loss {state.best:.4f} is below the target {plan.target:g}"
    finite = math.isfinite(state.best)
    waited = len(state.history) - (state.history.index(state.best) + 1 if finite else 0)
    if plan.patience and waited >= plan.patience:
        return f"no improvement in {plan.patience} validations"
    return None
