"""A folder of pictures: one subfolder per class, the subfolder's name is the class name.

    FOLDER/cat/1.png, FOLDER/dog/2.jpg                one set, splits are cut from it
    FOLDER/train/cat/1.png, FOLDER/test/dog/2.jpg     the source's own splits
                                                      (validation, val or valid likewise)

    FOLDER/styles.csv        styles of somebody's own: a column "file", such as cat/1.png or
                             train/cat/1.png, and a column for each style

Classes and files are taken in sorted order (names that are numbers, by number), never in the
order of the file system. A folder that Mezzotint wrote says in its manifest.jsonl what its classes
are called, and which comes first: so a set that was drawn or filtered has those of its model.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from mezzotint.data.encoded import Encoded, Picture, in_threads
from mezzotint.data.encoded import read as read_picture
from mezzotint.data.splits import SPLIT_NAMES
from mezzotint.errors import DataError
from mezzotint.imaging import manifest_classes
from mezzotint.runtime.log import log

__all__ = ["SUFFIXES", "accepts", "read"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
STYLES = "styles.csv"
KINDS = "PNG, JPEG, WebP or BMP"


def accepts(path: Path) -> bool:
    """Return whether it is a folder."""
    return path.is_dir()


def read(folder: Path) -> Encoded:
    """The pictures below `folder`; `InputError` for an empty class or for no class at all."""
    files: list[Path] = []
    labels: list[int] = []
    splits = {}
    names: list[str] = []
    classes: tuple[str, ...] = ()
    ignored = 0
    for split, root in _roots(folder).items():
        found = _subfolders(root)
        if not names:  # train comes first
            found, classes = _classes(root, found)
            names = [path.name for path in found]
        start = len(files)
        for path in found:
            if path.name not in names:
                raise DataError(
                    f"{path} is a class that the train split lacks: "
                    f"add it to {folder / 'train'} or remove it"
                )
            own, others = _images(path)
            files += own
            labels += [names.index(path.name)] * len(own)
            ignored += others
        splits[split] = torch.arange(start, len(files))
    if not files:
        raise DataError(
            f"{folder} has neither class subfolders nor parquet files: "
            f"put the {KINDS} files of each class into a subfolder named after it"
        )
    if ignored:
        log.info(f"{folder}: {ignored} files that are not {KINDS} are left out")
    pictures = [Picture(str(file), file) for file in files]
    return Encoded(
        classes,
        torch.tensor(labels),
        splits,
        lambda: iter(pictures),
        _digest(pictures),
        lambda: _columns(folder, files),
    )


def _columns(folder: Path, files: list[Path]) -> dict[str, Callable[[], list[str | None]]]:
    """The columns of styles.csv, an entry for each of the files; none without such a file."""
    table = folder / STYLES
    if not table.is_file():
        return {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            names, *rows = csv.reader(file, strict=True)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"{table} is no readable CSV ({error}): write UTF-8, a first line with the names"
        ) from error
    names = [name.strip() for name in names]
    if "file" not in names or len(set(names)) < len(names) or "" in names:
        raise DataError(f"{table} needs a column 'file' and one for each style, named apart")
    place = {path.relative_to(folder).as_posix(): i for i, path in enumerate(files)}
    key, found = names.index("file"), {}
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise DataError(f"{table}, row {number} has {len(row)} cells, not {len(names)}")
        if row[key] not in place or row[key] in found:
            known = "named twice" if row[key] in found else f"no picture in {folder}"
            raise DataError(f"{table}, row {number}: {row[key][:80]} is {known}; correct it")
        found[row[key]] = row
    empty = [None] * len(names)

    def reader(column: int) -> Callable[[], list[str | None]]:
        return lambda: [found.get(name, empty)[column] for name in place]

    return {name: reader(i) for i, name in enumerate(names) if i != key}


def _roots(folder: Path) -> dict[str, Path]:
    """The folder that holds the classes of each split, train first; alone, `folder` is train."""
    subfolders = _subfolders(folder)
    if not any(path.name.lower() == "train" and _subfolders(path) for path in subfolders):
        return {"train": folder}
    known: dict[str, Path] = {}
    for path in subfolders:
        split = SPLIT_NAMES.get(path.name.lower())
        if split is None:
            log.info(f"{path} is of no split that is used (train, validation, test): left out")
        elif not _subfolders(path):
            log.info(f"{path} has no class subfolders, so no labels: left out")
        elif split in known:
            raise DataError(
                f"{folder} holds two {split} splits, {known[split].name} and {path.name}: "
                "put them into one folder, or take one away"
            )
        else:
            known[split] = path
    return {"train": known.pop("train"), **known}


def _subfolders(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.iterdir()
        # Left by notebooks and archives; nobody's class.
        if path.is_dir() and not path.name.startswith(".") and path.name != "__MACOSX"
    ]
    return sorted(found, key=lambda path: _natural(path.name))


def _classes(root: Path, found: list[Path]) -> tuple[list[Path], tuple[str, ...]]:
    """Class folders in their order, and the names of the classes."""
    try:
        known = manifest_classes(root)
    except DataError as error:  # somebody else's file of that name
        log.info(f"{error}: the classes are called as their folders, in sorted order")
        known = {}
    order = list(known)
    # What was added to a folder of ours comes last, in sorted order.
    found = sorted(found, key=lambda p: order.index(p.name) if p.name in known else len(order))
    return found, tuple(known.get(path.name, path.name) for path in found)


def _natural(name: str) -> tuple[bool, int, str]:
    number = name.isascii() and name.isdigit()
    return (not number, int(name) if number else 0, name)


def _images(folder: Path) -> tuple[list[Path], int]:
    """A class folder's pictures, sorted, and the number of its other visible files."""
    files = [path for path in _visible(folder) if path.is_file()]
    images = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not images:
        raise DataError(
            f"{folder} holds no {KINDS} file: fill this class, or keep that folder elsewhere"
        )
    return images, len(files) - len(images)


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _digest(pictures: list[Picture]) -> str:
    whole = hashlib.blake2b(digest_size=20)
    for part in in_threads(
        lambda picture: hashlib.blake2b(read_picture(picture)).digest(), pictures
    ):
        whole.update(part)
    return whole.hexdigest()
