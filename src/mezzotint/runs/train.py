"""Train a run, or go on with one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.config.legacy import renamed_keywords
from mezzotint.data import ImageSet
from mezzotint.reporting import figures
from mezzotint.runs.progress import follow
from mezzotint.runs.run import Run
from mezzotint.runs.setup import TrainRequest, setup, warnings
from mezzotint.runs.trainer import CheckpointInterval, Trainer
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.hardware import peak_memory
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import optional_path

__all__ = ["TrainRequest", "TrainResult", "execute", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a training went."""

    run: Run
    images_seen: int = 0
    stopped: str = ""
    """Why it ended: "budget used up", "interrupted", …"""

    curves: Path | None = None
    """Picture of the losses."""

    validation_loss: float | None = None
    best_validation_loss: float | None = None
    peak_memory_bytes: int = 0
    dry_run: bool = False

    @property
    def interrupted(self) -> bool:
        """Whether a signal or Ctrl-C ended it; the state is saved."""
        return self.stopped == "interrupted"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        config = self.run.config
        facts: dict[str, Any] = {
            "run": str(self.run.path),
            "source": config.origin.source,
            "images": config.machine.images,
            "device": config.machine.device,
            "precision": config.machine.precision,
        }
        if self.dry_run:
            return {**facts, "dry_run": True, "budget": config.training.budget}
        if self.curves is not None:
            facts["curves"] = str(self.curves)
        if self.validation_loss is not None:
            facts["validation_loss"] = self.validation_loss
            facts["best_validation_loss"] = self.best_validation_loss
        facts["images_seen"] = self.images_seen
        facts["stopped"] = self.stopped
        return {**facts, "peak_memory_bytes": self.peak_memory_bytes}


@renamed_keywords(begin_from="init_from")
def train(
    source: str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    budget: str | None = None,
    limit: int | None = None,
    size: int | None = None,
    styles: Iterable[str] = (),
    settings: Iterable[str] = (),
    init_from: str | Path | None = None,
    checkpoint_every: str | CheckpointInterval = CheckpointInterval(),  # noqa: B008 - frozen
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | None = None,
) -> Run:
    """Train on a source, or go on with the run that lies at `out`.

        run = mezzotint.train("digits", out="runs/digits", budget="60s")

    Interrupt it and call it again: it goes on where it stopped.

    Args:
        source: A name (digits, mnist, fashion-mnist, cifar10), a folder, or hf:OWNER/NAME.
        out: The run's directory, new or to go on with.
        preset: A preset's name or TOML file. None: the one recommended for the source.
        budget: The run's total: 40s, 10m, 1h, 30epochs, 20000images, 5Mimages. None: the run's
            own, else the preset's.
        limit: Number of training images to use, classes in balance. None: all.
        size: Resize every image to size x size pixels, 4 to 256. None: as they are.
        styles: Styles to learn besides the label, as in ("thickness", "slant").
        settings: Changes of the preset as key=value, as in "training.batch=64".
        init_from: A run whose weights a new one starts with, as far as they fit. None: random.
        checkpoint_every: Time or images between checkpoints: "60s", "5m", "20000images".
        device: "auto", "cpu", "cuda" or "mps".
        data_dir: Folder of named data sets, looked at before MEZZOTINT_DATA.
        progress: Show a bar: None where there is a terminal or notebook, True always.

    Returns:
        The run.

    Raises:
        InputError: A setting is unknown, out of range, or does not fit the run at `out`.

    """
    if isinstance(checkpoint_every, str):
        checkpoint_every = CheckpointInterval.parse(checkpoint_every)
    request = TrainRequest(
        source=str(source),
        out=Path(out),
        preset=preset,
        budget=budget,
        limit=limit,
        size=size,
        styles=tuple(styles),
        settings=tuple(settings),
        init_from=optional_path(init_from),
        checkpoint_every=checkpoint_every,
        device=device,
        data_dir=optional_path(data_dir),
        progress=progress,
    )
    return execute(request).run


def execute(request: TrainRequest) -> TrainResult:
    """Train what a request says; with `dry_run`, decide everything and write nothing."""
    run, data = setup(request)
    for warning in warnings(run.config, run.config.data):
        log.warning(warning)
    if request.dry_run:
        return TrainResult(run=run, dry_run=True)
    _log_start(run, data)
    with Trainer(run, data, request.checkpoint_every) as trainer:
        stopped = follow(run, trainer.run(), show=request.progress)
    curves: Path | None = None
    losses: list[float] = []
    if current_ranks().first and run.metrics.exists():
        curves = figures.loss_curves(run.metrics, run.path / "loss.png")
        losses = list(figures.read_losses(run.metrics)[1].loss)
    current_ranks().barrier()  # torchrun ends all when one is gone that was interrupted
    return TrainResult(
        run=run,
        images_seen=run.images_seen(),
        stopped=stopped.reason if stopped else "budget used up",
        curves=curves,
        validation_loss=losses[-1] if losses else None,
        best_validation_loss=min(losses, default=None),
        peak_memory_bytes=peak_memory(),
    )


def _log_start(run: Run, data: ImageSet) -> None:
    machine = run.config.machine
    log.info(
        f"training on {machine.device} in {machine.precision}: {machine.images:,} images "
        f"({machine.images / len(data.splits['train']):.3g} epochs)"
    )
