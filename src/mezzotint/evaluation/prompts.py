"""Prompts: a text as a wish that guides sampling, or that a model is tuned to.

A `Wish` is a function of the clean image's estimate, log p(text is true | x0) by some CLIP, with a
gradient. In a prompt {} stands for the name of the image's own class: "a thick {}" wishes for
thick images of whatever class is drawn.

The small CLIP reads any word, since it reads pieces of words, but was taught few: `check` says
which words of a prompt it only guesses at.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.diffusion import Denoise, nudged, steered, within
from mezzotint.errors import InputError
from mezzotint.evaluation.captions import Captioner, Styles, names_of, tokens
from mezzotint.evaluation.clip import Clip

__all__ = ["GRADIENTS", "LOOKS", "Wish", "check", "class_in", "steering", "wish"]

Wish = Callable[[Tensor, Tensor], Tensor]
"""x0 (N, C, H, W) in [-1, 1] and labels int64 (N,) -> log p (N,), differentiable."""

LOOKS = 64
"""Validation images by which is measured what each level leaves open."""

GRADIENTS = ("x0", "network")
"""Where the gradient of a wish is taken: at x0's estimate alone, or through the network. The first
is cheaper, and better with few steps (docs/clip.md): the second steps too far at high levels."""


def wish(clip: Clip, prompt: str, classes: Sequence[str]) -> Wish:
    """What a CLIP thinks of a prompt; {} is the image's own class."""
    embedded = clip.embed_texts([_filled(prompt, name) for name in classes])  # (classes, E)

    def log_truth(x0: Tensor, labels: Tensor) -> Tensor:
        seen = clip.embed_x0(x0.cpu())  # (N, E)
        return clip.log_truth((seen * embedded[labels.cpu()]).sum(1)).to(x0)

    return log_truth


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


def class_in(prompt: str, classes: Sequence[str]) -> int | None:
    """The one class that a prompt names, in any of its names; None if it names none or several."""
    words = tokens(prompt)
    found = {
        k: longest
        for k, label in enumerate(classes)
        if (
            longest := max(
                (len(name) for name in _named(label) if _within(name, words)), default=0
            )
        )
    }
    # "ankle boot" is no "boot": the longer name counts.
    named = [k for k, longest in found.items() if longest == max(found.values())]
    return named[0] if len(named) == 1 else None


def check(prompt: str, data: ImageSet) -> str | None:
    """What to say of a prompt's words that the small CLIP of a data set was not taught, if any.

    InputError where it was taught none that says something.
    """
    styles = Styles.found(data.images[data.splits["train"]])
    captioner = Captioner(data.classes, styles)
    words = tokens(_filled(prompt, data.classes[0]))
    strange = [w for w in words if w not in captioner.telling | captioner.filling]
    looks = sorted(
        captioner.telling - {w for name in data.classes for n in _named(name) for w in n}
    )
    knows = f"it knows the classes and {', '.join(looks)}"
    if not captioner.telling & set(words):
        raise InputError(
            f"the prompt '{prompt}' has no word that the small CLIP of {data.name} was taught: "
            f"{knows}; a CLIP that knows more is --score clip:ID"
        )
    if not strange:
        return None
    return (
        f"the small CLIP of {data.name} was not taught {', '.join(strange)}, and guesses: {knows}"
    )


def _filled(prompt: str, name: str) -> str:
    return prompt.replace("{}", name)


def _named(label: str) -> list[list[str]]:
    """The names of a class, each as its words."""
    return [tokens(name) for name in names_of(label)]


def _within(name: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the words of a name stand side by side among others."""
    n = len(name)
    return any(list(words[i : i + n]) == list(name) for i in range(len(words) - n + 1))
