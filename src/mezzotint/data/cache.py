"""Decoded images, kept: one .npy of uint8 (N, C, H, W) per content and size, one .npz next to it.

    CACHE/<digest>-<size or own>-v<VERSION>.npy    the images
    CACHE/<digest>-<size or own>-v<VERSION>.npz    sums, squares (below) and the images' CRC-32
    CACHE/<digest>-<size or own>-v<VERSION>-NAME-m<version of the measure>.npz
                                                   a measure of every image, and its CRC-32

CACHE is `runtime.cache.cache_directory`. A key is made of the source's content, so a file is never
out of date; it may be deleted at any time. Files appear whole or not at all (`runtime.atomic`),
and a damaged one is written anew.

With s_i the sum and q_i the sum of squares of image i's pixels, exact integers, the statistics
of any subset of n images with P values each need no pixel:
    mean = sum s_i / (n P),  variance = sum q_i / (n P) - mean^2.
"""

import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mezzotint.data.encoded import Encoded
from mezzotint.data.pixels import Layout, fill, survey
from mezzotint.data.styles import measures
from mezzotint.data.styles.registry import MEASURES
from mezzotint.errors import DataError, InputError, is_out_of_memory
from mezzotint.imaging import load_arrays
from mezzotint.runtime.atomic import appearing, replacing
from mezzotint.runtime.cache import cache_directory
from mezzotint.runtime.log import log

__all__ = ["VERSION", "Pixels", "cache_directory", "decoded", "kept_measures"]

VERSION = 1  # of the rules in pixels.py and of the files' form: another number, another file
PIECE = 1024  # images measured at a time

DAMAGED = (DataError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What is raised for a kept file that is missing or damaged: by `load_arrays` a DataError, by
NumPy and by what looks into the arrays any of the others. Such a file is made again."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """The images uint8 (N, C, H, W), and per image the sum and the sum of squares, int64 (N,)."""

    images: Tensor
    sums: Tensor
    squares: Tensor

    def statistics(self, indices: Tensor) -> tuple[float, float]:
        """Mean and standard deviation of these images' pixels in [-1, 1], in float64."""
        count = len(indices) * self.images[0].numel()
        total, squares = int(self.sums[indices].sum()), int(self.squares[indices].sum())
        variance = (squares * count - total * total) / (count * count)  # exact up to the quotient
        return total / count / 127.5 - 1, variance**0.5 / 127.5


def decoded(encoded: Encoded, size: int | None, *, memory_budget: int) -> Pixels:
    """The set's pixels, from the cache where it has them.

    size           pixels, as in `pixels.survey`
    memory_budget  bytes: larger images are memory-mapped, and decoded straight to disk
    """
    path = cache_directory() / f"{encoded.digest}-{size or 'own'}-v{VERSION}.npy"
    found = _open(path, memory_budget)
    if found is not None:
        return found
    layout = survey(encoded, size)
    shape = (len(encoded.labels), *layout)
    bytes_needed = math.prod(shape)
    trouble, large = _trouble(path.parent, bytes_needed), bytes_needed > memory_budget
    if trouble and large:
        raise InputError(
            f"{shape[0]:,} images are too much for memory ({bytes_needed / 1e9:.1f} GB), and "
            f"{path.parent} cannot keep them ({trouble}): make room there, or set MEZZOTINT_CACHE "
            "to another folder"
        )
    if not trouble:
        log.info(f"decoding {shape[0]:,} images, once: kept in {path.parent}")
        if large:
            return _decoded_to_disk(path, encoded, layout)
    images = np.empty(shape, np.uint8)
    fill(images, encoded, layout)
    pixels = _measured(images)
    write = partial(_write_images, path, pixels)
    _keep(path.parent, bytes_needed, write, "images", "they are decoded")
    return pixels


def kept_measures(
    encoded: Encoded, size: int | None, images: Tensor, names: Sequence[str]
) -> Tensor:
    """The named `measures` of all images, float64 (N, K), from the cache where it has them."""
    found = {name: _open_measure(_measure_path(encoded, size, name)) for name in names}
    missing = [name for name, values in found.items() if values is None]
    if missing:
        log.info(f"measuring {', '.join(missing)} of {len(images):,} images, once")
        for name, values in zip(missing, measures.measured(images, missing).T, strict=True):
            found[name] = values
            path = _measure_path(encoded, size, name)
            write = partial(_write_measure, path, values)
            _keep(path.parent, values.nbytes, write, name, "it is measured")
    columns = [values for values in found.values() if values is not None]
    return torch.stack(columns, 1) if columns else torch.zeros(len(images), 0).double()


def _measure_path(encoded: Encoded, size: int | None, name: str) -> Path:
    """Of the same images as `decoded`'s, by the same formula."""
    file = f"{encoded.digest}-{size or 'own'}-v{VERSION}-{name}-m{MEASURES[name].version}.npz"
    return cache_directory() / file


def _write_measure(path: Path, values: Tensor) -> None:
    array = values.contiguous().numpy()
    with replacing(path) as file:
        np.savez(file, values=array, check=np.int64(zlib.crc32(array.data)))


def _open_measure(path: Path) -> Tensor | None:
    """What is kept there, whole; None for nothing, or nothing that can be trusted."""
    try:
        kept = load_arrays(path)
        values, check = kept["values"], int(kept["check"])
        if values.dtype != np.float64 or zlib.crc32(values.data) != check:
            return None
    except DAMAGED as error:
        if is_out_of_memory(error):
            raise
        return None
    return torch.from_numpy(values)


def _write_images(path: Path, pixels: Pixels) -> None:
    with replacing(path) as file:
        np.save(file, pixels.images.numpy())
    _write_sums(path, pixels)


def _decoded_to_disk(path: Path, encoded: Encoded, layout: Layout) -> Pixels:
    with appearing(path) as draft:
        images = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(encoded.labels), *layout))
        # A full disk under a memory map is no error but the end of the process: room first.
        if hasattr(os, "posix_fallocate"):
            with draft.open("rb+") as file:
                os.posix_fallocate(file.fileno(), 0, draft.stat().st_size)
        fill(images, encoded, layout)
        images.flush()
        pixels = _measured(images)
        del images
    _write_sums(path, pixels)
    # Copy on write, so that nobody's change to the tensor reaches the file.
    kept = torch.from_numpy(np.load(path, mmap_mode="c"))
    return Pixels(kept, pixels.sums, pixels.squares)


def _open(path: Path, memory_budget: int) -> Pixels | None:
    """What is kept there, whole; None for nothing, or nothing that can be trusted."""
    try:
        kept = load_arrays(path.with_suffix(".npz"))
        sums, squares, check = kept["sums"], kept["squares"], int(kept["check"])
        images = np.load(path, mmap_mode="c")
        if images.nbytes <= memory_budget:
            images = np.array(images)
            # Larger than memory there is no such look: it would read the whole file.
            if zlib.crc32(images.data) != check:
                return None
    except DAMAGED as error:
        if is_out_of_memory(error):
            raise  # the file is whole; to decode it again takes more memory still
        return None
    return Pixels(torch.from_numpy(images), torch.from_numpy(sums), torch.from_numpy(squares))


def _measured(images: np.ndarray) -> Pixels:
    """The images with their sums, piece by piece."""
    sums, squares = [], []
    for start in range(0, len(images), PIECE):
        flat = images[start : start + PIECE].reshape(-1, math.prod(images.shape[1:]))  # (n, P)
        sums.append(flat.sum(1, dtype=np.int64))
        squares.append(np.square(flat, dtype=np.uint16).sum(1, dtype=np.int64))  # 255^2 < 2^16
    return Pixels(
        torch.from_numpy(images),
        torch.from_numpy(np.concatenate(sums)),
        torch.from_numpy(np.concatenate(squares)),
    )


def _write_sums(path: Path, pixels: Pixels) -> None:
    with replacing(path.with_suffix(".npz")) as file:
        np.savez(
            file,
            sums=pixels.sums.numpy(),
            squares=pixels.squares.numpy(),
            check=np.int64(zlib.crc32(pixels.images.numpy().data)),
        )


def _keep(folder: Path, size: int, write: Callable[[], None], what: str, again: str) -> None:
    """Write `size` bytes; where the folder cannot keep them, a line says so and all goes on.

    again  what is done with `what` at every start then
    """
    trouble = _trouble(folder, size)
    if not trouble:
        try:
            write()
        except OSError as error:
            trouble = error.strerror
    if trouble:
        log.info(f"{folder} keeps no {what} ({trouble}): {again} at every start")


def _trouble(folder: Path, size: int) -> str | None:
    """Why `size` bytes cannot be kept in this folder, made if missing; None if they can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return error.strerror or type(error).__name__
    free = shutil.disk_usage(folder).free
    return None if free > size else f"{size / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free"
