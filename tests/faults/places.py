"""Where a run lies: two trainings at one place, a run that was moved or copied, links."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from .children import command, launch
from .runs import compared, last, training

IMAGES = 1600


def of_runs(n: int, place: Path, seed: int) -> Iterator[str]:
    """Each thing that may happen to the place of a run."""
    whole = place / "whole"
    assert command(*training(whole, IMAGES)).code == 0
    half = place / "half"
    assert command(*training(half, IMAGES // 2)).code == 0

    first = launch(*training(place / "both", 50 * IMAGES))
    while not last(place / "both").exists():
        assert first.running()
        time.sleep(0.01)
    second = command(*training(place / "both", 50 * IMAGES))
    still = first.running()
    first.kill(signal.SIGTERM)
    good = second.refused and "another process" in second.said and still
    good = good and first.wait().code == 130
    yield "two trainings at one place: the second is refused" if good else f"BAD: {second.said}"

    copied = place / "elsewhere" / "deep" / "copied"
    shutil.copytree(half, copied)
    yield f"copied: {ends(copied, whole)}"
    moved = place / "moved"
    shutil.copytree(half, place / "tomove")
    (place / "tomove").rename(moved)
    yield f"moved: {ends(moved, whole)}"
    link = place / "link"
    shutil.copytree(half, place / "behind")
    os.symlink(place / "behind", link)
    yield f"behind a link: {ends(link, whole)}"
    here = place / "here"
    shutil.copytree(half, here)
    before = os.getcwd()
    os.chdir(here)
    try:
        yield f"named '.': {ends(Path('.'), whole)}"
    finally:
        os.chdir(before)


def ends(out: Path, whole: Path) -> str:
    """Whether the run goes on to the end of the one that was left alone."""
    ending = command(*training(out, IMAGES))
    if ending.code != 0 or "resumed at" not in ending.said:
        return f"BAD: {ending.said}"
    return f"goes on, {compared(out, whole)}"
