"""The library's front door: train a run, load a model. The command line goes through it too."""

import sys
from collections.abc import Iterable
from pathlib import Path

from mezzotint.model import Model
from mezzotint.progress import follow
from mezzotint.run import Pick, Run
from mezzotint.session import Every, advance
from mezzotint.start import Request, prepare, warnings

__all__ = ["load", "train"]


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
    begin_from: str | Path | None = None,
    checkpoint_every: Every = Every(),  # noqa: B008 - frozen
) -> Run:
    """Train on a source, or go on with the run that lies at `out`; shows its progress.

    source: a name (digits, mnist, fashion-mnist, cifar10), a folder, or hf:OWNER/NAME.
    preset: a name from `mezzotint.config.preset_names()`, a TOML file; None: the source's own.
    budget: the run's total: 40s, 10m, 1h, 30epochs, 20000images; None: the run's own, else the
        preset's.
    limit: train on so many images, classes in balance; None: all.
    size: resize every image to size x size pixels; None: as they are.
    styles: to learn beside the label, as in ("thickness", "slant"); see `mezzotint data --styles`.
    settings: `key=value` changes of the preset, as in `training.batch=64`.
    begin_from: a run whose weights a new one begins with, as far as they fit; None: at random.

    Returns the run; InputError for whatever cannot work. Interrupt it and call it again.
    """
    request = Request(
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
        begin_from=Path(begin_from) if begin_from is not None else None,
    )
    run, data = prepare(request, say)
    for warning in warnings(run.config, run.config.data):
        say(f"warning: {warning}")
    follow(run, advance(run, data, checkpoint_every))
    return run


def load(
    run: Run | str | Path,
    *,
    weights: str = "ema",
    checkpoint: str = "last",
    device: str = "auto",
    weak: bool | None = None,
) -> Model:
    """The model of a run, ready to draw.

    weights: "ema", the averaged weights, or "network", those of the last step.
    checkpoint: "last", "best" by validation loss (or what `training.best` says), or "early".
    device: "auto" (the run's own where this machine has it), "cpu", "cuda" or "mps".
    weak: whether the early snapshot comes along, for autoguidance; None: where the run's own
        sampling settings ask for it.
    """
    found = run if isinstance(run, Run) else Run.at(run, say)
    model, notices = found.model(Pick(weights, checkpoint, device, weak))
    for notice in notices:
        say(notice)
    return model


def say(line: str) -> None:
    """Tell the user something, on standard error."""
    print(line, file=sys.stderr, flush=True)
