"""What `evaluate` and `report` do, in the library's words."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mezzotint.cli.outputs import check_folder, check_output
from mezzotint.errors import DataError, InputError
from mezzotint.evaluation import evaluate as evaluation
from mezzotint.evaluation.request import EvaluateRequest
from mezzotint.evaluation.results import evaluation_of
from mezzotint.metrics.measured import compare as compared
from mezzotint.runs.run import Run

__all__ = ["evaluate", "evaluate_text", "report", "report_text", "table"]


def evaluate(request: EvaluateRequest, compare: Path | None) -> dict[str, Any]:
    """Evaluate, and compare with another evaluation where one is named."""
    theirs = _metrics_of(compare) if compare is not None else {}
    check_folder(request.out, request.target)
    result = evaluation.evaluate(request)
    if compare is not None:
        result["compared"] = {"with": str(compare), **_compared(result["metrics"], theirs)}
    return result


def _metrics_of(path: Path) -> dict[str, Any]:
    """The metrics of an evaluation that lies there; DataError where there are none."""
    found = evaluation_of(path).get("metrics")
    if not isinstance(found, dict) or not found:
        raise DataError(
            f"{path} holds no metrics to compare with: make them with mezzotint evaluate"
        )
    return found


def _compared(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """How far each of our metrics is from theirs, or why that cannot be said."""
    differences: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in ours:
        try:
            differences[name] = compared(ours, theirs, name)
        except InputError as error:  # no reason to lose what was evaluated
            reasons[name] = str(error)
    return {"differences": differences, "not_compared": reasons}


def evaluate_text(result: Mapping[str, Any]) -> str:
    """The result of `evaluate` for a person."""
    anchors: list[str] = []
    for metric in result["metrics"].values():
        anchors += [name for name in metric["anchors"] if name not in anchors]
    head = ["", "value", "real images", *anchors]
    rows = []
    for name, metric in result["metrics"].items():
        error = f" ± {metric['error']:.2g}" if metric["error"] is not None else ""
        rows.append(
            [
                name,
                _digits(metric["value"]) + error,
                _digits(metric["floor"]),
                *(_digits(metric["anchors"].get(anchor)) for anchor in anchors),
            ]
        )
    lines = [*result["summary"], "", *table(head, rows)]
    if "compared" in result:
        compared = result["compared"]
        lines += ["", f"difference to {compared['with']}:"]
        lines += [f"  {name} {value:+.4g}" for name, value in compared["differences"].items()]
        lines += [f"  {reason}" for reason in compared["not_compared"].values()]
    if "written" in result:
        lines += ["", f"written: {result['written']}"]
    return "\n".join(lines)


def report(runs: Sequence[Path], out: Path | None, overwrite: bool) -> dict[str, Any]:
    """Write the page of one run or of several."""
    from mezzotint.config.legacy import current_evaluation, current_table
    from mezzotint.reporting.page import write_report

    for path in runs:
        Run.at(path)  # refuses what is none
    if out is not None:
        check_output("--out", out, (".html",), overwrite=overwrite)
    page = write_report(runs, out or runs[0] / "report.html", current_table, current_evaluation)
    return {"report": str(page), "bytes": page.stat().st_size}


def report_text(result: Mapping[str, Any]) -> str:
    """The result of `report` for a person."""
    return f"{result['report']}: one file, {result['bytes'] / 1e6:.1f} MB; open it in a browser"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns, the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return [line(head), *map(line, rows)]
