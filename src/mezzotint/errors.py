"""What a user can do wrong, said in one line: what was given, what is allowed, what to do.

Every such mistake is an `InputError`; the command line prints its message and exits with code 2.
Being a `ValueError`, it is what a library user expects to catch. And how to tell that memory is
used up, which everything that takes much of it wants to know, and one line of another error.
"""

import difflib
import errno
from collections.abc import Iterable

__all__ = ["InputError", "first_line", "is_out_of_memory", "suggest"]

OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "annot allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not execute a primitive",
    "failed to map segment",
)


class InputError(ValueError):
    """A mistake of the person who called: one line, no traceback, nothing lost."""


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
