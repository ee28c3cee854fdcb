"""Samples to evaluate: of a run, a folder of images, an .npz file (also somebody else's).

A run's samples are a stream: sample i has the i-th label of a shuffled train split, so the
classes come as often as in the real data, and its noise depends on (seed, i). What was drawn is
kept in blocks under RUN/evaluation/drawn/ (which may be deleted at any time), so an interrupted
evaluation goes on, and a larger n draws only the blocks that are missing or too short.
"""

import dataclasses
import hashlib
import json
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
from mezzotint.data.pixels import common_layout, fill
from mezzotint.data.readers import folder
from mezzotint.data.readers.folder import SUFFIXES
from mezzotint.errors import DataError, InputError
from mezzotint.imaging import describe_shape
from mezzotint.metrics.extractors.weights_io import weights_digest
from mezzotint.runs.find import find, load_model
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runtime.log import log
from mezzotint.runtime.progress_bar import progress as progress_of
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.request import SamplingOptions

__all__ = [
    "RunSamples",
    "SampleSet",
    "folder_samples",
    "limited",
    "npz_samples",
    "run_samples",
]


BLOCK = 2560
"""Samples in a file: a whole number of the model's usual chunks, so blocks change no byte."""


@dataclass(frozen=True)
class SampleSet:
    """Images to evaluate."""

    images: Tensor
    """uint8 (N, C, H, W)."""

    labels: Tensor | None
    """int64 (N,), indices into the classes of the real data; None where nobody says."""

    facts: Mapping[str, Any]
    """Where they come from, as plain JSON."""

    styles: Mapping[str, Tensor] = field(default_factory=dict)
    """Requested styles of each image, float64 (N,) by name; nan: none."""


@dataclass(frozen=True)
class RunSamples:
    """A run's model as a stream of samples."""

    run: Run
    model: Model
    data: ImageSet
    facts: Mapping[str, Any]
    seed: int
    progress: bool | None = None
    """Whether drawing shows a bar; see `progress_bar.progress`."""

    def batch(self, n: int) -> SampleBatch:
        """The first n of the stream."""
        train = self.data.splits["train"]
        order = torch.randperm(len(train), generator=generator("asked for", self.seed))
        rows = train[order[torch.arange(n) % len(train)]]
        return SampleBatch.of(self.data.labels[rows], self.seed, self.data.styles_of(rows))

    def samples(self, n: int) -> SampleSet:
        """The first n samples, drawn or found."""
        drawing = self.batch(n)
        parts = []
        first = self.model.compute.ranks.first
        with progress_of("drawing", n, self.progress) as update:
            for start in range(0, n, BLOCK):
                rows = slice(start, min(n, start + BLOCK))
                part = self._broadcast(
                    self._found(drawing[rows], start) if first else None, drawing[rows]
                )
                if part is None:
                    part = self.model.sample_batch(drawing[rows], _after(start, update))
                    if first:
                        self._keep(part, drawing[rows], start)
                parts.append(part)
        return SampleSet(
            torch.cat(parts), drawing.labels, {**self.facts, "n": n}, self._styles_of(drawing)
        )

    def _styles_of(self, drawing: SampleBatch) -> dict[str, Tensor]:
        table = drawing.styles
        return {} if table is None else dict(zip(self.model.style_names, table.T, strict=True))

    def _broadcast(self, found: Tensor | None, drawing: SampleBatch) -> Tensor | None:
        """What the first of several processes found on its disk, for all."""
        ranks = self.model.compute.ranks
        if not ranks.broadcast_from_rank0(found is not None):
            return None
        if found is None:
            found = torch.zeros(len(drawing), *self.model.shape, dtype=torch.uint8)
        ranks.all_reduce_([found])
        return found

    def with_options(self, options: SamplingOptions) -> "RunSamples":
        """Return the same stream, drawn with other sampling settings."""
        model, former = self.model.with_options(options), _drawn_with(self.model)
        kept = {name: fact for name, fact in self.facts.items() if name not in former}
        return dataclasses.replace(self, model=model, facts={**kept, **_drawn_with(model)})

    @property
    def _folder(self) -> Path:
        # Not where it lies: a run may be moved.
        what = {name: fact for name, fact in self.facts.items() if name != "path"}
        key = hashlib.blake2b(json.dumps(what, sort_keys=True).encode(), digest_size=8)
        return self.run.path / "evaluation" / "drawn" / key.hexdigest()

    def _found(self, drawing: SampleBatch, start: int) -> Tensor | None:
        """A block kept earlier, if it is whole, long enough and of these labels."""
        path = self._folder / f"{start:08d}.npz"
        if not path.exists():
            return None
        try:
            kept = imaging.load_npz(path)
        except DataError:
            return None
        n = len(drawing)
        wanted = [drawing.labels, *self._styles_of(drawing).values()]
        own = [kept.labels[:n], *kept.styles[:n].T]
        same = len(own) == len(wanted) and all(map(_equal, own, wanted))
        return kept.images[:n] if same else None

    def _keep(self, images: Tensor, drawing: SampleBatch, start: int) -> None:
        folder = self._folder
        try:
            path, names = folder / f"{start:08d}.npz", self.model.style_names
            imaging.save_npz(path, images, drawing.labels, self.facts, drawing.styles, names)
        except OSError as error:
            log.info(f"{folder} keeps no samples ({error.strerror}): they are drawn again")


def _after(start: int, update: Callable[[int], None]) -> Callable[[int], None]:
    """Return the update of a block, of which `start` images come before."""
    return lambda done: update(start + done)


def _equal(kept: Tensor, wanted: Tensor) -> bool:
    """Return whether the requested styles are the same; nan, none, equals nan."""
    alike = kept.shape == wanted.shape
    return alike and torch.allclose(kept.float(), wanted.float(), 0, 0, equal_nan=True)


def run_samples(
    run: Run | str | Path,
    data: ImageSet | None = None,
    *,
    checkpoint: CheckpointRef = CheckpointRef(),
    options: SamplingOptions = SamplingOptions(),
    seed: int = 0,
    data_dir: Path | None = None,
    progress: bool | None = None,
) -> RunSamples:
    """Return a run's model and its data, drawn with other sampling settings where given."""
    run = find(run)
    path, origin, own = run.path, run.config.origin, data is None
    if data is None:
        data = run.images(data_dir, origin.styles)
    model = load_model(run, checkpoint, data_dir)
    if tuple(data.images.shape[1:]) != model.shape or data.classes != model.classes:
        raise InputError(
            f"{path} draws {len(model.classes)} classes of {describe_shape(model.shape)}, and "
            f"{data.name} has {len(data.classes)} of {describe_shape(data.images.shape[1:])}: "
            f"evaluate it against {origin.source}"
        )
    _refuse_other_choices(path, model, data)
    if own and data.styles != run.config.data.styles:
        log.info(
            f"the styles of {data.name} are measured otherwise by this version than when {path} "
            "was trained: requested and measured styles may differ a little"
        )
    model = model.with_options(options)
    facts = {
        "kind": "run",
        "path": str(path),
        "weights": checkpoint.weights,
        "checkpoint": checkpoint.checkpoint,
        "images_seen": model.images_seen,
        # A run trained anew at the same place is another one.
        "hash": weights_digest(model.denoiser.network.state_dict()),
        **_drawn_with(model),
        "seed": seed,
    }
    return RunSamples(run, model, data, facts, seed, progress)


def _refuse_other_choices(path: Path, model: Model, data: ImageSet) -> None:
    """Raise InputError where a model cannot draw the real images' styles."""
    for ours, theirs in zip(model.styles, data.styles, strict=True):
        if (ours.name, ours.choice) != (theirs.name, theirs.choice) or (
            ours.choice and ours.levels != theirs.levels
        ):
            raise InputError(
                f"{path} chooses {ours.name} among {', '.join(ours.levels)}, and {data.name} has "
                f"{', '.join(theirs.levels)}: evaluate it against what it was trained on"
            )


def _drawn_with(model: Model) -> dict[str, Any]:
    """Return the sampling settings as facts, without guidance that is off.

    torch's noise is left out: blocks and evaluations made before Philox do not name it.
    """
    settings = {name: value for name, value in to_table(model.sampling).items() if value != {}}
    if settings["noise"] == "torch":
        del settings["noise"]
    if model.guide_model is None or model.sampling.autoguidance == 1:
        return {name: value for name, value in settings.items() if name != "autoguidance"}
    return {
        **settings,
        "guide_model": weights_digest(model.guide_model.denoiser.network.state_dict()),
    }


def npz_samples(path: Path, data: ImageSet) -> SampleSet:
    """Return the images of an .npz, ours or another program's, that fit a data set.

    See `imaging.load_image_arrays` for the arrays it may hold.
    """
    found = imaging.load_image_arrays(path)
    labels, most = found.labels, len(data.classes) - 1
    if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() <= most:
        raise DataError(
            f"{path} has labels {int(labels.min())} to {int(labels.max())}, and the classes of "
            f"{data.name} are 0 to {most}"
        )
    facts = _facts("npz", path, found.images, labels)
    return checked(SampleSet(found.images, labels, facts, found.styles), data)


def folder_samples(path: Path, data: ImageSet) -> SampleSet:
    """The images of a folder: in class subfolders, or (then without labels) directly in it.

    Decoded as real images are, but never resized; grey that was saved as RGB is grey again.
    """
    visible = [child for child in path.iterdir() if not child.name.startswith(".")]
    labels = None
    if any(child.is_dir() for child in visible):
        found = folder.read(path)
        names = imaging.folder_names(data.classes)
        own = imaging.folder_names(found.classes)
        try:
            classes = [find_class(names, name) for name in own]
        except InputError as error:  # nobody gave it: a subfolder is called so
            raise DataError(f"{path}: {error}") from error
        labels = torch.tensor(classes)[found.labels]
    else:
        files = sorted(child for child in visible if child.suffix.lower() in SUFFIXES)
        pictures = [Picture(str(file), file) for file in files]
        found = Encoded((), torch.zeros(len(files)), {}, lambda: iter(pictures), "")
        if not pictures:
            raise DataError(
                f"{path} holds no images: give a folder with PNG files in class subfolders"
            )

    layout = common_layout(found)
    if layout is None:
        raise DataError(f"{path} holds images of several sizes: bring them to one size")
    pixels = np.empty((len(found.labels), *layout), np.uint8)
    fill(pixels, found, layout)
    images = torch.from_numpy(pixels)
    if data.channels == 3:
        images = images.expand(-1, 3, -1, -1).contiguous()
    elif bool((images == images[:, :1]).all()):
        images = images[:, :1].contiguous()
    facts = _facts("folder", path, images, labels)
    return checked(SampleSet(images, labels, facts), data)


def _facts(kind: str, path: Path, images: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Where images uint8 (N, C, H, W) come from, and a digest of them: a file may be replaced."""
    tensors = {"images": images} if labels is None else {"images": images, "labels": labels}
    return {
        "kind": kind,
        "path": str(path),
        "hash": weights_digest(tensors),
        "n": len(images),
    }


def checked(samples: SampleSet, data: ImageSet) -> SampleSet:
    """Return the samples; DataError where their images have another shape than the data's."""
    imaging.check_batch(samples.images)
    ours, theirs = tuple(samples.images.shape[1:]), tuple(data.images.shape[1:])
    if ours != theirs:
        raise DataError(
            f"{samples.facts['path']} holds images of {describe_shape(ours)}, and "
            f"{data.name} has {describe_shape(theirs)}: choose another --against, or bring the "
            "images to that size"
        )
    return samples


def limited(samples: SampleSet, n: int, seed: int) -> SampleSet:
    """n of the images, drawn without repetition; all where there are no more."""
    total = len(samples.images)
    if n >= total:
        return samples
    rows = torch.randperm(total, generator=generator("judged", seed))[:n].sort().values
    labels = samples.labels[rows] if samples.labels is not None else None
    return SampleSet(
        samples.images[rows],
        labels,
        {**samples.facts, "n": n, "seed": seed},
        {name: values[rows] for name, values in samples.styles.items()},
    )
