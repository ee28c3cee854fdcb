"""A data set before its pixels: labels, class names, splits and a stream of encoded pictures.

Every reader (digits, folder, tables) ends in an `Encoded`; everything after (layout, decoding,
cache) starts from one. Pictures keep their files' own encoding (PNG, JPEG, ...), so a set of any
length passes through in a few megabytes.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from mezzotint.errors import DataError

__all__ = ["Encoded", "Picture", "identity", "in_threads", "read"]


WINDOW = 512  # items in flight: enough to keep the threads busy, small next to any data set

T = TypeVar("T")
R = TypeVar("R")


class Picture(NamedTuple):
    """One encoded image: where it lies, in words for a message, and its bytes or its file."""

    where: str
    content: bytes | Path


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a reader hands on; picture i has label `labels[i]`.

    labels    int64 (N,), indices into `classes`
    splits    the source's own: "train" always, "validation" and "test" where it has them;
              int64 indices, together all of 0..N-1
    pictures  starts the stream of N pictures, anew at every call
    digest    hex digest of the pictures' bytes, in order
    columns   what else the source says of each picture: by name, a reader of N values, None
              where it says nothing; no part of the content's digest
    """

    classes: tuple[str, ...]
    labels: Tensor
    splits: Mapping[str, Tensor]
    pictures: Callable[[], Iterator[Picture]]
    digest: str
    columns: Callable[[], Mapping[str, Callable[[], Sequence[Any]]]] = dict


def identity(encoded: Encoded) -> str:
    """Hex digest of all that the source says: pictures, labels, class names and splits."""
    whole = hashlib.blake2b(digest_size=20)
    names = sorted(encoded.splits)
    whole.update(json.dumps([encoded.digest, encoded.classes, names]).encode())
    for indices in (encoded.labels, *(encoded.splits[name] for name in names)):
        whole.update(indices.numpy().astype("<i8").tobytes())
    return whole.hexdigest()


def read(picture: Picture) -> bytes:
    """The picture's encoded bytes; `DataError` names a file that cannot be read."""
    if isinstance(picture.content, bytes):
        return picture.content
    try:
        return picture.content.read_bytes()
    except OSError as error:
        raise DataError(
            f"{picture.where} cannot be read ({error.strerror}): restore it or remove it"
        ) from error


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`map(work, items)`, in order, on all cores, with at most `WINDOW` items in flight."""
    workers = min(8, os.cpu_count() or 1)
    stream = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        while window := list(islice(stream, WINDOW)):
            size = -(-len(window) // workers)
            # One task per worker: small pictures cost less than the hand-over of a task.
            chunks = [window[i : i + size] for i in range(0, len(window), size)]
            for results in pool.map(lambda chunk: [work(item) for item in chunk], chunks):
                yield from results
