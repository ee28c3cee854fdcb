"""Work that is recorded once and then played again, where a GPU waits for Python.

Calling the operators of a small network takes longer than the network does: a training step of
the preset for Fashion-MNIST launches some 2,500 kernels, and an H100 spent nine tenths of the
time waiting for the next. A CUDA graph is the list of these launches; played, it is one. It reads
and writes the same memory every time, so what is recorded may

    read and write tensors that stay where they are (weights, gradients, an optimiser's state),
    or those that it is called with, which are copied to where the recording reads them,

and may not wait for the device, look at a value, or make a tensor from numbers of Python's.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Replay"]

WARM = 2
"""Times that work runs as it is: optimisers make their state, libraries choose their kernels."""

_recording = threading.RLock()
"""CUDA captures one graph at a time in a process, and replays share torch's 32 side streams."""


class Replay:
    """Calls work; on CUDA, from the third time on, by playing a recording of it.

    A recording is tied to the memory of one training, so it ends with it.
    """

    STEADY = WARM + 1
    """Calls after which the time that one takes stays the same."""

    def __init__(self, active: bool) -> None:
        """`active`: whether to record anything; else all is called as it is."""
        self.active = active
        self._calls: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, _Recording] = {}
        self._stream = torch.cuda.Stream() if active else None

    def __call__(self, name: Hashable, work: Callable[..., Any], *given: Tensor) -> Any:
        """What work(*given) returns. Tensors that a recording returns hold until its next call.

        Work of one name, called with tensors of the same shapes, does the same every time.
        """
        if self._stream is None:
            return work(*given)
        key = (name, *((t.shape, t.dtype) for t in given))
        if key in self._recordings:
            return self._recordings[key].play(given)
        self._calls[key] = self._calls.get(key, 0) + 1
        with _recording:
            if self._calls[key] > WARM:
                self._recordings[key] = _Recording(work, given, self._stream)
                return self._recordings[key].play(given)
            # On the stream that it will be recorded on, to which gradients stay bound.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = work(*given)
            torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def forget(self) -> None:
        """Let all recordings go, and the memory with them that each keeps for its work."""
        if self._recordings:
            torch.cuda.synchronize()
        self._calls, self._recordings = {}, {}


class _Recording:
    """The launches of one call."""

    def __init__(
        self, work: Callable[..., Any], given: tuple[Tensor, ...], stream: torch.cuda.Stream
    ) -> None:
        self.given = [t.clone() for t in given]
        self.work = work  # tensors that it holds are read whenever it is played
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may allocate and wait meanwhile.
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.result = work(*self.given)

    def play(self, given: tuple[Tensor, ...]) -> Any:
        """Play it with other values."""
        for ours, theirs in zip(self.given, given, strict=True):
            ours.copy_(theirs)
        self.graph.replay()
        return self.result
