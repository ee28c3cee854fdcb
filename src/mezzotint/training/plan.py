"""What a training computes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mezzotint.diffusion import Schedule, Weight
from mezzotint.training.lr import Constant, Rate

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """Everything but data and machine that decides what a training computes."""

    images: int
    """Budget: the run's total number of images seen."""

    batch: int
    seed: int
    schedule: Schedule
    weight: Weight
    learning_rate: float
    rate: Rate = field(default_factory=Constant)
    drop: Mapping[str, float] = field(default_factory=dict)
    """Probability of leaving each factor free."""

    alone: float = 0.0
    """Probability of leaving all styles free together, so that the label stands alone."""

    guidance: float = 1.0
    """Largest scale of guidance that is learned; 1: none."""

    guidance_after: float = 0.0
    """Share of the budget after which it is learned."""

    clip: float = 1.0
    """Largest norm of the gradient; 0: no clipping."""

    ema: float = 0.1
    """Relative width of the weight average; 0: no averaging."""

    validate_every: int = 20_000
    """Images between validations; there is always one at the end."""

    validation_images: int = 1000
    patience: int = 0
    """Stop after so many validations without improvement; 0: never."""

    target: float = 0.0
    """Stop once the validation loss is below this; 0: never."""

    def draws_by_learned_guidance(self, images_seen: int) -> bool:
        """Whether what was learned is to be drawn with: first it has half of its time."""
        enough = (1 + self.guidance_after) / 2 * self.images
        return self.guidance > 1 and images_seen >= enough

    def learns_guidance(self, images_seen: int) -> bool:
        """Whether it is learned at this moment."""
        return self.guidance > 1 and images_seen >= self.guidance_after * self.images
