"""What a training looks like while it runs: a bar in a terminal or notebook, lines elsewhere."""

import contextlib
import math
import time
from collections.abc import Iterable

from mezzotint.runs.run import Run
from mezzotint.runs.trainer import Event, MetricsLogged, Notice, Previewed
from mezzotint.runtime.hardware import peak_memory
from mezzotint.runtime.log import log
from mezzotint.runtime.progress_bar import bar, draws_bar
from mezzotint.training import MicroBatchReduced, Skipped, Stepped, Stopped, Validated

__all__ = ["follow", "peak_memory"]

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""

METER = "{percentage:3.0f}%|{bar}| {desc}"
"""The bar, with the meter's line beside it."""

SMOOTH = 0.05
"""Weight of the newest step in the loss shown."""


def follow(run: Run, records: Iterable[Event], show: bool | None = None) -> Stopped | None:
    """Consume a training's records, and log and show them.

    Args:
        run: The run that is trained.
        records: What its trainer yields.
        show: True: the meter as a bar; False: no meter; None: a bar in a terminal or a notebook,
            log lines elsewhere.

    Returns:
        How it stopped, if early.

    """
    total = run.config.machine.images
    meter, live, stopped = _Meter(total), draws_bar(show), None
    with bar("training", total, METER) if live else contextlib.nullcontext() as update:
        for record in records:
            if isinstance(record, Stepped):
                meter.step(record)
                if update is not None:
                    update(record.images_seen, meter.line())
                elif show is None and meter.due():
                    log.info(meter.line())
                continue
            if isinstance(record, Stopped):
                stopped = record
            if text := _words(record):
                log.info(text)
    return stopped


def _words(record: Event) -> str | None:
    """One line for everything but a plain step."""
    match record:
        case Notice():
            return record.text
        case Previewed():
            return f"samples so far: {record.path}"
        case Validated():
            mark = ", the best so far" if record.best else ""
            return f"{record.images_seen:,} images: validation loss {record.loss:.4f}{mark}"
        case MetricsLogged():
            numbers = ", ".join(f"{name} {value:.4g}" for name, value in record.values.items())
            mark = ", the best so far" if record.best else ""
            return (
                f"{record.images_seen:,} images: {numbers} ({record.samples:,} samples, "
                f"{record.seconds:.0f} s){mark}"
            )
        case Skipped():
            return f"{record.images_seen:,} images: a step was not finite and was skipped"
        case MicroBatchReduced():
            return (
                f"memory ran out: {record.micro_batch} images at a time now, gradients added up, "
                "so the result stays the same (only batch normalisation sees smaller batches)"
            )
        case Stopped():
            return f"stopped at {record.images_seen:,} images: {record.reason}"
    return None


class _Meter:
    """Loss, speed, time left and peak memory, as one line."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.seen = 0
        self.loss: float | None = None
        self.marks: list[tuple[float, int]] = []  # (time, images seen) of the last while
        self.printed = time.monotonic()

    def step(self, record: Stepped) -> None:
        self.seen = record.images_seen
        if math.isfinite(record.loss):
            before = record.loss if self.loss is None else self.loss
            self.loss = before + SMOOTH * (record.loss - before)
        self.marks = [*self.marks[-100:], (time.monotonic(), record.images_seen)]

    def due(self) -> bool:
        """Whether it is time for a line."""
        if time.monotonic() - self.printed < LINE_EVERY and self.seen < self.total:
            return False
        self.printed = time.monotonic()
        return True

    def line(self) -> str:
        (start, first), (end, last) = self.marks[0], self.marks[-1]
        pace = ""
        if last > first and end > start:  # after two steps
            speed = (last - first) / (end - start)
            left = max(0, self.total - self.seen) / speed
            pace = f"  {speed:,.0f} images/s  {_clock(left)} left"
        shown = "not finite" if self.loss is None else f"{self.loss:.4f}"
        memory = f"{peak_memory() / 2**30:.2f} GiB"
        return f"{self.seen:,} of {self.total:,} images  loss {shown}{pace}  {memory}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
