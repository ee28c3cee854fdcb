"""How far a loop is: a bar in a terminal or a notebook, log lines elsewhere.

    with progress("drawing", 100) as update:
        update(10)  # of 100

tqdm draws both kinds of bar, in text or with ipywidgets. A bar goes away at its end.
"""

import contextlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mezzotint.runtime.log import is_first_rank, log

__all__ = ["bar", "draws_bar", "progress"]

EVERY = 15.0
"""Seconds between two lines."""

COUNTED = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]"
"""What a bar shows: what is done, the share, the number, time spent and left."""


@contextmanager
def progress(what: str, total: int, show: bool | None = None) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` images are done.

    Args:
        what: What is done with them, such as "drawing".
        total: Number of images.
        show: True: by a bar; False: not at all; None: by a bar in a terminal or a notebook, and
            by a log line every 15 s elsewhere. Of several processes only rank 0 shows anything.

    Yields:
        A function of the number of images done so far.

    """
    if show is False or not is_first_rank():
        yield lambda done: None
    elif draws_bar(show):
        with bar(what, total, COUNTED) as update:
            yield lambda done: update(done, what)
    else:
        yield _lines(what, total)


def draws_bar(show: bool | None = None) -> bool:
    """Return whether this process shows progress by a bar; for `show` see `progress`."""
    if show is not None or not is_first_rank():
        return bool(show) and is_first_rank()
    return _in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


@contextmanager
def bar(words: str, total: int, form: str) -> Iterator[Callable[[int, str], None]]:
    """Show a bar on standard error.

    Args:
        words: `desc` in the form, to begin with.
        total: The number of what there is to do.
        form: What the bar shows, as tqdm's `bar_format`.

    Yields:
        A function of the number done so far and of the words.

    """
    # Without miniters=1, one large step makes tqdm skip many small ones.
    shown = _tqdm()(
        desc=words,
        total=total,
        file=sys.stderr,
        leave=False,
        bar_format=form,
        dynamic_ncols=True,
        miniters=1,
    )

    def update(done: int, words: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that has gone
            shown.set_description_str(words, refresh=False)
            shown.update(min(done, total) - shown.n)

    try:
        yield update
    finally:
        with contextlib.suppress(OSError):
            shown.close()


def _tqdm() -> Any:
    """Return the class that draws: widgets in a notebook that has them, text elsewhere."""
    if _in_notebook() and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as widget

        return widget
    from tqdm.std import tqdm

    return tqdm


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process; a terminal's IPython is a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _lines(
    what: str, total: int, clock: Callable[[], float] = time.monotonic
) -> Callable[[int], None]:
    """Return a function of the images done so far, of `total`, that logs a line now and then.

    Time counts from its first call.
    """
    first: tuple[float, int] | None = None
    logged = 0.0

    def update(done: int) -> None:
        nonlocal first, logged
        now = clock()
        if first is None:
            first, logged = (now, done), now
        if now - logged < EVERY or done == first[1]:
            return
        logged = now
        left = (now - first[0]) / (done - first[1]) * (total - done)
        log.info(f"{what}: {done:,} of {total:,} images, {left:.0f} s left")

    return update
