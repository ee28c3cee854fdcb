"""How fast this machine trains a configuration, measured on real steps."""

import dataclasses
import statistics
import time
from collections.abc import Iterator
from itertools import islice

from mezzotint.config.build import fresh_state, plan_of
from mezzotint.config.schema import Config, ModelGuidance
from mezzotint.data import ImageSet
from mezzotint.errors import DivergenceError
from mezzotint.runs.facts import DataFacts
from mezzotint.runtime.cuda_graphs import CudaGraphs
from mezzotint.runtime.device import Compute
from mezzotint.training import Stepped, train

__all__ = ["OVERHEAD", "images_per_second", "stages", "training_steps", "usual_time"]

OVERHEAD = 0.93
"""Share of a time budget that goes into training steps; the rest validates, saves and draws."""


MEASURED_SECONDS = 4.0
"""A machine's speed is measured for about so long."""


MEASURED_STEPS = 4
"""At least so many steps are timed, however slow they are."""


def images_per_second(config: Config, data: ImageSet, compute: Compute) -> float:
    """Speed of real training steps, the first left out as warm-up.

    The median step, so that another program's short burst does not shrink the budget.
    """
    with compute.active():
        step = 0.0
        for share, stage in stages(config):
            steps = training_steps(stage, data, compute)
            step += share * usual_time(steps, share * MEASURED_SECONDS, MEASURED_STEPS)[0]
    return config.training.batch / step


def stages(config: Config) -> list[tuple[float, Config]]:
    """Return a training's stages, each with its share: without model guidance, and with it."""
    training = config.training
    if training.model_guidance.max_scale == 1:
        return [(1.0, config)]
    plain = training.model_copy(update={"model_guidance": ModelGuidance()})
    shares = training.model_guidance.start, 1 - training.model_guidance.start
    configs = config.model_copy(update={"training": plain}), config
    return [pair for pair in zip(shares, configs, strict=True) if pair[0] > 0]


def usual_time(times: Iterator[float], seconds: float, least: int = 1) -> tuple[float, int]:
    """The median of at least so many times that add up to so many seconds, and their number.

    The first time is left out: it warms up.
    """
    next(times)
    taken = list(islice(times, least))
    while sum(taken) < seconds:
        taken.append(next(times))
    return statistics.median(taken), len(taken)


def training_steps(config: Config, data: ImageSet, compute: Compute) -> Iterator[float]:
    """Real training steps on a throw-away copy, without end: the seconds that each took.

    Steps that capture a CUDA graph are left out.
    """
    state = fresh_state(config, DataFacts.of(data).denoiser(config), compute)
    plan = dataclasses.replace(
        plan_of(config, 1 << 40, data.styles), validate_every=1 << 40, model_guidance_start=0.0
    )
    early = plan.batch * CudaGraphs.STEADY if compute.cuda_graphs else 0
    start = time.perf_counter()
    for record in train(state, data, plan, compute):
        if isinstance(record, Stepped):
            if record.images_seen > early:
                yield compute.ranks.broadcast_from_rank0(
                    time.perf_counter() - start
                )  # all measure as long
            start = time.perf_counter()
    raise DivergenceError(
        "training ended before its speed could be measured: the loss is not finite"
    )
