"""A folder of parquet files as the Hugging Face hub lays them out.

    FOLDER/train-00000-of-00001.parquet, FOLDER/test-00000-of-00001.parquet
    FOLDER/data/train-....parquet              the same one or more folders down
    FOLDER/train/0000.parquet                  the split as a folder

Files without a split's name are train where no file has one.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mezzotint.data.encoded import Encoded
from mezzotint.data.readers.tables import ROWS, Features, Table, is_image, read_tables
from mezzotint.data.splits import SPLIT_NAMES
from mezzotint.errors import DataError, InputError, is_out_of_memory
from mezzotint.runtime.log import log

__all__ = ["accepts", "parquet_files", "read"]

BUFFER = 1 << 20  # bytes of a column read at a time


def accepts(path: Path) -> bool:
    """Return whether it is a folder with parquet files below it."""
    return path.is_dir() and bool(parquet_files(path))


def parquet_files(folder: Path) -> list[Path]:
    """Every parquet file below the folder, hidden folders excepted, sorted."""
    found = []
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in files if name.endswith(".parquet")]
    return sorted(found)


def read(folder: Path) -> Encoded:
    """The set in the files of the folder; `InputError` where they hold several, or no train."""
    files, by_split = parquet_files(folder), dict[str, list[Path]]()
    for file in files:
        by_split.setdefault(_split(file.relative_to(folder)), []).append(file)
    if set(by_split) == {""}:
        by_split = {"train": by_split[""]}
    if "train" not in by_split:
        raise DataError(
            f"{folder} has no train split, only {', '.join(file.name for file in files)}: "
            "add train-00000-of-00001.parquet"
        )
    for strange in by_split.pop("", []):
        log.info(f"{strange} is of no split that is used (train, validation, test): left out")
    tables = {}
    for split in sorted(by_split, key=["train", "validation", "test"].index):
        own = by_split[split]
        if len({file.parent for file in own}) > 1:
            raise InputError(
                f"{folder} holds several data sets, {own[0].parent} and {own[-1].parent}: "
                "give the folder of one"
            )
        pieces = partial(_pieces, own)
        tables[split] = Table(f"{folder}, {split}", _features(own[0]), pieces, folder)
    return read_tables(tables)


def _split(file: Path) -> str:
    """The split that a file's name, or else its folder's, begins with; "" if neither does."""
    for name in (file.stem, file.parent.name):
        start = re.split(r"[-_.]", name.lower())[0]
        if start in SPLIT_NAMES:
            return SPLIT_NAMES[start]
    return ""


def _pieces(files: list[Path], column: str) -> Iterator[pa.Array]:
    for file in files:
        # Not ahead: pyarrow would hold a column of the whole file before its first batch.
        with _readable(file), pq.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER) as table:
            if column not in table.schema_arrow.names:
                raise DataError(f"{file} lacks the column {column} that {files[0]} has: add it")
            for batch in table.iter_batches(ROWS, columns=[column]):
                yield batch.column(0)


def _features(file: Path) -> Features:
    with _readable(file):
        schema = pq.read_schema(file)
        metadata = (schema.metadata or {}).get(b"huggingface")
        facts = json.loads(metadata) if metadata else {}
    for name in ("info", "features"):
        facts = facts.get(name) or {} if isinstance(facts, dict) else None
    if not isinstance(facts, dict):
        raise DataError(
            f"{file}: its huggingface metadata is no table of features: fetch it again"
        )
    return facts or {field.name: _feature(field.type) for field in schema}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """An Arrow type as the hub would write it."""
    if is_image(kind):
        return {"_type": "Image"}
    return {"_type": "Value", "dtype": str(kind)}


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, json.JSONDecodeError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(f"{file} is not a readable parquet file: fetch it again") from error
