"""Seals: a digest beside what is kept as text, which tells a damaged file from a whole one.

A flipped bit may leave a file that can be read and says something else: another rate, another
number. So a JSON object carries its seal under `check`, and a text carries it in a comment, its
first line. What has no seal (somebody's own file, or an older one) is taken as it is.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["intact", "line", "opened", "opened_text", "rows", "sealed", "sealed_text"]

CHECK = "check"
COMMENT = "# check "


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its seal."""
    plain = opened(json.loads(json.dumps(value)))  # as it will be read: lists, names that are text
    return {**plain, CHECK: _digest(json.dumps(plain, sort_keys=True))}


def intact(value: Mapping[str, Any]) -> bool:
    """Whether an object that was read says what was written; True without a seal."""
    said = json.dumps(opened(value), sort_keys=True)
    return CHECK not in value or value[CHECK] == _digest(said)


def opened(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object without its seal."""
    return {name: item for name, item in value.items() if name != CHECK}


def line(row: Mapping[str, Any]) -> str:
    """One line of a file of JSON lines."""
    return json.dumps(sealed(row)) + "\n"


def rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects in a file of JSON lines, without their seals; and how many lines are damaged."""
    found, damaged = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            damaged += 1
            continue
        if isinstance(row, dict) and intact(row):
            found.append(opened(row))
        else:
            damaged += 1
    return found, damaged


def sealed_text(text: str) -> str:
    """A text with its seal, in a comment above it: what is cut off at the end is missed."""
    return f"{COMMENT}{_digest(text)}\n{text}"


def opened_text(text: str) -> str | None:
    """The text without its seal; None where it does not say what was written."""
    first, _, rest = text.partition("\n")
    if not first.startswith(COMMENT):
        return text
    return rest if first == COMMENT + _digest(rest) else None


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
