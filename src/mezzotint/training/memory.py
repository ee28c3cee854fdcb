"""Running out of memory: the same work again, in parts of half the size."""

from collections.abc import Callable
from typing import TypeVar

import torch

from mezzotint.errors import InputError, first_line, is_out_of_memory

__all__ = ["empty_cuda_cache", "fit_in_memory"]

Result = TypeVar("Result")


def fit_in_memory(
    work: Callable[[int], Result], size: int, release: Callable[[], None]
) -> tuple[Result, int]:
    """Call `work` with a micro-batch size, and with half of it whenever memory runs out.

    Args:
        work: Does everything again at each call, in parts of at most the given number of images.
        size: Number of images to begin with.
        release: Frees memory before each retry.

    Returns:
        The result of `work`, and the size that fitted.

    Raises:
        InputError: Memory runs out even with one image at a time.

    """
    while True:
        try:
            return work(size), size
        except (RuntimeError, MemoryError) as error:
            size = _halved(size, error)
        # Outside of the `except` block: the exception's traceback keeps the failed tensors alive.
        release()


def empty_cuda_cache(device: str) -> None:
    """Return unused cached memory to the CUDA driver."""
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def _halved(images: int, error: Exception) -> int:
    """Return half of `images` after running out of memory; raise where that cannot help."""
    if not is_out_of_memory(error):
        raise error
    if images == 1:
        raise InputError(
            f"memory runs out even with one image at a time ({first_line(error)}): use a smaller "
            "network"
        ) from error
    return images // 2
