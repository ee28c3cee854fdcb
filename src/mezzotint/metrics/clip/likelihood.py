"""Prompts: a text as a log-likelihood that guides sampling, or that a model is tuned to.

A `PromptLogLikelihood` is a function of the clean image's estimate, log p(text is true | x0) by
some CLIP, with a gradient. In a prompt {} stands for the name of the image's own class:
"a thick {}" guides to thick images of whatever class is drawn.

The small CLIP reads any word, since it reads pieces of words, but was trained on few: `check` says
which words of a prompt it only guesses at.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.errors import InputError
from mezzotint.metrics.clip.captions import Captioner, Styles, names_of, tokens
from mezzotint.metrics.clip.clip import Clip

__all__ = ["PromptLogLikelihood", "check", "class_in", "prompt_log_likelihood"]

PromptLogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""x0 (N, C, H, W) in [-1, 1] and labels int64 (N,) -> log p (N,), differentiable."""


def prompt_log_likelihood(clip: Clip, prompt: str, classes: Sequence[str]) -> PromptLogLikelihood:
    """What a CLIP thinks of a prompt; {} is the image's own class."""
    embedded = clip.embed_texts([_filled(prompt, name) for name in classes])  # (classes, E)

    def log_truth(x0: Tensor, labels: Tensor) -> Tensor:
        seen = clip.embed_x0(x0.cpu())  # (N, E)
        return clip.log_truth((seen * embedded[labels.cpu()]).sum(1)).to(x0)

    return log_truth


def class_in(prompt: str, classes: Sequence[str]) -> int | None:
    """The one class that a prompt names, in any of its names; None if it names none or several."""
    words = tokens(prompt)
    found = {
        k: longest
        for k, label in enumerate(classes)
        if (
            longest := max(
                (len(name) for name in _named(label) if _contains(name, words)), default=0
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


def _contains(name: Sequence[str], words: Sequence[str]) -> bool:
    """Whether the words of a name stand side by side among others."""
    n = len(name)
    return any(list(words[i : i + n]) == list(name) for i in range(len(words) - n + 1))
