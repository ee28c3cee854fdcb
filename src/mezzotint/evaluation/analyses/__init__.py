"""Analyses: the parts of an evaluation that are more than a metric, one module each.

An analysis is a function of an `EvaluationContext`. They are independent of each other. A new one
is a module and an entry in `ANALYSES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint.evaluation.context import EvaluationContext

__all__ = ["ANALYSES", "Analysis"]

Json = dict[str, Any]


@dataclass(frozen=True)
class Analysis:
    """One part of an evaluation."""

    name: str
    run: Callable[["EvaluationContext"], Json | None]
    """Returns plain JSON; None where the context lacks what it needs, or for pictures alone."""

    needs_labels: bool = False
    """Whether it needs to know the intended class of every image."""

    in_default: bool = True
    """Whether it is made where the user names no metrics."""

    always: bool = False
    """Whether it belongs to every evaluation and has no name that a user can give."""

    path: tuple[str, ...] | None = None
    """Keys in the evaluation's JSON below which its own keys go; None: its name."""

    def put(self, found: Json, result: Json) -> None:
        """Add what `run` returned to the evaluation's JSON."""
        for key in (self.name,) if self.path is None else self.path:
            result = result.setdefault(key, {})
        result.update(found)


def _imported(module: str) -> Callable[["EvaluationContext"], Json | None]:
    """Return `analyse` of a module of this package, which is imported at the first call."""

    def run(context: "EvaluationContext") -> Json | None:
        found: Json | None = import_module(f"{__name__}.{module}").analyse(context)
        return found

    return run


ANALYSES = (
    Analysis(
        "classes", _imported("classes"), needs_labels=True, always=True, path=()
    ),
    Analysis("memorisation", _imported("memorisation")),
    Analysis("recognition", _imported("recognition")),
    Analysis("difficulty", _imported("difficulty"), needs_labels=True),
    Analysis("styles", _imported("styles"), needs_labels=True),
    Analysis("clip", _imported("clip"), needs_labels=True),
    Analysis(
        "cas", _imported("cas"), needs_labels=True, in_default=False,
        path=("metrics", "cas"),
    ),
    Analysis("sheets", _imported("sheets"), always=True),
)  # fmt: skip
"""All analyses, in the order of the evaluation's JSON."""
