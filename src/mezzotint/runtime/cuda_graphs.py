"""Capture work in a CUDA graph once and replay it, where a GPU waits for Python.

Calling the operators of a small network takes longer than the network does: a training step of
the preset for Fashion-MNIST launches some 2,500 kernels, and an H100 spent nine tenths of the
time waiting for the next. A CUDA graph is the list of these launches; its replay is one launch.
It reads and writes the same memory every time, so captured work may

    read and write tensors that stay where they are (weights, gradients, an optimiser's state),
    or those that it is called with, which are copied to where the graph reads them,

and may not wait for the device, look at a value, or make a tensor from numbers of Python's.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

__all__ = ["CudaGraphs"]

WARM = 2
"""Times that work runs as it is: optimisers make their state, libraries choose their kernels."""

_recording = threading.RLock()
"""CUDA captures one graph at a time in a process, and graphs share torch's 32 side streams."""


class CudaGraphs:
    """Calls work; on CUDA, from the third time on, by replaying a CUDA graph of it.

    A graph is tied to the memory of one training, so it ends with it.
    """

    STEADY = WARM + 1
    """Calls after which the time that one takes stays the same."""

    def __init__(self, active: bool) -> None:
        """`active`: whether to capture anything; else all work is called eagerly."""
        self.active = active
        self._calls: dict[Hashable, int] = {}
        self._recordings: dict[Hashable, _Graph] = {}
        self._stream = torch.cuda.Stream() if active else None

    def __call__(self, name: Hashable, work: Callable[..., Any], *inputs: Tensor) -> Any:
        """Return work(*inputs). Tensors that a graph returns hold until its next replay.

        Work of one name, called with tensors of the same shapes, does the same every time.
        """
        if self._stream is None:
            return work(*inputs)
        key = (name, *((t.shape, t.dtype) for t in inputs))
        if key in self._recordings:
            return self._recordings[key].launch(inputs)
        self._calls[key] = self._calls.get(key, 0) + 1
        with _recording:
            if self._calls[key] > WARM:
                self._recordings[key] = _Graph(work, inputs, self._stream)
                return self._recordings[key].launch(inputs)
            # On the stream of the later capture, to which gradients stay tied.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                result = work(*inputs)
            torch.cuda.current_stream().wait_stream(self._stream)
        return result

    def clear(self) -> None:
        """Release all graphs, and the memory that each keeps for its work."""
        if self._recordings:
            torch.cuda.synchronize()
        self._calls, self._recordings = {}, {}


class _Graph:
    """The launches of one call."""

    def __init__(
        self, work: Callable[..., Any], inputs: tuple[Tensor, ...], stream: torch.cuda.Stream
    ) -> None:
        self.inputs = [t.clone() for t in inputs]
        self.work = work  # tensors that it holds are read at each replay
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may allocate and wait meanwhile.
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.result = work(*self.inputs)

    def launch(self, inputs: tuple[Tensor, ...]) -> Any:
        """Replay the graph with other values."""
        for ours, theirs in zip(self.inputs, inputs, strict=True):
            ours.copy_(theirs)
        self.graph.replay()
        return self.result
