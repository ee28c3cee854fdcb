"""Data sets from the Hugging Face hub, through `datasets` and its cache.

Without a network the library would try again and again for half a minute; one short question
to the hub beforehand decides whether to ask for more than the local copy.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mezzotint.data.encoded import Encoded
from mezzotint.data.readers.tables import ROWS, Table, read_tables
from mezzotint.data.splits import SPLIT_NAMES
from mezzotint.errors import DataError
from mezzotint.runtime.log import log

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict

__all__ = ["FetchError", "fetch", "read_hub"]

PATIENCE = 5.0  # seconds to wait for the hub's first answer

_one_at_a_time = threading.Lock()  # the offline flags belong to the process


class FetchError(Exception):
    """The hub gave no data set; the message is the reason, in one line."""


def fetch(repository: str) -> "DatasetDict":
    """The hub's data set OWNER/NAME, or its local copy; `FetchError` when there is neither."""
    import datasets

    with _one_at_a_time, _offline_unless_reachable():
        try:
            return datasets.load_dataset(repository)
        # Behind this call lie a network, a disk and somebody else's files: whatever goes wrong
        # there, the caller's answer is the same.
        except Exception as error:
            raise FetchError(" ".join(str(error).split()) or type(error).__name__) from error


def read_hub(name: str, dataset: "DatasetDict") -> Encoded:
    """The splits train, validation and test; image and label columns by feature type."""
    known = {SPLIT_NAMES[split]: split for split in dataset if split in SPLIT_NAMES}
    if "train" not in known:
        raise DataError(f"{name} has no train split, only {', '.join(dataset)}: choose another")
    for strange in set(dataset) - set(known.values()):
        log.info(
            f"{name}, {strange} is of no split that is used (train, validation, test): left out"
        )
    tables = {}
    for split in sorted(known, key=["train", "validation", "test"].index):
        own = dataset[known[split]]
        tables[split] = _table(f"{name}, {split}", own)
    return read_tables(tables)


def _table(where: str, dataset: "Dataset") -> Table:
    def pieces(column: str) -> "Iterator[pa.Array]":
        for rows in dataset.select_columns([column]).with_format("arrow").iter(ROWS):
            yield from rows.column(0).chunks

    return Table(where, dataset.features.to_dict(), pieces)


@contextmanager
def _offline_unless_reachable() -> Iterator[None]:
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    try:
        huggingface_hub.get_session().head(constants.ENDPOINT, timeout=PATIENCE)
        reachable = True
    # The client behind the session is requests or httpx, by version, with errors of its own.
    except Exception:
        log.info(f"{constants.ENDPOINT} does not answer: looking for a local copy of the data set")
        reachable = False
    flags: tuple[Any, ...] = (datasets.config, constants)
    before = [flag.HF_HUB_OFFLINE for flag in flags]
    try:
        for flag in flags:
            flag.HF_HUB_OFFLINE = flag.HF_HUB_OFFLINE or not reachable
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.HF_HUB_OFFLINE = value
