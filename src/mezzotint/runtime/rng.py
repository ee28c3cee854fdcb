"""Randomness is an argument: a generator is a function of a key, and of nothing else.

A training step draws from `generator("step", seed, images_seen)`, so a resumed run is the
uninterrupted one. The noise of images comes from `runtime.noise`.
"""

import hashlib
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["generator", "seeded_globally"]

_global_generator = threading.RLock()


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state depends on the key alone (BLAKE2b of its parts).

    torch's generator of a CPU has 2^32 states to begin with: of 50,000 keys, two share a state
    with a chance of one in four.
    """
    parts = tuple(part if isinstance(part, str) else operator.index(part) for part in key)
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


@contextmanager
def seeded_globally(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator within the block, and restore its state afterwards.

    torch's layers draw their initial weights from the global generator. The process has one, so
    one thread at a time is in the block; a second thread would draw from the first one's stream.
    Code that loads a foreign network enters the block too, whatever the seed: transformers
    replaces the functions of torch.nn.init meanwhile, for all threads.
    """
    with _global_generator:
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(before)
