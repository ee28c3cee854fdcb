"""Analyses: the parts of an evaluation that are more than a metric, one module each.

An analysis is a function of an `EvaluationContext`. They are independent of each other. A new one
is a module with `analyse` and a line in `ANALYSES`; the report shows it as tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mezzotint.metrics.registry import GROUPS
from mezzotint.runtime.registry import Entry, Registry

if TYPE_CHECKING:
    from mezzotint.evaluation.context import EvaluationContext

__all__ = ["ANALYSES", "Analysis", "metric_names", "usual_names"]

Json = dict[str, Any]

Analyse = Callable[["EvaluationContext"], Json | None]
"""Returns plain JSON; None where the context lacks what it needs, or for pictures alone."""


@dataclass(frozen=True)
class Analysis(Entry):
    """Where an analysis lies, and its part of an evaluation."""

    needs_labels: bool = False
    """Whether it needs to know the intended class of every image."""

    in_default: bool = True
    """Whether it is made where the user names no metrics."""

    always: bool = False
    """Whether it belongs to every evaluation and has no name that a user can give."""

    path: tuple[str, ...] | None = None
    """Keys in the evaluation's JSON below which its own keys go; None: its name."""

    def put(self, name: str, found: Json, result: Json) -> None:
        """Add what the analysis of that name returned to the evaluation's JSON."""
        for key in (name,) if self.path is None else self.path:
            result = result.setdefault(key, {})
        result.update(found)


HERE = "mezzotint.evaluation.analyses"

ANALYSES: "Registry[Analyse, Analysis]" = Registry(
    "analysis",
    {
        "classes": Analysis(f"{HERE}.classes:analyse", needs_labels=True, always=True, path=()),
        "memorisation": Analysis(f"{HERE}.memorisation:analyse"),
        "recognition": Analysis(f"{HERE}.recognition:analyse"),
        "difficulty": Analysis(f"{HERE}.difficulty:analyse", needs_labels=True),
        "styles": Analysis(f"{HERE}.styles:analyse", needs_labels=True),
        "clip": Analysis(f"{HERE}.clip:analyse", needs_labels=True),
        "cas": Analysis(
            f"{HERE}.cas:analyse", needs_labels=True, in_default=False, path=("metrics", "cas")
        ),
        "sheets": Analysis(f"{HERE}.sheets:analyse", always=True),
    },
)
"""All analyses, in the order of the evaluation's JSON."""


def metric_names() -> tuple[str, ...]:
    """Return what `evaluate --metrics` may name: groups of metrics, and analyses."""
    named = (name for name, analysis in ANALYSES.entries.items() if not analysis.always)
    return (*GROUPS, *named)


def usual_names() -> tuple[str, ...]:
    """Return what an evaluation makes where the user names no metrics."""
    asked = {name for name, analysis in ANALYSES.entries.items() if not analysis.in_default}
    return tuple(name for name in metric_names() if name not in asked)
