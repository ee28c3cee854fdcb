"""Randomness is an argument: a generator is a function of a key, and of nothing else.

A training step draws from `generator("step", seed, images_seen)`, so a resumed run is the
uninterrupted one. The noise of images comes from `runtime.noise`.
"""

import hashlib
import operator

import torch

__all__ = ["generator"]


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state depends on the key alone (BLAKE2b of its parts).

    torch's generator of a CPU has 2^32 states to begin with: of 50,000 keys, two share a state
    with a chance of one in four.
    """
    parts = tuple(part if isinstance(part, str) else operator.index(part) for part in key)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
