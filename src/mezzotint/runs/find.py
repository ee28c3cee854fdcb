"""RUN on a command line or in a call: find the run, load its model."""

import dataclasses
from functools import partial
from pathlib import Path

from mezzotint.config.legacy import renamed_keywords
from mezzotint.runs.run import CheckpointName, CheckpointRef, Run, Weights
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import optional_path
from mezzotint.sampling.model import Model

__all__ = ["find", "load", "load_model", "path_of"]


def find(run: Run | str | Path) -> Run:
    """Return the run in a directory, or the run itself.

    Raises:
        InputError: There is no run, or none that can be read.

    """
    return run if isinstance(run, Run) else Run.at(run)


def path_of(run: Run | str | Path) -> Path:
    """Return the path of a run, or of what else a call names."""
    return run.path if isinstance(run, Run) else Path(run)


@renamed_keywords(weak="guide_model")
def load(
    run: Run | str | Path,
    *,
    weights: Weights = "ema",
    checkpoint: CheckpointName = "last",
    device: str = "auto",
    guide_model: bool | None = None,
    data_dir: str | Path | None = None,
) -> Model:
    """Load the model of a run, ready to draw.

        model = mezzotint.load("runs/digits")
        images = model.sample(label="5", n=10)  # uint8 (10, 1, 8, 8)

    Args:
        run: A run's directory, or the `Run`.
        weights: "ema", the averaged weights, or "raw", those of the last step.
        checkpoint: "last", "best" by validation loss (or what `training.best` says), or
            "snapshot".
        device: "auto" (the run's own where this machine has it), "cpu", "cuda" or "mps".
        guide_model: Whether the early snapshot comes along, for autoguidance. None: where the
            run's own sampling settings ask for it.
        data_dir: Folder of named data sets, which a prompt looks for the run's data in.

    Returns:
        The model.

    Raises:
        InputError: There is no run, or an argument is unknown.

    """
    where = optional_path(data_dir)
    return load_model(find(run), CheckpointRef(weights, checkpoint, device, guide_model), where)


def load_model(run: Run, checkpoint: CheckpointRef, data_dir: Path | None = None) -> Model:
    """Return the model of one of a run's checkpoints, which can load the run's data."""
    model, notices = run.model(checkpoint)
    for notice in notices:
        log.info(notice)
    return dataclasses.replace(model, data=partial(run.images, data_dir))
