"""Which precision is the fastest here, decided by a race."""

import threading
import time
from collections.abc import Callable
from functools import cache

import torch

from mezzotint.kernels.convolution import conv3x3
from mezzotint.runtime.device import Compute, resolve_device, thread_count
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.rng import generator

__all__ = ["bf16_pays", "choose_compute", "has_bf16_units", "native_bf16"]

FASTER = 1.2
"""Times as fast as float32 that bf16 has to be on a CPU."""

_racing = threading.Lock()  # two races at once would slow each other, and could end differently


def choose_compute(requested: str = "auto") -> Compute:
    """Device and precision for this machine; on CPUs with bf16 units after a short race."""
    device = resolve_device(requested)
    threads = torch.get_num_threads()
    if device == "cuda":
        return Compute(device, "bfloat16" if native_bf16(device) else "float16", threads)
    # Every rank joins this all-reduce, also one whose processor has no such units.
    if device == "cpu" and current_ranks().broadcast_from_rank0(_bf16_gain()) > FASTER:
        return Compute(device, "bfloat16", threads)
    return Compute(device, "float32", threads)


def bf16_pays(device: str) -> bool:
    """Whether bf16 is the faster here, for work that a process does alone."""
    if device == "cpu":
        return _bf16_gain() > FASTER
    return native_bf16(device)


def native_bf16(device: str) -> bool:
    """Whether a device has units for bf16; elsewhere it is emulated, or not there."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and has_bf16_units()


def has_bf16_units() -> bool:
    """AMX or avx512_bf16; without them bf16 is emulated and far slower (pytorch#118499)."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _bf16_gain() -> float:
    """How many times faster bf16 is on this CPU; 0 without units for it, which needs no race."""
    if not has_bf16_units():
        return 0.0
    with _racing:
        return _bf16_race()


@cache
def _bf16_race(seconds: float = 0.8) -> float:
    """How many times faster bf16 runs a typical convolution, forward and backward.

    Either as well as it can be had: float32 through our kernels, bf16 in torch's own way.
    On one core, in turn, and by the fastest of each, so that it comes out the same on a busy
    machine: two runs of one command are to have one precision.
    """

    def trip(dtype: torch.dtype) -> Callable[[], float]:
        x, w = (each.to(dtype, memory_format=torch.channels_last) for each in tensors)
        w.requires_grad_()

        def timed() -> float:
            start = time.perf_counter()
            conv3x3(x, w, None).sum().backward()
            return time.perf_counter() - start

        return timed

    draws = generator("race")
    tensors = [torch.randn(shape, generator=draws) for shape in ((8, 64, 14, 14), (64, 64, 3, 3))]
    short, plain = trip(torch.bfloat16), trip(torch.float32)
    with thread_count(1):
        end, times = time.perf_counter() + seconds, [(short(), plain())]
        while time.perf_counter() < end:
            times.append((short(), plain()))
    fastest, other = map(min, zip(*times, strict=True))
    faster: float = other / fastest
    return faster
