"""What to evaluate, and how."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from mezzotint.errors import InputError, suggest
from mezzotint.evaluation.analyses import metric_names, usual_names
from mezzotint.runs.run import CheckpointRef
from mezzotint.sampling.request import SamplingOptions

__all__ = ["EvaluateRequest"]


@dataclass(frozen=True)
class EvaluateRequest:
    """What to evaluate, and how."""

    target: Path
    """A run, a folder of images, or an .npz."""

    _: KW_ONLY
    against: str | None = None
    """The real images, a SOURCE; None: a run's own."""

    metrics: tuple[str, ...] = ()
    """Among `analyses.metric_names`, or "all"; (): all but cas."""

    n: int | None = None
    """Samples; None: as many as the reference split has, at most 10,000."""

    split: str = "test"
    extractor: str = "classifier"
    """classifier (of the data set itself), inception, dinov2, clip; NAME:WHERE: local weights."""

    clip: str = "clip"
    """The CLIP: clip (the data set's own, small), clip:ID (a hub id or a folder)."""

    seed: int = 0
    checkpoint: CheckpointRef = CheckpointRef()
    """Which of a run's weights to draw with."""

    options: SamplingOptions = SamplingOptions()
    """Sampling settings other than the run's."""

    out: Path | None = None
    """Folder for evaluation.json and pictures; None: the run; nothing is written for others."""

    compare: Path | None = None
    """Another run or evaluation.json, to whose metrics the differences are computed."""

    data_dir: Path | None = None
    command: str = ""
    """The command that made the request, for the report."""

    progress: bool | None = None

    def requested(self) -> tuple[str, ...]:
        """The names, checked."""
        if not self.metrics:
            return usual_names()
        known = metric_names()
        for name in self.metrics:
            if name not in (*known, "all"):
                raise InputError(f"no metric is called '{name}': {suggest(name, (*known, 'all'))}")
        return known if "all" in self.metrics else tuple(p for p in known if p in self.metrics)
