"""Text: what a canvas shall show, as rows of classes.

"2026"              four classes, if the classes are characters
"3 8 1"             with gaps
"Sandal, Bag"       names separated by commas; nothing between two commas is a gap
"Sandal,Bag; Coat"  rows separated by semicolons
"""

from collections.abc import Sequence

from mezzotint.data import find_class
from mezzotint.errors import InputError

__all__ = ["GAP", "read_text"]

GAP = None
"""A place that is left empty."""


def read_text(text: str, classes: Sequence[str]) -> list[list[int | None]]:
    """Rows of places: the index of a class, or None for a gap. InputError names the closest.

    >>> read_text("2 6;1", "0123456789")
    [[2, None, 6], [1]]
    >>> read_text("bag, , coat", ["Coat", "Bag"])
    [[1, None, 0]]
    """
    rows = [_read_row(row.strip(), classes) for row in text.split(";")]
    if not any(place is not GAP for row in rows for place in row):
        raise InputError(f'{text!r} asks for no class: give some, as in "{_example(classes)}"')
    return rows


def _read_row(row: str, classes: Sequence[str]) -> list[int | None]:
    if "," in row:
        names = [name.strip() for name in row.split(",")]
    elif any(row.casefold() == name.casefold() for name in classes):
        names = [row]
    elif row.isdecimal() or any(len(name) == 1 for name in classes):
        names = [character.strip() for character in row]
    else:
        names = [row]
    return [find_class(classes, name) if name else GAP for name in names]


def _example(classes: Sequence[str]) -> str:
    """Three classes, as they are written."""
    single = all(len(name) == 1 for name in classes)
    return ("" if single else ",").join(classes[:3])
