"""What this machine does best: device, precision and threads.

Decided once at the start of a run, stored with it and obeyed on resume: another precision or
another number of threads would round differently.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from torch import nn

from mezzotint.errors import InputError
from mezzotint.kernels import conv3x3
from mezzotint.randomness import generator
from mezzotint.world import World, current

__all__ = [
    "DEVICES",
    "Compute",
    "Precision",
    "bf16_pays",
    "choose",
    "native_bf16",
    "pick_device",
]

Precision = Literal["float32", "bfloat16", "float16"]

DEVICES: Mapping[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
"""Best first, and whether this machine has them."""


FASTER = 1.2
"""Times as fast as float32 that bf16 has to be on a CPU."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class Compute:
    """How the arithmetic is done."""

    device: str = "cpu"
    precision: Precision = "float32"
    threads: int = 1
    replay: bool = True
    """On CUDA, play recorded steps (`replay`); without, a profile sees their operators."""

    world: World = field(default_factory=current, compare=False)
    """The processes that compute together."""

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Convolutions and products in the chosen precision; a no-op for float32."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=getattr(torch, self.precision))

    @property
    def replays(self) -> bool:
        """Whether work is recorded: sums over several processes are not."""
        return self.replay and self.device.startswith("cuda") and self.world.size == 1

    def place(self, module: nn.Module) -> None:
        """Bring a module to the device, laid out as convolutions there are fastest."""
        module.to(self.device)
        if self.device.startswith("cuda"):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def scaler(self) -> torch.amp.GradScaler | None:
        """The gradient scaler that float16 needs; None otherwise."""
        if self.precision != "float16":
            return None
        return torch.amp.GradScaler(self.device.split(":")[0], init_scale=2.0**12)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """This many threads, put back afterwards."""
        _keep_memory()
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@cache
def _keep_memory() -> None:
    """Keep what tensors leave behind.

    glibc gives what a step frees at its end back to the system, and each page of it costs a fault
    when the next step asks for it: 5 % of the time.
    """
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have other ways
        set_option = ctypes.CDLL(None).mallopt
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)
        set_option(_M_MMAP_THRESHOLD, 2**30)


def pick_device(wish: str = "auto") -> str:
    """cuda, else mps, else cpu for `auto`; InputError for a device that is not there."""
    if wish == "auto":
        return next(name for name, is_there in DEVICES.items() if is_there())
    if wish not in DEVICES:
        raise InputError(f"no device is called '{wish}': choose auto, cpu, cuda or mps")
    if not DEVICES[wish]():
        raise InputError(f"this machine has no {wish} device; leave --device out or say cpu")
    return wish


def choose(wish: str = "auto") -> Compute:
    """Device and precision for this machine; on CPUs with bf16 units after a short race."""
    device = pick_device(wish)
    threads = torch.get_num_threads()
    if device == "cuda":
        return Compute(device, "bfloat16" if native_bf16(device) else "float16", threads)
    # All ask, also a rank whose processor has no such units: nobody may wait for it in vain.
    if device == "cpu" and current().same(_bf16_gain()) > FASTER:
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
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and has_bf16_units()


def has_bf16_units() -> bool:
    """AMX or avx512_bf16; without them bf16 is emulated and far slower (pytorch#118499)."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def _bf16_gain() -> float:
    """How many times faster bf16 is on this CPU; 0 without units for it, which needs no race."""
    return _bf16_race() if has_bf16_units() else 0.0


@cache
def _bf16_race(seconds: float = 0.8) -> float:
    """How many times faster bf16 runs a typical convolution, forward and backward.

    Either as well as it can be had: float32 through our kernels, bf16 in torch's own way.
    On one core, in turn, and by the fastest of each, so that it comes out the same on a busy
    machine: two runs of one command are to have one precision.
    """

    def trip(dtype: torch.dtype) -> Callable[[], float]:
        x, w = (each.to(dtype, memory_format=torch.channels_last) for each in given)
        w.requires_grad_()

        def timed() -> float:
            start = time.perf_counter()
            conv3x3(x, w, None).sum().backward()
            return time.perf_counter() - start

        return timed

    draws = generator("race")
    given = [torch.randn(shape, generator=draws) for shape in ((8, 64, 14, 14), (64, 64, 3, 3))]
    short, plain = trip(torch.bfloat16), trip(torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        end, times = time.perf_counter() + seconds, [(short(), plain())]
        while time.perf_counter() < end:
            times.append((short(), plain()))
    finally:
        torch.set_num_threads(threads)
    fastest, other = map(min, zip(*times, strict=True))
    return other / fastest
