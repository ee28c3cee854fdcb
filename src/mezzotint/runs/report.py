"""Write the page of a run, or of several side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.config.legacy import current_evaluation, current_table
from mezzotint.errors import InputError
from mezzotint.reporting.page import write_report
from mezzotint.runs.find import find
from mezzotint.runs.run import Run
from mezzotint.runtime.outputs import check_output, optional_path

__all__ = ["ReportRequest", "ReportResult", "execute", "report"]


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """Which runs to show on one page."""

    runs: Sequence[Run | str | Path]
    out: Path | None = None
    """FILE.html; None: report.html in the first run."""

    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """Where the page lies."""

    path: Path
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {"report": str(self.path), "bytes": self.bytes}


def report(
    *runs: Run | str | Path, out: str | Path | None = None, overwrite: bool = False
) -> ReportResult:
    """Write one self-contained HTML page: what was trained, what it draws, how good it is.

        mezzotint.report("runs/mnist")
        mezzotint.report("runs/a", "runs/b", out="compared.html")

    Args:
        runs: One run, or several side by side.
        out: FILE.html. None: report.html in the first run, which is replaced.
        overwrite: Replace `out` where it is already there.

    Returns:
        Where the page lies.

    Raises:
        InputError: There is no such run, or `out` cannot be written.

    """
    request = ReportRequest(runs=runs, out=optional_path(out), overwrite=overwrite)
    return execute(request)


def execute(request: ReportRequest) -> ReportResult:
    """Write the page that a request asks for."""
    if not request.runs:
        raise InputError("a report is of one run or more: name one")
    paths = [find(run).path for run in request.runs]
    if request.out is not None:
        check_output("--out", request.out, (".html",), overwrite=request.overwrite)
    out = request.out or paths[0] / "report.html"
    page = write_report(paths, out, current_table, current_evaluation)
    return ReportResult(path=page, bytes=page.stat().st_size)
