"""Quality of each class, and the confusion matrix."""

from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.metrics import accuracy

__all__ = ["analyse"]


def analyse(context: EvaluationContext) -> Json | None:
    """Return a row for each class, and the confusion matrix."""
    rows, samples, names = context.per_class, context.reading, context.data.classes
    if rows is None or samples.probabilities is None or samples.labels is None:
        return None
    table = accuracy.confusion(samples.probabilities, samples.labels, len(names))
    return {
        "per_class": rows,
        "confusion": {"classes": list(names), "rows": table.tolist()},
    }
