"""Where results go: refused before any work is done, if they could not be written afterwards."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mezzotint.errors import InputError

__all__ = ["check_output", "check_writable", "optional_path"]


def optional_path(path: str | Path | None) -> Path | None:
    """Return what a call names as a path; None stays None."""
    return None if path is None else Path(path)


def check_output(option: str, path: Path, kinds: Sequence[str], *, overwrite: bool) -> None:
    """InputError where a file of another kind is asked for, or something else lies already."""
    if path.suffix.lower() not in kinds:
        allowed = " or ".join(kind or "a folder" for kind in kinds)
        raise InputError(f"{option} {path}: choose {allowed}")
    if path.is_dir() and any(path.iterdir()):
        raise InputError(
            f"{option} {path} holds something already and is left alone: choose an empty or new "
            "folder"
        )
    if path.is_dir() and path.suffix:
        raise InputError(f"{option} {path} is a folder: choose another name")
    if path.is_file() and not (path.suffix and overwrite):
        raise InputError(f"{option} {path} is already there: another name, or --overwrite")
    check_writable(option, path, path.absolute().parents)


def check_writable(option: str, path: Path, places: Iterable[Path]) -> None:
    """InputError unless the first of these places that is there is a folder to write in."""
    there = next(place for place in places if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(
            f"{option} {path}: nothing can be written in {there}; choose another place"
        )
