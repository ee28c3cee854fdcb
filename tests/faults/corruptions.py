"""Damage to the files of a run: a bit flipped, the end cut off, the file gone.

After each, the run is drawn from, evaluated, reported and trained to its end. Every answer must be
that of the whole run, or say what is wrong.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from mezzotint.evaluation.results import evaluation_of
from mezzotint.imaging import load_npz

from .children import Ending, command
from .runs import compared, training

HALF, IMAGES = 1600, 3200

VERBS = {
    "sample": ("sample", "{run}", "--n", 20, "--evaluations", 2, "--out", "{made}"),
    "best": (
        "sample", "{run}", "--checkpoint", "best", "--n", 4, "--evaluations", 2, "--out", "{made}",
    ),
    "early": (
        "sample", "{run}", "--autoguidance", 2, "--n", 4, "--evaluations", 2, "--out", "{made}",
    ),
    "report": ("report", "{run}", "--out", "{made}"),
    "evaluate": (
        "evaluate", "{run}", "--metrics", "fd,accuracy", "--n", 200, "--evaluations", 2,
    ),
}  # fmt: skip
FILES = {"sample": ".npz", "best": ".npz", "early": ".npz", "report": ".html", "evaluate": ".none"}


def corrupted(n: int, place: Path, seed: int) -> Iterator[str]:
    """Damage one file of a run after the other; each file and each kind of damage in turn."""
    chance = random.Random(seed)
    whole, out, done = place / "whole", place / "run", place / "done"
    make(whole)
    shutil.copytree(whole, done)
    assert command(*training(done, IMAGES)).code == 0
    shutil.copytree(whole, out)
    wanted = [answer(name, out, place) for name in VERBS]
    shutil.rmtree(out)
    files = sorted(f.relative_to(whole) for f in whole.rglob("*") if f.is_file())
    files = [f for f in files if f.name != ".lock"]
    for number in range(n):
        file = files[number % len(files)]
        shutil.copytree(whole, out)
        kind = damage(out / file, chance)
        found = evaluated(out, done, wanted, place)
        if (kind, file.parts[0]) == ("deleted", "samples"):  # a picture that is gone is not missed
            found = found.removeprefix("BAD: report took it for right") or "not shown any more"
        yield f"{kind} {general(file)}: {found}"
        shutil.rmtree(out)


def make(out: Path) -> None:
    """Half a training, evaluated and reported."""
    evaluating = (str(out) if word == "{run}" else word for word in VERBS["evaluate"])
    for words in (training(out, HALF), evaluating, ("report", out)):
        ending = command(*words)
        assert ending.code == 0, ending.said


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


def answer(verb: str, out: Path, place: Path) -> tuple[Ending, object]:
    """What a command says of a run, and what it makes."""
    made = place / f"made{FILES[verb]}"
    words = [str(word).format(run=out, made=made) for word in VERBS[verb]]
    ending = command(*words)
    result: object = None
    if ending.code == 0 and FILES[verb] == ".npz":
        result = load_npz(made).images.tolist()
    elif ending.code == 0 and verb == "report":
        result = made.read_text()
    elif ending.code == 0:
        result = evaluation_of(out)["metrics"]
    made.unlink(missing_ok=True)
    return ending, result


def evaluated(out: Path, done: Path, wanted: list[tuple[Ending, object]], place: Path) -> str:
    """How a damaged run fared, in words; BAD where something wrong was taken for right."""
    messages = False
    for verb, (usual, right) in zip(VERBS, wanted, strict=True):
        ending, result = answer(verb, out, place)
        spoke = ending.refused or speaks(ending.said, usual.said)
        if verb == "report":
            spoke = spoke or speaks(str(result), str(right))
        if not (ending.code == 0 or ending.refused):
            return f"BAD: {verb} broke down: {ending.said}"
        if result != right and not spoke:
            return f"BAD: {verb} took it for right"
        messages = messages or spoke
    ending = command(*training(out, IMAGES))
    if ending.refused:
        return "refused in one line"
    if ending.code != 0:
        return f"BAD: training broke down: {ending.said}"
    if "anew" in ending.said:
        return "said; begun anew"
    if "metrics.jsonl has lost" in ending.said:
        return f"said, and the rest kept: {compared(out, done, but=('logged',))}"
    messages = messages or speaks(ending.said, "")
    return f"{'said, and mended' if messages else 'harmless'}: {compared(out, done)}"


def speaks(said: str, usual: str) -> bool:
    """Whether a message says that something is wrong, in a line that is not there usually."""
    words = ("damaged", "cannot be read", "lost", "left out", "is missing", "no such file", "anew")
    lines = set(said.splitlines()) - set(usual.splitlines())
    return any(word in line for line in lines for word in words)
