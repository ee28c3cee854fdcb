"""The plan of a training: its hyperparameters."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mezzotint.diffusion import LossWeight, Schedule
from mezzotint.training.lr import Constant, LrSchedule

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """All settings that determine the result of a training, except data and machine."""

    images: int
    """Budget: the run's total number of images seen."""

    batch: int
    seed: int
    schedule: Schedule
    loss_weight: LossWeight
    learning_rate: float
    lr_schedule: LrSchedule = field(default_factory=Constant)
    dropout: Mapping[str, float] = field(default_factory=dict)
    """Probability of setting each factor to null."""

    joint_style_dropout: float = 0.0
    """Probability of setting all styles to null together, so that the label stands alone."""

    max_model_guidance: float = 1.0
    """Largest scale of model guidance; 1: none."""

    model_guidance_start: float = 0.0
    """Share of the budget after which model guidance is trained."""

    clip: float = 1.0
    """Largest norm of the gradient; 0: no clipping."""

    ema: float = 0.1
    """Relative width of the weight average; 0: no averaging."""

    validate_every: int = 20_000
    """Images between validations; there is always one at the end."""

    validation_images: int = 1000
    patience: int = 0
    """Number of validations without improvement after which training stops; 0: never."""

    target: float = 0.0
    """Stop once the validation loss is below this; 0: never."""

    def samples_with_model_guidance(self, images_seen: int) -> bool:
        """Return whether to sample with model guidance: after half of its training time."""
        enough = (1 + self.model_guidance_start) / 2 * self.images
        return self.max_model_guidance > 1 and images_seen >= enough

    def trains_model_guidance(self, images_seen: int) -> bool:
        """Return whether model guidance is trained at this moment."""
        return (
            self.max_model_guidance > 1 and images_seen >= self.model_guidance_start * self.images
        )
