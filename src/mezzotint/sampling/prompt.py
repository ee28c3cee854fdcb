"""A prompt that guides sampling: which class it names, and a model that follows it."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mezzotint.data import ImageSet, spread
from mezzotint.diffusion import Denoise, nudged, steered, within
from mezzotint.errors import InputError
from mezzotint.metrics.clip.likelihood import Wish, check, class_in, wish
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.runtime.distributed import current
from mezzotint.sampling.model import Model

__all__ = ["GRADIENTS", "LOOKS", "Prompt", "prompted", "steering"]

LOOKS = 64
"""Validation images by which is measured what each level leaves open."""


GRADIENTS = ("x0", "network")
"""Where the gradient of a wish is taken: at x0's estimate alone, or through the network. The first
is cheaper, and better with few steps (docs/clip.md): the second steps too far at high levels."""


def steering(
    wished: Wish,
    scale: float,
    variance: Callable[[Tensor], Tensor],
    *,
    gradient: str = "x0",
    interval: tuple[float, float] | None = None,
) -> Callable[[Denoise, Tensor], Denoise]:
    """From a denoiser and the labels (N,) that it draws to the same, guided by a wish.

    scale      1 is Bayes' rule, 0 no wish
    variance   of a pixel at each level, see `diffusion.open_variance`
    gradient   see `GRADIENTS`
    interval   low, high: guided at levels low < sigma <= high alone; None: at all
    """
    if gradient not in GRADIENTS:
        raise InputError(f"the gradient is taken at x0 or network, got '{gradient}'")

    def steer(denoise: Denoise, labels: Tensor) -> Denoise:
        def scorer(x0: Tensor) -> Tensor:
            # What lies beyond black and white is cut from the picture: nobody shall climb there.
            return wished(x0.clamp(-1, 1), labels)

        if gradient == "network":
            guided = steered(denoise, scorer, scale)
        else:
            guided = nudged(denoise, scorer, variance, scale)
        return guided if interval is None else within(guided, denoise, *interval)

    return steer


Say = Callable[[str], None]


@dataclass(frozen=True)
class Prompt:
    """What the user asked for; InputError where it cannot be done."""

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
    def given(
        prompt: str | None,
        scale: float | None,
        interval: tuple[float, float] | None,
        gradient: str | None,
        score: str | None,
    ) -> "Prompt | None":
        """From the command's options; InputError for those that ask for nothing without words."""
        if prompt is not None:
            return Prompt(
                prompt,
                1.0 if scale is None else scale,
                interval,
                GRADIENTS[0] if gradient is None else gradient,
                "clip" if score is None else score,
            )
        alone = {
            "--prompt-scale": scale,
            "--prompt-interval": interval,
            "--prompt-gradient": gradient,
            "--score": score,
        }
        for option, value in alone.items():
            if value is not None:
                raise InputError(f"{option} is of a prompt: give --prompt 'WORDS' too")
        return None

    def label(self, model: Model, given: str | None) -> str | None:
        """The class to draw: as given, or as the prompt names it; None: all of them."""
        if given is not None or "{}" in self.prompt:
            return given
        named = class_in(self.prompt, model.classes)
        if named is not None:
            return model.classes[named]
        if model.sampling.guidance == 0:
            return None
        raise InputError(
            f"the prompt '{self.prompt}' names no single class: put {{}} where its name belongs, "
            "give --label, or let the prompt alone decide with --guidance 0"
        )


def prompted(model: Model, words: Prompt, data: ImageSet, say: Say) -> Model:
    """The same model, guided by a CLIP that reads the prompt."""
    # Before a CLIP is trained, which takes minutes.
    if words.score == "clip" and (strange := check(words.prompt, data)):
        say(strange)
    with current().in_turn():  # the first trains the CLIP
        clip = clip_for(data, words.score, say)
    rows = spread(data.splits["validation"], LOOKS)
    steer = steering(
        wish(clip, words.prompt, model.classes),
        words.prompt_scale,
        model.still_open(data.images[rows], data.labels[rows]),
        gradient=words.prompt_gradient,
        interval=words.prompt_interval,
    )
    return dataclasses.replace(model, steer=steer)
