"""Kills: at random moments, and before every single change of a file."""

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import Value
from pathlib import Path
from typing import Any

from .children import command, launch
from .runs import compared, training

IMAGES = 8000
SHORT = 1600
CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def at_random(n: int, place: Path, seed: int) -> Iterator[str]:
    """SIGKILL or SIGTERM after random times; a run is killed until it is done, then compared."""
    chance = random.Random(seed)
    whole = place / "whole"
    start = time.monotonic()
    assert command(*training(whole, IMAGES)).code == 0
    longest = (time.monotonic() - start) / 4
    for number in itertools.count():
        out, killed = place / f"killed{number}", []
        while True:
            child = launch(*training(out, IMAGES))
            time.sleep(chance.uniform(0, longest))
            how = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            child.kill(how)
            ending = child.wait()
            if ending.code == 0:
                break
            if ending.code not in (-how, 130):
                yield f"BAD: ended with {ending.code}: {ending.said}"
                break
            moment = ", while a checkpoint was written" if drafts(out) else ""
            killed.append(f"{how.name}{moment}")
        found = compared(out, whole)
        yield from (f"{what}: {found}" for what in killed)
        shutil.rmtree(out)
        n -= len(killed)
        if n <= 0:
            return


def drafts(out: Path) -> bool:
    """Whether a file was begun and not finished."""
    return any(out.rglob(".*.tmp"))


def before_changes(n: int, place: Path, seed: int) -> Iterator[str]:
    """Killed before a change of a file: before all of them, or before n that are chosen."""
    whole, cache = place / "whole", place / "cache"
    done = Value("i", 0)  # changes of files so far, counted in the child
    for out in (whole, place / "counted"):  # the first has also built our kernels
        forget(cache)
        words = training(out, SHORT, every=400)
        assert command(*words, before=dying(place, 0, cache, done)).code == 0
    numbers = range(1, done.value + 1)
    for number in random.Random(seed).sample(numbers, min(n, len(numbers))):
        out = place / f"change{number}"
        forget(cache)
        words = training(out, SHORT, every=400)
        ending = command(*words, before=dying(place, number, cache, done))
        what = ending.said.splitlines()[-1] if ending.said else "?"
        what = "killed before " + what
        again = command(*words, before=caching(cache))
        if ending.code != -signal.SIGKILL or again.code != 0:
            yield f"BAD: {what}: {ending.code}, {again.said}"
        else:
            yield f"{what}: {compared(out, whole)}"
        shutil.rmtree(out)


def forget(cache: Path) -> None:
    """Remove the decoded images; not our kernels, which take long."""
    for kept in cache.glob("*.np?"):
        kept.unlink()


def caching(cache: Path) -> Callable[[], None]:
    """Decoded images are kept there."""
    return lambda: os.environ.__setitem__("MEZZOTINT_CACHE", str(cache))


def dying(place: Path, number: int, cache: Path, done: Any) -> Callable[[], None]:
    """The child kills itself before change `number` of a file below `place`; 0: it counts them."""

    def before() -> None:
        caching(cache)()
        done.value = 0

        def heard(event: str, args: tuple[object, ...]) -> None:
            if not (event in CHANGES or (event == "open" and _writes(args))):
                return
            if not str(args[0]).startswith(str(place)):
                return
            done.value += 1
            if done.value == number:
                verb = "writing" if event == "open" else event.removeprefix("os.")
                os.write(2, f"{verb} {_name(Path(str(args[0])), place)}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(heard)

    return before


def _writes(args: tuple[object, ...]) -> bool:
    return isinstance(args[2], int) and bool(args[2] & WRITING)


def _name(path: Path, place: Path) -> str:
    """Without what differs from trial to trial."""
    inside = path.relative_to(place)
    parts = inside.parts[1:] or (inside.name,)
    return "/".join(p.strip(".").split(".")[0] for p in parts if not p.isdecimal())
