"""Files: PNG, GIF and WebP, folders of images with a manifest, and .npz.

Files are written under a temporary name and then renamed: a full disk or a killed process never
leaves half a picture.
"""

import io
import json
import math
import os
import re
import struct
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mezzotint.errors import InputError
from mezzotint.imaging.pixels import check_batch, to_pillow

__all__ = [
    "Samples",
    "folder_names",
    "manifest_classes",
    "is_whole_png",
    "load_arrays",
    "load_npz",
    "replacing",
    "save_animation",
    "save_folder",
    "save_npz",
    "save_png",
]

MANIFEST = "manifest.jsonl"
LARGEST_NPZ = 8 * 2**30
"""Bytes unpacked; some kilobytes can promise a thousand times that."""

NPZ_KEYS = ("images", "labels", "styles", "style_names", "meta")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` only once it is complete; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def save_png(image: Tensor, path: Path) -> Path:
    """Write a picture uint8 (C, H, W) as PNG, losslessly; returns the path."""
    _check_suffix(path, ".png")
    picture = to_pillow(image)
    with replacing(path) as file:
        picture.save(file, format="PNG")
    return path


def is_whole_png(data: bytes) -> bool:
    """Whether these bytes are a PNG whose checksums are right."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError):
        return False
    return True


def save_animation(frames: Sequence[Tensor], path: Path, *, seconds_per_frame: float) -> Path:
    """Write pictures uint8 (C, H, W) of one shape as an endless .gif or .webp; returns the path.

    A frame equal to the one before it is not stored again: that one is shown longer. WebP and
    grey GIF are lossless; a GIF in colour has 256 colours a frame.

    frames: at least one.
    path: its suffix chooses the format.
    seconds_per_frame: at least 0.02, since viewers slow down what is faster; GIF rounds it
        to hundredths of a second.
    """
    _check_suffix(path, ".gif", ".webp")
    if not 0.02 <= seconds_per_frame < math.inf:
        raise InputError(f"seconds_per_frame is {seconds_per_frame}; it must be at least 0.02")
    if len({tuple(frame.shape) for frame in frames}) != 1:
        raise InputError("an animation needs at least one frame, and all of one shape")
    first, *others = [to_pillow(frame) for frame in frames]
    gif = path.suffix.lower() == ".gif"
    duration = 10 * round(100 * seconds_per_frame) if gif else round(1000 * seconds_per_frame)
    form: dict[str, Any] = {"format": "GIF"} if gif else {"format": "WEBP", "lossless": True}
    with replacing(path) as file:
        first.save(file, save_all=True, append_images=others, duration=duration, loop=0, **form)
    return path


def folder_names(classes: Sequence[str]) -> list[str]:
    """A folder name for each class: safe on every file system, and no two alike.

    >>> folder_names(["T-shirt/top", "Sandal", "T-shirt:top"])
    ['T-shirt_top', 'Sandal', 'T-shirt_top_2']
    """
    names: list[str] = []
    taken = {MANIFEST}
    for name in classes:
        safe = re.sub(r"[^\w.+-]", "_", name)[:60].strip(".") or "class"
        unique, count = safe, 1
        while unique.casefold() in taken:  # some file systems ignore case
            count += 1
            unique = f"{safe}_{count}"
        taken.add(unique.casefold())
        names.append(unique)
    return names


def save_folder(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    folder: Path,
    extra: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write CLASS/00000.png, counted within its class, and manifest.jsonl; returns the latter.

    The manifest has one JSON object an image, in the order of `images`: file (relative to the
    folder), label, class, index (position in `images`), then what `extra` adds. It is written
    last, so a folder that has one is complete. Nothing that exists is overwritten.

    images: uint8 (N, C, H, W).
    labels: integers (N,), positions in `classes`.
    classes: the names; characters a file name cannot have become "_" (`folder_names`).
    folder: made if missing; must hold neither a manifest nor folders of these names.
    extra: N mappings of plain values, such as the seed; None for nothing more.
    """
    _check_labels(images, labels)
    rows = _manifest(labels.tolist(), classes, extra)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    names = {MANIFEST} | {row["file"].split("/")[0] for row in rows}
    if taken := sorted(name for name in names if (folder / name).exists()):
        raise InputError(f"{folder} already holds {', '.join(taken)}; choose a new folder")
    for image, row in zip(images.cpu(), rows, strict=True):
        save_png(image, folder / row["file"])
    with replacing(folder / MANIFEST) as file:
        file.write("".join(lines).encode())
    return folder / MANIFEST


def manifest_classes(folder: Path) -> dict[str, str]:
    """The classes of a folder that `save_folder` wrote, in their order, by the subfolder's name.

    Empty where there is no manifest. InputError where there is one that it did not write.
    """
    path, found = folder / MANIFEST, set()
    if not path.is_file():
        return {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            label, file, name = row["label"], row["file"], row["class"]
            name.encode()  # half a character cannot be shown
            found.add((int(label), file.split("/")[0], name))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a manifest of class folders") from error
    if any(len({each[k] for each in found}) < len(found) for k in range(3)):
        raise InputError(f"{path} calls a class by two names, or two classes by one")
    return {own: name for _, own, name in sorted(found)}


def _manifest(
    labels: Sequence[int], classes: Sequence[str], extra: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """One row for each image; the files of a class are counted from 0."""
    if not 0 <= min(labels) <= max(labels) < len(classes):
        given = f"{min(labels)} to {max(labels)}"
        raise InputError(f"labels are {given}, but the {len(classes)} classes are 0 and up")
    if extra is not None and len(extra) != len(labels):
        raise InputError(f"extra has {len(extra)} entries for {len(labels)} images")
    names = folder_names(classes)
    counts = [0] * len(classes)
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(labels):
        file = f"{names[label]}/{counts[label]:05d}.png"
        counts[label] += 1
        row = {"file": file, "label": label, "class": classes[label], "index": index}
        more = {} if extra is None else extra[index]
        if clash := sorted(row.keys() & more.keys()):
            raise InputError(f"extra may not set {', '.join(clash)}; choose another name")
        rows.append({**row, **more})
    return rows


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
    _check_suffix(path, ".npz")
    _check_labels(images, labels)
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
    _check_labels(images, labels)
    _check_styles(images, styles, style_names)
    return Samples(images, labels, styles, style_names, meta)


def _check_suffix(path: Path, *allowed: str) -> None:
    """Refuse a file name that promises another format."""
    if path.suffix.lower() not in allowed:
        raise InputError(f"{path} does not end in {' or '.join(allowed)}; rename it")


def _check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one integer for each image."""
    check_batch(images)
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        given = f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(f"labels must be integers ({len(images)},), one an image; given {given}")


def _check_styles(images: Tensor, styles: Tensor, style_names: Sequence[str]) -> None:
    """Refuse styles that are not one number for each image and name."""
    needed = (len(images), len(style_names))
    if tuple(styles.shape) != needed:
        raise InputError(f"styles must be {needed}, images by names; given {tuple(styles.shape)}")
