"""What to do when memory runs out or numbers stop being finite."""

import errno

import torch

__all__ = ["BAD_STEPS_IN_A_ROW", "ROLL_BACKS", "is_out_of_memory"]

BAD_STEPS_IN_A_ROW = 10
"""After so many non-finite steps in a row the training goes back to its last good checkpoint."""

ROLL_BACKS = 5
"""After so many roll-backs (each halves the rate) the training gives up."""

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "annot allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not execute a primitive",
    "failed to map segment",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's or the machine's memory is used up.

    CUDA has a class of its own; the CPU allocator and MPS raise a plain RuntimeError, oneDNN one
    that names no reason; a library that finds no room while it is imported, an ImportError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error) if isinstance(error, RuntimeError | ImportError) else ""
    return any(word in said for word in OUT_OF_MEMORY)
