"""Diffusion itself: torch alone; no files, no printing. x = x0 + sigma * eps everywhere."""

from mezzotint.diffusion.condition import Condition, is_free
from mezzotint.diffusion.denoiser import Denoise, Denoiser
from mezzotint.diffusion.guidance import bind, clip, guide, within
from mezzotint.diffusion.objective import EdmLoss, MinSnr, Uniform, Weight, loss
from mezzotint.diffusion.precondition import X0, Edm, Eps, Precondition, V, like, refuse_pair
from mezzotint.diffusion.sampler import Ancestral, Heun, Ipndm, Multistep, Sampler, Step, begin
from mezzotint.diffusion.schedule import (
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
    draw,
    ladder,
    positions,
    terminal_snr,
)

__all__ = [
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
    "Step",
    "Uniform",
    "Weight",
    "ZeroTerminal",
    "begin",
    "bind",
    "clip",
    "draw",
    "guide",
    "is_free",
    "ladder",
    "like",
    "loss",
    "positions",
    "refuse_pair",
    "terminal_snr",
    "within",
]
