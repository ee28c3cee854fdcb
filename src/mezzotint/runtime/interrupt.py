"""Handle SIGINT and SIGTERM between two steps, so that the state saved is a whole one."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupt"]

REPEAT_WINDOW = 1.0
"""Seconds within which a second signal repeats the first."""


class Interrupt:
    """Within the block the first SIGINT or SIGTERM only sets `requested`; a later one interrupts.

    One request may come twice at once: a terminal or a batch system signals every process of a
    job, and torchrun forwards the signals that it receives.
    """

    def __init__(self) -> None:
        self.requested = False
        self._requested_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        """Install the handlers; outside the main thread this cannot be, and nothing changes."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:
            self.requested, self._requested_at = True, time.monotonic()
        elif time.monotonic() - self._requested_at > REPEAT_WINDOW:
            raise KeyboardInterrupt
