"""Where results go: refused before any work is done, if they could not be written afterwards."""

from dataclasses import dataclass
from pathlib import Path

from mezzotint.errors import InputError
from mezzotint.runs.run import Run
from mezzotint.runtime.outputs import check_output, check_writable

__all__ = ["Outputs", "check_folder"]

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


def check_folder(out: Path | None, target: Path) -> None:
    """InputError where an evaluation could not be kept: in the folder --out, else in its run."""
    if out is not None or Run.is_at(target):
        folder = out or target
        check_writable("--out", folder, (folder.absolute(), *folder.absolute().parents))
