"""Readers: one file for each format that a data set comes in.

Here: functions from a folder, a table or the hub to an `Encoded`, which `data.sources` asks.
Not here: pixels (`data.pixels`), splits and the cache.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mezzotint.runtime.registry import Entry, Registry, entry

if TYPE_CHECKING:
    from mezzotint.data.encoded import Encoded

__all__ = ["READERS", "Reader"]


class Reader(Protocol):
    """A module that reads one format."""

    def accepts(self, path: Path, /) -> bool:
        """Return whether a folder or file that exists is of this format."""
        ...

    def read(self, path: Path, /) -> "Encoded":
        """Return the data set that lies there; InputError for what is wrong with it."""
        ...


READERS: "Registry[Reader, Entry]" = Registry(
    "reader",
    {
        "folder": entry("mezzotint.data.readers.folder"),
        "parquet": entry("mezzotint.data.readers.parquet"),
    },
)
"""Asked from the last to the first: `folder` takes every folder that no other accepts."""
