"""Where images come from, and `load`, which makes one `ImageSet` of any of them.

A source is a name below, a folder (class = subfolder, or parquet files), or `hf:OWNER/NAME`.
A name is looked for at DATA_DIR/NAME, then at $MEZZOTINT_DATA/NAME, then fetched from the hub.
What differs between data sets is said here, in one entry each, and nowhere else.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from mezzotint.data.augment import Augment
from mezzotint.data.encoded import Encoded, identity
from mezzotint.data.image_set import ImageSet
from mezzotint.data.readers import READERS
from mezzotint.data.splits import complete, limited
from mezzotint.errors import DataError, InputError, suggest
from mezzotint.runtime.distributed import current_ranks

__all__ = ["SOURCES", "Source", "load"]


@dataclass(frozen=True)
class Source:
    """What is known of a data set before it is read.

    hub         OWNER/NAME on the Hugging Face hub; None: it comes with the library
    folder      its folder's name below a data directory
    classes     better class names than the source's own, in its order; () keeps its own
    augment     what may be changed in a training image
    validation  share of the train split that is kept for validation where there is none
    shape       (C, H, W) of its images, for who wants to know without reading them
    """

    hub: str | None = None
    folder: str = ""
    classes: tuple[str, ...] = ()
    augment: Augment = Augment()
    validation: float = 0.1
    shape: tuple[int, int, int] = (1, 28, 28)


FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

SOURCES: Mapping[str, Source] = {
    "digits": Source(shape=(1, 8, 8)),
    "mnist": Source("ylecun/mnist", "mnist", validation=1 / 6),
    "fashion-mnist": Source(
        "zalando-datasets/fashion_mnist", "fashion-mnist", FASHION, validation=1 / 6
    ),
    "cifar10": Source(
        "uoft-cs/cifar10", "cifar10", (), Augment(flip=True), validation=1 / 5, shape=(3, 32, 32)
    ),
}


def load(
    source: str,
    *,
    size: int | None = None,
    limit: int | None = None,
    data_dir: Path | None = None,
    styles: Sequence[str] | None = (),
    memory_budget: int = 2 << 30,
) -> ImageSet:
    """The source as one `ImageSet`; what a person can mend is an `InputError` or a `DataError`.

    source         "mnist", "path/to/folder", "hf:OWNER/NAME"
    size           pixels: cut every image square and resize it; None keeps the source's size
    limit          train images to keep, balanced over the classes, with a fifth as many for
                   validation and the whole test split; None keeps all
    data_dir       folder of named data sets, looked at before $MEZZOTINT_DATA
    styles         what to know of every image besides its class: measures (`styles.registry`)
                   and columns that come with the data; None: all that fit
    memory_budget  bytes, of all processes of the job: where their copies would be larger, the
                   images stay on disk, memory-mapped and shared
    """
    from mezzotint.data.cache import decoded
    from mezzotint.data.styles.resolve import Styled, styled

    if size is not None and size < 1:
        raise InputError(f"size {size} is not a number of pixels: give 1 or more")
    entry, encoded = SOURCES.get(source, Source()), _read(source, data_dir)
    splits = complete(encoded.splits, encoded.labels, entry.validation)
    if limit is not None:
        splits = limited(splits, encoded.labels, len(encoded.classes), limit)
    pixels = decoded(encoded, size, memory_budget=memory_budget // current_ranks().size)
    mean, deviation = pixels.statistics(splits["train"])
    own = Styled()
    if styles is None or styles:
        own = styled(encoded, size, pixels.images, splits["train"], styles)
    return ImageSet(
        name=_name(source),
        images=pixels.images,
        labels=encoded.labels,
        classes=encoded.classes,
        splits=splits,
        mean=mean,
        deviation=deviation,
        augment=entry.augment,
        fingerprint=_fingerprint(identity(encoded), pixels.images, splits),
        styles=own.styles,
        style_values=own.values,
    )


def _name(source: str) -> str:
    if source in SOURCES or source.startswith("hf:"):
        return source
    folder = Path(source).expanduser().resolve().name
    return f"{folder}/" if folder in SOURCES else folder  # somebody's own "mnist" is not ours


def _read(source: str, data_dir: Path | None) -> Encoded:
    if source in SOURCES:
        return _read_named(source, data_dir)
    if source.startswith("hf:"):
        return _read_from_hub(source)
    path = Path(source).expanduser()
    if path.exists():
        return _read_path(path)
    raise InputError(
        f"{source!r} is no known data set, no existing folder and not hf:OWNER/NAME: "
        f"{suggest(source, SOURCES)}"
    )


def _read_named(name: str, data_dir: Path | None) -> Encoded:
    entry = SOURCES[name]
    if entry.hub is None:
        from mezzotint.data.readers.digits import read_digits

        return read_digits()
    environment = os.environ.get("MEZZOTINT_DATA")
    roots = [Path(data_dir)] if data_dir else []
    roots += [Path(environment)] if environment else []
    places = [root.expanduser() / entry.folder for root in roots]
    for place in places:
        if place.is_dir():
            return _renamed(_read_path(place), entry, place)

    from mezzotint.data.readers.hub import FetchError, fetch, read_hub

    try:
        return _renamed(read_hub(name, fetch(entry.hub)), entry, entry.hub)
    except FetchError as error:
        looked = "".join(f"not at {place}, " for place in places)
        raise DataError(
            f"{name} was not found: {looked}not on the hub ({error}); put the parquet files of "
            f"{entry.hub} into DIR/{entry.folder} and give --data-dir DIR or MEZZOTINT_DATA=DIR"
        ) from error


def _read_from_hub(source: str) -> Encoded:
    from mezzotint.data.readers.hub import FetchError, fetch, read_hub

    repository = source.removeprefix("hf:")
    if len(repository.split("/")) != 2 or not all(repository.split("/")):
        raise InputError(f"{source!r} is not hf:OWNER/NAME: write it like hf:ylecun/mnist")
    try:
        return read_hub(source, fetch(repository))
    except FetchError as error:
        raise DataError(
            f"{source} was not fetched ({error}): check name and network, or put its parquet "
            "files into a folder and give that"
        ) from error


def _read_path(path: Path) -> Encoded:
    """What the first reader that accepts a folder or file makes of it."""
    for name in reversed(READERS.names()):
        if READERS[name].accepts(path):
            return READERS[name].read(path)
    raise InputError(f"{path} is a file: give the folder of a data set")


def _renamed(encoded: Encoded, entry: Source, where: Path | str) -> Encoded:
    """With the entry's class names, which are in the order of the hub's labels."""
    if not entry.classes:
        return encoded
    if len(entry.classes) != len(encoded.classes):
        raise DataError(
            f"{where} has {len(encoded.classes)} classes instead of {len(entry.classes)}: "
            f"put the files of {entry.hub} there"
        )
    return replace(encoded, classes=entry.classes)


def _fingerprint(content: str, images: Tensor, splits: Mapping[str, Tensor]) -> str:
    """Of content and decisions: the shape says what `size` did, the splits what `limit` did."""
    whole = hashlib.blake2b(json.dumps([content, images.shape[1:]]).encode(), digest_size=16)
    for name in sorted(splits):
        whole.update(name.encode())
        whole.update(splits[name].numpy().astype("<i8").tobytes())
    return whole.hexdigest()
