"""Ctrl-C and a polite kill, heard between two steps, so that the state saved is a whole one."""

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupt"]

ONE_WISH = 1.0
"""Seconds within which a second signal repeats the first."""


class Interrupt:
    """Within the block the first SIGINT or SIGTERM only sets `asked`; a later one interrupts.

    One wish may come twice at once: from a terminal or a batch system to every process of a job,
    and from torchrun, which hands on what it hears.
    """

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        """Listen; outside the main thread signals cannot be heard, and nothing changes."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._heard)
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

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._asked_at = True, time.monotonic()
        elif time.monotonic() - self._asked_at > ONE_WISH:
            raise KeyboardInterrupt
