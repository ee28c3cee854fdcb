"""The denoiser: the expected clean image given a noisy one, D(x; sigma, condition) -> x0."""

from collections.abc import Callable

from torch import Tensor, nn

from mezzotint.diffusion.condition import Condition
from mezzotint.diffusion.parameterization import Precondition, like

__all__ = ["Denoise", "Denoiser"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""All a sampler ever sees: (x (B, C, H, W), sigma ()) -> x0 (B, C, H, W)."""


class Denoiser(nn.Module):
    """A network and what it predicts: D(x) = skip * x + out * F(inp * x, noise, condition)."""

    def __init__(self, network: nn.Module, precondition: Precondition) -> None:
        super().__init__()
        self.network = network
        self.precondition = precondition

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """Denoise x (B, C, H, W) at sigma () or (B,); condition of B images or None (all free).

        Returns x0 (B, C, H, W) in the dtype of x. The network itself works in the dtype of its
        parameters, so that a sampler may keep its state in float64.
        """
        parameter = next(self.network.parameters())
        c = self.precondition(sigma.to(x).expand(len(x)))
        raw = self.network(
            (like(x, c.inp) * x).to(parameter.dtype),
            c.noise.to(parameter.dtype),
            condition or Condition(),
        )
        return like(x, c.skip) * x + like(x, c.out) * raw.to(x.dtype)
