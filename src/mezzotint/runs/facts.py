"""Facts that a run's config.toml holds next to the settings: origin, data, machine."""

import dataclasses
import os
from typing import Literal

import torch

from mezzotint.config.build import build_denoiser
from mezzotint.config.schema import Config, Strict
from mezzotint.data import ImageSet, Style
from mezzotint.diffusion import Denoiser
from mezzotint.kernels.precision import choose_compute, native_bf16
from mezzotint.runtime.device import DEVICES, Compute, Precision

__all__ = ["DataFacts", "Machine", "Origin", "RunConfig"]


class Origin(Strict):
    """Where the images come from, and which preset began it."""

    source: str
    preset: str
    size: int | None = None
    limit: int | None = None
    styles: tuple[str, ...] = ()
    init_from: str | None = None
    """The run whose weights it started with; None: none, at random."""

    variant_budget: int = 0
    """Budget in images that chose the preset's variant; 0: the preset as it is written."""


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

    def compute(self) -> Compute:
        """As the training loop wants it."""
        return Compute(self.device, self.precision, self.threads)

    def on_this_machine(self, requested: str = "auto") -> Compute:
        """Return the same settings as far as this machine has the device that they name.

        bfloat16 where there are units for it, threads as there are processors. Else this
        machine's choice.
        """
        if requested not in ("auto", self.device) or not DEVICES[self.device]():
            return choose_compute(requested)
        if self.precision == "bfloat16" and not native_bf16(self.device):
            return choose_compute(self.device)
        threads = min(self.threads, os.cpu_count() or self.threads)
        return dataclasses.replace(self.compute(), threads=threads)


class RunConfig(Config):
    """The whole of a run's config.toml."""

    origin: Origin
    data: DataFacts
    machine: Machine
