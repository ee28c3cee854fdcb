"""What can be judged: a run, a folder of images, an .npz file (also somebody else's).

A run's samples are a stream: sample i asks for the i-th label of a shuffled train split, so the
classes come as often as in the real data, and its noise depends on (seed, i). What was drawn is
kept in blocks under RUN/evaluation/drawn/ (which may be deleted at any time), so an interrupted
evaluation goes on, and a larger n draws only the blocks that are missing or too short.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.config.tables import to_table
from mezzotint.data import ImageSet, find_class
from mezzotint.data.encoded import Encoded, Picture
from mezzotint.data.pixels import fill, survey
from mezzotint.data.readers.folder import SUFFIXES, read_folder
from mezzotint.errors import InputError
from mezzotint.imaging import describe_shape
from mezzotint.metrics.extractors.weights_io import weights_digest
from mezzotint.runs.run import Pick, Run
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Drawing, Model

__all__ = [
    "RunSubject",
    "Subject",
    "folder_subject",
    "limited",
    "npz_subject",
    "run_subject",
]

Say = Callable[[str], None]

BLOCK = 2560
"""Samples in a file: a whole number of the model's usual chunks, so blocks change no byte."""


@dataclass(frozen=True)
class Subject:
    """Images to be judged."""

    images: Tensor
    """uint8 (N, C, H, W)."""

    labels: Tensor | None
    """int64 (N,), indices into the classes of the real data; None where nobody says."""

    facts: Mapping[str, Any]
    """Where they come from, as plain JSON."""

    styles: Mapping[str, Tensor] = field(default_factory=dict)
    """What was asked of each image beside its label, float64 (N,) by name; nan: nothing."""


@dataclass(frozen=True)
class RunSubject:
    """A run's model as a stream of samples."""

    run: Run
    model: Model
    data: ImageSet
    facts: Mapping[str, Any]
    seed: int
    say: Say = field(repr=False)

    def drawing(self, n: int) -> Drawing:
        """The first n of the stream."""
        train = self.data.splits["train"]
        order = torch.randperm(len(train), generator=generator("asked for", self.seed))
        rows = train[order[torch.arange(n) % len(train)]]
        return Drawing.of(self.data.labels[rows], self.seed, self.data.styles_of(rows))

    def samples(self, n: int) -> Subject:
        """The first n samples, drawn or found."""
        drawing = self.drawing(n)
        parts, started, drawn = [], time.monotonic(), 0
        first = self.model.compute.world.first
        for start in range(0, n, BLOCK):
            rows = slice(start, min(n, start + BLOCK))
            part = self._told(self._found(drawing[rows], start) if first else None, drawing[rows])
            if part is None:
                part = self.model.draw(drawing[rows])
                if first:
                    self._keep(part, drawing[rows], start)
                drawn += len(part)
                left = (time.monotonic() - started) / drawn * (n - rows.stop)
                self.say(f"drawn {rows.stop:,} of {n:,} samples, {left:.0f} s left")
            parts.append(part)
        return Subject(
            torch.cat(parts), drawing.labels, {**self.facts, "n": n}, self._asked(drawing)
        )

    def _asked(self, drawing: Drawing) -> dict[str, Tensor]:
        table = drawing.styles
        return {} if table is None else dict(zip(self.model.asks, table.T, strict=True))

    def _told(self, found: Tensor | None, drawing: Drawing) -> Tensor | None:
        """What the first of several processes found on its disk, for all."""
        world = self.model.compute.world
        if not world.same(found is not None):
            return None
        if found is None:
            found = torch.zeros(len(drawing), *self.model.shape, dtype=torch.uint8)
        world.add([found])
        return found

    def changed(self, **changes: object) -> "RunSubject":
        """The same stream, drawn with other sampling settings."""
        model, former = self.model.changed(**changes), _drawn_with(self.model)
        kept = {name: fact for name, fact in self.facts.items() if name not in former}
        return dataclasses.replace(self, model=model, facts={**kept, **_drawn_with(model)})

    @property
    def _folder(self) -> Path:
        # Not where it lies: a run may be moved.
        what = {name: fact for name, fact in self.facts.items() if name != "path"}
        key = hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8)
        return self.run.path / "evaluation" / "drawn" / key.hexdigest()

    def _found(self, drawing: Drawing, start: int) -> Tensor | None:
        """A block kept earlier, if it is whole, long enough and of these labels."""
        path = self._folder / f"{start:08d}.npz"
        if not path.exists():
            return None
        try:
            kept = imaging.load_npz(path)
        except InputError:
            return None
        n = len(drawing)
        wanted = [drawing.labels, *self._asked(drawing).values()]
        own = [kept.labels[:n], *kept.styles[:n].T]
        same = len(own) == len(wanted) and all(map(_equal, own, wanted))
        return kept.images[:n] if same else None

    def _keep(self, images: Tensor, drawing: Drawing, start: int) -> None:
        folder = self._folder
        try:
            path, names = folder / f"{start:08d}.npz", self.model.asks
            imaging.save_npz(path, images, drawing.labels, self.facts, drawing.styles, names)
        except OSError as error:
            self.say(f"{folder} keeps no samples ({error.strerror}): they are drawn again")


def _equal(kept: Tensor, wanted: Tensor) -> bool:
    """Whether all was asked for that is asked for now; nan, nothing, is nan again."""
    alike = kept.shape == wanted.shape
    return alike and torch.allclose(kept.float(), wanted.float(), 0, 0, equal_nan=True)


def run_subject(
    path: Path,
    data: ImageSet | None = None,
    *,
    pick: Pick = Pick(),
    changes: Mapping[str, object] = {},  # noqa: B006 - never changed
    seed: int = 0,
    data_dir: Path | None = None,
    say: Say,
) -> RunSubject:
    """A run's model and its data; `changes` are sampling settings."""
    run = Run.at(path, say)
    origin, own = run.config.origin, data is None
    if data is None:
        data = run.images(data_dir, say, origin.styles)
    model, notices = run.model(pick)
    for notice in notices:
        say(notice)
    if tuple(data.images.shape[1:]) != model.shape or data.classes != model.classes:
        raise InputError(
            f"{path} draws {len(model.classes)} classes of {describe_shape(model.shape)}, and "
            f"{data.name} has {len(data.classes)} of {describe_shape(data.images.shape[1:])}: "
            f"judge it against {origin.source}"
        )
    _refuse_other_choices(path, model, data)
    if own and data.styles != run.config.data.styles:
        say(
            f"the styles of {data.name} are measured otherwise by this version than when {path} "
            "was trained: what is asked for and what is measured may differ a little"
        )
    model = model.changed(**changes)
    facts = {
        "kind": "run",
        "path": str(path),
        "weights": pick.weights,
        "checkpoint": pick.checkpoint,
        "images_seen": model.images_seen,
        # A run trained anew at the same place is another one.
        "hash": weights_digest(model.denoiser.network.state_dict()),
        **_drawn_with(model),
        "seed": seed,
    }
    return RunSubject(run, model, data, facts, seed, say)


def _refuse_other_choices(path: Path, model: Model, data: ImageSet) -> None:
    """InputError where the real images' styles cannot be asked of a model."""
    for ours, theirs in zip(model.styles, data.styles, strict=True):
        if (ours.name, ours.choice) != (theirs.name, theirs.choice) or (
            ours.choice and ours.levels != theirs.levels
        ):
            raise InputError(
                f"{path} chooses {ours.name} among {', '.join(ours.levels)}, and {data.name} has "
                f"{', '.join(theirs.levels)}: judge it against what it was trained on"
            )


def _drawn_with(model: Model) -> dict[str, Any]:
    """Return the sampling settings as facts, without guidance that is off.

    torch's noise is left out: blocks and evaluations made before Philox do not name it.
    """
    settings = {name: value for name, value in to_table(model.sampling).items() if value != {}}
    if settings["noise"] == "torch":
        del settings["noise"]
    if model.weak is None or model.sampling.autoguidance == 1:
        return {name: value for name, value in settings.items() if name != "autoguidance"}
    return {**settings, "weak": weights_digest(model.weak.denoiser.network.state_dict())}


def npz_subject(path: Path, data: ImageSet) -> Subject:
    """Return the images of an .npz, ours or another program's, that fit a data set.

    See `imaging.load_image_arrays` for the arrays it may hold.
    """
    found = imaging.load_image_arrays(path)
    labels, most = found.labels, len(data.classes) - 1
    if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() <= most:
        raise InputError(
            f"{path} has labels {int(labels.min())} to {int(labels.max())}, and the classes of "
            f"{data.name} are 0 to {most}"
        )
    facts = _facts("npz", path, found.images, labels)
    return checked(Subject(found.images, labels, facts, found.styles), data)


def folder_subject(path: Path, data: ImageSet, say: Say) -> Subject:
    """The images of a folder: in class subfolders, or (then without labels) directly in it.

    Decoded as real images are, but never resized; grey that was saved as RGB is grey again.
    """
    visible = [child for child in path.iterdir() if not child.name.startswith(".")]
    labels = None
    if any(child.is_dir() for child in visible):
        found = read_folder(path, say)
        names = imaging.folder_names(data.classes)
        own = imaging.folder_names(found.classes)
        labels = torch.tensor([find_class(names, name) for name in own])[found.labels]
    else:
        files = sorted(child for child in visible if child.suffix.lower() in SUFFIXES)
        pictures = [Picture(str(file), file) for file in files]
        found = Encoded((), torch.zeros(len(files)), {}, lambda: iter(pictures), "")
        if not pictures:
            raise InputError(
                f"{path} holds no images: give a folder with PNG files in class subfolders"
            )

    def refuse(decision: str) -> None:
        raise InputError(f"{path} holds images of several sizes: bring them to one size")

    layout = survey(found, None, refuse)
    pixels = np.empty((len(found.labels), *layout), np.uint8)
    fill(pixels, found, layout)
    images = torch.from_numpy(pixels)
    if data.channels == 3:
        images = images.expand(-1, 3, -1, -1).contiguous()
    elif bool((images == images[:, :1]).all()):
        images = images[:, :1].contiguous()
    facts = _facts("folder", path, images, labels)
    return checked(Subject(images, labels, facts), data)


def _facts(kind: str, path: Path, images: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Where images uint8 (N, C, H, W) come from, and a digest of them: a file may be replaced."""
    tensors = {"images": images} if labels is None else {"images": images, "labels": labels}
    return {
        "kind": kind,
        "path": str(path),
        "hash": weights_digest(tensors),
        "n": len(images),
    }


def checked(subject: Subject, data: ImageSet) -> Subject:
    """The subject; InputError where its images have another shape than the data's."""
    imaging.check_batch(subject.images)
    ours, theirs = tuple(subject.images.shape[1:]), tuple(data.images.shape[1:])
    if ours != theirs:
        raise InputError(
            f"{subject.facts['path']} holds images of {describe_shape(ours)}, and "
            f"{data.name} has {describe_shape(theirs)}: choose another --against, or bring the "
            "images to that size"
        )
    return subject


def limited(subject: Subject, n: int, seed: int) -> Subject:
    """n of the images, drawn without repetition; all where there are no more."""
    total = len(subject.images)
    if n >= total:
        return subject
    rows = torch.randperm(total, generator=generator("judged", seed))[:n].sort().values
    labels = subject.labels[rows] if subject.labels is not None else None
    return Subject(
        subject.images[rows],
        labels,
        {**subject.facts, "n": n, "seed": seed},
        {name: values[rows] for name, values in subject.styles.items()},
    )
