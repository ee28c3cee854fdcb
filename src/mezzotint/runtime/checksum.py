"""Checksums of text files, which distinguish a damaged file from a whole one.

A flipped bit may leave a file that can be read and says something else: another learning rate,
another number. So a JSON object carries its checksum under `check`, and a text carries it in a
comment, its first line. A file without one (somebody's own, or an older one) is taken as it is.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "is_valid",
    "json_line",
    "strip_checksum",
    "strip_text_checksum",
    "read_rows",
    "with_checksum",
    "text_with_checksum",
]

CHECK = "check"
COMMENT = "# check "


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with its checksum."""
    plain = strip_checksum(
        json.loads(json.dumps(value))
    )  # as it will be read: lists, names that are text
    return {**plain, CHECK: _digest(json.dumps(plain, sort_keys=True))}


def is_valid(value: Mapping[str, Any]) -> bool:
    """Return whether an object that was read is what was written; True without a checksum."""
    said = json.dumps(strip_checksum(value), sort_keys=True)
    return CHECK not in value or value[CHECK] == _digest(said)


def strip_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object without its checksum."""
    return {name: item for name, item in value.items() if name != CHECK}


def json_line(row: Mapping[str, Any]) -> str:
    """One line of a file of JSON lines."""
    return json.dumps(with_checksum(row)) + "\n"


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the objects in a file of JSON lines, and the number of damaged lines."""
    found, damaged = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            damaged += 1
            continue
        if isinstance(row, dict) and is_valid(row):
            found.append(strip_checksum(row))
        else:
            damaged += 1
    return found, damaged


def text_with_checksum(text: str) -> str:
    """Return a text with its checksum in a comment above it, so that a cut end is noticed."""
    return f"{COMMENT}{_digest(text)}\n{text}"


def strip_text_checksum(text: str) -> str | None:
    """Return the text without its checksum; None where it is not what was written."""
    first, _, rest = text.partition("\n")
    if not first.startswith(COMMENT):
        return text
    return rest if first == COMMENT + _digest(rest) else None


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
