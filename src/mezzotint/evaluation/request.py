"""What to evaluate, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mezzotint.errors import InputError, suggest
from mezzotint.evaluation.analyses import ANALYSES
from mezzotint.metrics import registry
from mezzotint.runs.run import CheckpointRef

__all__ = ["EXTRAS", "METRICS", "EvaluateRequest"]

EXTRAS = tuple(analysis.name for analysis in ANALYSES if not analysis.always)
"""Names of the analyses that `metrics` may name."""

METRICS = (*registry.GROUPS, *EXTRAS)
"""What `metrics` may name."""

USUAL = tuple(
    part for part in METRICS if part not in {each.name for each in ANALYSES if not each.in_default}
)
"""What an evaluation makes where `metrics` names nothing."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What to evaluate, and how."""

    target: Path
    """A run, a folder of images, or an .npz."""

    against: str | None = None
    """The real images, a SOURCE; None: a run's own."""

    metrics: tuple[str, ...] = ()
    """Names among `METRICS`, or "all"; (): all but cas."""

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

    changes: Mapping[str, object] = field(default_factory=dict)
    """Sampling settings other than the run's."""

    out: Path | None = None
    """Folder for evaluation.json and pictures; None: the run; nothing is written for others."""

    data_dir: Path | None = None
    command: str = ""
    """The command that made the request, for the report."""

    def requested(self) -> tuple[str, ...]:
        """The names, checked."""
        if not self.metrics:
            return USUAL
        for name in self.metrics:
            if name not in (*METRICS, "all"):
                raise InputError(
                    f"no metric is called '{name}': {suggest(name, (*METRICS, 'all'))}"
                )
        return METRICS if "all" in self.metrics else tuple(p for p in METRICS if p in self.metrics)
