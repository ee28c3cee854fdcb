"""Whole small-image data sets as one uint8 tensor each.

    digits = load("digits")                 # embedded: 8x8, grey
    images, labels = digits.split("train")  # uint8 (N, C, H, W), int64 (N,)

A source is a name (`SOURCES`), a folder of class subfolders, a folder of parquet files, or
`hf:OWNER/NAME`. Nothing heavy is imported before a source is read.
"""

from mezzotint.data.augment import Augment
from mezzotint.data.image_set import ImageSet, find_class
from mezzotint.data.sources import SOURCES, Source, load
from mezzotint.data.splits import spread
from mezzotint.data.styles.style import Style, standards

__all__ = [
    "SOURCES",
    "Augment",
    "ImageSet",
    "Source",
    "Style",
    "find_class",
    "load",
    "spread",
    "standards",
]
