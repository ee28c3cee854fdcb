"""A run: one directory that holds a training from its first step to its pictures.

    config.toml              resolved configuration, facts of the data, choices for the machine
    metrics.jsonl            one JSON object a line: kind step | validation | event
    checkpoints/last…        everything to go on from; best…: weights to draw with; with backups
    samples/                 grids over time

`open_run` makes or finds one, `Run.advance` trains it (a generator of records; the caller shows
them), `Run.model` draws from it. The same command again goes on where the directory stands.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

from mezzotint import imaging
from mezzotint.config import Config, Strict, build_denoiser, parse_config, parse_toml, to_table
from mezzotint.data import ImageSet
from mezzotint.errors import InputError
from mezzotint.interrupt import Interrupt
from mezzotint.model import Drawing, Model
from mezzotint.training import (
    Compute,
    Diverged,
    Plan,
    Record,
    Shrunk,
    Skipped,
    Stepped,
    Stopped,
    TrainState,
    Validated,
    train,
)
from mezzotint.training import checkpoint as checkpoints
from mezzotint.training.recovery import ROLL_BACKS

__all__ = ["DataFacts", "Every", "Machine", "Notice", "Origin", "Previewed", "Run", "RunConfig"]

PREVIEW_ROW = 8
"""Images per class in a preview."""

PREVIEW_EVALUATIONS = 10


class Origin(Strict):
    """Where the images come from, and which preset began it."""

    source: str
    preset: str
    size: int | None = None
    limit: int | None = None


class DataFacts(Strict):
    """What was measured of the data; `mean` and `deviation` are of pixels in [-1, 1]."""

    channels: int
    height: int
    width: int
    classes: tuple[str, ...]
    mean: float
    deviation: float
    train: int
    validation: int
    test: int
    fingerprint: str

    @staticmethod
    def of(data: ImageSet) -> "DataFacts":
        """The facts of a data set."""
        return DataFacts(
            channels=data.channels,
            height=data.height,
            width=data.width,
            classes=data.classes,
            mean=data.mean,
            deviation=data.deviation,
            train=len(data.splits["train"]),
            validation=len(data.splits["validation"]),
            test=len(data.splits["test"]),
            fingerprint=data.fingerprint,
        )


class Machine(Strict):
    """What was decided for this machine, and obeyed on resume."""

    device: str
    precision: str
    threads: int
    compile: bool
    images: int
    """The budget as a number of images."""

    images_per_second: float = 0.0
    """Measured once, where a budget is a time; 0: not measured."""

    torch: str = torch.__version__

    def compute(self) -> Compute:
        """As the training loop wants it."""
        return Compute(self.device, self.precision, self.threads, self.compile)  # type: ignore[arg-type]


class RunConfig(Config):
    """The whole of a run's config.toml."""

    origin: Origin
    data: DataFacts
    machine: Machine


@dataclass(frozen=True)
class Notice:
    """Something the user should read."""

    text: str


@dataclass(frozen=True)
class Previewed:
    """A grid of samples was written."""

    path: Path


@dataclass(frozen=True)
class Every:
    """How often to save a checkpoint: a number of seconds or of images."""

    amount: float = 60.0
    unit: str = "seconds"


@dataclass(frozen=True)
class Run:
    """A run directory and its configuration."""

    path: Path
    config: RunConfig

    @staticmethod
    def at(path: Path | str) -> "Run":
        """The run in a directory; InputError if there is none."""
        file = Path(path) / "config.toml"
        if not file.is_file():
            raise InputError(f"{path} is no run: it has no config.toml; make one with train")
        return Run(Path(path), parse_config(parse_toml(file.read_text(), str(file)), RunConfig))

    def write_config(self) -> None:
        """Write config.toml, whole or not at all."""
        text = tomli_w.dumps(to_table(self.config))
        with _saying(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            checkpoints.write_bytes(self.path / "config.toml", text.encode())

    @property
    def last(self) -> Path:
        """The checkpoint to go on from."""
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        """The weights with the lowest validation loss."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def metrics(self) -> Path:
        """The log of losses."""
        return self.path / "metrics.jsonl"

    def plan(self) -> Plan:
        """What the configuration asks of the training loop."""
        t, objective = self.config.training, self.config.objective
        return Plan(
            images=self.config.machine.images,
            batch=t.batch,
            seed=t.seed,
            schedule=objective.schedule,
            weight=objective.weight,
            learning_rate=t.learning_rate,
            rate=t.rate,
            drop={"label": t.drop},
            clip=t.clip,
            ema=t.ema,
            validate_every=t.validate_every,
            validation_images=t.validation_images,
            patience=t.patience,
            target=t.target,
        )

    def fresh_state(self) -> TrainState:
        """A training that has not begun."""
        return fresh_state(self.config, self.config.data, self.config.machine.compute())

    def images_seen(self) -> int:
        """Where the last checkpoint stands; 0 without one."""
        if not self.last.exists() and not checkpoints.previous(self.last).exists():
            return 0
        return int(checkpoints.recover(self.last)[0].facts["images_seen"])

    def advance(
        self, data: ImageSet, every: Every = Every()
    ) -> Iterator[Record | Notice | Previewed]:  # noqa: B008 - frozen
        """Train to the end of the budget, saving, logging and drawing; see `_Session`."""
        compute = self.config.machine.compute()
        with compute.active(), Interrupt() as interrupt:
            yield from _Session(self, data, every, compute, interrupt).records()

    def model(self, *, weights: str = "ema", which: str = "last") -> tuple[Model, list[str]]:
        """The model of the last (or best) checkpoint, averaged weights or raw; and notices."""
        file = self.best if which == "best" else self.last
        if not file.exists() and not checkpoints.previous(file).exists():
            raise InputError(f"{self.path} has no checkpoint yet: train it first")
        saved, notice = checkpoints.recover(file)
        facts, compute = self.config.data, self.config.machine.compute()
        denoiser = build_denoiser(self.config, facts.channels, len(facts.classes))
        denoiser.network.load_state_dict(saved.part(weights))
        denoiser.to(compute.device)
        return self.model_of(denoiser), [notice] if notice else []

    def model_of(self, denoiser: Any) -> Model:
        """A model around a denoiser of this run."""
        facts = self.config.data
        return Model(
            denoiser=denoiser,
            sampling=self.config.sampling,
            schedule=self.config.objective.schedule,
            shape=(facts.channels, facts.height, facts.width),
            classes=facts.classes,
            mean=facts.mean,
            deviation=facts.deviation,
            compute=self.config.machine.compute(),
        )


def fresh_state(config: Config, facts: DataFacts, compute: Compute) -> TrainState:
    """A training that has not begun, for a configuration and data of those facts."""
    denoiser = build_denoiser(config, facts.channels, len(facts.classes)).to(compute.device)
    settings = config.training
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    optimizer = kinds[settings.optimizer](
        denoiser.network.parameters(),
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=compute.device in ("cpu", "cuda"),
    )
    state = TrainState(denoiser, optimizer, settings.batch, scaler=compute.scaler())
    if compute.compile:
        denoiser.network.compile()
    return state


class _Session:
    """One sitting of a training: from the last checkpoint to the budget, or to an interruption."""

    def __init__(
        self, run: Run, data: ImageSet, every: Every, compute: Compute, interrupt: Interrupt
    ) -> None:
        self.run, self.data, self.every = run, data, every
        self.compute, self.interrupt = compute, interrupt
        self.plan = run.plan()
        self.state = run.fresh_state()
        self.lines: list[str] = []  # of the metrics, since the last save
        self.saved_at = time.monotonic()
        self.saved_images = 0
        self.roll_backs = 0

    def records(self) -> Iterator[Record | Notice | Previewed]:
        """Resume if there is something to resume, train, and leave everything saved."""
        with _locked(self.run.path):
            yield from self._begin()
            while True:
                again = False
                for record in train(self.state, self.data, self.plan, self.compute):
                    again = isinstance(record, Diverged)
                    yield from self._handle(record)
                    yield record
                    if isinstance(record, Stepped) and self.interrupt.asked:
                        self._save(final=True)
                        yield Stopped(self.state.images_seen, "interrupted")
                        return
                if not again:
                    break
            self._save(final=True)

    def _begin(self) -> Iterator[Notice]:
        last = self.run.last
        if last.exists() or checkpoints.previous(last).exists():
            saved, notice = checkpoints.recover(last)
            if notice:
                yield Notice(notice)
            self.state.restore(saved)
            self._forget_later_metrics()
            yield Notice(f"resumed at {self.state.images_seen} images")
        else:
            self._save(final=True)  # finds out at once whether the directory can be written
        self.saved_images = self.state.images_seen

    def _handle(self, record: Record) -> Iterator[Notice | Previewed]:
        """What each record asks for, before the caller sees it."""
        match record:
            case Stepped():
                if self._crossed(self.run.config.training.log_every):
                    self._log("step", record, seconds=round(self.state.seconds, 3))
                if self._crossed(self.run.config.training.preview_every):
                    yield from self._preview()
                if self._save_due():
                    yield from self._try_save()
            case Validated():
                self._log("validation", record, seconds=round(self.state.seconds, 3))
                if record.best:
                    yield from self._try_write(self.run.best, self.state.weights())
            case Skipped() | Shrunk():
                self._log("event", record, what=type(record).__name__.lower())
            case Diverged():
                yield self._roll_back()

    def _crossed(self, every: int) -> bool:
        seen = self.state.images_seen
        return every > 0 and seen // every > (seen - self.plan.batch) // every

    def _log(self, kind: str, record: Record, **more: object) -> None:
        self.lines.append(json.dumps({"kind": kind, **dataclasses.asdict(record), **more}))

    def _save_due(self) -> bool:
        if self.every.unit == "images":
            return self.state.images_seen - self.saved_images >= self.every.amount
        return time.monotonic() - self.saved_at >= self.every.amount

    def _try_save(self) -> Iterator[Notice]:
        """A save that may fail: training goes on, and tries again next time."""
        self.saved_at, self.saved_images = time.monotonic(), self.state.images_seen
        if not self.state.healthy():
            return
        try:
            self._save()
        except OSError as error:
            yield Notice(
                f"cannot save in {self.run.path}: {error.strerror or error}; training goes on and "
                "tries again, the last checkpoint is intact"
            )

    def _try_write(self, path: Path, tensors: Mapping[str, Any]) -> Iterator[Notice]:
        try:
            checkpoints.write(path, tensors, {"images_seen": self.state.images_seen})
        except OSError as error:
            yield Notice(f"cannot write {path}: {error.strerror or error}; training goes on")

    def _save(self, *, final: bool = False) -> None:
        """Write metrics, then the checkpoint; `final`: a failure is the user's to mend."""
        with _saying(self.run.path) if final else contextlib.nullcontext():
            self.run.path.mkdir(parents=True, exist_ok=True)
            if self.lines:
                with self.run.metrics.open("a") as file:
                    file.write("".join(line + "\n" for line in self.lines))
                self.lines = []
            if self.state.healthy():
                checkpoints.write(self.run.last, self.state.tensors(), self.state.facts())

    def _forget_later_metrics(self) -> None:
        """Cut what a killed process logged after the checkpoint, and a torn last line."""
        if not self.run.metrics.exists():
            return
        kept = []
        for line in self.run.metrics.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                if json.loads(line)["images_seen"] <= self.state.images_seen:
                    kept.append(line + "\n")
        with _saying(self.run.path):
            checkpoints.write_bytes(self.run.metrics, "".join(kept).encode())

    def _roll_back(self) -> Notice:
        """Return to the last good checkpoint with half the learning rate."""
        self.roll_backs += 1
        if self.roll_backs > ROLL_BACKS:
            raise InputError(
                f"training diverged {self.roll_backs} times, even at learning rate "
                f"{self.plan.learning_rate * self.state.rate_scale:.3g}: choose a lower "
                "training.learning_rate; the last good checkpoint is kept"
            )
        saved, _ = checkpoints.recover(self.run.last)
        scale = self.state.rate_scale / 2
        self.state.restore(saved)
        self.state.rate_scale = scale
        self.lines = []
        self._forget_later_metrics()
        return Notice(
            f"the loss is not finite any more: rolled back to {self.state.images_seen} images, "
            f"learning rate now {self.plan.learning_rate * scale:.3g}"
        )

    def _preview(self) -> Iterator[Notice | Previewed]:
        """A grid of few-step samples with the averaged weights, one row per class."""
        network = self.state.denoiser.network
        try:
            self.state.denoiser.network = self.state.ema
            model = self.run.model_of(self.state.denoiser)
            model = model.changed(evaluations=min(PREVIEW_EVALUATIONS, model.sampling.evaluations))
            rows = min(10, len(model.classes))
            images = model.draw(Drawing.of(torch.arange(rows).repeat_interleave(PREVIEW_ROW)))
        except InputError as error:  # pixels that are not finite
            yield Notice(f"no preview at {self.state.images_seen} images: {error}")
            return
        finally:
            self.state.denoiser.network = network
            self.state.denoiser.train()
        path = self.run.path / "samples" / f"{self.state.images_seen:09d}.png"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            imaging.save_png(imaging.grid(images, PREVIEW_ROW, scale=2), path)
            yield Previewed(path)
        except OSError as error:
            yield Notice(f"cannot write {path}: {error.strerror or error}; training goes on")


@contextlib.contextmanager
def _saying(path: Path) -> Iterator[None]:
    """An OSError as one line for the user."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write in {path}: {error.strerror or error}; free space or choose another "
            "--out, then run the same command again; nothing saved before is lost"
        ) from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process trains in a directory; the lock dies with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock
        yield
        return
    with _saying(path):
        path.mkdir(parents=True, exist_ok=True)
        handle = (path / ".lock").open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is training in {path}: wait for it") from error
        yield
