"""The denoiser that a sampler sees, built of a model and its sampling settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mezzotint.diffusion import (
    Condition,
    Denoise,
    autoguide,
    clamp_x0,
    guidance_interval,
    guide,
    with_condition,
)
from mezzotint.errors import InputError

if TYPE_CHECKING:
    from mezzotint.sampling.model import Model

__all__ = ["build_denoise", "build_unconditional_denoise"]


def build_denoise(model: Model, condition: Condition) -> Denoise:
    """Return the denoiser that a sampler sees: of some images, guided, in the model's precision.

    From the inside out: guidance, autoguidance, the interval of levels where both act, a wrapper
    such as guidance by a prompt, clipping, precision.

    Args:
        model: The model, whose `sampling` holds every scale.
        condition: Label and styles of B images.

    Returns:
        A function of x (B, C, H, W) and sigma () that gives x0 (B, C, H, W), on x's device.

    Raises:
        InputError: A scale other than 1 for a factor that training never left out, or
            autoguidance without a guide model.

    """
    settings, denoiser = model.sampling, model.denoiser
    condition = condition.to(model.compute.device)
    denoise = _guided(model, condition, settings.guidance, settings.style_guidance)
    if settings.autoguidance != 1:
        weak = _guide_model(model)
        weak_denoise = _guided(weak, condition, settings.guidance, settings.style_guidance)
        denoise = autoguide(denoise, weak_denoise, settings.autoguidance)
    if settings.interval is not None:
        plain = with_condition(denoiser, condition)
        denoise = guidance_interval(denoise, plain, *settings.interval)
    if model.denoise_wrapper is not None:
        denoise = model.denoise_wrapper(denoise, condition.factors["label"])
    return _in_precision(model, clamp_x0(denoise) if settings.clip else denoise)


def build_unconditional_denoise(model: Model) -> Denoise:
    """Return the unconditional denoiser, without a gradient, in the model's precision."""
    precise = _in_precision(model, with_condition(model.denoiser))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            return precise(x, sigma)

    return denoise


def _guided(
    model: Model, condition: Condition, guidance: float, style_guidance: Mapping[str, float]
) -> Denoise:
    """Return a model's denoiser under a condition, guided by `guide`.

    Raises:
        InputError: Training never left out what a scale other than 1 is for.

    """
    model.denoiser.eval()
    if guidance != 1 and "label" not in model.droppable:
        raise InputError(
            f"guidance {guidance:g} needs a model that was trained without labels "
            "now and then; this one had training.label_dropout = 0: give --guidance 1"
        )
    for name, factor in style_guidance.items():
        model.style_index(name)
        if factor != 1 and name not in model.droppable:
            raise InputError(
                f"guidance by {name} needs a model that was trained without it now and then; "
                "this one had training.style_dropout = 0: leave --style-guidance away"
            )
    return guide(
        model.denoiser,
        condition,
        guidance,
        style_guidance,
        droppable=model.droppable,
        max_model_guidance=model.max_model_guidance,
    )


def _guide_model(model: Model) -> Model:
    """Return the model that autoguidance guides away from."""
    if model.guide_model is None:
        raise InputError(
            f"autoguidance {model.sampling.autoguidance:g} needs a guide model: load this one "
            "with guide_model=True, from a run that kept an early snapshot"
        )
    return model.guide_model


def _in_precision(model: Model, denoise: Denoise) -> Denoise:
    """Return the denoiser that evaluates on the model's device and returns to x's."""
    compute, single = model.compute, model.single_precision()

    def precise(x: Tensor, sigma: Tensor) -> Tensor:
        here = (compute.device, torch.float32 if single else x.dtype)
        with compute.active(), compute.autocast():
            return denoise(x.to(*here), sigma.to(*here)).to(x.device)

    return precise
