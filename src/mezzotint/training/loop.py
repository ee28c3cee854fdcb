"""The training loop: a generator of typed records; the caller saves, logs and draws.

The clock is images_seen. Whatever a step draws is a function of (seed, images_seen) and the data,
so a run that is stopped after any record and taken up again goes on exactly as if it had not been.
A learned schedule depends on the losses so far, which the state keeps.
Within one step the records come in the order skipped/shrunk, validated, stepped: after `Stepped`
the state is complete and may be saved.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.diffusion import Condition, Learned, Schedule, Weight, draw, loss, positions
from mezzotint.errors import InputError
from mezzotint.imaging import to_float
from mezzotint.machine import Compute
from mezzotint.randomness import generator
from mezzotint.training.ema import follow
from mezzotint.training.rates import Constant, Rate
from mezzotint.training.recovery import BAD_STEPS_IN_A_ROW, is_out_of_memory
from mezzotint.training.state import TrainState

__all__ = [
    "Diverged",
    "Plan",
    "Record",
    "Shrunk",
    "Skipped",
    "Stepped",
    "Stopped",
    "Validated",
    "train",
    "validation_loss",
]

LOSSES_OVER = 10_000
"""Images over which a learned schedule averages its squared losses."""

VALIDATION_CHUNK = 250
"""Images validated at once; fixed, since the noise of a chunk is drawn in one go."""


@dataclass(frozen=True)
class Plan:
    """Everything but data and machine that decides what a training computes."""

    images: int
    """Budget: the run's total number of images seen."""

    batch: int
    seed: int
    schedule: Schedule
    weight: Weight
    learning_rate: float
    rate: Rate = field(default_factory=Constant)
    drop: Mapping[str, float] = field(default_factory=dict)
    """Probability of leaving each factor free."""

    guidance: float = 1.0
    """Scale of the guidance that is learned in; 1: none."""

    guidance_after: float = 0.0
    """Share of the budget after which it is learned in."""

    clip: float = 1.0
    """Largest norm of the gradient; 0: no clipping."""

    ema: float = 0.1
    """Relative width of the weight average; 0: no averaging."""

    validate_every: int = 20_000
    """Images between validations; there is always one at the end."""

    validation_images: int = 1000
    patience: int = 0
    """Stop after so many validations without improvement; 0: never."""

    target: float = 0.0
    """Stop once the validation loss is below this; 0: never."""

    def scale(self, images_seen: int) -> float:
        """The guidance that is learned in at this moment."""
        return self.guidance if images_seen >= self.guidance_after * self.images else 1.0


@dataclass(frozen=True)
class Stepped:
    """One step is complete; the state may be saved now."""

    images_seen: int
    loss: float
    gradient_norm: float
    rate: float


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
class Shrunk:
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


Record = Stepped | Skipped | Validated | Shrunk | Diverged | Stopped


def train(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> Iterator[Record]:
    """Train until the budget is used up, moving `state`; see the module's text."""
    state.denoiser.train()
    while state.images_seen < plan.images:
        if reason := _enough(state, plan):
            yield Stopped(state.images_seen, reason)
            return
        start = time.perf_counter()
        batch = _batch(data, plan, state, compute.device)
        rate = plan.learning_rate * state.rate_scale
        rate *= plan.rate(state.images_seen, plan.images, state.history)
        losses, shrunk = _gradients(state, batch, plan, compute)
        value = float((losses * batch.weight).sum() / plan.batch)
        norm = _step(state, value, rate, plan)
        if isinstance(plan.schedule, Learned) and not state.bad_run:
            _follow_losses(state, batch, losses, plan.schedule.pieces)
        state.images_seen += plan.batch
        follow(state.ema, state.denoiser.network, plan.ema, plan.batch, state.images_seen)
        if shrunk:
            yield Shrunk(state.images_seen, state.micro_batch)
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
        yield Stepped(state.images_seen, value, norm, rate)
    if state.bad_run:  # too late for more of them, but nothing to end on
        yield Diverged(state.images_seen)


@torch.no_grad()
def validation_loss(state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> float:
    """Mean loss of held-out images; noise, levels and images are the same every time.

    Of the averaged weights, or of the network itself where nothing is averaged (they are equal).
    Where guidance is learned in, it is the loss of the plain denoiser that is in it, and so goes
    on from what it was before.
    """
    chosen = data.splits["validation"][: plan.validation_images]
    levels = draw(plan.schedule, len(chosen), generator("validation levels"))
    network, state.denoiser.network = state.denoiser.network, state.ema
    total, scale = 0.0, plan.scale(state.images_seen)
    try:
        for start in range(0, len(chosen), VALIDATION_CHUNK):
            rows = chosen[start : start + VALIDATION_CHUNK]
            x0 = to_float(data.images[rows])
            eps = torch.randn(x0.shape, generator=generator("validation noise", start))
            sigma = levels[start : start + len(rows)]
            condition = Condition({"label": data.labels[rows]}).to(compute.device)
            with compute.autocast():
                x0, eps, sigma = (t.to(compute.device) for t in (x0, eps, sigma))
                each = loss(state.denoiser, x0, condition, sigma, eps, plan.weight, scale)
            total += float(each.double().sum())
    finally:
        state.denoiser.network = network
    return total / len(chosen)


@dataclass(frozen=True)
class _Batch:
    """What one step is computed from; all on the device."""

    x0: Tensor
    condition: Condition
    sigma: Tensor
    eps: Tensor
    weight: Tensor
    """Of each loss (B,): 1, unless a learned schedule draws its level more or less often."""

    position: Tensor
    """Of each level (B,), in the schedule; on the CPU."""


def _batch(data: ImageSet, plan: Plan, state: TrainState, device: str) -> _Batch:
    """The batch that follows the state's images_seen."""
    images_seen = state.images_seen
    draws = generator("step", plan.seed, images_seen)
    rows = _rows(data, plan, images_seen)
    images = data.augment(data.images[rows], draws)
    condition = Condition({"label": data.labels[rows]}).drop(plan.drop, draws)
    position = positions(plan.batch, draws)
    weight = torch.ones(plan.batch)
    if isinstance(plan.schedule, Learned):
        resampled = plan.schedule.resampled(state.losses)
        weight = resampled.weight(position).float()
        position = resampled.position(position)
    sigma = plan.schedule.sigma(position).float()
    if device != "cpu":  # drawing where the noise is used saves the transfer
        draws = generator("noise", plan.seed, images_seen, device=device)
    eps = torch.randn(images.shape, generator=draws, device=device)
    x0 = to_float(images.to(device))
    return _Batch(x0, condition.to(device), sigma.to(device), eps, weight.to(device), position)


def _rows(data: ImageSet, plan: Plan, images_seen: int) -> Tensor:
    """Which images (batch,): the training split, shuffled anew every epoch, without gaps."""
    train = data.splits["train"]
    position = torch.arange(images_seen, images_seen + plan.batch)
    epoch, place = position // len(train), position % len(train)
    rows = torch.empty_like(position)
    for number in epoch.unique().tolist():
        here = epoch == number
        rows[here] = train[_order(plan.seed, number, len(train))[place[here]]]
    return rows


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, n: int) -> Tensor:
    return torch.randperm(n, generator=generator("epoch", seed, epoch))


def _gradients(
    state: TrainState, batch: _Batch, plan: Plan, compute: Compute
) -> tuple[Tensor, bool]:
    """Losses (B,), their mean's gradient left in the parameters; and whether memory ran out.

    Where memory runs out the micro-batch is halved and the whole batch done again with the same
    noise, so the gradient is the same (but for BatchNorm, which sees smaller batches).
    """
    shrunk = False
    while True:
        try:
            return _accumulate(state, batch, plan, compute), shrunk
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if state.micro_batch == 1:
            raise InputError(
                "memory runs out even with one image at a time: use a smaller network"
            )
        state.micro_batch = max(1, min(state.micro_batch, plan.batch) // 2)
        shrunk = True
        if compute.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _accumulate(state: TrainState, batch: _Batch, plan: Plan, compute: Compute) -> Tensor:
    state.optimizer.zero_grad(set_to_none=True)
    losses = torch.empty(plan.batch, device=compute.device)
    for start in range(0, plan.batch, state.micro_batch):
        part = slice(start, start + state.micro_batch)
        with compute.autocast():
            each = loss(
                state.denoiser,
                batch.x0[part],
                batch.condition[part],
                batch.sigma[part],
                batch.eps[part],
                plan.weight,
                plan.scale(state.images_seen),
            )
        value = (each * batch.weight[part]).sum() / plan.batch
        (state.scaler.scale(value) if state.scaler else value).backward()
        losses[part] = each.detach()
    return losses


def _follow_losses(state: TrainState, batch: _Batch, losses: Tensor, pieces: int) -> None:
    """Move the mean squared loss of each piece of a learned schedule towards this batch (B,)."""
    squares = losses.double().square().cpu()
    piece = (batch.position * pieces).long().clamp(max=pieces - 1)
    before = state.losses or [float(squares.mean())] * pieces
    state.losses = []
    for index, known in enumerate(before):
        new = squares[piece == index]
        share = min(1.0, len(new) * pieces / LOSSES_OVER)
        state.losses.append(known + share * (float(new.mean()) - known) if len(new) else known)


def _step(state: TrainState, value: float, rate: float, plan: Plan) -> float:
    """Move the weights, unless something is not finite; returns the gradient's norm."""
    if state.scaler:
        state.scaler.unscale_(state.optimizer)
    parameters = state.denoiser.network.parameters()
    limit = plan.clip if plan.clip > 0 else float("inf")
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    finite = torch.tensor([value, norm]).isfinite().all()
    if state.scaler:  # skips by itself where the gradient is not finite, and adapts its scale
        state.scaler.step(state.optimizer)
        state.scaler.update()
    elif finite:
        state.optimizer.step()
    state.bad_run = 0 if finite else state.bad_run + 1
    state.skipped += int(not finite)
    return norm


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
