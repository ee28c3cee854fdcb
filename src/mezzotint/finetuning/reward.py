"""Tuning to a reward: raise a score of what the sampler draws, and check it from outside.

For images x0 = sample(weights, noise) and a reward r, ascend the mean of r(x0) by its gradient,
which goes back through the last steps of the sampler alone; the steps before count as constant
(DRaFT-K, Clark et al. 2023, arXiv 2309.17400, section 3; K = 1 is one evaluation with its
gradient, whatever the number of steps).

A reward is soon raised by what no reader of it would call better: "reward hacking". So numbers
that the reward does not see are measured at intervals, and tuning ends when one of them falls
below a share of what it was in the beginning.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["RewardStep", "RewardCheck", "Tuning", "climb"]


@dataclass(frozen=True)
class Tuning:
    """Settings of a tuning.

    images         drawn in all
    batch          of them a step
    learning_rate  Adam's
    clip           largest norm of the gradient
    check_every    images between two checks
    bound          share of its first value below which no checked number may fall
    rank           of the change of each weight, see `lora`; None: all weights are trained
    """

    images: int
    batch: int = 32
    learning_rate: float = 3e-4
    clip: float = 1.0
    check_every: int = 320
    bound: float = 0.95
    rank: int | None = None


@dataclass(frozen=True)
class RewardStep:
    """A step up; `reward` is the batch's mean before it."""

    images_seen: int
    reward: float


@dataclass(frozen=True)
class RewardCheck:
    """A check of the weights as they stand, by numbers that the reward does not see."""

    images_seen: int
    values: Mapping[str, float]
    """Larger is better."""

    in_bounds: bool
    """Whether all are within the bound; where not, this record is the last."""


def climb(
    network: nn.Module,
    reward: Callable[[int, int], Tensor],
    check: Callable[[], Mapping[str, float]],
    plan: Tuning,
) -> Iterator[RewardStep | RewardCheck]:
    """Raise the reward; the caller keeps the weights at every `RewardCheck` that is in bounds.

    Trained is what asks for a gradient in the network.

    reward  from the number of images seen and a batch size to rewards (batch,) of images drawn
            for them, with a gradient back to the network
    check   numbers that the reward does not see, larger is better, above 0 at the start
    """
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=plan.learning_rate)
    first = check()
    yield RewardCheck(0, first, in_bounds=True)
    seen = checked = 0
    while seen < plan.images:
        batch = min(plan.batch, plan.images - seen)
        mean = reward(seen, batch).mean()
        optimizer.zero_grad()
        (-mean).backward()
        nn.utils.clip_grad_norm_(trained, plan.clip)
        optimizer.step()
        seen += batch
        yield RewardStep(seen, float(mean.detach()))
        if seen - checked >= plan.check_every or seen >= plan.images:
            checked, values = seen, check()
            in_bounds = all(values[name] >= plan.bound * first[name] for name in first)
            yield RewardCheck(seen, values, in_bounds)
            if not in_bounds:
                return
