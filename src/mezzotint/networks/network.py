"""What the library needs of any network, so that a second one is one file and a registry line."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from mezzotint.diffusion.condition import Condition
from mezzotint.networks.embeddings import Factor

__all__ = ["Network", "NetworkSpec"]


@runtime_checkable
class Network(Protocol):
    """A module F(x, noise, condition) -> the shape of x.

    Without a gradient it is captured in a CUDA graph: it may not wait for the device there.
    """

    def __call__(self, x: Tensor, noise: Tensor, condition: Condition, /) -> Any:
        """Return the raw output (B, C, H, W) for x (B, C, H, W), noise = log(sigma) / 4 (B,)."""
        ...

    def bytes_per_image(self, height: int, width: int, /) -> int:
        """Return the memory that one image takes, in bytes, roughly: it decides on chunks."""
        ...


@runtime_checkable
class NetworkSpec(Protocol):
    """A frozen dataclass: what a configuration says of a network, in its table [network]."""

    def build(self, channels: int, factors: Sequence[Factor], /) -> nn.Module:
        """Return a fresh network, a `Network`.

        Args:
            channels: Channels of the images.
            factors: What it can be conditioned on, in order.

        """
        ...
