"""Composition: numbers, words and grids of classes on one canvas, drawn by the model itself.

Here: texts, layouts, windows that keep clear of each other, COCO boxes.
Not here: the command (`cli`).
"""

from mezzotint.editing.compose.coco import Ink, annotations, ink_box
from mezzotint.editing.compose.layout import LARGEST, Layout, Room, laid_out, rooms
from mezzotint.editing.compose.text import read_text
from mezzotint.editing.compose.windows import Windows

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
