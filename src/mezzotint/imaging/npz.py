"""Images as .npz, read and written without pickle: our samples, and other programs' arrays."""

import json
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mezzotint.errors import DataError, InputError, is_out_of_memory
from mezzotint.imaging.checks import check_labels, check_suffix
from mezzotint.imaging.pixels import check_batch
from mezzotint.runtime.atomic import replacing

__all__ = [
    "LARGEST_NPZ",
    "NPZ_KEYS",
    "ImageArrays",
    "Samples",
    "load_arrays",
    "load_image_arrays",
    "load_npz",
    "save_npz",
]

LARGEST_NPZ = 8 * 2**30
"""Bytes unpacked; some kilobytes can promise a thousand times that."""


IMAGE_KEYS = ("images", "samples", "x", "arr_0")
"""Names under which programs keep images; the first that is there counts."""

LABEL_KEYS = ("labels", "y", "arr_1")
"""The same for labels."""

NPZ_KEYS = ("images", "labels", "styles", "style_names", "meta")


@dataclass(frozen=True)
class Samples:
    """What a samples .npz holds."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,)
    styles: Tensor  # float32 (N, K); K = 0 without styles
    style_names: tuple[str, ...]  # K
    meta: dict[str, Any]  # how they were made


@dataclass(frozen=True)
class ImageArrays:
    """What any .npz with images holds, whoever wrote it."""

    images: Tensor
    """uint8 (N, C, H, W)."""

    labels: Tensor | None
    """int64 (N,), of unknown range; None where there are none."""

    styles: Mapping[str, Tensor] = field(default_factory=dict)
    """Requested styles of each image, float64 (N,) by name; nan: none."""


def save_npz(
    path: Path,
    images: Tensor,
    labels: Tensor,
    meta: Mapping[str, Any],
    styles: Tensor | None = None,
    style_names: Sequence[str] = (),
) -> Path:
    """Write samples as .npz, readable without pickle; returns the path.

    path: ends in .npz.
    images: uint8 (N, C, H, W).
    labels: integers (N,), stored as int64.
    meta: plain values, stored as a JSON string.
    styles: (N, K), stored as float32; None: K = 0.
    style_names: K names.
    """
    check_suffix(path, ".npz")
    check_labels(images, labels)
    styles = torch.zeros(len(images), 0) if styles is None else styles
    _check_styles(images, styles, style_names)
    arrays = {
        "images": images.cpu().numpy(),
        "labels": labels.cpu().to(torch.int64).numpy(),
        "styles": styles.cpu().float().numpy(),
        "style_names": np.array(list(style_names), dtype=np.str_),
        "meta": np.array(json.dumps(dict(meta), ensure_ascii=False)),
    }
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return path


def load_arrays(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an .npz, none of them pickled; only those of these names, or all.

    `DataError` for a file that is missing, broken, or larger than `LARGEST_NPZ` once unpacked.
    """
    with _readable(path), zipfile.ZipFile(path) as parts:
        size = sum(part.file_size for part in parts.infolist())
    if size > LARGEST_NPZ:
        limit = f"{LARGEST_NPZ / 2**30:.0f} GiB is the most"
        raise DataError(f"{path} unpacks to {size / 2**30:,.0f} GiB; {limit}")
    with _readable(path), np.load(path, allow_pickle=False) as file:
        wanted = [name for name in file.files if only is None or name in only]
        return {name: file[name] for name in wanted}


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise what the libraries say of a file as a DataError."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; make it with `mezzotint sample`") from None
    # Somebody else's file lies behind this: whatever goes wrong there, the answer is the same.
    except Exception as error:
        if is_out_of_memory(error):
            raise  # the file may be whole
        raise DataError(f"{path} cannot be read as .npz ({error})") from error


@contextmanager
def _content_of(path: Path) -> Iterator[None]:
    """Raise what is wrong with arrays from a file as a DataError: nobody gave them."""
    try:
        yield
    except InputError as error:
        raise DataError(f"{path}: {error}") from error


def load_npz(path: Path) -> Samples:
    """Read what `save_npz` wrote; `DataError` for a file that is missing, broken or other."""
    arrays = load_arrays(path)
    if missing := [key for key in NPZ_KEYS if key not in arrays]:
        raise DataError(f"{path} lacks {', '.join(missing)}; needed: {', '.join(NPZ_KEYS)}")
    try:
        images, labels, styles = (torch.from_numpy(arrays[key]) for key in NPZ_KEYS[:3])
        style_names = tuple(str(name) for name in arrays["style_names"])
        meta = dict(json.loads(str(arrays["meta"])))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{path} holds no samples of ours ({error})") from error
    with _content_of(path):
        check_labels(images, labels)
        _check_styles(images, styles, style_names)
    return Samples(images, labels, styles, style_names, meta)


def load_image_arrays(path: Path) -> ImageArrays:
    """Read the images of an .npz that any program wrote.

    Args:
        path: The file. Images are the array named in `IMAGE_KEYS`, else the only 4-dimensional
            one: uint8 (N, C, H, W), (N, H, W, C) or (N, H, W). Labels are that of `LABEL_KEYS`.

    Returns:
        Images as (N, C, H, W), with labels where the file has them and styles where we wrote it.

    Raises:
        DataError: The file is missing or broken, holds no images, or arrays that do not fit them.

    """
    arrays = load_arrays(path)
    images, labels = _images(arrays, path), _first(arrays, LABEL_KEYS)
    if labels is not None and labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} holds {labels.dtype} labels: they must be integers, the index of a class for "
            "each image"
        )
    if labels is not None and labels.shape != images.shape[:1]:
        raise DataError(f"{path} holds {len(images)} images and labels {labels.shape}")
    tensor = torch.from_numpy(np.ascontiguousarray(images))
    with _content_of(path):
        check_batch(tensor)
    return ImageArrays(
        tensor,
        None if labels is None else torch.from_numpy(labels.astype(np.int64)),
        _styles(arrays, len(images), path),
    )


def _images(arrays: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """The images among the arrays, uint8 (N, C, H, W)."""
    images = _first(arrays, IMAGE_KEYS)
    deep = [array for array in arrays.values() if array.ndim == 4]
    if images is None and len(deep) == 1:
        images = deep[0]
    if images is None or images.ndim not in (3, 4):
        raise DataError(
            f"{path} holds no images: name an array 'images', uint8 (N, C, H, W); it has "
            + (", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "no array")
        )
    if images.dtype != np.uint8:
        raise DataError(
            f"{path} holds {images.dtype} images: they must be uint8, 0 to 255; for values in "
            "[-1, 1] that is round((x + 1) * 127.5)"
        )
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return images.transpose(0, 3, 1, 2)
    return images


def _styles(arrays: Mapping[str, np.ndarray], n: int, path: Path) -> dict[str, Tensor]:
    """Return the requested styles in an .npz of this library; none of other programs'."""
    table, names = arrays.get("styles"), arrays.get("style_names")
    if table is None or names is None or names.size == 0:
        return {}
    if table.shape != (n, names.size) or table.dtype.kind not in "fiu":
        raise DataError(
            f"{path} holds styles {table.dtype} {table.shape} for {n} images and "
            f"{names.size} names: they must be numbers, images by names"
        )
    columns = torch.from_numpy(table.astype(np.float64)).T
    return dict(zip(map(str, names.ravel()), columns, strict=True))


def _first(arrays: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _check_styles(images: Tensor, styles: Tensor, style_names: Sequence[str]) -> None:
    """Refuse styles that are not one number for each image and name."""
    needed = (len(images), len(style_names))
    if tuple(styles.shape) != needed:
        raise InputError(f"styles must be {needed}, images by names; given {tuple(styles.shape)}")
