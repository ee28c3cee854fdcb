"""No room, no permission: a full disk, a limit of the size of files, read-only directories."""

import os
import random
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .children import Ending, command
from .runs import compared, training

IMAGES = 1600
NOBODY = 65534
SIZES = (1, 4, 64, 256, 512, 700, 900, 1200)  # KiB that a disk or a file may have


def without_room(n: int, place: Path, seed: int) -> Iterator[str]:
    """Small disks and files of limited size, n of each at most, then directories that are closed.

    Afterwards there is room again: nothing is lost, and the run goes on.
    """
    sizes = random.Random(seed).sample(SIZES, min(n, len(SIZES)))
    whole = place / "whole"
    assert command(*training(whole, IMAGES)).code == 0
    for size in sizes:
        out = place / f"limited{size}"
        ending = command(*training(out, IMAGES), before=limited(size * 1024))
        yield f"files of at most so many KiB: {outcome(ending, out, whole)}"
    for size in sizes:
        disk = place / f"disk{size}"
        with mounted(disk, size) as there:
            if not there:
                yield "a full disk: not possible here, it takes the right to mount one"
                break
            out = disk / "run"
            ending = command(*training(out, IMAGES))
            moved = place / f"moved{size}"
            if out.exists():  # room is made
                shutil.copytree(out, moved)
        yield f"a full disk: {outcome(ending, moved, whole)}"
    yield from read_only(place, whole)


def read_only(place: Path, whole: Path) -> Iterator[str]:
    """Each directory of a run is read-only."""
    place.chmod(0o755)
    for folder in (".", "checkpoints", "samples"):
        out = place / f"closed{len(folder)}"
        assert command(*training(out, IMAGES // 2)).code == 0
        if os.geteuid() == 0:
            for path in (out, *out.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        (out / folder).chmod(0o555)
        ending = command(*training(out, IMAGES), before=nobody)
        (out / folder).chmod(0o755)
        yield f"{folder} is read-only: {outcome(ending, out, whole)}"


def outcome(ending: Ending, out: Path, whole: Path) -> str:
    """What was said, and whether the run goes on once there is room."""
    if ending.code == 0:
        said = "went on" if "cannot" not in ending.said else "went on, and said so"
    elif ending.refused and "cannot" in ending.said:
        said = "stopped with one line"
    else:
        return f"BAD: {ending.code}: {ending.said}"
    again = command(*training(out, IMAGES))
    if again.code != 0:
        return f"BAD: does not go on: {again.said}"
    return f"{said}; resumed once there was room, {compared(out, whole)}"


def limited(size: int) -> Callable[[], None]:
    """Files of the child can have so many bytes."""

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return before


def nobody() -> None:
    """The child has no rights beyond the files' own, also where root runs this."""
    if os.geteuid() == 0:
        os.setegid(NOBODY)
        os.seteuid(NOBODY)


@contextmanager
def mounted(place: Path, size: int) -> Iterator[bool]:
    """A disk of so many KiB, if we may mount one."""
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
    done = subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield done
    finally:
        if done:
            subprocess.run(["umount", str(place)], check=True)
