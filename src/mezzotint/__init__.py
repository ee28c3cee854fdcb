"""Mezzotint: the small-image diffusion studio.

    import mezzotint

    run = mezzotint.train("digits", out="runs/digits", budget="60s")
    images = mezzotint.load(run).sample(label="5", n=10, seed=0)  # uint8 (10, 1, 8, 8)

Images are uint8 (N, C, H, W) wherever they enter or leave. Names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint.errors import (
        CheckpointError,
        DataError,
        DivergenceError,
        InputError,
        MezzotintError,
        PeerError,
    )
    from mezzotint.runs.find import load
    from mezzotint.runs.train import train

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergenceError",
    "InputError",
    "MezzotintError",
    "PeerError",
    "__version__",
    "load",
    "train",
]

__version__ = "0.1.0"

_HOMES = {
    "CheckpointError": "mezzotint.errors",
    "DataError": "mezzotint.errors",
    "DivergenceError": "mezzotint.errors",
    "InputError": "mezzotint.errors",
    "MezzotintError": "mezzotint.errors",
    "PeerError": "mezzotint.errors",
    "load": "mezzotint.runs.find",
    "train": "mezzotint.runs.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mezzotint' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
