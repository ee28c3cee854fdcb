"""What this machine does best: device, precision and threads.

Decided once at the start of a run, stored with it and obeyed on resume: another precision or
another number of threads would round differently.
"""

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import torch
from torch import nn

from mezzotint.errors import InputError
from mezzotint.runtime.distributed import Ranks, current_ranks

__all__ = [
    "DEVICES",
    "Compute",
    "Precision",
    "resolve_device",
    "settle_thread_count",
    "thread_count",
]

Precision = Literal["float32", "bfloat16", "float16"]

DEVICES: Mapping[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
"""Best first, and whether this machine has them."""


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h

_changing = threading.Lock()
"""Held while the default thread count is another for a moment."""


@dataclass(frozen=True)
class Compute:
    """How the arithmetic is done."""

    device: str = "cpu"
    precision: Precision = "float32"
    threads: int = 1
    use_cuda_graphs: bool = True
    """On CUDA, replay steps as CUDA graphs (`runtime.cuda_graphs`); without, a profile sees their
    operators."""

    ranks: Ranks = field(default_factory=current_ranks, compare=False)
    """The processes that compute together."""

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Convolutions and products in the chosen precision; a no-op for float32."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=getattr(torch, self.precision))

    @property
    def cuda_graphs(self) -> bool:
        """Whether work is captured in CUDA graphs: sums over several processes are not."""
        return self.use_cuda_graphs and self.device.startswith("cuda") and self.ranks.size == 1

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
        """Compute with `threads` threads within the block; see `thread_count`."""
        _keep_memory()
        with thread_count(self.threads):
            yield


@contextlib.contextmanager
def thread_count(count: int) -> Iterator[None]:
    """Let the calling thread compute with `count` threads within the block.

    Other Python threads keep their count, also those that start within the block.
    """
    settle_thread_count()
    before = torch.get_num_threads()
    try:
        _set_own_count(count)
        yield
    finally:
        _set_own_count(before)


def settle_thread_count() -> None:
    """Let a new thread take the default thread count over now, while no other changes it.

    Without this, its first computation may fall into the moment at which another sets its own.
    """
    with _changing:
        torch.get_num_threads()


def _set_own_count(count: int) -> None:
    """Set the thread count of the calling thread alone.

    torch.set_num_threads sets two values: the calling thread's own, and the default that each
    thread takes over at its first computation. A new thread reads the default and puts it back.
    """
    if count == torch.get_num_threads():
        return
    known, changed = threading.Event(), threading.Event()

    def keep_default() -> None:
        default = torch.get_num_threads()
        known.set()
        changed.wait()
        torch.set_num_threads(default)

    with _changing:
        keeper = threading.Thread(target=keep_default, daemon=True)
        keeper.start()
        try:
            known.wait()
            torch.set_num_threads(count)
        finally:  # also when a signal interrupts the wait
            changed.set()
            keeper.join()


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


def resolve_device(requested: str = "auto") -> str:
    """cuda, else mps, else cpu for `auto`; InputError for a device that is not there."""
    if requested == "auto":
        return next(name for name, is_there in DEVICES.items() if is_there())
    if requested not in DEVICES:
        raise InputError(f"no device is called '{requested}': choose auto, cpu, cuda or mps")
    if not DEVICES[requested]():
        raise InputError(f"this machine has no {requested} device; leave --device out or say cpu")
    return requested
