"""Refuse names and labels that do not fit the images."""

from pathlib import Path

from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.imaging.pixels import check_batch

__all__ = ["check_labels", "check_suffix"]


def check_suffix(path: Path, *allowed: str) -> None:
    """Refuse a file name that promises another format."""
    if path.suffix.lower() not in allowed:
        raise InputError(f"{path} does not end in {' or '.join(allowed)}; rename it")


def check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one integer for each image."""
    check_batch(images)
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        found = f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(f"labels must be integers ({len(images)},), one an image; given {found}")
