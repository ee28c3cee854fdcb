"""Two processes under torchrun, one of which is killed: torchrun begins both again."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .runs import compared, last, training

IMAGES = 8000
TORCHRUN = (
    sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1",
    "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "--", "mezzotint",
)  # fmt: skip


def killed(n: int, place: Path, seed: int) -> Iterator[str]:
    """A kill at any moment of each job, beginning and end included; then compared."""
    chance = random.Random(seed)
    whole = place / "whole"
    start = time.monotonic()
    said = launch(whole).communicate()[0]
    assert last(whole).exists(), said
    longest = time.monotonic() - start
    for number in itertools.count():
        out = place / f"killed{number}"
        job = launch(out)
        time.sleep(chance.uniform(0, longest))
        while not (found := children(job.pid)) and job.poll() is None:
            time.sleep(0.01)
        when = "after" if last(out).exists() else "before"
        if found:
            os.kill(chance.choice(found), signal.SIGKILL)
        said = job.communicate()[0]
        ending = compared(out, whole) if job.returncode == 0 else f"BAD: {job.returncode} {said}"
        if found:
            n -= 1
            yield f"a rank killed {when} the first checkpoint: {ending}"
        elif "BAD" in ending:
            yield ending
        if n <= 0:
            return


def launch(out: Path) -> subprocess.Popen[str]:
    """The training in two processes, which may be begun again once."""
    return subprocess.Popen(
        [*TORCHRUN, *map(str, training(out, IMAGES))],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def children(pid: int) -> list[int]:
    """The processes that another one has begun."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [int(number) for number in listed.stdout.split() if int(number) != os.getpid()]
