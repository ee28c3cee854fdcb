"""Write the library's log and error messages on standard error."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from mezzotint.runtime.log import is_first_rank, log

__all__ = ["log_to_stderr", "tell"]


def tell(line: str) -> None:
    """Write a line, above a progress bar if there is one.

    An error while writing cannot be reported, so it is dropped.
    """
    with contextlib.suppress(OSError):
        if "tqdm.std" in sys.modules:  # without it there is no bar
            from tqdm.std import tqdm

            tqdm.write(line, file=sys.stderr)
            sys.stderr.flush()
        else:
            print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Within the block, show the library's notices and warnings; of several ranks, rank 0's."""
    handler, level = _Handler(logging.INFO), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class _Handler(logging.Handler):
    """Writes a record's message on what is sys.stderr at that moment."""

    def filter(self, record: logging.LogRecord) -> bool:
        return is_first_rank()

    def format(self, record: logging.LogRecord) -> str:
        words = "warning: " if record.levelno >= logging.WARNING else ""
        return words + record.getMessage()

    def emit(self, record: logging.LogRecord) -> None:
        tell(self.format(record))
