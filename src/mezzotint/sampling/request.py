"""What to draw from a model, and how: one frozen object from the caller to the sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.sampling.noise import image_keys

if TYPE_CHECKING:
    from mezzotint.diffusion import Sampler, Schedule
    from mezzotint.sampling.model import Model

__all__ = [
    "GRADIENTS",
    "ROW",
    "Noise",
    "Prompt",
    "SampleBatch",
    "SampleRequest",
    "SamplingOptions",
    "Start",
    "as_prompt",
]

USUAL = 100
"""Images where nobody says how many."""

ROW = 10
"""Images in a row of a sheet; from a style's low to its high values."""


GRADIENTS = ("x0", "network")
"""Where the log-likelihood's gradient is taken: at x0's estimate, or through the network. The
first is cheaper, and better with few steps (docs/clip.md): the second steps too far at high
levels."""

Start = Literal["noise", "standard", "matched"]
Noise = Literal["philox", "torch"]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Sampling settings of one request. None: as the run's own settings say."""

    sampler: str | Mapping[str, object] | Sampler | None = None
    """A sampler, its name, or a table as in {"kind": "ddim", "eta": 0.5}."""

    evaluations: int | None = None
    """Evaluations of the network per image (NFE), 1 or more."""

    schedule: Schedule | Mapping[str, object] | None = None
    """Noise levels to visit: a schedule, or a table as in {"kind": "karras"}."""

    start: Start | None = None
    """Mean and deviation of the data that the first level is drawn with."""

    noise: Noise | None = None
    """Generator of the noise."""

    guidance: float | None = None
    """Guidance scale of the label and of the styles: 1 is none, 0 is unconditional."""

    style_guidance: Mapping[str, float] | None = None
    """Factor on `guidance` for each style, by name; 0 ignores the style."""

    autoguidance: float | None = None
    """Scale of guidance by the run's early snapshot: 1 is none."""

    interval: tuple[float, float] | None = None
    """Levels low < sigma <= high at which both guidances act; (0, inf): all."""

    clip: bool | None = None
    """Keep the estimate of x0 in [-1, 1] at every step."""

    def changes(self) -> dict[str, object]:
        """Return the settings that are not None, by name."""
        values = ((each.name, getattr(self, each.name)) for each in dataclasses.fields(self))
        return {name: value for name, value in values if value is not None}


@dataclass(frozen=True)
class SampleBatch:
    """What to draw: one row per image."""

    labels: Tensor
    """int64 (N,)."""

    keys: Tensor
    """int64 (N, 2), the (seed, i) of every image, which decides its noise."""

    styles: Tensor | None = None
    """float64 (N, K) for the K styles of the model, nan where null; None, or K = 0: all null."""

    @staticmethod
    def of(labels: Tensor, seed: int = 0, styles: Tensor | None = None) -> SampleBatch:
        """Images 0 … N - 1 of one seed."""
        return SampleBatch(labels, image_keys(seed, torch.arange(len(labels))), styles)

    def __getitem__(self, rows: slice) -> SampleBatch:
        """Some of the images."""
        styles = self.styles[rows] if self.styles is not None else None
        return SampleBatch(self.labels[rows], self.keys[rows], styles)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True)
class Prompt:
    """A prompt and its settings; InputError where they cannot be used."""

    prompt: str
    """Words, as in "a thick clear 7"; {} stands for the class of each image."""

    prompt_scale: float = 1.0
    """1 is Bayes' rule, 0 no guidance by the prompt."""

    prompt_interval: tuple[float, float] | None = None
    """Levels low < sigma <= high at which the prompt guides; None: all."""

    prompt_gradient: str = GRADIENTS[0]
    """See `GRADIENTS`."""

    score: str = "clip"
    """The CLIP that reads it: clip (the data set's own), clip:ID (a hub id or a folder)."""

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

    def label(self, model: Model, label: str | int | None) -> str | int | None:
        """Return the class to draw: as given, or as the prompt names it; None: all of them."""
        from mezzotint.metrics.clip.likelihood import class_in  # imports the whole of CLIP

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


def as_prompt(prompt: str | Prompt | None) -> Prompt | None:
    """Return a prompt with its settings; words alone get the usual ones."""
    return Prompt(prompt) if isinstance(prompt, str) else prompt


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """Which images to draw, and how. `Model.sample` and the verb `sample` both make one."""

    label: str | int | None = None
    """Class, by name or number; None: all classes in equal shares, or the class of the prompt."""

    n: int | None = None
    """Number of images; None: `seeds`, else 100."""

    seed: int = 0
    """Image i depends on (seed, i) alone."""

    seeds: int | None = None
    """Draw the first image of this many seeds, from `seed` on, instead of n images of one seed."""

    along: str | None = None
    """A style: a row of images of one noise for each class (with a label: for each of `seeds`),
    from the style's low to its high values."""

    styles: Mapping[str, str | float] = field(default_factory=dict)
    """Level ("thick") or number in the style's own unit, by the style's name."""

    options: SamplingOptions = SamplingOptions()
    prompt: Prompt | None = None
    """Words that a CLIP's gradient guides to, in addition to label and guidance."""

    def batch(self, model: Model) -> SampleBatch:
        """Return the label, key and styles of every image."""
        label = self.label if self.prompt is None else self.prompt.label(model, self.label)
        if self.along is not None:
            return self._batch_along(model, self.along, label)
        if self.n is not None and self.seeds is not None:
            raise InputError(f"--n {self.n} and --seeds {self.seeds}: both say how many, give one")
        n = self.n or self.seeds or USUAL
        labels, styles = model.labels(label, n), model.style_values(self.styles, n)
        if self.seeds is None:
            return SampleBatch.of(labels, self.seed, styles)
        return SampleBatch(labels, self._first_images(n), styles)

    def _batch_along(self, model: Model, name: str, label: str | int | None) -> SampleBatch:
        """Return rows of images of one noise each, along one style."""
        index = model.style_index(name)
        if self.n is not None:
            raise InputError(
                f"--along {name} says how many there are: leave --n {self.n} away; with --label, "
                "--seeds is the number of rows"
            )
        if name in self.styles:
            raise InputError(f"--along {name} goes through its values: leave --style {name} away")
        if label is None and self.seeds is not None:
            raise InputError(
                f"--along {name} has one row for each class: give --label with --seeds "
                f"{self.seeds}, or leave --seeds away"
            )
        rows = len(model.classes) if label is None else self.seeds or 1
        steps = model.styles[index].steps(ROW)
        styles = model.style_values(self.styles, rows * len(steps))
        styles[:, index] = steps.repeat(rows)
        labels = model.labels(label, rows).repeat_interleave(len(steps))
        keys = self._first_images(rows).repeat_interleave(len(steps), dim=0)
        return SampleBatch(labels, keys, styles)

    def _first_images(self, n: int) -> Tensor:
        """Return the keys (seed, 0), (seed + 1, 0), … of n images, int64 (n, 2)."""
        keys = image_keys(self.seed, torch.zeros(n, dtype=torch.int64))
        keys[:, 0] += torch.arange(n)
        return keys

    def columns(self, model: Model) -> int:
        """Return the number of images in a row of a sheet."""
        if self.along is None:
            return ROW
        return len(model.styles[model.style_index(self.along)].steps(ROW))
