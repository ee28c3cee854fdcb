"""The command line in children of this process: forked, so that a start costs no imports."""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import matplotlib.figure
import torch

from mezzotint.cli import main
from mezzotint.config.presets import load_preset
from mezzotint.data import load

CRASH = 70
PATIENCE = 300.0  # seconds; what takes longer hangs


@dataclass(frozen=True)
class Ending:
    """How a command ended: exit code (a signal's number, negative) and all that it said."""

    code: int
    said: str

    @property
    def refused(self) -> bool:
        """In one line, which is no traceback."""
        return self.code == 2 and "Traceback" not in self.said


@dataclass
class Child:
    """A command that runs."""

    pid: int
    said: int
    """The end of the pipe into which it speaks; no file, which might be full."""

    ending: Ending | None = None
    began: float = field(default_factory=time.monotonic)

    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self.ending is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._ended(status)
        return self.ending is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, if it runs."""
        if self.running():
            os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> Ending:
        """Until it has ended; one that hangs is killed, and that is how it ended."""
        while self.running():
            if time.monotonic() - self.began > patience:
                self.kill()
            time.sleep(0.002)
        return self.ending

    def _ended(self, status: int) -> None:
        with os.fdopen(self.said, "rb") as pipe:
            text = pipe.read().decode(errors="replace")
        self.ending = Ending(os.waitstatus_to_exitcode(status), text)


def launch(*words: object, before: Callable[[], None] = lambda: None) -> Child:
    """Start the command with these words; `before` is called in the child."""
    said, speaks = os.pipe()
    pid = os.fork()
    if pid:
        os.close(speaks)
        return Child(pid, said)
    code = CRASH
    try:
        os.dup2(speaks, 1)
        os.dup2(speaks, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w") for number in (1, 2))
        before()
        code = main.run([str(word) for word in words])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(
    *words: object, before: Callable[[], None] = lambda: None, patience: float = PATIENCE
) -> Ending:
    """Run the command to its end, or for so many seconds."""
    return launch(*words, before=before).wait(patience)


def warm() -> None:
    """Do once what every child would do; on one thread, since a fork takes no others along."""
    torch.set_num_threads(1)
    importlib.import_module("mezzotint.runs.train")
    load("digits")
    load_preset("digits")  # its imports may be out of reach of a child of another user
    # What these import, a child without rights could not read.
    torch.optim.AdamW([torch.zeros(1)])
    matplotlib.figure.Figure().subplots()
