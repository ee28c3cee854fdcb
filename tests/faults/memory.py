"""Less and less memory: a limit of the address space, so that allocations fail for real."""

import json
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from .children import CRASH, command

BATCH, IMAGES = 64, 192
MOST, LEAST, SMALLEST_STEP = 4096, 1024, 128  # MiB


def stepped_down(n: int, place: Path, seed: int) -> Iterator[str]:
    """The same training with less and less; its losses are those of the run that had enough."""
    step = max(SMALLEST_STEP, (MOST - LEAST) // n)
    wanted = losses(place / "enough", None)[1]
    assert wanted, "even without a limit it does not train"
    for size in range(MOST, LEAST - 1, -step):
        said, found = losses(place / f"{size}", size * 2**20)
        if found and all(abs(a - b) < 0.02 * a for a, b in zip(wanted, found, strict=True)):
            parts = re.findall(r"parts of (\d+)", said)
            how = f"in parts of {parts[-1]}" if parts else "in one part"
            yield f"trains batches of {BATCH} {how}, same losses"
        elif found:
            yield f"BAD: {size} MiB: other losses: {found} instead of {wanted}"
        else:
            lines = [line for line in said.splitlines() if line.strip()]
            bad = "Traceback" in said or not any("memory" in line for line in lines[-1:])
            yield f"BAD: {size} MiB: {said}" if bad else "says that memory is too small"


def losses(out: Path, limit: int | None) -> tuple[str, list[float]]:
    """What a short training of the mnist preset says, and its losses; none where it failed."""
    words = ("train", "digits", "--size", 28, "--preset", "mnist", "--budget", f"{IMAGES}images",
             "--set", "training.log_every=64", "--set", "training.validation_images=64",
             "--device", "cpu", "--out", out)  # fmt: skip
    ending = command(*words, before=limited(limit))
    if ending.code != 0:
        return ending.said if ending.code in (2, CRASH) else f"{ending.code} {ending.said}", []
    rows = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return ending.said, [row["loss"] for row in rows if row["kind"] == "step"]


def limited(size: int | None) -> Callable[[], None]:
    """The child's address space is that large."""

    def before() -> None:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return before
