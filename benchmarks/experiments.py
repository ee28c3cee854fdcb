"""What `ablations.py` tries that is no setting: each a patch of the training while it lasts."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import product
from typing import Any
from unittest import mock

import torch
from scipy.optimize import linear_sum_assignment

from mezzotint.data import ImageSet, Style
from mezzotint.data.augment import Changes
from mezzotint.diffusion import GUIDANCE, Condition
from mezzotint.runs import setup, trainer
from mezzotint.runtime.device import Compute
from mezzotint.training import Record, TrainState, loop
from mezzotint.training import batches as training_batches
from mezzotint.training.batches import Batch
from mezzotint.training.plan import Plan

Experiment = Callable[[], AbstractContextManager[Any]]


def _replaced(module: Any, name: str, change: Callable[[Any], Any]) -> Experiment:
    """A function of a module as `change` makes it."""
    return lambda: mock.patch.object(module, name, change(getattr(module, name)))


def batches(change: Callable[[Batch], Batch]) -> Experiment:
    """Each batch that is trained on, changed."""
    return _replaced(
        training_batches, "next_batch", lambda draw: lambda *arguments: change(draw(*arguments))
    )


def data(change: Callable[[ImageSet], ImageSet]) -> Experiment:
    """The data set that is trained on, changed."""
    return _replaced(setup, "load", lambda load: lambda *a, **named: change(load(*a, **named)))


def _grown(state: TrainState, data: ImageSet, plan: Plan, arguments: Compute) -> Iterator[Record]:
    """Batches of half the size for a third of the images, then of the size, then of twice.

    Without guidance, which would begin at its share of each third.
    """

    def rate(images_seen: int, _: int, history: Any) -> float:
        return plan.lr_schedule(images_seen, plan.images, history)  # of the whole

    for third, batch in enumerate((plan.batch // 2, plan.batch, plan.batch * 2), 1):
        until = plan.images * third // 3
        part = dataclasses.replace(plan, images=until, batch=batch, lr_schedule=rate)
        yield from loop.train(state, data, part, arguments)


growing = _replaced(trainer, "train", lambda _: _grown)


def paired(batch: Batch) -> Batch:
    """The batch with its noise dealt out within each class so that it lies near its images.

    Minibatch optimal transport (Pooladian et al. 2023, arXiv 2304.14772; Tong et al. 2023,
    2302.00482), here of x0 and eps. The ODE of the sampler holds for any coupling of the two.
    """
    x0, eps = batch.x0.flatten(1), batch.eps.flatten(1)
    labels, order = batch.condition.factors["label"], torch.arange(len(x0))
    for label in labels.unique():
        own = torch.nonzero(labels == label)[:, 0]
        _, columns = linear_sum_assignment(torch.cdist(x0[own], eps[own]).square().numpy())
        order[own] = own[torch.from_numpy(columns)]
    return dataclasses.replace(batch, eps=batch.eps[order])


def half_plain(batch: Batch) -> Batch:
    """The batch with each second image without model guidance, not each fourth."""
    factors = batch.condition.factors
    if GUIDANCE not in factors:
        return batch
    plain = torch.arange(len(batch.x0)) % 2 == 1
    scales = torch.where(plain, torch.nan, factors[GUIDANCE])
    condition = Condition({**factors, GUIDANCE: scales})
    return dataclasses.replace(batch, condition=condition, guided_mask=~plain)


def shifted(data: ImageSet, messages: bool) -> ImageSet:
    """The set with half of its train images moved by a pixel, in each of eight directions alike.

    Told where to as a style, the network can be asked for images that were not moved (Karras et
    al. 2022, arXiv 2206.00364, appendix F.2).
    """
    moves = sorted(product((-1, 0, 1), repeat=2), key=any)  # the first is none
    n, train = len(data.images), data.splits["train"]
    images = [
        Changes(None, torch.tensor(move)[:, None].expand(2, n))(data.images) for move in moves
    ]
    rows = [train] * 8 + [train + n * place for place in range(1, 9)]
    moved = dataclasses.replace(
        data,
        images=torch.cat(images),
        labels=data.labels.repeat(len(moves)),
        splits={**data.splits, "train": torch.cat(rows)},
    )
    if not messages:
        return moved
    return dataclasses.replace(
        moved,
        styles=(Style("moved", tuple(f"{down:+} {right:+}" for down, right in moves)),),
        style_values=torch.arange(9.0, dtype=torch.float64).repeat_interleave(n)[:, None],
    )
