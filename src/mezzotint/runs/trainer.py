"""Train a run from its last checkpoint to its budget, or until an interruption.

`Trainer.run` is a generator of records; the caller shows them. Whatever is written is written
here: checkpoints at intervals with the metrics up to there, the best weights at validations,
grids of samples in between. Of several processes only the first writes; all go through the same
steps.
"""

import contextlib
import dataclasses
import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch

from mezzotint import imaging
from mezzotint.config.schema import Budget
from mezzotint.data import ImageSet
from mezzotint.errors import DivergenceError, InputError, PeerError
from mezzotint.runs.online_metrics import OnlineMetrics, beats
from mezzotint.runs.run import Run, disk_errors_in_one_line, read_checkpoint
from mezzotint.runtime import checksum
from mezzotint.runtime.atomic import append_bytes, write_bytes
from mezzotint.runtime.interrupt import Interrupt
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.training import (
    Diverged,
    MicroBatchReduced,
    Record,
    Skipped,
    Stepped,
    Stopped,
    Validated,
    train,
)
from mezzotint.training import checkpoint as checkpoints

__all__ = ["Event", "CheckpointInterval", "MetricsLogged", "Notice", "Previewed", "Trainer"]

PREVIEW_ROW = 8
"""Images per class in a preview."""

PREVIEW_EVALUATIONS = 10

EVENTS = {Skipped: "skipped", MicroBatchReduced: "micro_batch_reduced"}
"""Names in metrics.jsonl."""

NOT_FINITE = (DivergenceError, PeerError)
"""What drawing raises for pixels that are NaN or infinite: here, or in another process."""

ROLL_BACKS = 5
"""Returns to an older checkpoint, each of which halves the learning rate, before it gives up."""


@dataclass(frozen=True)
class Notice:
    """Something the user should read."""

    text: str


@dataclass(frozen=True)
class Previewed:
    """A grid of samples was written."""

    path: Path


@dataclass(frozen=True)
class MetricsLogged:
    """A few samples were measured."""

    images_seen: int
    values: Mapping[str, float]
    samples: int
    seconds: float
    best: bool


@dataclass(frozen=True)
class CheckpointInterval:
    """How often to save a checkpoint: a number of seconds or of images."""

    amount: float = 60.0
    unit: Literal["seconds", "images"] = "seconds"

    @staticmethod
    def parse(text: str) -> "CheckpointInterval":
        """Read 60s, 5m, 1h or 20000images."""
        budget = Budget.parse(text)
        if budget.unit == "epochs":
            raise InputError(f"--checkpoint-every takes a time or images, as in 60s; got '{text}'")
        return CheckpointInterval(budget.amount, budget.unit)


Event = Record | Notice | Previewed | MetricsLogged


class Trainer:
    """Train a run from its last checkpoint to its budget, or until an interruption.

        with Trainer(run, data) as trainer:
            for record in trainer.run():
                ...

    The block holds the directory's lock, the handlers of SIGINT and SIGTERM and the run's thread
    count. Its end releases them at once, wherever the loop stopped.
    """

    def __init__(
        self, run: Run, data: ImageSet, interval: CheckpointInterval = CheckpointInterval()
    ) -> None:  # noqa: B008 - frozen
        """Prepare to train `run` on `data`, with a checkpoint at each `interval`."""
        self._run, self.data, self.every = run, data, interval
        self.compute = run.config.machine.compute()
        self.ranks = self.compute.ranks
        self.plan = run.plan()
        self._held: contextlib.ExitStack | None = None  # within the block
        self.lines: list[str] = []  # of the metrics, since the last save
        self.logged = 0  # lines until then
        self.saved_at = time.monotonic()
        self.saved_images = 0
        self.roll_backs = 0
        self.online_metrics: OnlineMetrics | None = (
            None  # measures samples now and then, where configured
        )
        self.metrics_due = False
        self.metrics_cost = 0.0  # seconds that the next time will take
        self.metrics_rows: list[Mapping[str, Any]] = []  # rows of metrics so far

    def __enter__(self) -> "Trainer":
        """Take the lock, the signal handlers and the thread count, or none of them."""
        with contextlib.ExitStack() as stack:
            if self.ranks.first:
                stack.enter_context(_locked(self._run.path))
            self.interrupt = stack.enter_context(Interrupt())
            stack.enter_context(self.compute.active())
            self.state = self._run.fresh_state()
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release what `__enter__` took, in reverse order."""
        held, self._held = self._held, None
        assert held is not None
        held.close()

    def run(self) -> Iterator[Event]:
        """Yield a record per event of the training; save, log and draw in between.

        It resumes where the run stands. Outside of the `with` block it raises a RuntimeError.
        """
        records = self._records()
        while True:
            if self._held is None:
                raise RuntimeError(
                    "Trainer.run() was called outside of its block: write "
                    "`with Trainer(run, data) as trainer:` around the loop"
                )
            with self.compute.active():  # the caller's `next` may run in another thread
                record = next(records, None)
            if record is None:
                return
            yield record

    def _records(self) -> Iterator[Event]:
        """Resume if there is something to resume, train, and leave everything saved."""
        if self.ranks.first:
            self._run.write_config()
        yield from self._start()
        yield from self._start_metrics()
        while True:
            again = False
            for record in train(self.state, self.data, self.plan, self.compute):
                again = isinstance(record, Diverged)
                yield from self._handle(record)
                yield record
                # Never on a step that was left out: such a state is not saved.
                stepped = isinstance(record, Stepped) and not self.state.nonfinite_run
                if stepped and self.ranks.any(self.interrupt.requested):
                    self._save_for_all()
                    yield Stopped(self.state.images_seen, "interrupted")
                    return
            if not again:
                break
        self._save_for_all()

    def _save_for_all(self) -> None:
        """The last save; nobody leaves before it is done, since that would end the others."""
        self._save(final=True)
        self.ranks.barrier()

    def _start(self) -> Iterator[Notice]:
        self.lines, self.saved_at = [], time.monotonic()
        if self.ranks.broadcast_from_rank0(self._run.has("last")):
            saved, notice = self._recovered()
            if notice:
                yield Notice(notice)
            self.state.restore(saved)
            with self.ranks.rank0_first():
                self._forget_later_metrics()
            missing = saved.facts.get("logged", self.logged) - self.logged
            if missing > 0:
                yield Notice(f"{self._run.metrics} has lost {missing} lines: it was damaged")
            yield Notice(f"resumed at {self.state.images_seen} images")
        else:
            if self._rows():
                yield Notice(f"{self._run.path} has lost its checkpoints: training starts anew")
            if base := self._run.config.origin.init_from:
                weights, notice = Run.at(base).weights()
                if notice:
                    yield Notice(notice)
                self.state.initialize_from(weights)
            with self.ranks.rank0_first():
                self._forget_later_metrics()
            self._save(final=True)  # finds out at once whether the directory can be written
        self.saved_images = self.state.images_seen

    def _recovered(self) -> tuple[checkpoints.Checkpoint, str | None]:
        """The last state that is whole, and what happened to a later one."""
        saved, notice = read_checkpoint(self._run.last)
        if notice and self.ranks.first:
            with contextlib.suppress(OSError):  # the next save will say so
                checkpoints.restore(self._run.last)
        return saved, notice

    def _handle(self, record: Record) -> Iterator[Notice | Previewed | MetricsLogged]:
        """Do what each record needs, before the caller sees it."""
        match record:
            case Stepped():
                if self._crossed(self._run.config.training.log_every):
                    self._log("step", record, seconds=round(self.state.seconds, 3))
                if self._crossed(self._run.config.training.preview_every):
                    yield from self._preview()
                yield from self._measure()
                if self._at_snapshot():
                    yield from self._try_write(self._run.snapshot, self.state.weights())
                if self._save_due():
                    yield from self._try_save()
            case Validated():
                self._log("validation", record, seconds=round(self.state.seconds, 3))
                if record.best and self._run.config.training.best == "loss":
                    yield from self._try_write(self._run.best, self.state.weights())
            case Skipped() | MicroBatchReduced():
                self._log("event", record, what=EVENTS[type(record)])
            case Diverged():
                yield self._roll_back()

    def _crossed(self, every: int) -> bool:
        seen = self.state.images_seen
        return every > 0 and seen // every > (seen - self.plan.batch) // every

    def _at_snapshot(self) -> bool:
        """Whether this step reached the share of the budget at which weights are kept."""
        at, seen = self._run.config.training.snapshot * self.plan.images, self.state.images_seen
        return seen - self.plan.batch < at <= seen

    def _log(self, kind: str, record: Record | MetricsLogged, **more: object) -> None:
        self.lines.append(checksum.json_line({"kind": kind, **dataclasses.asdict(record), **more}))

    def _save_due(self) -> bool:
        if self.every.unit == "images":
            return self.state.images_seen - self.saved_images >= self.every.amount
        return time.monotonic() - self.saved_at >= self.every.amount

    def _try_save(self) -> Iterator[Notice]:
        """A save that may fail: training goes on, and tries again next time."""
        self.saved_at, self.saved_images = time.monotonic(), self.state.images_seen
        if not (self.ranks.first and self.state.healthy()):
            return
        try:
            self._save()
        except OSError as error:
            yield Notice(
                f"cannot save in {self._run.path}: {error.strerror or error}; training goes on "
                "and tries again, the last checkpoint is intact"
            )

    def _try_write(self, path: Path, tensors: Mapping[str, Any]) -> Iterator[Notice]:
        if not self.ranks.first:
            return
        try:
            checkpoints.write(path, tensors, self._facts({"images_seen": self.state.images_seen}))
        except OSError as error:
            yield Notice(f"cannot write {path}: {error.strerror or error}; training goes on")

    def _save(self, *, final: bool = False) -> None:
        """Write metrics, then the checkpoint; `final`: a failure is the user's to mend."""
        if not self.ranks.first:
            return
        with disk_errors_in_one_line(self._run.path) if final else contextlib.nullcontext():
            self._run.path.mkdir(parents=True, exist_ok=True)
            if self.lines:
                append_bytes(self._run.metrics, "".join(self.lines).encode())
                self.logged += len(self.lines)
                self.lines = []
            if self.state.healthy():
                facts = {**self.state.facts(), "logged": self.logged}
                checkpoints.write(self._run.last, self.state.tensors(), self._facts(facts))

    def _facts(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the configuration, from which config.toml can be mended."""
        return {**facts, "config": self._run.config_text()}

    def _forget_later_metrics(self) -> None:
        """Cut what a killed process logged after the checkpoint, and lines that are damaged."""
        kept = [row for row in self._rows() if row["images_seen"] <= self.state.images_seen]
        self.logged = len(kept)
        if not (self.ranks.first and self._run.metrics.exists()):
            return
        with disk_errors_in_one_line(self._run.path):
            text = "".join(map(checksum.json_line, kept))
            write_bytes(self._run.metrics, text.encode())

    def _rows(self) -> list[dict[str, Any]]:
        """What was logged."""
        if not self._run.metrics.exists():
            return []
        with disk_errors_in_one_line(self._run.path):
            rows, _ = checksum.read_rows(self._run.metrics)
        return [row for row in rows if isinstance(row.get("images_seen"), int)]

    def _roll_back(self) -> Notice:
        """Return to the last good checkpoint with half the learning rate."""
        self.roll_backs += 1
        if self.roll_backs > ROLL_BACKS:
            raise DivergenceError(
                f"training diverged {self.roll_backs} times, even at learning rate "
                f"{self.plan.learning_rate * self.state.lr_scale:.3g}: choose a lower "
                "training.learning_rate and another --out; the last good checkpoint is kept"
            )
        saved, _ = self._recovered()
        scale = self.state.lr_scale / 2
        self.state.restore(saved)
        self.state.lr_scale = scale
        self.lines = []
        self._forget_later_metrics()
        seen = self.state.images_seen
        self.metrics_rows = [row for row in self.metrics_rows if row["images_seen"] <= seen]
        return Notice(
            f"the loss is not finite any more: rolled back to {self.state.images_seen} images, "
            f"learning rate now {self.plan.learning_rate * scale:.3g}"
        )

    def _averaged(self) -> Model:
        """Return a model with the averaged weights; the training network stays as it is."""
        denoiser, seen = self.state.ema_denoiser, self.state.images_seen
        model = self._run.model_of(denoiser, self.compute, seen)
        return model.changed(autoguidance=1)  # the snapshot may not be there yet

    def _preview(self) -> Iterator[Notice | Previewed]:
        """A grid of few-step samples with the averaged weights, one row per class."""
        model = self._averaged()
        few = min(PREVIEW_EVALUATIONS, model.sampling.evaluations)
        rows = min(10, len(model.classes))
        drawing = SampleBatch.of(torch.arange(rows).repeat_interleave(PREVIEW_ROW))
        model = model.changed(evaluations=few)
        try:
            images = model.sample_batch(drawing)
        except NOT_FINITE as error:
            yield Notice(f"no preview at {self.state.images_seen} images: {error}")
            return
        if not self.ranks.first:
            return
        path = self._run.path / "samples" / f"{self.state.images_seen:09d}.png"
        grid = imaging.grid(images, PREVIEW_ROW, scale=2)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            imaging.save_png(grid, path)
        except OSError as error:
            yield Notice(f"cannot write {path}: {error.strerror or error}; training goes on")
            return
        yield Previewed(path)

    def _start_metrics(self) -> Iterator[Notice]:
        """Prepare to measure samples, where the configuration wants it; say what it costs."""
        settings = self._run.config.training
        if settings.metrics_every == 0:
            return
        with self.ranks.rank0_first():  # the first makes the classifier, where there is none yet
            self.online_metrics = OnlineMetrics.of(
                self.data, settings.metrics_images, self.compute.device
            )
        self.metrics_cost = self.ranks.broadcast_from_rank0(
            self.online_metrics.cost(self._averaged())
        )
        yield Notice(
            f"metrics: measuring {settings.metrics_images:,} samples takes about "
            f"{self.metrics_cost:.0f} s, every {settings.metrics_every:,} images and never more "
            f"than {settings.metrics_share:.0%} of the training time"
        )
        self.metrics_rows = [row for row in self._rows() if row.get("kind") == "metrics"]

    def _measure(self) -> Iterator[Notice | MetricsLogged]:
        """Measure samples when it is time and the share of the training time allows it."""
        settings = self._run.config.training
        self.metrics_due = self.metrics_due or self._crossed(settings.metrics_every)
        spent = sum(row["seconds"] for row in self.metrics_rows)
        if self.online_metrics is None or not self.metrics_due:
            return
        if spent + self.metrics_cost > settings.metrics_share * self.ranks.broadcast_from_rank0(
            self.state.seconds
        ):
            return
        self.metrics_due = False
        started, model = time.perf_counter(), self._averaged()
        try:
            values = self.online_metrics.measure(model)
        except NOT_FINITE as error:
            yield Notice(f"no metrics at {self.state.images_seen} images: {error}")
            return
        self.metrics_cost = self.ranks.broadcast_from_rank0(time.perf_counter() - started)
        best = self._beats(values)
        record = MetricsLogged(
            self.state.images_seen, values, settings.metrics_images, self.metrics_cost, best
        )
        self._log("metrics", record)
        self.metrics_rows.append({**dataclasses.asdict(record), "kind": "metrics"})
        if best:
            yield from self._try_write(self._run.best, self.state.weights())
        yield record

    def _beats(self, values: Mapping[str, float]) -> bool:
        """Whether these values are the best so far, by the metric that decides."""
        name = self._run.config.training.best
        if name not in values:
            return False
        earlier = [row["values"][name] for row in self.metrics_rows if name in row["values"]]
        return all(beats(name, values[name], value) for value in earlier)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process trains in a directory; the lock dies with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock
        yield
        return
    with disk_errors_in_one_line(path):
        path.mkdir(parents=True, exist_ok=True)
        handle = (path / ".lock").open("w")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another process is training in {path}: wait for it") from error
        except OSError as error:  # some network drives know no locks
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
        yield
