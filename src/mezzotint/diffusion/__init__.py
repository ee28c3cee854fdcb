"""Diffusion itself: x = x0 + sigma * eps everywhere.

Here: schedules, parameterizations, conditions, denoiser, guidance, samplers, losses.
Not here: files, printing, anything but torch.
"""

from mezzotint.diffusion.condition import GUIDANCE, Condition, is_free
from mezzotint.diffusion.denoiser import Denoise, Denoiser
from mezzotint.diffusion.guidance import (
    Scorer,
    autoguide,
    bind,
    clip,
    guide,
    nudged,
    open_variance,
    steered,
    told,
    within,
)
from mezzotint.diffusion.losses import EdmLoss, MinSnr, Uniform, Weight, loss
from mezzotint.diffusion.parameterization import X0, Edm, Eps, Precondition, V, like, refuse_pair
from mezzotint.diffusion.samplers import Ancestral, Heun, Ipndm, Multistep, Sampler, Step, begin
from mezzotint.diffusion.schedules import (
    NO_SIGNAL,
    Cosine,
    Discrete,
    Karras,
    Learned,
    LinearBeta,
    LogNormal,
    Resampled,
    Schedule,
    ZeroTerminal,
    distinct_sigmas,
    draw,
    ladder,
    positions,
    terminal_snr,
)

__all__ = [
    "GUIDANCE",
    "NO_SIGNAL",
    "V",
    "X0",
    "Ancestral",
    "Condition",
    "Cosine",
    "Denoise",
    "Denoiser",
    "Discrete",
    "Edm",
    "EdmLoss",
    "Eps",
    "Heun",
    "Ipndm",
    "Karras",
    "Learned",
    "LinearBeta",
    "LogNormal",
    "MinSnr",
    "Multistep",
    "Precondition",
    "Resampled",
    "Sampler",
    "Schedule",
    "Scorer",
    "Step",
    "Uniform",
    "Weight",
    "ZeroTerminal",
    "autoguide",
    "begin",
    "bind",
    "clip",
    "distinct_sigmas",
    "draw",
    "guide",
    "is_free",
    "ladder",
    "like",
    "loss",
    "nudged",
    "open_variance",
    "positions",
    "refuse_pair",
    "steered",
    "terminal_snr",
    "told",
    "within",
]
