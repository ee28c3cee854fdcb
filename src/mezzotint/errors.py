"""What a user can do wrong, said in one line: what was given, what is allowed, what to do.

Every such mistake is an `InputError`; the command line prints its message and exits with code 2.
Being a `ValueError`, it is what a library user expects to catch.
"""

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "suggest"]


class InputError(ValueError):
    """A mistake of the person who called: one line, no traceback, nothing lost."""


def suggest(given: str, known: Iterable[str]) -> str:
    """The tail of an error message: the closest known name, then all of them.

    >>> suggest("heum", ["heun", "ancestral"])
    "did you mean 'heun'? (known: ancestral, heun)"
    """
    names = sorted(known)
    close = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}(known: {', '.join(names)})"
