"""Print the result of a command: text for a person, or one JSON object."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mezzotint.errors import InputError
from mezzotint.runtime.log import is_first_rank

Facts = Mapping[str, Any]
"""A result as plain JSON."""

__all__ = ["is_torchrun", "refuse_torchrun", "show", "table", "written_lines"]


def show(
    facts: Mapping[str, Any], text: Callable[[Mapping[str, Any]], str], as_json: bool
) -> None:
    """Print a result's JSON, or its text, on standard output; the first process alone does."""
    if is_first_rank():
        print(json.dumps(facts) if as_json else text(facts))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with aligned columns, the first to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return [line(head), *map(line, rows)]


def written_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return a line for each file that was written."""
    return [f"{kind}: {path}" for kind, path in facts["written"].items()]


def is_torchrun() -> bool:
    """Return whether torchrun started several processes of this command."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def refuse_torchrun(verb: str) -> None:
    """Refuse a verb that does not share its work."""
    if is_torchrun():
        raise InputError(f"{verb} works in one process: start it without torchrun")
