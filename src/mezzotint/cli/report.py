"""`mezzotint report`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options
from mezzotint.cli.show import refuse_torchrun, show

EXAMPLES = (
    "mezzotint report runs/mnist",
    "mezzotint report runs/a runs/b --out compared.html",
)


def report(
    runs: Annotated[list[Path], typer.Argument(help="One run, or several side by side.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="FILE.html. Default: report.html in the (first) run.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Write one self-contained HTML page: what was trained, what it draws, how good it is."""
    refuse_torchrun("report")
    from mezzotint.runs.report import ReportRequest, execute

    request = ReportRequest(runs=tuple(runs), out=out, overwrite=overwrite)
    show(execute(request).to_json(), text, as_json)


def text(facts: Mapping[str, Any]) -> str:
    """Return the result for a person."""
    return f"{facts['report']}: one file, {facts['bytes'] / 1e6:.1f} MB; open it in a browser"
