"""A whole data set in one value: uint8 images (N, C, H, W) and the indices of its splits.

The statistics are those of the train split's pixels x / 127.5 - 1 in [-1, 1]. `deviation` is
the standard deviation about `mean`, not the root mean square: for MNIST 0.62, not 0.96.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mezzotint.data.augment import Augment
from mezzotint.data.styles.style import Style
from mezzotint.errors import InputError, suggest

__all__ = ["ImageSet", "find_class"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, labels, class names, splits, and what was measured on them.

    name         as a person would call it: "mnist", a folder's name, "hf:OWNER/NAME"
    images       uint8 (N, C, H, W); memory-mapped from the cache where the set is large
    labels       int64 (N,), indices into `classes`
    classes      one name per class
    splits       "train", "validation", "test" -> int64 indices into `images`, ascending;
                 a set with fewer than three images in every class has an empty test split
    mean         of the train pixels in [-1, 1]
    deviation    their standard deviation, same unit
    augment      what may be changed in a training image of this set
    fingerprint  hex digest of the source's content, the image shape and the splits; the same
                 on every machine and however the source got there
    styles       those that were asked for, K of them
    style_values float64 (N, K), one column for each; nan where it is not known
    """

    name: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    splits: Mapping[str, Tensor]
    mean: float
    deviation: float
    augment: Augment
    fingerprint: str
    styles: tuple[Style, ...] = ()
    style_values: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.float64))

    def styles_of(self, rows: Tensor) -> Tensor:
        """The styles of some images, float64 (n, K)."""
        if not self.styles:
            return torch.zeros(len(rows), 0, dtype=torch.float64)
        return self.style_values[rows]

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.images.shape[1]

    @property
    def height(self) -> int:
        """In pixels."""
        return self.images.shape[2]

    @property
    def width(self) -> int:
        """In pixels."""
        return self.images.shape[3]

    def split(self, name: str) -> tuple[Tensor, Tensor]:
        """Images uint8 (n, C, H, W) and labels int64 (n,) of one split, as copies in memory.

        Of a memory-mapped set, index `images` by pieces of `splits[name]` instead.
        """
        if name not in self.splits:
            raise InputError(f"{name!r} is not a split: {suggest(name, self.splits)}")
        chosen = self.splits[name]
        return self.images[chosen], self.labels[chosen]

    def class_index(self, label: str | int) -> int:
        """The class that a person means; see `find_class`."""
        return find_class(self.classes, label)


def find_class(classes: Sequence[str], label: str | int) -> int:
    """The class that a person means: its name, its name nearly (case, punctuation), its index.

    A name wins over an index: in a set with a class called "5", 5 and "5" are that class.
    InputError names the classes.
    """
    text = str(label)
    if text in classes:
        return list(classes).index(text)
    if re.fullmatch(r"[+-]?[0-9]+", text):
        # A number is never read loosely: -1 is not the class "1".
        if 0 <= int(text) < len(classes):
            return int(text)
    else:
        for form in (str.casefold, _plain):
            matches = [i for i, name in enumerate(classes) if form(name) == form(text)]
            if len(matches) == 1 and form(text):
                return matches[0]
    raise InputError(
        f"{text!r} is no class here, nor an index 0..{len(classes) - 1}: {suggest(text, classes)}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
