"""A prompt that guides sampling: which class it names, and a model that follows it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mezzotint.data import ImageSet, spread
from mezzotint.diffusion import Denoise, dps_guidance, guidance_interval, x0_guidance
from mezzotint.errors import InputError
from mezzotint.metrics.clip.likelihood import (
    PromptLogLikelihood,
    check,
    class_in,
    prompt_log_likelihood,
)
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.log import log
from mezzotint.sampling.model import Model

__all__ = ["GRADIENTS", "LOOKS", "Prompt", "with_prompt", "likelihood_guidance"]

LOOKS = 64
"""Validation images on which the posterior variance of each level is measured."""


GRADIENTS = ("x0", "network")
"""Where the log-likelihood's gradient is taken: at x0's estimate, or through the network. The
first is cheaper, and better with few steps (docs/clip.md): the second steps too far at high
levels."""


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


@dataclass(frozen=True)
class Prompt:
    """A prompt and its settings; InputError where they cannot be used."""

    prompt: str
    prompt_scale: float = 1.0
    prompt_interval: tuple[float, float] | None = None
    prompt_gradient: str = GRADIENTS[0]
    score: str = "clip"

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise InputError("--prompt is empty: give words, as in 'a thick clear 7'")
        if self.prompt_gradient not in GRADIENTS:
            raise InputError(f"--prompt-gradient is x0 or network, got '{self.prompt_gradient}'")
        if self.prompt_interval is not None and not (
            0 <= self.prompt_interval[0] < self.prompt_interval[1]
        ):
            low, high = self.prompt_interval
            raise InputError(
                f"--prompt-interval {low:g} {high:g}: two levels, the lower first, from 0 on"
            )
        if self.score.partition(":")[0] != "clip":
            raise InputError(f"'{self.score}' reads no prompt: give --score clip or clip:ID")

    @staticmethod
    def from_options(
        prompt: str | None,
        scale: float | None,
        interval: tuple[float, float] | None,
        gradient: str | None,
        score: str | None,
    ) -> "Prompt | None":
        """Read the command's options; InputError for those that need a prompt and have none."""
        if prompt is not None:
            return Prompt(
                prompt,
                1.0 if scale is None else scale,
                interval,
                GRADIENTS[0] if gradient is None else gradient,
                "clip" if score is None else score,
            )
        without_prompt = {
            "--prompt-scale": scale,
            "--prompt-interval": interval,
            "--prompt-gradient": gradient,
            "--score": score,
        }
        for option, value in without_prompt.items():
            if value is not None:
                raise InputError(f"{option} is of a prompt: give --prompt 'WORDS' too")
        return None

    def label(self, model: Model, label: str | None) -> str | None:
        """The class to draw: as given, or as the prompt names it; None: all of them."""
        if label is not None or "{}" in self.prompt:
            return label
        named = class_in(self.prompt, model.classes)
        if named is not None:
            return model.classes[named]
        if model.sampling.guidance == 0:
            return None
        raise InputError(
            f"the prompt '{self.prompt}' names no single class: put {{}} where its name belongs, "
            "give --label, or let the prompt alone decide with --guidance 0"
        )


def with_prompt(model: Model, words: Prompt, data: ImageSet) -> Model:
    """The same model, guided by a CLIP that reads the prompt."""
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
