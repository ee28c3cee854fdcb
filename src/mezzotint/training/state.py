"""Everything of a training that must survive a restart, in one object, saved by name."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mezzotint.diffusion.denoiser import Denoiser
from mezzotint.training.checkpoint import Checkpoint

__all__ = ["TrainState", "fitting_weights"]

FACTS = {
    "images_seen": "images_seen",
    "history": "history",
    "skipped": "skipped",
    "nonfinite_run": "bad_run",
    "lr_scale": "lr_scale",
    "second_moments": "second_moments",
    "seconds": "seconds",
    "micro_batch": "micro_batch",
}
"""Attributes of a `TrainState` that a checkpoint stores, with the key of each in the file."""


@dataclass
class TrainState:
    """All that changes during a training: weights, optimiser state and counters."""

    denoiser: Denoiser
    optimizer: Optimizer
    micro_batch: int
    """Number of images per forward pass; a batch accumulates gradients over its micro-batches."""

    images_seen: int = 0
    """Number of images trained on; all progress is counted in it."""

    history: list[float] = field(default_factory=list)
    """Validation losses so far."""

    skipped: int = 0
    """Total number of steps skipped because the loss or the gradient was not finite."""

    nonfinite_run: int = 0
    """Number of skipped steps since the last good one."""

    lr_scale: float = 1.0
    """Halved by every roll-back."""

    second_moments: list[float] = field(default_factory=list)
    """Mean squared loss of each piece of a learned schedule; none before the first step."""

    seconds: float = 0.0
    """Time spent in training, restarts included."""

    ema: nn.Module = field(init=False)
    """The averaged network."""

    scaler: torch.amp.GradScaler | None = None
    """Only for float16."""

    def __post_init__(self) -> None:
        self.ema = copy.deepcopy(self.denoiser.network).eval().requires_grad_(False)

    @property
    def ema_denoiser(self) -> Denoiser:
        """The denoiser of the averaged network, in eval mode; it shares the weights of `ema`."""
        return Denoiser(self.ema, self.denoiser.parameterization).eval()

    @property
    def best(self) -> float:
        """The lowest validation loss so far."""
        return min(filter(math.isfinite, self.history), default=math.inf)

    def facts(self) -> dict[str, Any]:
        """Return all that is not a tensor, ready for JSON."""
        facts = {key: getattr(self, name) for name, key in FACTS.items()}
        return {**facts, "scaler": self.scaler.state_dict() if self.scaler else None}

    def weights(self) -> dict[str, Tensor]:
        """The network and its average, what sampling needs."""
        return {
            **_named("network", self.denoiser.network.state_dict()),
            **_named("ema", self.ema.state_dict()),
        }

    def tensors(self) -> dict[str, Tensor]:
        """The weights and the optimiser's state."""
        state = self.optimizer.state_dict()["state"]
        moments = {f"{i}.{name}": value for i, row in state.items() for name, value in row.items()}
        return {**self.weights(), **_named("optimizer", moments)}

    def initialize_from(self, weights: Mapping[str, Tensor]) -> None:
        """Load those of another network's weights that fit; see `fitting_weights`.

        Call it before the first step.
        """
        for network in (self.denoiser.network, self.ema):
            network.load_state_dict(fitting_weights(network, weights), strict=False)

    def healthy(self) -> bool:
        """Return whether all weights are finite and the last step was not skipped."""
        return self.nonfinite_run == 0 and all(
            bool(p.isfinite().all()) for p in self.denoiser.network.state_dict().values()
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become the state that was saved."""
        self.denoiser.network.load_state_dict(checkpoint.section("network"))
        self.ema.load_state_dict(checkpoint.section("ema"))
        moments: dict[int, dict[str, Tensor]] = {}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for key, value in checkpoint.section("optimizer").items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = _laid_out_like(
                parameters[int(index)], value
            )
        saved = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**saved, "state": moments})
        facts = dict(checkpoint.facts)
        scaler = facts.pop("scaler")
        if self.scaler is not None and scaler is not None:
            self.scaler.load_state_dict(scaler)
        for name, key in FACTS.items():
            if key in facts:
                setattr(self, name, facts[key])


def fitting_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those weights whose name and shape match a weight of the network."""
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    return {name: value for name, value in weights.items() if shapes.get(name) == value.shape}


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """Return the values in the memory format of their parameter.

    Files hold contiguous tensors. If the parameter is channels_last and its moments are
    contiguous, fused optimisers silently pair the wrong entries.
    """
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in tensors.items()}
