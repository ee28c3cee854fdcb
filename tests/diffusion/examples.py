"""One example or more of every schedule, parameterization, sampler and weight that is exported.

A new class in mezzotint.diffusion fails `test_exactness.py` until it has a row here; with the row
it is in every matrix. What a parameterization's network predicts is written here a second time,
from its paper, so that the tests do not ask the code under test.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mezzotint import diffusion
from mezzotint.diffusion import (
    X0,
    Ancestral,
    Cosine,
    Edm,
    EdmLoss,
    Eps,
    Heun,
    Ipndm,
    Karras,
    Learned,
    LinearBeta,
    LogNormal,
    MinSnr,
    Multistep,
    Resampled,
    Uniform,
    V,
    ZeroTerminal,
)

SCHEDULES: dict[type, list] = {
    LinearBeta: [LinearBeta(1000), LinearBeta(100), LinearBeta(100, rescaled=True)],
    Cosine: [Cosine(1000)],
    ZeroTerminal: [ZeroTerminal(LinearBeta(1000)), ZeroTerminal(Cosine(1000))],
    Karras: [Karras()],
    LogNormal: [LogNormal()],
    Learned: [Learned(LogNormal())],
    Resampled: [Resampled(LogNormal(), (0.5, 0.1, 0.4))],
}

PARAMETERIZATIONS: dict[type, list] = {
    Eps: [Eps()],
    X0: [X0()],
    V: [V()],
    Edm: [Edm(), Edm(sigma_data=1.3)],
}

SAMPLERS: dict[type, list] = {
    Ancestral: [Ancestral(eta, order) for eta in (0.0, 1.0) for order in (1, 2)],
    Heun: [Heun()],
    Multistep: [Multistep(order) for order in (1, 2, 3)],
    Ipndm: [Ipndm(order) for order in (1, 2, 3, 4)],
}

WEIGHTS: dict[type, list] = {
    Uniform: [Uniform()],
    MinSnr: [MinSnr(), MinSnr(gamma=1.0)],
    EdmLoss: [EdmLoss(), EdmLoss(sigma_data=1.3)],
}

TABLES = {
    "schedules": SCHEDULES,
    "parameterization": PARAMETERIZATIONS,
    "samplers": SAMPLERS,
    "losses": WEIGHTS,
}

ORDERS: dict[type, Callable[..., int]] = {
    Ancestral: lambda sampler: sampler.order,
    Heun: lambda sampler: 2,
    Multistep: lambda sampler: sampler.order,
    # Its weights are those of equal steps: on any other grid no order is gained beyond the second.
    Ipndm: lambda sampler: min(sampler.order, 2),
}
"""The order of convergence that a sampler claims on a smooth grid that is not uniform."""


def exported(room: str) -> set[type]:
    """The concrete dataclasses that mezzotint.diffusion exports from one of its modules."""
    things = (getattr(diffusion, name) for name in diffusion.__all__)
    return {
        thing
        for thing in things
        if inspect.isclass(thing)
        and dataclasses.is_dataclass(thing)
        and thing.__module__ == f"mezzotint.diffusion.{room}"
    }


def every(table: dict[type, list]) -> list:
    """All examples of a table."""
    return [example for examples in table.values() for example in examples]


def names(examples: Iterable) -> list[str]:
    """How pytest calls them."""
    return [repr(example) for example in examples]


def input_scale(parameterization: object, sigma: Tensor) -> Tensor:
    """What x is multiplied by before the network sees it, from the papers."""
    variance = parameterization.sigma_data**2 if isinstance(parameterization, Edm) else 1.0
    return 1 / torch.sqrt(sigma**2 + variance)


def target(parameterization: object, x0: Tensor, eps: Tensor, sigma: Tensor) -> Tensor:
    """What the network is asked for, from the papers; all of one shape."""
    match parameterization:
        case Eps():
            return eps
        case X0():
            return x0
        case V():
            # Salimans & Ho 2022, section 4: v = alpha eps - s x0 with alpha^2 + s^2 = 1.
            alpha, s = 1 / torch.sqrt(1 + sigma**2), sigma / torch.sqrt(1 + sigma**2)
            return alpha * eps - s * x0
        case Edm(data):
            # Karras et al. 2022, equation 8: (y - c_skip (y + n)) / c_out.
            skip = data**2 / (sigma**2 + data**2)
            out = sigma * data / torch.sqrt(sigma**2 + data**2)
            return (x0 - skip * (x0 + sigma * eps)) / out
    raise NotImplementedError(f"write what {parameterization} is asked for here")
