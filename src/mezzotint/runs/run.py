"""A run: one directory that holds a training from its first step to its pictures.

    config.toml              resolved configuration, facts of the data, choices for the machine;
                             every checkpoint has a copy
    metrics.jsonl            one JSON object a line: kind step | validation | metrics | event
    checkpoints/last…        everything to go on from; best…: weights to draw with; early…: those
                             of a share of the budget, where configured; with backups
    samples/                 grids over time

`setup.setup` makes or finds one, `trainer.Trainer` trains it, `Run.model` draws from it.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tomli_w
from torch import Tensor

from mezzotint.config import legacy
from mezzotint.config.build import fresh_state, plan_of
from mezzotint.config.tables import flatten, parse_config, parse_toml, to_table
from mezzotint.data import ImageSet, load
from mezzotint.diffusion import Denoiser
from mezzotint.errors import CheckpointError, InputError
from mezzotint.runs.facts import RunConfig
from mezzotint.runtime import checksum
from mezzotint.runtime.atomic import is_draft, write_bytes
from mezzotint.runtime.device import Compute
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.log import log
from mezzotint.sampling.model import Model
from mezzotint.training import Plan, TrainState
from mezzotint.training import checkpoint as checkpoints

__all__ = [
    "CheckpointName",
    "CheckpointRef",
    "Run",
    "RunConfig",
    "Weights",
    "fresh_state",
    "is_leftover",
    "needs_guide_model",
    "plan_of",
    "read_checkpoint",
    "disk_errors_in_one_line",
]


LAST = Path("checkpoints") / "last.safetensors"
BEST = Path("checkpoints") / "best.safetensors"
SNAPSHOT = Path("checkpoints") / "early.safetensors"  # as earlier versions called it
FILES = {"last": LAST, "best": BEST, "snapshot": SNAPSHOT}
Weights = Literal["ema", "raw"]
"""Averaged weights, or those of the last step."""

CheckpointName = Literal["last", "best", "snapshot"]

WEIGHTS: Mapping[str, str] = {"ema": "ema", "raw": "network"}
"""Which weights -> their section of a checkpoint, which keeps the name that older runs have."""

LEFTOVERS = {".lock", ".config.toml.new"}
"""Names that a run killed at its beginning may hold; the second is an earlier version's draft."""

SECTIONS = {"network", "origin", "data", "machine"}
"""Sections that every config.toml has."""

CHECKPOINTS = tuple(
    each for file in FILES.values() for each in (file, checkpoints.backup_path(file))
)


@dataclass(frozen=True)
class CheckpointRef:
    """Which of a run's weights to draw with, and where."""

    weights: Weights = "ema"
    """ema (averaged) or raw (those of the last step)."""

    checkpoint: CheckpointName = "last"
    """last, best or snapshot (the early one of training.snapshot)."""

    device: str = "auto"
    """auto: the run's own where this machine has it."""

    guide_model: bool | None = None
    """Whether the early snapshot comes along, for autoguidance; None: where the run's own sampling
    settings ask for it."""

    def __post_init__(self) -> None:
        """Take earlier names of the choices, too."""
        for name in legacy.CHOICES:
            value = legacy.current_choice(name, str(getattr(self, name)))
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Run:
    """A run directory and its configuration."""

    path: Path
    config: RunConfig = field(repr=False)

    @staticmethod
    def is_at(path: Path | str) -> bool:
        """Whether a run lies there: a config.toml, or a checkpoint with its copy."""
        return any((Path(path) / name).is_file() for name in (Path("config.toml"), *CHECKPOINTS))

    @staticmethod
    def at(path: Path | str) -> "Run":
        """The run in a directory; InputError if there is none, or none that can be read.

        Somebody else's run may hold links: one that leads out of it would have files read or
        written that are none of its own, and is refused.

        Where config.toml is missing or damaged, the copy in a checkpoint counts; that is logged.
        """
        path = Path(path)
        if not Run.is_at(path):
            raise CheckpointError(f"{path} is no run: it has no config.toml; make one with train")
        _check_links(path)
        file = path / "config.toml"
        try:
            found, intact = _read_config(file)
        except _DamagedError as error:
            copy, name = _copied_config(path)
            if copy is None:
                raise
            log.info(f"{error}; the copy in {name} counts")
            return Run(path, copy)
        if not intact:
            _refuse_edited(file, found, _copied_config(path)[0])
        return Run(path, found)

    def config_text(self) -> str:
        """The configuration as TOML."""
        return tomli_w.dumps(to_table(self.config))

    def write_config(self) -> None:
        """Write config.toml, whole or not at all."""
        with disk_errors_in_one_line(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            text = checksum.text_with_checksum(self.config_text())
            write_bytes(self.path / "config.toml", text.encode())

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.path / LAST

    @property
    def best(self) -> Path:
        """The best weights, by validation loss or what else `training.best` says."""
        return self.path / BEST

    @property
    def snapshot(self) -> Path:
        """The weights after `training.snapshot` of the budget."""
        return self.path / SNAPSHOT

    @property
    def metrics(self) -> Path:
        """The log of losses."""
        return self.path / "metrics.jsonl"

    def images(self, data_dir: Path | None, styles: Iterable[str] = ()) -> ImageSet:
        """The data that it was trained on, with some styles; the first rank decodes them.

        What lies there may have changed since: that is said.
        """
        origin = self.config.origin
        with current_ranks().rank0_first():  # the others find them
            data = load(
                origin.source,
                size=origin.size,
                limit=origin.limit,
                styles=tuple(styles),
                data_dir=data_dir,
            )
        if data.fingerprint != self.config.data.fingerprint:
            log.info(
                f"{origin.source} holds other images than {self.path} was trained on: what is "
                "held out now may be among its training images"
            )
        return data

    def plan(self) -> Plan:
        """What the configuration asks of the training loop."""
        config = self.config
        return plan_of(config, config.machine.images, config.data.styles)

    def fresh_state(self) -> TrainState:
        """Return the state of a training before its first step."""
        config = self.config
        return fresh_state(config, config.data.denoiser(config), config.machine.compute())

    def checkpoint(self, which: str = "last") -> Path:
        """The file of the last, the best or the snapshot checkpoint, there or not."""
        which = legacy.current_choice("checkpoint", which)
        if which not in FILES:
            raise InputError(f"the checkpoint is last, best or snapshot, got '{which}'")
        return self.path / FILES[which]

    def has(self, which: str) -> bool:
        """Whether there is such a checkpoint, or its backup."""
        file = self.checkpoint(which)
        return file.exists() or checkpoints.backup_path(file).exists()

    def images_seen(self, which: str = "last") -> int:
        """Where a checkpoint stands; 0 without one."""
        if not self.has(which):
            return 0
        return int(read_checkpoint(self.checkpoint(which))[0].facts["images_seen"])

    def weights(self) -> tuple[Mapping[str, Tensor], str | None]:
        """The averaged weights of the last checkpoint, on every rank the same; and a notice."""
        saved, notice = self._saved("last")
        return saved.section("ema"), notice

    def model(self, ref: CheckpointRef = CheckpointRef()) -> tuple[Model, list[str]]:
        """The model of a checkpoint, and notices."""
        model, notices = self._model(ref)
        own = self.config.sampling.autoguidance != 1
        if own if ref.guide_model is None else ref.guide_model:
            guide_model, more = self._model(dataclasses.replace(ref, checkpoint="snapshot"))
            return dataclasses.replace(model, guide_model=guide_model), notices + more
        return model, notices

    def _model(self, ref: CheckpointRef) -> tuple[Model, list[str]]:
        if ref.weights not in WEIGHTS:
            raise InputError(
                f"weights are ema (averaged) or raw (the last step's), got '{ref.weights}'"
            )
        file = self.checkpoint(ref.checkpoint)
        saved, notice = self._saved(ref.checkpoint)
        if saved.facts["images_seen"] == 0:
            why = f"{notice}; " if notice else ""
            raise CheckpointError(
                f"{why}{self.path} holds weights that have seen no image yet: train it, or draw "
                "with --checkpoint best"
            )
        facts, compute = self.config.data, self.config.machine.on_this_machine(ref.device)
        denoiser = facts.denoiser(self.config)
        try:
            denoiser.network.load_state_dict(saved.section(WEIGHTS[ref.weights]))
        except RuntimeError as error:
            raise CheckpointError(
                f"{file} fits no network that this version builds from {self.path}/config.toml: "
                "draw with the version that trained it"
            ) from error
        compute.place(denoiser)
        seen = int(saved.facts["images_seen"])
        return self.model_of(denoiser, compute, seen), [notice] if notice else []

    def _saved(self, which: str) -> tuple[checkpoints.Checkpoint, str | None]:
        """A checkpoint, and what happened to it; CheckpointError where there is none."""
        if self.has(which):
            return self._read_by_all(self.checkpoint(which))
        if which == "snapshot":
            raise CheckpointError(
                f"{self.path} has no early snapshot (training.snapshot = "
                f"{self.config.training.snapshot:g}): a run trained with --set "
                "training.snapshot=0.1 keeps one at a tenth of its budget; without it leave "
                "--autoguidance and --checkpoint snapshot out"
            )
        raise CheckpointError(f"{self.path} has no checkpoint yet: train it first")

    def _read_by_all(self, file: Path) -> tuple[checkpoints.Checkpoint, str | None]:
        """The checkpoint, on every rank the same, though a training may replace it meanwhile."""
        ranks = current_ranks()
        while True:
            saved, notice = read_checkpoint(file)
            seen = saved.facts.get("images_seen")
            if not isinstance(seen, int):
                raise CheckpointError(
                    f"{file} does not say how many images were seen: it is not ours"
                )
            if not ranks.any(ranks.broadcast_from_rank0(seen) != seen):
                return saved, notice

    def model_of(self, denoiser: Denoiser, compute: Compute, images_seen: int) -> Model:
        """A model around a denoiser of this run that has seen so many images."""
        facts, plan = self.config.data, self.plan()
        return Model(
            denoiser=denoiser,
            sampling=self.config.sampling,
            schedule=self.config.objective.schedule,
            shape=(facts.channels, facts.height, facts.width),
            classes=facts.classes,
            mean=facts.mean,
            deviation=facts.deviation,
            styles=facts.styles,
            images_seen=images_seen,
            compute=compute,
            droppable=[name for name, rate in plan.dropout.items() if rate > 0],
            max_model_guidance=plan.max_model_guidance
            if plan.samples_with_model_guidance(images_seen)
            else 1.0,
        )


def needs_guide_model(autoguidance: float | None) -> bool | None:
    """Return whether a guide model is needed; None: as the run's own settings say."""
    return None if autoguidance is None else autoguidance != 1


def is_leftover(name: str) -> bool:
    """Return whether a run has a file of this name before its first config.toml is whole."""
    return name in LEFTOVERS or is_draft(name, of="config.toml")


def _check_links(run: Path) -> None:
    """Refuse a link in a run's directory that leads out of it; the directory may be one itself."""
    own = run.resolve()
    for folder, folders, files in os.walk(own):
        for entry in map(Path(folder).joinpath, [*folders, *files]):
            if entry.is_symlink() and not entry.resolve().is_relative_to(own):
                raise CheckpointError(
                    f"{run / entry.relative_to(own)} is a link out of the run: put a copy in its "
                    "place, or link the whole directory"
                )


def read_checkpoint(path: Path) -> tuple[checkpoints.Checkpoint, str | None]:
    """Load a checkpoint or its backup with current names; and what happened, if anything."""
    saved, notice = checkpoints.recover(path)
    tensors = legacy.current_tensors(saved.tensors)
    return checkpoints.Checkpoint(tensors, legacy.current_facts(saved.facts)), notice


class _DamagedError(CheckpointError):
    """A config.toml that cannot be read, or that is cut short."""


def _read_config(file: Path) -> tuple[RunConfig, bool]:
    """Return a config.toml and whether it is as it was written.

    Raises:
        _DamagedError: It is missing, unreadable or cut short.
        CheckpointError: It is whole and no configuration of this version, as after an edit.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _DamagedError(f"{file} cannot be read ({error})") from error
    try:
        table = parse_toml(text, str(file))
    except InputError as error:
        raise _DamagedError(str(error)) from error
    table = legacy.current_run(table)
    intact = checksum.strip_text_checksum(text) is not None
    if not intact and not table.keys() >= SECTIONS:
        raise _DamagedError(f"{file} is cut short")
    try:
        return parse_config(table, RunConfig), intact
    except InputError as error:
        raise CheckpointError(f"{file}: {error}") from error


def _copied_config(run: Path) -> tuple[RunConfig | None, Path | None]:
    """Return the configuration that a checkpoint of a run holds, and which; None without one."""
    for name in CHECKPOINTS:
        copy = _config_in(run / name)
        if copy is not None:
            return copy, name
    return None, None


def _config_in(file: Path) -> RunConfig | None:
    """Return the configuration in a checkpoint; None without one that this version can use."""
    try:
        facts = checkpoints.read(file).facts
    except CheckpointError:
        return None
    if "config" not in facts:
        return None
    try:
        return parse_config(legacy.current_run(parse_toml(facts["config"], file.name)), RunConfig)
    except InputError:
        return None


def _refuse_edited(file: Path, edited: RunConfig, copy: RunConfig | None) -> None:
    """Refuse a config.toml that somebody edited, unless it says what the checkpoint says.

    Ignored, an edit costs its author hours; obeyed, it makes a run that no command made. A run
    without a checkpoint has nothing to lose: its edits are obeyed.
    """
    if copy is None:
        return
    now, before = flatten(to_table(edited)), flatten(to_table(copy))
    differing = [key for key in [*now, *before] if now.get(key) != before.get(key)]
    if differing:
        key = differing[0]
        raise CheckpointError(
            f"{file} was edited or damaged: {key} is {now.get(key, 'not set')}, and was "
            f"{before.get(key, 'not set')}; delete {file}, which restores it from the checkpoint, "
            "and give settings on the command line: sample --guidance, train --set"
        )


@contextlib.contextmanager
def disk_errors_in_one_line(path: Path) -> Iterator[None]:
    """An OSError as one line for the user."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write in {path}: {error.strerror or error}; free space or choose another "
            "--out, then run the same command again; nothing saved before is lost"
        ) from error
