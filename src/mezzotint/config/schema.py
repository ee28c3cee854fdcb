"""The settings of a run: frozen, validated, with their defaults."""

import dataclasses
import math
import re
from functools import partial
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from mezzotint import diffusion
from mezzotint.config.registry import (
    LR_SCHEDULES,
    PARAMETERIZATIONS,
    SCHEDULES,
    WEIGHTS,
    choose,
    choose_network,
    choose_sampler,
)
from mezzotint.diffusion import LossWeight, Parameterization, Sampler, Schedule
from mezzotint.errors import InputError, suggest
from mezzotint.metrics.registry import online_metrics
from mezzotint.networks import NetworkSpec
from mezzotint.training import lr
from mezzotint.training.batches import UNGUIDED_EVERY

__all__ = ["Budget", "Config", "ModelGuidance", "Objective", "Sampling", "Strict", "Training"]

ScheduleField = Annotated[Schedule, BeforeValidator(partial(choose, SCHEDULES))]
ParameterizationField = Annotated[
    Parameterization, BeforeValidator(partial(choose, PARAMETERIZATIONS))
]
WeightField = Annotated[LossWeight, BeforeValidator(partial(choose, WEIGHTS))]
LrScheduleField = Annotated[lr.LrSchedule, BeforeValidator(partial(choose, LR_SCHEDULES))]
SamplerField = Annotated[Sampler, BeforeValidator(choose_sampler)]
NetworkField = Annotated[NetworkSpec, BeforeValidator(choose_network)]


class Strict(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Objective(Strict):
    """What the network is trained for, at which noise levels, with which weight."""

    schedule: ScheduleField = diffusion.LogNormal()
    """Levels to train on."""

    parameterization: ParameterizationField = diffusion.Edm()
    """What the network predicts; the data's deviation is measured where it is not given."""

    weight: WeightField = diffusion.Uniform()


class ModelGuidance(Strict):
    """Model guidance (Tang et al. 2025, arXiv 2502.12154)."""

    max_scale: float = Field(1.0, ge=1, allow_inf_nan=False)
    """Largest scale of model guidance; 1: none."""

    start: float = Field(0.5, ge=0, lt=1)
    """Share of the budget after which model guidance is trained. Until then steps are cheaper, and
    the network knows too little to learn from."""


class Training(Strict):
    """How long, how fast, how often. Every number of images counts images seen."""

    budget: str = "10m"
    """Total of the run: 40s, 10m, 1h, 30epochs, 20000images, 5Mimages."""

    batch: int = Field(128, ge=1)
    optimizer: Literal["adamw", "adam", "muon"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0, allow_inf_nan=False)
    lr_schedule: LrScheduleField = lr.WarmupCosine()
    """What the learning rate is multiplied by, over the run."""

    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Largest norm of the gradient; 0: no clipping."""

    ema: float = Field(0.1, ge=0, le=0.28)
    """Relative width of the weight average; 0: no averaging."""

    label_dropout: float = Field(0.1, ge=0, le=1)
    """Probability of setting the label to null, which guidance needs."""

    style_dropout: float = Field(0.1, ge=0, le=1)
    """Probability of setting a style to null, and again of setting all styles to null together."""

    model_guidance: ModelGuidance = ModelGuidance()
    """Model guidance, with which sampling needs no second evaluation."""

    snapshot: float = Field(0.0, ge=0, lt=1)
    """Share of the budget after which the weights are kept as they are then, as the guide model
    of autoguidance; 0: never."""

    seed: int = 0
    validate_every: int = Field(20_000, ge=1)
    validation_images: int = Field(1000, ge=1)
    patience: int = Field(0, ge=0)
    """Stop after so many validations without improvement; 0: never."""

    target: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Stop once the validation loss is below this; 0: never."""

    preview_every: int = Field(50_000, ge=0)
    """Images between sample grids; 0: none."""

    log_every: int = Field(1000, ge=1)
    """Images between lines of the loss in metrics.jsonl."""

    metrics_every: int = Field(0, ge=0)
    """Images between measurements of samples (fd, kd, coverage, accuracy, …); 0: never."""

    metrics_images: int = Field(2000, ge=10)
    """Samples measured each time."""

    metrics_share: float = Field(0.1, gt=0, le=1)
    """Largest share of the training time for metrics; a measurement beyond it is put off."""

    best: str = "loss"
    """What decides on the best checkpoint: the validation loss, or a metric of those above."""

    @model_validator(mode="after")
    def _null_is_trained(self) -> "Training":
        scale = self.model_guidance.max_scale
        if scale > 1 and self.label_dropout == 0:
            raise ValueError(
                f"model guidance up to scale {scale:g} is trained on images without a label, "
                "and label_dropout = 0 leaves none: set training.label_dropout to 0.1, or "
                "training.model_guidance.max_scale and sampling.guidance to 1"
            )
        if scale > 1 and self.batch < UNGUIDED_EVERY:
            raise ValueError(
                f"model guidance leaves one image of {UNGUIDED_EVERY} unguided, and batch = "
                f"{self.batch} has none to spare: set training.batch to {UNGUIDED_EVERY} or more, "
                "or training.model_guidance.max_scale and sampling.guidance to 1"
            )
        return self

    @field_validator("best")
    @classmethod
    def _best_is_known(cls, name: str) -> str:
        if name != "loss" and name not in (known := ("loss", *online_metrics())):
            raise ValueError(f"'{name}' is not measured in training: {suggest(name, known)}")
        return name

    @model_validator(mode="after")
    def _best_is_measured(self) -> "Training":
        if self.best != "loss" and self.metrics_every == 0:
            raise ValueError(
                f"best = {self.best} is measured every metrics_every images, and that is 0: set "
                "training.metrics_every, to 20000 for instance"
            )
        return self


class Sampling(Strict):
    """How images are drawn where the command does not say otherwise."""

    sampler: SamplerField = diffusion.Ipndm()
    """A name, or a table {kind, …} that changes fields of the named sampler."""

    evaluations: int = Field(12, ge=1)
    schedule: ScheduleField | None = None
    """Levels to visit; none: the training schedule's own."""

    start: Literal["noise", "standard", "matched"] = "matched"
    """Mean and deviation of the data that the first level is drawn with: none; N(0, I) for DDPM's
    x_t; or as measured. They differ only where the largest sigma is small."""

    noise: Literal["philox", "torch"] = "philox"
    """Generator of the noise: philox; or torch's, which runs made before 2026-12 keep."""

    guidance: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Guidance scale of the label and of the styles: 1 is none, 0 is unconditional."""

    style_guidance: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    """Factor by which a style's guidance scale differs from `guidance`, by the style's name.

    1, or not named: the same scale as the label; 0: the style is ignored. Model guidance or not,
    the meaning is the same."""

    autoguidance: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Scale of guidance by the run's early snapshot; 1: none."""

    interval: tuple[float, float] | None = None
    """Levels low < sigma <= high at which both guidances act; none: all."""

    clip: bool = False
    """Keep the estimate of x0 in [-1, 1] at every step."""

    @field_validator("interval")
    @classmethod
    def _rises(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError(f"an interval needs 0 <= low < high, got {value[0]:g} {value[1]:g}")
        return None if value == (0, math.inf) else value


class Config(Strict):
    """A whole configuration."""

    objective: Objective = Objective()
    network: NetworkField
    training: Training = Training()
    sampling: Sampling = Sampling()


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much to train: an amount of seconds, epochs or images."""

    amount: float
    unit: Literal["seconds", "epochs", "images"]

    @staticmethod
    def parse(text: str) -> "Budget":
        """Read 40s, 10m, 1h, 30epochs, 20000images or 5Mimages."""
        match = re.fullmatch(r"([0-9]*\.?[0-9]+)(s|m|h|epochs?|[kM]?images?)", text.strip())
        if not match or float(match[1]) <= 0:
            raise InputError(
                f"'{text}' is not a budget: write 40s, 10m, 1h, 30epochs, 20000images or 5Mimages"
            )
        amount, unit = float(match[1]), match[2]
        if unit in ("s", "m", "h"):
            return Budget(amount * {"s": 1, "m": 60, "h": 3600}[unit], "seconds")
        if unit.startswith("epoch"):
            return Budget(amount, "epochs")
        return Budget(amount * {"k": 1e3, "M": 1e6}.get(unit[0], 1), "images")
