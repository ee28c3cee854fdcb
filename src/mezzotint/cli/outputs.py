"""Where results go: refused before any work is done, if they could not be written afterwards."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mezzotint.errors import InputError
from mezzotint.run import Run

__all__ = ["Outputs", "check_folder", "check_output"]

KINDS = {"--out": ("", ".png", ".npz"), "--strip": (".png",), "--animate": (".gif", ".webp")}
"""What each option of `sample` can name; "" is a folder."""


@dataclass(frozen=True)
class Outputs:
    """The outputs of `sample`."""

    out: Path | None
    strip: Path | None
    animate: Path | None
    overwrite: bool

    def check(self) -> None:
        """InputError before anything is drawn."""
        wanted = {"--out": self.out, "--strip": self.strip, "--animate": self.animate}
        if not any(wanted.values()):
            raise InputError(
                "nothing to write: give --out FILE.png, FILE.npz or a folder, --strip FILE.png "
                "or --animate FILE.gif"
            )
        named = [path.absolute() for path in wanted.values() if path is not None]
        if len(set(named)) < len(named):
            raise InputError("--out, --strip and --animate name one file twice: give each its own")
        for option, path in wanted.items():
            if path is not None:
                check_output(option, path, KINDS[option], overwrite=self.overwrite)


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
    _check_writable(option, path, path.absolute().parents)


def check_folder(out: Path | None, subject: Path) -> None:
    """InputError where an evaluation could not be kept: in the folder --out, else in its run."""
    if out is not None or Run.is_at(subject):
        folder = out or subject
        _check_writable("--out", folder, (folder.absolute(), *folder.absolute().parents))


def _check_writable(option: str, path: Path, places: Iterable[Path]) -> None:
    """InputError unless the first of these places that is there is a folder to write in."""
    there = next(place for place in places if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(
            f"{option} {path}: nothing can be written in {there}; choose another place"
        )
