"""Less and less memory: a limit of the address space, so that allocations fail for real."""

import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from mezzotint.runtime import checksum

from .children import Ending, command

BATCH, IMAGES = 64, 192
MOST, LEAST, SMALLEST_STEP = 4096, 1024, 32  # MiB


def stepped_down(n: int, place: Path, seed: int) -> Iterator[str]:
    """The same training with less and less; what stops it loses nothing."""
    step = max(SMALLEST_STEP, (MOST - LEAST) // n)
    train(place / "enough", None)
    wanted = losses(place / "enough")
    assert wanted, "even without a limit it does not train"
    for size in range(MOST, LEAST - 1, -step):
        out = place / f"{size}"
        ending = train(out, size * 2**20)
        parts = re.findall(r"memory ran out: (\d+) images at a time", ending.said)
        how = f"batches of {BATCH} in {f'parts of {parts[-1]}' if parts else 'one part'}"
        if ending.code == 2:
            last = ending.said.rstrip().rpartition("\n")[2]
            one_line = "memory" in last and "Traceback" not in ending.said
            how = "says that memory is too small" if one_line else f"BAD: {ending.said}"
        elif ending.code != 0:
            died = -ending.code in (signal.SIGSEGV, signal.SIGABRT)  # in a library: no way out
            how = f"dies of signal {-ending.code}" if died else f"BAD: {ending.code} {ending.said}"
        if ending.code != 0:
            train(out, None)
            how += ", goes on with enough"
        same = [abs(a - b) < 0.02 * a for a, b in zip(wanted, losses(out), strict=False)]
        if same == [True] * len(wanted):
            yield f"{how}, same losses"
        else:
            yield f"BAD: {size} MiB: {how}, losses {losses(out)} instead of {wanted}"


def train(out: Path, limit: int | None) -> Ending:
    """How a short training of the mnist preset ends."""
    words = ("train", "digits", "--size", 28, "--preset", "mnist", "--budget", f"{IMAGES}images",
             "--set", "training.log_every=64", "--set", "training.validation_images=64",
             "--device", "cpu", "--out", out)  # fmt: skip
    return command(*words, before=limited(limit))


def losses(out: Path) -> list[float]:
    """Of its steps."""
    rows, _ = checksum.read_rows(out / "metrics.jsonl")
    return [row["loss"] for row in rows if row["kind"] == "step"]


def limited(size: int | None) -> Callable[[], None]:
    """The child's address space is that large."""

    def before() -> None:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return before
