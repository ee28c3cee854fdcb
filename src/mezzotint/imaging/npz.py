"""Samples as .npz, read and written without pickle."""

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.imaging.checks import check_labels, check_suffix
from mezzotint.runtime.atomic import replacing

__all__ = ["LARGEST_NPZ", "NPZ_KEYS", "Samples", "load_arrays", "load_npz", "save_npz"]

LARGEST_NPZ = 8 * 2**30
"""Bytes unpacked; some kilobytes can promise a thousand times that."""


NPZ_KEYS = ("images", "labels", "styles", "style_names", "meta")


@dataclass(frozen=True)
class Samples:
    """What a samples .npz holds."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,)
    styles: Tensor  # float32 (N, K); K = 0 without styles
    style_names: tuple[str, ...]  # K
    meta: dict[str, Any]  # how they were made


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

    `InputError` for a file that is missing, broken, or larger than `LARGEST_NPZ` once unpacked.
    """
    try:
        with zipfile.ZipFile(path) as parts:
            size = sum(part.file_size for part in parts.infolist())
        if size > LARGEST_NPZ:
            limit = f"{LARGEST_NPZ / 2**30:.0f} GiB is the most"
            raise InputError(f"{path} unpacks to {size / 2**30:,.0f} GiB; {limit}")
        with np.load(path, allow_pickle=False) as file:
            wanted = [name for name in file.files if only is None or name in only]
            return {name: file[name] for name in wanted}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; make it with `mezzotint sample`") from None
    except (InputError, MemoryError):
        raise
    # Somebody else's file lies behind this: whatever goes wrong there, the answer is the same.
    except Exception as error:
        raise InputError(f"{path} cannot be read as .npz ({error})") from error


def load_npz(path: Path) -> Samples:
    """Read what `save_npz` wrote; `InputError` for a file that is missing, broken or other."""
    arrays = load_arrays(path)
    if missing := [key for key in NPZ_KEYS if key not in arrays]:
        raise InputError(f"{path} lacks {', '.join(missing)}; needed: {', '.join(NPZ_KEYS)}")
    try:
        images, labels, styles = (torch.from_numpy(arrays[key]) for key in NPZ_KEYS[:3])
        style_names = tuple(str(name) for name in arrays["style_names"])
        meta = dict(json.loads(str(arrays["meta"])))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} holds no samples of ours ({error})") from error
    check_labels(images, labels)
    _check_styles(images, styles, style_names)
    return Samples(images, labels, styles, style_names, meta)


def _check_styles(images: Tensor, styles: Tensor, style_names: Sequence[str]) -> None:
    """Refuse styles that are not one number for each image and name."""
    needed = (len(images), len(style_names))
    if tuple(styles.shape) != needed:
        raise InputError(f"styles must be {needed}, images by names; given {tuple(styles.shape)}")
