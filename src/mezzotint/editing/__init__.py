"""Editing: pictures that are larger than what a model draws, made by the model itself."""

from mezzotint.editing.boxes import Ink, annotations, ink_box
from mezzotint.editing.layout import LARGEST, Layout, Room, laid_out, rooms
from mezzotint.editing.text import read_text
from mezzotint.editing.windows import Windows

__all__ = [
    "LARGEST",
    "Ink",
    "Layout",
    "Room",
    "Windows",
    "annotations",
    "ink_box",
    "laid_out",
    "read_text",
    "rooms",
]
