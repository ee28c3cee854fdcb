"""Folders of images, a class a subfolder, with a manifest."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mezzotint.errors import DataError, InputError
from mezzotint.imaging.checks import check_labels
from mezzotint.imaging.png import save_png
from mezzotint.runtime.atomic import flush_together, write_bytes

__all__ = ["MANIFEST", "folder_names", "manifest_classes", "save_folder"]

MANIFEST = "manifest.jsonl"


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
    last, once the images are on the disk: a folder that has one is complete. Nothing that exists
    is overwritten.

    images: uint8 (N, C, H, W).
    labels: integers (N,), positions in `classes`.
    classes: the names; characters a file name cannot have become "_" (`folder_names`).
    folder: made if missing; must hold neither a manifest nor folders of these names.
    extra: N mappings of plain values, such as the seed; None for nothing more.
    """
    check_labels(images, labels)
    rows = _manifest(labels.tolist(), classes, extra)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    names = {MANIFEST} | {row["file"].split("/")[0] for row in rows}
    if taken := sorted(name for name in names if (folder / name).exists()):
        raise InputError(f"{folder} already holds {', '.join(taken)}; choose a new folder")
    for image, row in zip(images.cpu(), rows, strict=True):
        save_png(image, folder / row["file"], flush=False)
    flush_together(folder)  # one flush per picture takes 15 times as long as all the rest
    write_bytes(folder / MANIFEST, "".join(lines).encode())
    return folder / MANIFEST


def manifest_classes(folder: Path) -> dict[str, str]:
    """The classes of a folder that `save_folder` wrote, in their order, by the subfolder's name.

    Empty where there is no manifest. DataError where there is one that it did not write.
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
    # Somebody else's file may hold any JSON: numbers for tables, lists for texts.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} is not a manifest of class folders") from error
    if any(len({each[k] for each in found}) < len(found) for k in range(3)):
        raise DataError(f"{path} calls a class by two names, or two classes by one")
    return {own: name for _, own, name in sorted(found)}


def _manifest(
    labels: Sequence[int], classes: Sequence[str], extra: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """One row for each image; the files of a class are counted from 0."""
    if not 0 <= min(labels) <= max(labels) < len(classes):
        found = f"{min(labels)} to {max(labels)}"
        raise InputError(f"labels are {found}, but the {len(classes)} classes are 0 and up")
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
