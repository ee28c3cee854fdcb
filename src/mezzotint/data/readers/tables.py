"""Tables with an image column and a label column: parquet files, and what the hub returns.

The Hugging Face layout: an image is a struct<bytes, path>, and the features, {column: {"_type":
"Image" | "ClassLabel" | "Value", ...}}, lie as JSON in the parquet schema. Columns are found by
that type, never by name (CIFAR-10's image column is `img`); without it by their Arrow type.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from mezzotint.data.encoded import Encoded, Picture, read
from mezzotint.errors import DataError
from mezzotint.runtime.log import log

__all__ = ["ROWS", "Features", "Table", "is_image", "read_tables"]

Features = Mapping[str, Mapping[str, Any]]
ROWS = 512  # rows read at a time: some megabytes of photographs

UNLABELLED = -1  # what the hub writes where a test split's labels are kept secret


@dataclass(frozen=True)
class Table:
    """One split: where it lies, its features, and one column's pieces, anew at every call."""

    where: str
    features: Features
    pieces: Callable[[str], Iterator[pa.Array]]
    folder: Path | None = None
    """Where pictures lie that are named instead of held; None: where they say."""

    def images(self, column: str) -> Iterator[pa.Array]:
        """The pieces of the image column; `DataError` where it holds no images."""
        for piece in self.pieces(column):
            if not is_image(piece.type):
                raise DataError(
                    f"{self.where}: the image column {column} is {str(piece.type)[:80]}, needed "
                    "is struct<bytes: binary, path: string>"
                )
            yield piece

    def picture(self, row: int | None, value: Mapping[str, Any] | None) -> Picture:
        """A row's picture; `DataError` for none, and for a name that leads elsewhere."""
        where = self.where if row is None else f"{self.where}, row {row}"
        if value and value["bytes"] is not None:
            return Picture(where, value["bytes"])
        if not (value and value["path"]):
            raise DataError(f"{where} has no image: drop the row")
        path = Path(value["path"])
        if self.folder is not None:
            path = self.folder / path
            if not path.resolve().is_relative_to(self.folder.resolve()):
                raise DataError(f"{where} names {value['path']}, which is not in {self.folder}")
        return Picture(where, path)


def is_image(kind: pa.DataType) -> bool:
    """Whether an Arrow type is the hub's for images."""
    if not pa.types.is_struct(kind) or {"bytes", "path"} - {field.name for field in kind}:
        return False
    data, path = kind.field("bytes").type, kind.field("path").type
    binary = pa.types.is_binary(data) or pa.types.is_large_binary(data) or pa.types.is_null(data)
    named = pa.types.is_string(path) or pa.types.is_large_string(path) or pa.types.is_null(path)
    both: bool = binary and named
    return both


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    names: tuple[str, ...] | None  # of the classes; None: the label column's own values


def read_tables(tables: Mapping[str, Table]) -> Encoded:
    """The splits, given by their names here, train among them, as one set in the order given."""
    columns = _columns(tables["train"])
    values = {split: _values(table, columns) for split, table in tables.items()}
    classes = columns.names or _classes(values)
    kept, labels, splits, count = {}, [], {}, 0
    for split, table in tables.items():
        own = _labels(values[split], columns, classes, table.where)
        if split != "train" and bool((own == UNLABELLED).all()):
            log.info(f"{table.where} has no labels: left out")
            continue
        if bool((own == UNLABELLED).any()):
            row = int((own == UNLABELLED).argmax())
            raise DataError(f"{table.where}, row {row} has no known label: add it or drop the row")
        kept[split] = table
        labels.append(own)
        splits[split] = torch.arange(count, count + len(own))
        count += len(own)
    if not len(splits["train"]):
        raise DataError(f"{tables['train'].where} has no rows: give a data set with images")

    def pictures() -> Iterator[Picture]:
        for table in kept.values():
            yield from _pictures(table, columns.image)

    counts = [len(own) for own in labels]
    others = {
        name: partial(_other, kept, counts, name)
        for name, feature in tables["train"].features.items()
        if name not in (columns.image, columns.label) and _is_style(feature)
    }
    return Encoded(
        classes,
        torch.from_numpy(np.concatenate(labels)),
        splits,
        pictures,
        _digest(kept, columns.image),
        lambda: others,
    )


def _is_style(feature: Any) -> bool:
    """Whether a column can say something of each image: a class, a text, a number, a truth."""
    return _kind(feature) in ("ClassLabel", "integer", "string") or (
        isinstance(feature, Mapping)
        and str(feature.get("dtype")).startswith(("float", "double", "half", "bool"))
    )


def _other(tables: Mapping[str, Table], counts: Sequence[int], name: str) -> list[Any]:
    """Another column's values, None throughout a split that lacks it."""
    values: list[Any] = []
    for table, count in zip(tables.values(), counts, strict=True):
        if name not in table.features:
            values += [None] * count
            continue
        classes = table.features[name].get("names")
        for piece in table.pieces(name):
            own = piece.to_pylist()
            if isinstance(classes, list):
                own = [
                    classes[i] if isinstance(i, int) and 0 <= i < len(classes) else None
                    for i in own
                ]
            values += own
    return values


def _columns(table: Table) -> _Columns:
    def of_type(*kinds: str) -> list[str]:
        return [name for name, kind in table.features.items() if _kind(kind) in kinds]

    images, labels = of_type("Image"), of_type("ClassLabel") or of_type("integer", "string")
    named = [name for name in labels if _kind(table.features[name]) == "ClassLabel"]
    if len(images) != 1 or not labels or (len(labels) > 1 and not named):
        raise DataError(
            f"{table.where} has {len(images)} image and {len(labels)} label columns among "
            f"{', '.join(table.features)}: one of each is needed, drop or add columns"
        )
    if len(labels) > 1:
        log.info(f"{table.where} has label columns {', '.join(labels)}: {labels[0]} is used")
    names = table.features[labels[0]].get("names")
    if names and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{table.where}: the names of the classes are no list of texts")
    return _Columns(images[0], labels[0], tuple(names) if names else None)


def _kind(feature: Any) -> str:
    if not isinstance(feature, Mapping):  # a list of something
        return "other"
    kind, dtype = str(feature.get("_type")), str(feature.get("dtype"))
    if kind != "Value":
        return kind
    if dtype.startswith(("int", "uint")):
        return "integer"
    return "string" if "string" in dtype else "other"


def _values(table: Table, columns: _Columns) -> list[Any]:
    return [value for piece in table.pieces(columns.label) for value in piece.to_pylist()]


def _classes(values: Mapping[str, list[Any]]) -> tuple[str, ...]:
    known = {value for own in values.values() for value in own if value is not None}
    return tuple(str(value) for value in sorted(known))


def _labels(
    values: list[Any], columns: _Columns, classes: tuple[str, ...], where: str
) -> np.ndarray:
    """Class indices int64, `UNLABELLED` where there is none."""
    if columns.names is None:
        index = {name: i for i, name in enumerate(classes)}
        found = [UNLABELLED if value is None else index[str(value)] for value in values]
    else:
        found = [UNLABELLED if value is None else value for value in values]
        if not all(isinstance(value, int) and abs(value) < 2**63 for value in found):
            raise DataError(f"{where} has labels that are no integers: they count class names")
    labels = np.array(found, np.int64)
    if len(labels) and not UNLABELLED <= labels.min() <= labels.max() < len(classes):
        raise DataError(
            f"{where} has labels {labels.min()}..{labels.max()} but {len(classes)} class names: "
            "correct the labels or the names"
        )
    return labels


def _pictures(table: Table, column: str) -> Iterator[Picture]:
    row = 0
    for piece in table.images(column):
        for value in piece.to_pylist():
            yield table.picture(row, value)
            row += 1


def _digest(tables: Mapping[str, Table], column: str) -> str:
    """Of all pictures' bytes on end and all their lengths; how a table is cut does not matter."""
    contents, lengths = hashlib.blake2b(), hashlib.blake2b()
    for table in tables.values():
        for piece in table.images(column):
            encoded = pc.struct_field(piece, "bytes")
            if encoded.null_count:  # files next to the table
                pictures = (table.picture(None, value) for value in piece.to_pylist())
                encoded = pa.array([read(picture) for picture in pictures])
            # Hashing Arrow's own buffer spares a Python object per picture.
            encoded = encoded.cast(pa.large_binary())
            _, ends, data = encoded.buffers()
            offsets = np.frombuffer(ends, np.int64)[encoded.offset :][: len(encoded) + 1]
            contents.update(memoryview(data)[offsets[0] : offsets[-1]])
            lengths.update(np.diff(offsets).astype("<i8").tobytes())
    return hashlib.blake2b(contents.digest() + lengths.digest(), digest_size=20).hexdigest()
