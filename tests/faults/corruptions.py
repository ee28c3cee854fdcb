"""Damage to the files of a run: a bit flipped, the end cut off, the file gone.

After each, the run is drawn from, judged, reported and trained to its end. Every answer must be
that of the whole run, or say what is wrong.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from .children import CRASH, Ending, command
from .runs import compared, training

HALF, IMAGES = 1600, 3200


def corrupted(n: int, place: Path, seed: int) -> Iterator[str]:
    """Damage one file of a run after the other; each file and each kind of damage in turn."""
    chance = random.Random(seed)
    whole, done = place / "whole", place / "done"
    make(whole)
    answers = answered(whole, place / "answers")
    shutil.copytree(whole, done)
    assert command(*training(done, IMAGES)).code == 0
    files = sorted(f.relative_to(whole) for f in whole.rglob("*") if f.is_file())
    files = [f for f in files if f.name != ".lock"]
    for number in range(n):
        file = files[number % len(files)]
        out = place / "run"
        shutil.copytree(whole, out)
        kind = damage(out / file, chance)
        yield f"{kind} {general(file)}: {judged(out, done, answers, place)}"
        shutil.rmtree(out)


def make(out: Path) -> None:
    """Half a training, judged and reported."""
    for words in (
        training(out, IMAGES),
        ("evaluate", out, "--metrics", "fd,accuracy", "--n", 200, "--evaluations", 2),
        ("report", out),
    ):
        ending = command(*words)
        assert ending.code == 0, ending.said
        if words[0] == "train":  # as if it had been stopped half-way
            shutil.rmtree(out)
            assert command(*training(out, HALF)).code == 0


def damage(file: Path, chance: random.Random) -> str:
    """Do something to a file; says what."""
    data = bytearray(file.read_bytes())
    kind = chance.choice(["flipped", "flipped", "cut", "deleted"])
    if kind == "deleted":
        file.unlink()
    elif kind == "cut":
        file.write_bytes(data[: chance.randrange(len(data))])
    else:
        place = chance.randrange(len(data))
        data[place] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
    return kind


def general(file: Path) -> str:
    """The file's name without what is one of many."""
    return file.as_posix() if file.stem.isalpha() else f"{file.parent.as_posix()}/*{file.suffix}"


def answered(out: Path, answers: Path) -> dict[str, tuple[Ending, bytes]]:
    """What commands say of a run, and the bytes that they write."""
    found = {}
    for name, words, file in (
        ("sample", ("sample", out, "--n", 20, "--evaluations", 2), "drawn.npz"),
        ("report", ("report", out), "page.html"),
    ):
        answers.mkdir(exist_ok=True)
        target = answers / file
        ending = command(*words, "--out", target)
        found[name] = (ending, target.read_bytes() if target.exists() else b"")
        target.unlink(missing_ok=True)
    return found


def judged(out: Path, done: Path, answers: dict[str, tuple[Ending, bytes]], place: Path) -> str:
    """How a damaged run fared, in words; BAD where something wrong was taken for right."""
    told = False
    for name, (ending, data) in answered(out, place / "again").items():
        if ending.code == CRASH or ending.code < 0 or "Traceback" in ending.said:
            return f"BAD: {name} broke down: {ending.said}"
        if ending.code == 2:
            told = True
        elif data != answers[name][1] and not speaks(ending, data):
            return f"BAD: {name} took it for right"
        else:
            told = told or speaks(ending, data)
    ending = command(*training(out, IMAGES))
    if ending.code == 2 and "Traceback" not in ending.said:
        return "refused in one line"
    if ending.code != 0:
        return f"BAD: training broke down: {ending.said}"
    told = told or speaks(ending, b"")
    if told and "anew" in ending.said:
        return "said; begun anew"
    return f"{'said, and mended' if told else 'harmless'}: {compared(out, done)}"


def speaks(ending: Ending, data: bytes) -> bool:
    """Whether somebody was told that something is wrong."""
    said = ending.said + (data.decode(errors="replace") if b"<html" in data[:200] else "")
    return any(w in said for w in ("damaged", "cannot be read", "lost", "left out", "missing"))
