"""Write progress lines for the log of a training: how far it is, and the time left."""

import time
from collections.abc import Callable

__all__ = ["progress_lines"]

EVERY = 15.0
"""Seconds between two lines."""


def progress_lines(
    what: str,
    total: int,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[int], None]:
    """A function of the images seen so far, of `total`; it speaks now and then.

    Time counts from its first call.
    """
    first: tuple[float, int] | None = None
    said = 0.0

    def watch(seen: int) -> None:
        nonlocal first, said
        now = clock()
        if first is None:
            first, said = (now, seen), now
        if now - said < EVERY or seen == first[1]:
            return
        said = now
        left = (now - first[0]) / (seen - first[1]) * (total - seen)
        say(f"{what}: {seen:,} of {total:,} images, {left:.0f} s left")

    return watch
