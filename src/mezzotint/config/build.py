"""From settings to what trains and draws: the denoiser, the plan, the optimiser."""

from collections.abc import Callable, Iterable
from functools import partial

import torch

from mezzotint import diffusion
from mezzotint.config.schema import Config
from mezzotint.data import Style
from mezzotint.diffusion import Denoiser
from mezzotint.errors import InputError
from mezzotint.networks import Factor
from mezzotint.runtime.device import Compute
from mezzotint.runtime.rng import seeded_globally
from mezzotint.training import Muon, Plan, TrainState

__all__ = ["build_denoiser", "fresh_state", "plan_of"]


def build_denoiser(
    config: Config, channels: int, classes: int, styles: Iterable[Style] = ()
) -> Denoiser:
    """A fresh network and its parameterization, for images of so many channels, classes, styles.

    Initial weights come from the training seed; the process's random state stays as it was.
    """
    try:
        diffusion.refuse_pair(config.objective.schedule, config.objective.parameterization)
    except ValueError as error:
        raise InputError(str(error)) from error
    with seeded_globally(config.training.seed):
        factors = [Factor("label", classes)]
        factors += [Factor(s.name, len(s.levels) if s.choice else None) for s in styles]
        if config.training.model_guidance.max_scale > 1:
            factors.append(Factor(diffusion.GUIDANCE, None))
        network = config.network.build(channels, factors)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Denoiser(network, config.objective.parameterization)


def plan_of(config: Config, images: int, styles: Iterable[Style] = ()) -> Plan:
    """What a configuration asks of the training loop, for a budget of so many images."""
    t, objective = config.training, config.objective
    return Plan(
        images=images,
        batch=t.batch,
        seed=t.seed,
        schedule=objective.schedule,
        loss_weight=objective.weight,
        learning_rate=t.learning_rate,
        lr_schedule=t.lr_schedule,
        dropout={"label": t.label_dropout, **{style.name: t.style_dropout for style in styles}},
        joint_style_dropout=t.style_dropout,
        max_model_guidance=t.model_guidance.max_scale,
        model_guidance_start=t.model_guidance.start,
        clip=t.clip,
        ema=t.ema,
        validate_every=t.validate_every,
        validation_images=t.validation_images,
        patience=t.patience,
        target=t.target,
    )


def fresh_state(config: Config, denoiser: Denoiser, compute: Compute) -> TrainState:
    """Return the state of a training before its first step, of a fresh denoiser."""
    compute.place(denoiser)
    settings, rate = config.training, config.training.learning_rate
    bf16 = compute.precision == "bfloat16"
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adamw": partial(torch.optim.AdamW, capturable=compute.cuda_graphs),
        "adam": partial(torch.optim.Adam, capturable=compute.cuda_graphs),
        "muon": partial(Muon, precision=torch.bfloat16 if bf16 else torch.float32),
    }
    optimizer = kinds[settings.optimizer](
        denoiser.network.parameters(),
        # A CUDA graph would keep a number as it is.
        lr=torch.tensor(rate, device=compute.device) if compute.cuda_graphs else rate,
        weight_decay=settings.weight_decay,
        fused=compute.device in ("cpu", "cuda"),
    )
    return TrainState(denoiser, optimizer, settings.batch, scaler=compute.scaler())
