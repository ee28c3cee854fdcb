"""Train a run, or go on with one."""

from collections.abc import Iterable
from pathlib import Path

from mezzotint.config.legacy import renamed_keywords
from mezzotint.runs.progress import follow
from mezzotint.runs.run import Run
from mezzotint.runs.setup import TrainRequest, setup, warnings
from mezzotint.runs.trainer import CheckpointInterval, Trainer
from mezzotint.runtime.log import log

__all__ = ["train"]


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
    device: str = "auto",
    data_dir: str | Path | None = None,
    init_from: str | Path | None = None,
    checkpoint_every: CheckpointInterval = CheckpointInterval(),  # noqa: B008 - frozen
) -> Run:
    """Train on a source, or go on with the run that lies at `out`; shows its progress.

    source: a name (digits, mnist, fashion-mnist, cifar10), a folder, or hf:OWNER/NAME.
    preset: a name from `mezzotint.config.preset_names()`, a TOML file; None: the source's own.
    budget: the run's total: 40s, 10m, 1h, 30epochs, 20000images; None: the run's own, else the
        preset's.
    limit: train on so many images, classes in balance; None: all.
    size: resize every image to size x size pixels; None: as they are.
    styles: besides the label, as in ("thickness", "slant"); see `mezzotint data --styles`.
    settings: `key=value` changes of the preset, as in `training.batch=64`.
    init_from: a run whose weights a new one starts with, as far as they fit; None: at random.

    Returns the run; a MezzotintError for whatever cannot work. Interrupt it and call it again.
    """
    request = TrainRequest(
        source=str(source),
        out=Path(out),
        preset=preset,
        budget=budget,
        limit=limit,
        size=size,
        styles=tuple(styles),
        settings=tuple(settings),
        device=device,
        data_dir=Path(data_dir) if data_dir is not None else None,
        init_from=Path(init_from) if init_from is not None else None,
    )
    run, data = setup(request)
    for warning in warnings(run.config, run.config.data):
        log.warning(warning)
    with Trainer(run, data, checkpoint_every) as trainer:
        follow(run, trainer.run())
    return run
