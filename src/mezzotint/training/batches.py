"""Batches of images, conditions, levels and noise, for training and validation.

A training batch depends only on (seed, images_seen) and the data. With a learned schedule it also
depends on the losses so far. A validation batch has the same noise every time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from mezzotint.data import ImageSet, standards
from mezzotint.diffusion import GUIDANCE, Condition, Learned, is_null, positions
from mezzotint.imaging import to_float
from mezzotint.runtime.device import Compute
from mezzotint.runtime.rng import generator
from mezzotint.training.plan import Plan
from mezzotint.training.state import TrainState

__all__ = [
    "UNGUIDED_EVERY",
    "Batch",
    "TrainingBatches",
    "condition_of",
    "held_out",
    "next_batch",
    "rows_after",
]

UNGUIDED_EVERY = 4
"""Model guidance leaves one image in this number to train the denoiser without guidance."""


@dataclass(frozen=True)
class Batch:
    """A rank's share of a training batch of B images, or a validation batch."""

    x0: Tensor
    condition: Condition
    sigma: Tensor
    eps: Tensor
    weight: Tensor
    """Factor of each loss (B,): 1, unless a learned schedule redistributes the levels."""

    position: Tensor
    """Position u of each level (B,) in the schedule, on the CPU."""

    share: slice
    """Rows of the rank's images among the B; `weight` and `position` hold all B."""

    guided_mask: Tensor | None = None
    """Mask (b,) of the rank's images that train model guidance, on the CPU; None: none do."""

    def to(self, device: str) -> "Batch":
        """Return the batch on a device; fields documented as on the CPU stay there."""
        condition = {name: _sent(each, device) for name, each in self.condition.factors.items()}
        x0, sigma, eps, weight = (
            _sent(each, device) for each in (self.x0, self.sigma, self.eps, self.weight)
        )
        return replace(
            self, x0=x0, condition=Condition(condition), sigma=sigma, eps=eps, weight=weight
        )

    def micro_batches(self, size: int, device: str) -> list[tuple[slice, Tensor | None]]:
        """Return slices of at most `size` images, each with the rows (n,) that train guidance.

        The rows are None if the batch does not train model guidance.
        """
        parts = [slice(start, start + size) for start in range(0, len(self.x0), size)]
        if self.guided_mask is None:
            return [(part, None) for part in parts]
        return [(part, _sent(self.guided_mask[part].nonzero()[:, 0], device)) for part in parts]


class TrainingBatches(Iterator[Batch]):
    """A rank's shares of the batches of a training, each the one after `state.images_seen`."""

    def __init__(self, state: TrainState, data: ImageSet, plan: Plan, compute: Compute) -> None:
        self.state = state
        self.data = data
        self.plan = plan
        self.compute = compute
        # A learned schedule's next batch depends on the losses of the present one.
        self._prefetches = compute.cuda_graphs and not isinstance(plan.schedule, Learned)
        self._prefetched: Batch | None = None

    def __next__(self) -> Batch:
        """Return the batch after `state.images_seen`."""
        batch, self._prefetched = self._prefetched, None
        return batch or self._batch_after(self.state.images_seen)

    def prefetch(self) -> None:
        """Prepare the batch after the present one, while a GPU works on that."""
        if self._prefetches:
            self._prefetched = self._batch_after(self.state.images_seen + self.plan.batch)

    def _batch_after(self, images_seen: int) -> Batch:
        share, moments = self.compute.ranks.share(self.plan.batch), self.state.second_moments
        device = self.compute.device
        return next_batch(self.data, self.plan, images_seen, device, share, moments)


def next_batch(
    data: ImageSet,
    plan: Plan,
    images_seen: int,
    device: str,
    share: slice = slice(None),
    second_moments: Sequence[float] = (),
) -> Batch:
    """Return the training batch after `images_seen` images, or a rank's share of it.

    Every rank draws levels and noise for the whole batch and keeps its share. So the batch does
    not depend on the number of ranks. Only the share's pixels are read.

    Args:
        data: Images with the split "train".
        plan: Batch size, seed, schedule and dropout.
        images_seen: Number of images trained on before this batch.
        device: Device of the result.
        share: Rows of the batch to return.
        second_moments: Mean squared loss of each piece of a learned schedule; empty: unknown yet.

    """
    draws = generator("step", plan.seed, images_seen)
    rows = rows_after(data, plan, images_seen)
    changes = data.augment.draw(plan.batch, draws)
    condition = condition_of(data, rows).dropout(plan.dropout, draws)
    if data.styles:
        condition = condition.drop_styles_jointly(plan.joint_style_dropout, draws)
    position = positions(plan.batch, draws)
    weight = torch.ones(plan.batch)
    if isinstance(plan.schedule, Learned):
        resampled = plan.schedule.resampled(second_moments)
        weight = resampled.weight(position).float()
        position = resampled.position(position)
    sigma, guided_mask = plan.schedule.sigma(position).float(), None
    if plan.trains_model_guidance(images_seen):
        scales = _scales(torch.rand(plan.batch, generator=draws), plan.max_model_guidance)
        condition = Condition({**condition.factors, GUIDANCE: scales})
        guided_mask = ~is_null(scales[share])
    if device != "cpu":  # drawing where the noise is used saves the transfer
        draws = generator("noise", plan.seed, images_seen, device=device)
    shape = (plan.batch, *data.images.shape[1:])
    eps = torch.randn(shape, generator=draws, device=device)[share]
    x0 = to_float(_sent(changes[share](data.images[rows[share]]), device))
    condition, sigma = condition[share], sigma[share]
    return Batch(x0, condition, sigma, eps, weight, position, share, guided_mask).to(device)


def _sent(tensor: Tensor, device: str) -> Tensor:
    """Return a tensor on a device, without waiting for the device's queued work."""
    if device.startswith("cuda") and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _scales(chance: Tensor, most: float) -> Tensor:
    """Return guidance scales (B,) for chances in [0, 1): nan every fourth image, else 1 to `most`.

    The rows with nan are the same in every step, because CUDA graphs and compiled code need fixed
    rows and shapes.
    """
    plain = torch.arange(len(chance)) % UNGUIDED_EVERY == UNGUIDED_EVERY - 1
    return torch.where(plain, torch.nan, 1 + (most - 1) * chance)


def held_out(data: ImageSet, plan: Plan, rows: Tensor, position: Tensor, start: int) -> Batch:
    """Return a validation batch; `start` is the index of its first validation image."""
    x0 = to_float(data.images[rows])
    eps = torch.randn(x0.shape, generator=generator("validation noise", start))
    condition, sigma = condition_of(data, rows), plan.schedule.sigma(position)
    weight = torch.ones(len(rows))
    return Batch(x0, condition, sigma.float(), eps, weight, position, slice(None))


def condition_of(data: ImageSet, rows: Tensor) -> Condition:
    """Return the condition of these images of a set: their labels and styles."""
    return Condition({"label": data.labels[rows], **standards(data.styles, data.styles_of(rows))})


def rows_after(data: ImageSet, plan: Plan, images_seen: int) -> Tensor:
    """Return the indices (batch,) of the images to train on next.

    Every epoch visits the training split in another random order. A batch may span two epochs.
    """
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
