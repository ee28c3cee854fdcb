"""Input that nobody meant: odd values and broken bytes in everything that is read.

Every command ends well or refuses in one line; none breaks down or takes memory without bound.
Some trials break bytes; others put odd values where right ones were, without a checksum or with a
digest made anew, so that no check is in the way.
"""

import io
import json
import os
import random
import shutil
import tomllib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
import torch
import typer
from PIL import Image

from mezzotint.cli.main import build_app
from mezzotint.data import load
from mezzotint.runtime import checksum
from mezzotint.training import checkpoint

from .children import Ending, command
from .corruptions import make
from .memory import limited
from .runs import last

PATIENCE = 30.0
MEMORY = 8 * 2**30
ODD: tuple[Any, ...] = (
    None, True, 0, 1, 3, -1, 2**31, 2**63, -(10**30), 10**30, 0.5, -0.5, 1e-300, 1e308,
    float("nan"), float("inf"), "", "x" * 5000, "nan", "-", "../outside", "/proc/self/environ",
    "\0", "\ud800", "<script>alert(1)</script>", "\u202e\u0000\u007f", [], {}, [[]], [{}], [0, 0],
    {"kind": "karras"}, {"kind": 3}, {"": ""},
)  # fmt: skip

Words = tuple[object, ...]


def fuzzed(n: int, place: Path, seed: int) -> Iterator[str]:
    """`n` trials of every kind of input."""
    ground = place / "ground"
    make(ground / "run")
    pictures(ground)
    samples = ("sample", ground / "run", "--n", 20, "--evaluations", 2, "--out")
    assert command(*samples, ground / "samples.npz").code == 0
    assert command(*samples, ground / "drawn").code == 0
    swept = ("sweep", ground / "run", "--scales", "1,2", "--n", 144, "--evaluations", 1)
    assert command(*swept).code == 0
    for name, target in TARGETS.items():
        chance = random.Random(f"{name} {seed}")
        for _ in range(n):
            spot = place / "spot"
            shutil.copytree(ground, spot)
            words = target(spot, chance)
            ending = command(*words, before=confined(spot), patience=PATIENCE)
            yield f"{name}: {evaluated(ending, words)}"
            shutil.rmtree(spot)


def confined(spot: Path) -> Callable[[], None]:
    """Memory has an end, and what is named without a folder lands where it is deleted."""
    limit = limited(MEMORY)

    def before() -> None:
        limit()
        os.chdir(spot)

    return before


def evaluated(ending: Ending, words: Words) -> str:
    """How a command ended, in words."""
    complaints = [line for line in ending.said.splitlines() if line.startswith("mezzotint: ")]
    if ending.code == 0 and "Traceback" not in ending.said:
        return "taken"
    if ending.code == -9:
        return "taken, still at work when stopped"
    if ending.refused and len(complaints) == 1 and len(complaints[0]) < 2000:
        return "refused in one line"
    return f"BAD: {' '.join(map(str, words))[:500]!r}: {ending.code} {ending.said[-2000:]}"


def configuration(spot: Path, chance: random.Random) -> Words:
    """A run's config.toml."""
    file = spot / "run" / "config.toml"
    file.write_bytes(strange_toml(file.read_text(), chance))
    if chance.random() < 0.5:  # from which it would be mended
        shutil.rmtree(spot / "run" / "checkpoints")
    drawn = ("sample", spot / "run", "--n", 2, "--evaluations", 2, "--out", spot / "made.png")
    return chance.choice([drawn, ("inspect", spot / "run"), ("report", spot / "run")])


def preset(spot: Path, chance: random.Random) -> Words:
    """A preset, the user's own file."""
    file = spot / "mine.toml"
    table = tomllib.loads((spot / "run" / "config.toml").read_text())
    mine = ("objective", "network", "training", "sampling")
    file.write_bytes(strange_toml(tomli_w.dumps({k: table[k] for k in mine}), chance))
    train = ("train", "digits", "--preset", file, "--out", spot / "new", "--dry-run")
    return chance.choice([("inspect", file), train])


def log(spot: Path, chance: random.Random) -> Words:
    """A run's metrics.jsonl, read by the report and by a training that goes on."""
    file = spot / "run" / "metrics.jsonl"
    if chance.random() < 0.5:
        file.write_bytes(broken(file.read_bytes(), chance))
    else:
        rows, _ = checksum.read_rows(file)
        rows = [odd(row, chance) if chance.random() < 0.1 else row for row in rows]
        file.write_text("".join(as_json(row) for row in rows))
    return chance.choice([("report", spot / "run"), again(spot)])


def reported(name: str) -> Callable[[Path, random.Random], Words]:
    """A run's file that was measured and that the report reads."""

    def target(spot: Path, chance: random.Random) -> Words:
        file = spot / "run" / name
        if chance.random() < 0.5:
            file.write_bytes(broken(file.read_bytes(), chance))
        else:
            file.write_text(
                as_json(odd(checksum.strip_checksum(json.loads(file.read_text())), chance))
            )
        return ("report", spot / "run")

    return target


def manifest(spot: Path, chance: random.Random) -> Words:
    """The manifest of a folder of ours, which says what its classes are."""
    file = spot / "drawn" / "manifest.jsonl"
    if chance.random() < 0.5:
        file.write_bytes(broken(file.read_bytes(), chance))
    else:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        rows = [odd(row, chance) if chance.random() < 0.1 else row for row in rows]
        file.write_text("".join(as_json(row) for row in rows))
    return chance.choice([("data", spot / "drawn"), evaluating(spot, spot / "drawn")])


def weights(spot: Path, chance: random.Random) -> Words:
    """A checkpoint, also one whose digest is right and whose content is not."""
    file = last(spot / "run")
    if chance.random() < 0.3:
        file.write_bytes(broken(file.read_bytes(), chance))
    else:
        whole = checkpoint.read(file)
        tensors, facts = dict(whole.tensors), dict(whole.facts)
        if chance.random() < 0.5:
            name = chance.choice(sorted(tensors))
            wrong = [torch.zeros(0), torch.zeros(3, 5, 7), tensors[name].to(torch.int8),
                     torch.full_like(tensors[name], -1), torch.zeros(()), None]  # fmt: skip
            found = chance.choice(wrong)
            del tensors[name]
            if found is not None:
                tensors[name] = found
        else:
            facts = odd(facts, chance)
        checkpoint.write(file, tensors, json.loads(as_json(facts)))
    checkpoint.backup_path(file).unlink(missing_ok=True)
    drawn = ("sample", spot / "run", "--n", 2, "--evaluations", 2, "--out", spot / "made.png")
    return chance.choice([drawn, again(spot)])


def arrays(spot: Path, chance: random.Random) -> Words:
    """Samples in an .npz: broken, of other types and shapes, pickled."""
    file = spot / "samples.npz"
    if chance.random() < 0.5:
        file.write_bytes(broken(file.read_bytes(), chance))
    else:
        with np.load(file) as kept:
            made = dict(kept)
        name = chance.choice(sorted(made))
        wrong = [None, np.zeros(0), np.zeros((2, 2)), made[name][:1] if made[name].ndim else None,
                 np.array([{"a": 1}], object), made[name].astype(str), np.array("[1"),
                 np.full(made["labels"].shape, 2**40), np.zeros((20, 1, 8, 8), np.float32),
                 np.zeros((20, 0, 8, 8), np.uint8), np.zeros((20, 5, 8, 9), np.uint8)]  # fmt: skip
        found = chance.choice(wrong)
        del made[name]
        if found is not None:
            made[name] = found
        np.savez(file, **made)
    return evaluating(spot, file)


def tables(spot: Path, chance: random.Random) -> Words:
    """A folder of parquet files, in the hub's layout."""
    folder = spot / "parquet"
    folder.mkdir()
    shown = [file.read_bytes() for file in sorted((spot / "pictures").rglob("*.png"))]
    column: list[Any] = [{"bytes": data, "path": None} for data in shown]
    labels: list[Any] = [i % 2 for i in range(len(shown))]
    features = {"image": {"_type": "Image"},
                "label": {"names": ["a", "b"], "_type": "ClassLabel"}}  # fmt: skip
    if chance.random() < 0.5:
        which = chance.randrange(7)
        if which == 0:
            labels = [chance.choice([None, -1, 2**40, 7]) for _ in labels]
        elif which == 1:
            labels = [str(label) for label in labels]
        elif which == 2:
            column = [{"bytes": chance.choice([None, b"", b"x"]), "path": None} for _ in column]
        elif which == 3:
            column = list(range(len(column)))
        elif which == 4:
            column, labels = [], []
        elif which == 5:
            column = [{"bytes": None, "path": "../../../etc/passwd"} for _ in column]
    facts = {"info": {"features": features}}
    info = as_json(odd(facts, chance) if chance.random() < 0.3 else facts).strip()
    table = pa.table({"image": column, "label": labels})
    table = table.replace_schema_metadata({"huggingface": info.encode()})
    file = folder / "train-00000-of-00001.parquet"
    pq.write_table(table, file)
    if chance.random() < 0.3:
        file.write_bytes(broken(file.read_bytes(), chance))
    return ("data", folder)


def images(spot: Path, chance: random.Random) -> Words:
    """A folder of pictures, one of them broken, huge, or something else."""
    file = chance.choice(sorted((spot / "pictures").rglob("*.*")))
    kinds = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
    which = chance.random()
    if which < 0.6:
        file.write_bytes(broken(file.read_bytes(), chance))
    elif which < 0.8:  # a bomb: its header asks for more than anybody has
        file.with_suffix(".png").write_bytes(bomb(chance.choice([20_000, 100_000, 2**31 - 1])))
    else:
        size = chance.choice([(1, 1), (1, 3000), (3000, 1), (2, 2)])
        Image.new(chance.choice(["L", "RGB"]), size).save(file, kinds[file.suffix])
    return ("data", spot / "pictures", *chance.choice([(), ("--size", chance.choice([1, 8]))]))


def cache(spot: Path, chance: random.Random) -> Words:
    """What is kept between commands: decoded images, classifiers."""
    kept = Path(os.environ["MEZZOTINT_CACHE"])
    assert command("data", "digits").code == 0
    file = chance.choice(sorted(file for file in kept.rglob("*") if file.is_file()))
    file.write_bytes(broken(file.read_bytes(), chance))
    return chance.choice([("data", "digits"), evaluating(spot, spot / "samples.npz")])


def values(spot: Path, chance: random.Random) -> Words:
    """Values on the command line."""
    run, made = spot / "run", spot / "made"
    usual: dict[str, Words] = {
        "data": ("data", spot / "pictures"),
        "inspect": ("inspect", "digits"),
        "train": ("train", "digits", "--out", made, "--dry-run"),
        "sample": ("sample", run, "--n", 2, "--evaluations", 2, "--out", f"{made}.png"),
        "evaluate": evaluating(spot, run) + ("--n", 20, "--evaluations", 1),
        "report": ("report", run, "--out", f"{made}.html"),
        "select": ("select", run, "--score", "classifier", "--pool", 2, "--top", 1,
                   "--label", "5", "--out", made),
    }  # fmt: skip
    verb = chance.choice(sorted(usual))
    options = [
        parameter.opts[-1]
        for parameter in typer.main.get_command(build_app()).commands[verb].params
        if parameter.opts[0].startswith("-") and not getattr(parameter, "is_flag", False)
    ]
    extra = [(chance.choice(options), word(chance)) for _ in range(chance.choice([1, 1, 2]))]
    return usual[verb] + tuple(part for pair in extra for part in pair)


def settings(spot: Path, chance: random.Random) -> Words:
    """Settings of a preset on the command line (`--set`)."""
    table = tomllib.loads((spot / "run" / "config.toml").read_text())
    name = ".".join(map(str, chance.choice(list(paths(table)))))
    inspect = ("inspect", "digits", "--set", f"{name}={word(chance)}")
    train = ("train", "digits", "--out", spot / "made", "--dry-run", *inspect[2:])
    return chance.choice([inspect, train])


TARGETS: dict[str, Callable[[Path, random.Random], Words]] = {
    "config.toml": configuration,
    "presets": preset,
    "metrics.jsonl": log,
    "evaluation.json": reported("evaluation.json"),
    "sweep.json": reported("sweep.json"),
    "manifest.jsonl": manifest,
    "safetensors": weights,
    "npz": arrays,
    "parquet": tables,
    "pictures": images,
    "cache": cache,
    "options": values,
    "settings": settings,
}


def again(spot: Path) -> Words:
    """The run's training goes on for a few images."""
    return ("train", "digits", "--out", spot / "run", "--budget", "1760images")


def evaluating(spot: Path, source: Path) -> Words:
    return ("evaluate", source, "--against", "digits", "--metrics", "accuracy",
            "--out", spot / "judged")  # fmt: skip


def pictures(ground: Path) -> None:
    """A folder of small pictures of every kind, two classes."""
    digits = load("digits").images
    for i, kind in enumerate(["png", "jpg", "webp", "bmp"] * 3):
        file = ground / "pictures" / "ab"[i % 2] / f"{i}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[i, 0].numpy()).save(file)


def word(chance: random.Random) -> str:
    """An odd value as somebody would type it."""
    value = chance.choice(ODD)
    typed = value if isinstance(value, str) else json.dumps(value)
    return typed.replace("\0", "").replace("\ud800", "\N{SNOWMAN}")  # no shell passes these on


def broken(data: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut out, put in, or cut off."""
    found = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        start = chance.randrange(len(found) + 1)
        kind = chance.randrange(4)
        if kind == 0:
            found[start : start + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            del found[start : start + chance.choice([1, 8, 100])]
        elif kind == 2:
            found[start:start] = chance.randbytes(chance.choice([1, 8, 100]))
        else:
            del found[start:]
    return bytes(found)


def strange_toml(text: str, chance: random.Random) -> bytes:
    """A configuration without its checksum, broken or with odd values."""
    plain = text.partition("\n")[2] if text.startswith(checksum.COMMENT) else text
    if chance.random() < 0.3:
        return broken(plain.encode(), chance)
    table = odd(tomllib.loads(plain), chance)
    try:
        return tomli_w.dumps(table).encode(errors="surrogatepass")
    except (TypeError, ValueError, AttributeError):  # no TOML has None, or such an integer
        return broken(plain.encode(), chance)


def as_json(value: Any) -> str:
    return json.dumps(value) + "\n"


def odd(tree: Any, chance: random.Random) -> Any:
    """The same tree with an odd value somewhere, or without something, or with more."""
    tree = json.loads(json.dumps(tree))
    path = chance.choice(list(paths(tree)))
    inner = tree
    for step in path[:-1]:
        inner = inner[step]
    kind = chance.randrange(8)
    if kind == 0:
        del inner[path[-1]]
    elif kind == 1 and isinstance(inner, dict):
        inner[chance.choice(["new", "", "../x", "<b>"])] = chance.choice(ODD)
    else:
        inner[path[-1]] = chance.choice(ODD)
    return tree


def paths(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in a tree of tables and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in items:
        yield (*above, name)
        if isinstance(value, dict | list):
            yield from paths(value, (*above, name))


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""
    whole = io.BytesIO()
    Image.new("L", (8, 8)).save(whole, "PNG")
    data = bytearray(whole.getvalue())
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)
