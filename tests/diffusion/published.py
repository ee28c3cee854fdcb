"""A formula as other code has it, to show where this library differs on purpose."""

import torch
from torch import Tensor


def published_third(x: Tensor, then: Tensor, history: list[tuple[Tensor, Tensor]]) -> Tensor:
    """3M as in published code: the weight of the second difference is half the integral's."""
    (a, x0), (b, x1), (c, x2) = history
    h, h0, h1 = (torch.log(now / to) for now, to in ((a, then), (b, a), (c, b)))
    newer, older = (x0 - x1) * h / h0, (x1 - x2) * h / h1
    d2 = (newer - older) * h / (h0 + h1)
    d1 = newer + d2 * h0 / h
    phi1 = 1 - torch.exp(-h)
    phi2 = 1 - phi1 / h
    phi3 = 0.5 - phi2 / h  # k-diffusion's and diffusers' weight, up to the sign
    return then / a * x + phi1 * x0 + phi2 * d1 + phi3 * d2
