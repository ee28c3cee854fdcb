"""Quality of each class, and the confusion matrix."""

from mezzotint.evaluation.context import Case, Json
from mezzotint.metrics import accuracy

__all__ = ["judge_classes"]


def judge_classes(case: Case) -> Json | None:
    """Return a row for each class, and the confusion matrix."""
    rows, samples, names = case.per_class, case.samples, case.data.classes
    if rows is None or samples.probabilities is None or samples.labels is None:
        return None
    table = accuracy.confusion(samples.probabilities, samples.labels, len(names))
    return {
        "per_class": rows,
        "confusion": {"classes": list(names), "rows": table.tolist()},
    }
