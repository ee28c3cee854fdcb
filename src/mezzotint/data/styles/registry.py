"""Every measure of an image by name: where it lies.

A new measure is a file with a `Measure` and a line here; its name there is its name here.
"""

from typing import TYPE_CHECKING

from mezzotint.runtime.registry import Entry, Registry, entry

if TYPE_CHECKING:
    from mezzotint.data.styles.measures import Measure

__all__ = ["MEASURES"]

MEASURES: "Registry[Measure, Entry]" = Registry(
    "measure",
    {
        "thickness": entry("mezzotint.data.styles.measures:THICKNESS"),
        "slant": entry("mezzotint.data.styles.measures:SLANT"),
        "length": entry("mezzotint.data.styles.measures:LENGTH"),
        "width": entry("mezzotint.data.styles.measures:WIDTH"),
        "consistency": entry("mezzotint.data.styles.measures:CONSISTENCY"),
        "tone": entry("mezzotint.data.styles.measures:TONE"),
        "brightness": entry("mezzotint.data.styles.measures:BRIGHTNESS"),
        "contrast": entry("mezzotint.data.styles.measures:CONTRAST"),
        "edges": entry("mezzotint.data.styles.measures:EDGES"),
        "outline": entry("mezzotint.data.styles.measures:OUTLINE"),
        "symmetry": entry("mezzotint.data.styles.measures:SYMMETRY"),
        "colourfulness": entry("mezzotint.data.styles.measures:COLOURFULNESS"),
    },
)
