"""The errors that a user can mend: one line says what was given, what is allowed, what to do.

| kind | what is wrong | base class in Python |
|---|---|---|
| `InputError` | what the caller gave: an argument, an option, a setting, a name | `ValueError` |
| `DataError` | a data set, image, sample file, folder or file of weights | `ValueError` |
| `CheckpointError` | a run's directory or a checkpoint | `ValueError` |
| `DivergenceError` | numbers that are NaN or infinite: losses, drawn images | `ArithmeticError` |
| `PeerError` | another process of the job | `RuntimeError` |

All are a `MezzotintError`. Choose the kind by what mends it: other words in the call
(`InputError`), other data files (`DataError`), another run (`CheckpointError`). The command line
prints the message and exits with code 2, after a `PeerError` with code 1.

The module also tells whether memory is used up, and gives one line of another error.
"""

import difflib
import errno
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergenceError",
    "InputError",
    "MezzotintError",
    "PeerError",
    "first_line",
    "is_out_of_memory",
    "suggest",
]

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "annot allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not execute a primitive",
    "failed to map segment",
)


class MezzotintError(Exception):
    """An error that a user can mend: one line, no traceback, nothing lost."""


class InputError(MezzotintError, ValueError):
    """An argument, option, setting or name cannot be used: give another one."""


class DataError(MezzotintError, ValueError):
    """A data set, image, sample file, folder or file of weights is missing or cannot be used."""


class CheckpointError(MezzotintError, ValueError):
    """A run or checkpoint is missing, damaged, incomplete or of another version."""


class DivergenceError(MezzotintError, ArithmeticError):
    """Numbers are NaN or infinite: training diverged, or drawn images are no pictures."""


class PeerError(MezzotintError, RuntimeError):
    """Another process of the job ended, failed or does not answer."""


def suggest(name: str, known: Iterable[str]) -> str:
    """The tail of an error message: the closest known name, then all of them.

    >>> suggest("heum", ["heun", "ancestral"])
    "did you mean 'heun'? (known: ancestral, heun)"
    >>> suggest("x", ["heun", "ancestral"])
    'choose one of ancestral, heun'
    """
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    known = ", ".join(names)
    return f"did you mean '{close[0]}'? (known: {known})" if close else f"choose one of {known}"


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or its type's name where it has none.

    >>> first_line(ValueError("\nno room\nat all")), first_line(KeyError())
    ('no room', 'KeyError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's or the machine's memory is used up.

    CUDA, the CPU allocator and MPS raise a RuntimeError that says so, oneDNN one that names no
    reason; a library that finds no room while it is imported, an ImportError.
    """
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = str(error) if isinstance(error, RuntimeError | ImportError) else ""
    return isinstance(error, MemoryError) or any(word in said for word in OUT_OF_MEMORY)
