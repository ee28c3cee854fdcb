"""Soak: a training of many minutes, drawn from and evaluated all the time; does anything grow?"""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mezzotint.training.checkpoint import read

from .children import command
from .runs import TINY, last

EVERY = 4000
BUSY = (
    "--set", f"training.validate_every={EVERY}", "--set", f"training.preview_every={EVERY}",
    "--set", f"training.metrics_every={EVERY}", "--set", "training.metrics_images=200",
    "--set", "training.metrics_share=0.5",
)  # fmt: skip
WARM = 0.2
"""Of the time: until then caches fill, and nothing is concluded."""

GROWTH = 0.02
"""Of the memory, over the rest of the time: more is a leak."""


def soaked(n: int, place: Path, seed: int) -> Iterator[str]:
    """n minutes; once in each, others draw from the run and report it while it trains."""
    out = place / "run"
    words = ["train", "digits", "--out", str(out), "--budget", f"{n}m"]
    words += ["--checkpoint-every", "10s", *TINY, *BUSY, "--set", f"training.seed={seed}"]
    with (place / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mezzotint", *words], stdout=said, stderr=subprocess.STDOUT
        )
    seen: list[tuple[float, int, int, int]] = []
    start, looks = time.monotonic(), 0
    while process.poll() is None:
        minutes = (time.monotonic() - start) / 60
        if state := _state(process.pid):
            seen.append((minutes, *state))
        if minutes > looks + 1 and last(out).exists():
            looks += 1
            drawn = place / f"{looks}.npz"
            for verb, *rest in ("sample", "--n", 10, "--out", drawn), ("report",):
                ending = command(verb, out, *rest)
                if ending.code != 0:
                    yield f"BAD: {verb} ended with {ending.code}: {ending.said}"
        time.sleep(2)
    if process.returncode != 0:
        yield f"BAD: ended with {process.returncode}: {(place / 'said').read_text()[-2000:]}"
        return
    evaluated = (out / "metrics.jsonl").read_text().count('"kind": "metrics"')
    images = read(last(out)).facts["images_seen"]
    yield f"{_outcome(seen)}; {images:,} images, evaluated {evaluated} times, read {looks} times"


def _state(pid: int) -> tuple[int, int, int] | None:
    """KiB resident, open files, threads; None of a process that has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        facts = dict(line.split(":", 1) for line in status.splitlines())
        return int(facts["VmRSS"].split()[0]), files, int(facts["Threads"])
    except (OSError, KeyError):
        return None


def _outcome(seen: list[tuple[float, int, int, int]]) -> str:
    """What became of memory, files and threads once all was warm: medians and slopes."""
    minutes, *columns = zip(*(row for row in seen if row[0] > WARM * seen[-1][0]), strict=True)
    span, messages, bad = minutes[-1] - minutes[0], [], False
    for what, column in zip(("KiB resident", "files", "threads"), columns, strict=True):
        slope = statistics.linear_regression(minutes, column).slope
        usual = statistics.median(column)
        bad = bad or slope * span > GROWTH * usual
        messages.append(f"{usual:,.0f} {what}, {60 * slope:+.2f} an hour")
    return ("BAD: grows: " if bad else "flat: ") + ", ".join(messages)
