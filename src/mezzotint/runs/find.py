"""The library's front door: train a run, load a model. The command line goes through it too."""

from pathlib import Path

from mezzotint.config.legacy import renamed_keywords
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runtime.log import log
from mezzotint.sampling.model import Model

__all__ = ["load"]


@renamed_keywords(weak="guide_model")
def load(
    run: Run | str | Path,
    *,
    weights: str = "ema",
    checkpoint: str = "last",
    device: str = "auto",
    guide_model: bool | None = None,
) -> Model:
    """The model of a run, ready to draw.

    weights: "ema", the averaged weights, or "network", those of the last step.
    checkpoint: "last", "best" by validation loss (or what `training.best` says), or "early".
    device: "auto" (the run's own where this machine has it), "cpu", "cuda" or "mps".
    guide_model: whether the early snapshot comes along, for autoguidance; None: where the run's
        own sampling settings ask for it.
    """
    found = run if isinstance(run, Run) else Run.at(run)
    model, notices = found.model(CheckpointRef(weights, checkpoint, device, guide_model))
    for notice in notices:
        log.info(notice)
    return model
