"""When kernels can be called, and how: with pointers, sizes and numbers."""

import ctypes

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from mezzotint.kernels.build import library, triton_builds

__all__ = ["KINDS", "call", "fits", "normalises", "on_triton"]

KINDS = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


def fits(x: Tensor) -> bool:
    """Whether there are C++ kernels for this tensor on this machine.

    Not while torch compiles or counts FLOPs: what it cannot see into would be left out.
    """
    if x.device.type != "cpu" or x.dtype not in KINDS or _watched():
        return False
    return library() is not None


def normalises(x: Tensor) -> bool:
    """Whether `group_norm` takes this tensor."""
    return on_triton(x) if x.is_cuda else fits(x)


def on_triton(x: Tensor) -> bool:
    """Whether there are Triton's kernels for this tensor on this machine.

    On CUDA, also of float16. Triton wants compute capability 7.0, and 8.0 for bfloat16.
    """
    if not x.is_cuda or x.dtype not in (*KINDS, torch.float16) or _watched():
        return False
    least = 8 if x.dtype == torch.bfloat16 else 7
    return torch.cuda.get_device_capability(x.device)[0] >= least and triton_builds()


def _watched() -> bool:
    return torch.compiler.is_compiling() or is_in_torch_dispatch_mode()


def call(
    name: str, tensors: tuple[Tensor | None, ...], sizes: tuple[int, ...], *numbers: float
) -> None:
    """Call the function of this name with the tensors' addresses and the number of threads.

    MemoryError where it finds none for itself.
    """
    pointers = [None if t is None else ctypes.c_void_p(t.data_ptr()) for t in tensors]
    integers = [ctypes.c_int64(size) for size in sizes]
    floats = [ctypes.c_float(number) for number in numbers]
    kernels = library()
    assert kernels is not None, "ask fits() first"
    threads = ctypes.c_int(torch.get_num_threads())
    if getattr(kernels, name)(*pointers, *integers, *floats, threads):
        raise MemoryError(f"{name} finds no memory to work in")
