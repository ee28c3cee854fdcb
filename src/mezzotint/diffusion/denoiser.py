"""The denoiser: the expected clean image given a noisy one, D(x; sigma, condition) -> x0."""

from collections.abc import Callable

from torch import Tensor, nn

from mezzotint.diffusion.condition import Condition
from mezzotint.diffusion.parameterization import Parameterization, append_dims

__all__ = ["Denoise", "Denoiser"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""The function a sampler calls: (x (B, C, H, W), sigma ()) -> x0 (B, C, H, W)."""


class Denoiser(nn.Module):
    """A network and its parameterization: D = c_skip x + c_out F(c_in x, c_noise, condition)."""

    def __init__(self, network: nn.Module, parameterization: Parameterization) -> None:
        super().__init__()
        self.network = network
        self.parameterization = parameterization

    def forward(self, x: Tensor, sigma: Tensor, condition: Condition | None = None) -> Tensor:
        """Denoise x (B, C, H, W) at sigma () or (B,); condition of B images or None (all null).

        Returns x0 (B, C, H, W) in the dtype of x. The network itself works in the dtype of its
        parameters, so that a sampler may keep its state in float64.
        """
        parameter = next(self.network.parameters())
        c = self.parameterization(sigma.to(x).expand(len(x)))
        raw = self.network(
            (append_dims(x, c.c_in) * x).to(parameter.dtype),
            c.c_noise.to(parameter.dtype),
            condition or Condition(),
        )
        x0: Tensor = append_dims(x, c.c_skip) * x + append_dims(x, c.c_out) * raw.to(x.dtype)
        return x0
