"""What a run's config.toml says beside the settings: origin, data, machine."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import AliasChoices, Field, model_validator

from mezzotint.config.build import build_denoiser
from mezzotint.config.registry import Strict
from mezzotint.config.schema import Config
from mezzotint.data import ImageSet, Style
from mezzotint.diffusion import Denoiser
from mezzotint.kernels.precision import choose, native_bf16
from mezzotint.runtime.device import DEVICES, Compute, Precision

__all__ = ["DataFacts", "Machine", "Origin", "RunConfig"]


class Origin(Strict):
    """Where the images come from, and which preset began it."""

    source: str
    preset: str
    size: int | None = None
    limit: int | None = None
    styles: tuple[str, ...] = ()
    begun_from: str | None = None
    """The run whose weights it began with; None: none, at random."""

    suited_to: int = Field(0, validation_alias=AliasChoices("suited_to", "suited_from"))
    """A budget in images for which the preset is as it was then; 0: as it is written. Runs until
    2026-11-26 have it under the second name."""


class DataFacts(Strict):
    """What was measured of the data; `mean` and `deviation` are of pixels in [-1, 1]."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: float
    deviation: float
    train: int
    validation: int
    test: int
    fingerprint: str
    styles: tuple[Style, ...] = ()

    @staticmethod
    def of(data: ImageSet) -> "DataFacts":
        """The facts of a data set."""
        return DataFacts(
            channels=data.channels,
            height=data.height,
            width=data.width,
            classes=data.classes,
            mean=data.mean,
            deviation=data.deviation,
            train=len(data.splits["train"]),
            validation=len(data.splits["validation"]),
            test=len(data.splits["test"]),
            fingerprint=data.fingerprint,
            styles=data.styles,
        )

    def denoiser(self, config: Config) -> Denoiser:
        """A fresh one for such data; see `build_denoiser`."""
        return build_denoiser(config, self.channels, len(self.classes), self.styles)


class Machine(Strict):
    """What was decided for this machine, and obeyed on resume."""

    device: Literal["cpu", "cuda", "mps"]
    precision: Precision
    threads: int
    images: int
    """The budget as a number of images."""

    images_per_second: float = 0.0
    """Measured once, where a budget is a time; 0: not measured."""

    torch: str = torch.__version__

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, table: Mapping[str, object]) -> dict[str, object]:
        """Runs until 2026-11-26 said whether torch.compile was used."""
        return {name: value for name, value in table.items() if name != "compile"}

    def compute(self) -> Compute:
        """As the training loop wants it."""
        return Compute(self.device, self.precision, self.threads)

    def here(self, wish: str = "auto") -> Compute:
        """The same where the device is wished for and there, as far as it can be obeyed: bfloat16
        where there are units for it, threads as there are processors. Else this machine's choice.
        """
        if wish not in ("auto", self.device) or not DEVICES[self.device]():
            return choose(wish)
        if self.precision == "bfloat16" and not native_bf16(self.device):
            return choose(self.device)
        threads = min(self.threads, os.cpu_count() or self.threads)
        return dataclasses.replace(self.compute(), threads=threads)


class RunConfig(Config):
    """The whole of a run's config.toml."""

    origin: Origin
    data: DataFacts
    machine: Machine

    @model_validator(mode="before")
    @classmethod
    def _noise_of_before(cls, table: Mapping[str, object]) -> dict[str, object]:
        """Runs made before 2026-12 do not name their generator, which was torch's."""
        sampling = table.get("sampling", {})
        if isinstance(sampling, Mapping):
            sampling = {"noise": "torch", **sampling}
        return {**table, "sampling": sampling}
