"""What a training step and a validation are computed from.

A batch is a function of (seed, images_seen), the data, and for a learned schedule of the losses so
far; what is held out gets the same noise every time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from mezzotint.data import ImageSet, standards
from mezzotint.diffusion import GUIDANCE, Condition, Learned, is_null, positions
from mezzotint.imaging import to_float
from mezzotint.runtime.rng import generator
from mezzotint.training.plan import Plan

__all__ = ["UNGUIDED_EVERY", "Batch", "condition_of", "held_out", "next_batch", "rows_after"]

UNGUIDED_EVERY = 4
"""With model guidance, one image of this number trains the denoiser without guidance."""


@dataclass(frozen=True)
class Batch:
    """What one step is computed from, or a rank's share of it; all on the device."""

    x0: Tensor
    condition: Condition
    sigma: Tensor
    eps: Tensor
    weight: Tensor
    """Of each loss (B,): 1, unless a learned schedule draws its level more or less often."""

    position: Tensor
    """Of each level (B,), in the schedule; on the CPU."""

    share: slice
    """Which of the B images the others are; weights and positions are of all."""

    guided: Tensor | None = None
    """Which of its images train model guidance, bool (b,) on the CPU; None: none."""

    def to(self, device: str) -> "Batch":
        """The same on a device."""
        condition = {name: _sent(each, device) for name, each in self.condition.factors.items()}
        x0, sigma, eps, weight = (
            _sent(each, device) for each in (self.x0, self.sigma, self.eps, self.weight)
        )
        return Batch(
            x0, Condition(condition), sigma, eps, weight, self.position, self.share, self.guided
        )

    def micro_batches(self, size: int, device: str) -> list[tuple[slice, Tensor | None]]:
        """So many images at a time, each with those rows (n,) that train model guidance."""
        parts = [slice(start, start + size) for start in range(0, len(self.x0), size)]
        if self.guided is None:
            return [(part, None) for part in parts]
        return [(part, _sent(self.guided[part].nonzero()[:, 0], device)) for part in parts]


def next_batch(
    data: ImageSet,
    plan: Plan,
    images_seen: int,
    device: str,
    share: slice = slice(None),
    second_moments: Sequence[float] = (),
) -> Batch:
    """The batch that follows so many images, or a share of it.

    Whoever has a share draws for the whole batch and keeps its part: so the batch is the same
    whatever the number of those who share it. Pixels are read for the share alone.
    `second_moments` are the state's, where the schedule is learned.
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
    sigma, guided = plan.schedule.sigma(position).float(), None
    if plan.trains_model_guidance(images_seen):
        scales = _scales(torch.rand(plan.batch, generator=draws), plan.max_model_guidance)
        condition = Condition({**condition.factors, GUIDANCE: scales})
        guided = ~is_null(scales[share])
    if device != "cpu":  # drawing where the noise is used saves the transfer
        draws = generator("noise", plan.seed, images_seen, device=device)
    shape = (plan.batch, *data.images.shape[1:])
    eps = torch.randn(shape, generator=draws, device=device)[share]
    x0 = to_float(_sent(changes[share](data.images[rows[share]]), device))
    condition, sigma = condition[share], sigma[share]
    return Batch(x0, condition, sigma, eps, weight, position, share, guided).to(device)


def _sent(tensor: Tensor, device: str) -> Tensor:
    """A tensor on a device, without waiting for what that is at."""
    if device.startswith("cuda") and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _scales(chance: Tensor, most: float) -> Tensor:
    """Return guidance scales (B,) for chances in [0, 1): nan every fourth image, else 1 to `most`.

    In turn and not at random: a number of images that changed from step to step would have another
    memory layout, and what is captured or compiled is for the same rows every time.
    """
    plain = torch.arange(len(chance)) % UNGUIDED_EVERY == UNGUIDED_EVERY - 1
    return torch.where(plain, torch.nan, 1 + (most - 1) * chance)


def held_out(data: ImageSet, plan: Plan, rows: Tensor, position: Tensor, start: int) -> Batch:
    """A batch to validate with; `start`: its place among the validation images."""
    x0 = to_float(data.images[rows])
    eps = torch.randn(x0.shape, generator=generator("validation noise", start))
    condition, sigma = condition_of(data, rows), plan.schedule.sigma(position)
    weight = torch.ones(len(rows))
    return Batch(x0, condition, sigma.float(), eps, weight, position, slice(None))


def condition_of(data: ImageSet, rows: Tensor) -> Condition:
    """Return the condition of these images of a set: their labels and styles."""
    return Condition({"label": data.labels[rows], **standards(data.styles, data.styles_of(rows))})


def rows_after(data: ImageSet, plan: Plan, images_seen: int) -> Tensor:
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
