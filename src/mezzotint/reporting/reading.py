"""What is read from a run directory: its settings, log, evaluation, sweep and pictures.

These files may be old, torn or somebody else's, so nothing in them is believed to be there, or to
be of its kind: `keyed`, `listed`, `records`, `texts` and `at` give what is, and else nothing. No
picture is taken from outside the run.
"""

import base64
import json
import struct
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint import imaging
from mezzotint.errors import CheckpointError
from mezzotint.reporting.blocks import Block, Plate, Plates, Text
from mezzotint.reporting.charts import Line, finite
from mezzotint.reporting.figures import Curve, losses
from mezzotint.runtime import checksum

__all__ = [
    "Reading",
    "Translate",
    "at",
    "keyed",
    "listed",
    "picture",
    "plates",
    "read",
    "records",
    "texts",
]

Translate = Callable[[dict[str, Any]], dict[str, Any]]
"""Gives a table of an earlier version the keys of today; `dict` leaves them as they are."""

PNG = b"\x89PNG\r\n\x1a\n"
DEEPEST = 50  # lists and objects in each other; our own have about ten
SHOWN = 440  # pixels: narrower pictures are enlarged by a whole factor up to about this width


def keyed(value: object) -> dict[str, Any]:
    """An object."""
    return value if isinstance(value, dict) else {}


def listed(value: object) -> list[Any]:
    """A list."""
    return value if isinstance(value, list) else []


def records(value: object) -> list[dict[str, Any]]:
    """The objects in a list."""
    return [row for row in listed(value) if isinstance(row, dict)]


def texts(value: object) -> tuple[str, ...]:
    """A sentence, or those in a list."""
    found = [value] if isinstance(value, str) else listed(value)
    return tuple(item for item in found if isinstance(item, str) and item)


def at(value: object, *keys: str) -> Any:
    """What lies at the end of a path of keys; None where the path breaks off."""
    for key in keys:
        value = keyed(value).get(key)
    return value


@dataclass(frozen=True)
class Reading:
    """What one run directory says."""

    path: Path
    name: str
    settings: str  # config.toml as it is; "" without one
    config: dict[str, Any]
    training: Curve
    validation: Curve
    seconds: float | None  # of training
    online_metrics: dict[str, Line]  # the metrics measured in training, over images seen
    evaluation: dict[str, Any]
    sweep: dict[str, Any]  # sweep.json
    notes: tuple[str, ...]  # files that could not be read

    def section(self, name: str) -> dict[str, Any]:
        """A part of the evaluation; empty where it is missing."""
        return keyed(self.evaluation.get(name))

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of the evaluation by their keys."""
        found = self.section("metrics")
        return {key: item for key, item in found.items() if isinstance(item, dict) and item}

    @property
    def summary(self) -> tuple[str, ...]:
        """The evaluation in a few sentences; empty without one."""
        return texts(self.evaluation.get("summary"))

    @property
    def images_seen(self) -> int | None:
        """Images seen when the run was evaluated; without an evaluation, all that are known."""
        found = at(self.evaluation, "samples", "images_seen")
        return int(found) if finite(found) else self.trained

    @property
    def trained(self) -> int | None:
        """Images seen by the end of the log."""
        return max((*self.training.images_seen, *self.validation.images_seen), default=None)

    @property
    def subtitle(self) -> str:
        """What it was trained on, in a line."""
        data, origin = (keyed(self.config.get(key)) for key in ("data", "origin"))
        parts = [str(origin["source"])] if "source" in origin else []
        if classes := listed(data.get("classes")):
            parts.append(f"{len(classes)} classes")
        if {"height", "width", "channels"} <= data.keys():
            colour = "grey" if data["channels"] == 1 else "colour"
            parts.append(f"{data['height']} × {data['width']} pixels, {colour}")
        if "preset" in origin:
            parts.append(f"preset {origin['preset']}")
        if "init_from" in origin:
            parts.append(f"started with the weights of {Path(str(origin['init_from'])).name}")
        return " · ".join(parts)

    @property
    def hardware(self) -> dict[str, Any]:
        """The machine of the evaluation; without one, what training wrote down of its own."""
        return self.section("hardware") or keyed(self.config.get("machine"))

    def grids(self) -> list[str]:
        """The pictures drawn while it trained, by the images seen."""
        files = (self.path / "samples").glob("*.png")
        return [f"samples/{p.name}" for p in sorted(files) if p.stem.isdecimal()]


def read(
    run: Path, translate: Translate = dict, translate_evaluation: Translate = dict
) -> Reading:
    """Read a run directory.

    Args:
        run: The directory.
        translate: Gives the settings of earlier versions the keys of today.
        translate_evaluation: Gives their evaluation.json and sweep.json the keys of today.
    """
    if not run.is_dir():
        raise CheckpointError(f"{run} is not a folder; name a run that `mezzotint train` made")
    names = ("config.toml", "metrics.jsonl", "evaluation.json")
    files = [run / name for name in names]
    if not any(file.is_file() for file in files):
        raise CheckpointError(f"{run} has none of {', '.join(names)}; train or evaluate first")
    toml, jsonl, evaluation_file = files
    settings = toml.read_text(encoding="utf-8", errors="replace") if toml.is_file() else ""
    config, notes = {}, []
    try:
        config = translate(tomllib.loads(settings))
        plain = checksum.strip_text_checksum(settings)
        if plain is None:
            notes.append("config.toml is damaged, or was edited: what it says may be wrong.")
        settings = plain or settings
    except tomllib.TOMLDecodeError as error:
        notes.append(f"config.toml cannot be read ({error}).")
    swept = run / "sweep.json"
    evaluation, sweep = (
        translate_evaluation(_read_json(file, notes)) for file in (evaluation_file, swept)
    )
    rows: list[dict[str, Any]] = []
    if (run / "checkpoints").is_dir():
        notes += [f"{file.name} is missing." for file in (toml, jsonl) if not file.is_file()]
    for file, pictures in ((evaluation_file, "evaluation/*.png"), (swept, "sweep.png")):
        if not file.is_file() and any(run.glob(pictures)):
            notes.append(f"{file.name} is missing, though its pictures are there: make it again.")
    if jsonl.is_file():
        rows, damaged = checksum.read_rows(jsonl)
        if damaged:
            notes.append(f"Lines of metrics.jsonl that are damaged and left out: {damaged}.")
    training, validation = losses(rows)
    clock = [row.get("seconds") for row in rows if row.get("kind") in ("step", "validation")]
    return Reading(
        path=run,
        name=run.resolve().name,
        settings=settings,
        config=config,
        training=training,
        validation=validation,
        seconds=max((second for second in clock if finite(second)), default=None),
        online_metrics=_online_metrics(rows),
        evaluation=evaluation,
        sweep=sweep,
        notes=tuple(notes),
    )


def _read_json(file: Path, notes: list[str]) -> dict[str, Any]:
    """The object in a file; empty where there is none, or, with a note, none that can be read."""
    try:
        found = keyed(json.loads(file.read_bytes()) if file.is_file() else {})
    except (ValueError, RecursionError) as error:
        notes.append(f"{file.name} cannot be read ({error}).")
        return {}
    if _deep(found):
        why = f"more than {DEEPEST} lists and objects in each other"
        notes.append(f"{file.name} cannot be read ({why}).")
        return {}
    if not checksum.is_valid(found):
        notes.append(f"{file.name} is damaged, or was edited: it is left out.")
        return {}
    return found


def _deep(value: object, left: int = DEEPEST) -> bool:
    """Return whether tables or lists nest too deeply for a recursive function."""
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return left == 0 or any(_deep(item, left - 1) for item in inner)


def _online_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[str, Line]:
    """The metrics measured in training, each by its name."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        seen = row.get("images_seen")
        for key, value in keyed(row.get("values")).items():
            if row.get("kind") == "metrics" and finite(seen) and finite(value):
                found.setdefault(key, {})[seen] = value  # a resumed run repeats: the later counts
    return {key: Line("", tuple(sorted(points.items())), "s1") for key, points in found.items()}


def picture(run: Path, title: str, name: object) -> Plate | str:
    """A PNG of the run, by its path in it; or the sentence that says why it is left out."""
    if not isinstance(name, str) or "\0" in name:
        return f"A picture was left out: {name!r} is not the path of a file."
    try:
        path = (run / name).resolve()
        if not path.is_relative_to(run.resolve()):
            return f"{name} was left out: it lies outside the run's directory."
        data = path.read_bytes() if path.is_file() else b""
    except (OSError, RuntimeError):  # links in a circle, a name too long, no permission
        data = b""
    if not data:
        return f"{name} was left out: there is no such file."
    if not (data.startswith(PNG) and len(data) > 24):
        return f"{name} was left out: it is not a PNG."
    if not imaging.is_whole_png(data):
        return f"{name} was left out: it is damaged."
    width, height = struct.unpack(">II", data[16:24])
    uri = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return Plate(title, uri, width, height, factor=max(1, SHOWN // max(1, width)))


def plates(
    run: Path,
    named: Iterable[tuple[str, object]],
    title: str,
    caption: str,
    *,
    strip: bool = False,
) -> tuple[Block, ...]:
    """Pictures of (title, path), and a line for each that cannot be shown; None is no path."""
    found = [picture(run, name, path) for name, path in named if path is not None]
    shown = tuple(item for item in found if isinstance(item, Plate))
    lines = tuple(item for item in found if isinstance(item, str))
    return Plates(shown, title, caption, strip), Text(lines)
