"""Guidance by a prompt: a model that follows the gradient of a CLIP."""

import dataclasses
from collections.abc import Callable

from torch import Tensor

from mezzotint.data import spread
from mezzotint.diffusion import Denoise, dps_guidance, guidance_interval, x0_guidance
from mezzotint.errors import InputError
from mezzotint.metrics.clip.likelihood import (
    PromptLogLikelihood,
    check,
    prompt_log_likelihood,
)
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.log import log
from mezzotint.sampling.model import Model
from mezzotint.sampling.request import GRADIENTS, Prompt

__all__ = ["LOOKS", "likelihood_guidance", "with_prompt"]

LOOKS = 64
"""Validation images on which the posterior variance of each level is measured."""


def likelihood_guidance(
    log_likelihood: PromptLogLikelihood,
    scale: float,
    variance: Callable[[Tensor], Tensor],
    *,
    gradient: str = "x0",
    interval: tuple[float, float] | None = None,
) -> Callable[[Denoise, Tensor], Denoise]:
    """Return a wrapper that guides a denoiser of the labels (N,) by a log-likelihood.

    scale      1 is Bayes' rule, 0 no guidance
    variance   of a pixel at each level, see `diffusion.posterior_variance`
    gradient   see `GRADIENTS`
    interval   low, high: guided at levels low < sigma <= high alone; None: at all
    """
    if gradient not in GRADIENTS:
        raise InputError(f"the gradient is taken at x0 or network, got '{gradient}'")

    def wrapper(denoise: Denoise, labels: Tensor) -> Denoise:
        def scorer(x0: Tensor) -> Tensor:
            # What lies beyond black and white is cut from the picture: no gradient there.
            return log_likelihood(x0.clamp(-1, 1), labels)

        if gradient == "network":
            guided = dps_guidance(denoise, scorer, scale)
        else:
            guided = x0_guidance(denoise, scorer, variance, scale)
        return guided if interval is None else guidance_interval(guided, denoise, *interval)

    return wrapper


def with_prompt(model: Model, words: Prompt) -> Model:
    """Return the same model, guided by a CLIP that reads the prompt.

    Raises:
        InputError: The model does not know its data, or the CLIP cannot read the prompt.

    """
    if model.data is None:
        raise InputError("a prompt needs the data a model was trained on: load it from its run")
    data = model.data()
    # Before a CLIP is trained, which takes minutes.
    if words.score == "clip" and (strange := check(words.prompt, data)):
        log.info(strange)
    with current_ranks().rank0_first():  # the first trains the CLIP
        clip = clip_for(data, words.score)
    rows = spread(data.splits["validation"], LOOKS)
    wrapper = likelihood_guidance(
        prompt_log_likelihood(clip, words.prompt, model.classes),
        words.prompt_scale,
        model.posterior_variance(data.images[rows], data.labels[rows]),
        gradient=words.prompt_gradient,
        interval=words.prompt_interval,
    )
    return dataclasses.replace(model, denoise_wrapper=wrapper)
