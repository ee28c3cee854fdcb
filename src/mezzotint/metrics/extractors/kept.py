"""Features of a data set's images, kept in the cache.

    CACHE/features-<fingerprint of the data set>-<key>.npz    features float32 (N, D)

The key is a digest of the images' rows and of the extractor, so a file is never out of date; it
may be deleted at any time.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.errors import DataError
from mezzotint.imaging import load_arrays
from mezzotint.metrics.extractors.extractor import Extractor
from mezzotint.runtime.atomic import replacing
from mezzotint.runtime.cache import cache_directory
from mezzotint.runtime.log import log

__all__ = ["kept_features"]

VERSION = 1
"""Of the file's form and of how extractors compute; another number makes all files anew."""


def kept_features(extractor: Extractor, data: ImageSet, rows: Tensor) -> Tensor:
    """Return features of some images of a data set, from the cache where it has them.

    Args:
        extractor: Computes them otherwise.
        data: The data set.
        rows: int64 (N,), indices of its images.

    Returns:
        float32 (N, D), on the CPU.

    """
    path = _path(extractor, data, rows)
    found = _open(path, len(rows))
    if found is not None:
        return found
    features = extractor.features(data.images[rows])
    try:
        with replacing(path) as file:
            np.savez(file, allow_pickle=False, features=features.numpy())
    except OSError as error:
        log.info(
            f"{path.parent} keeps no features ({error.strerror or error}): they are computed "
            "again in every evaluation"
        )
    return features


def _path(extractor: Extractor, data: ImageSet, rows: Tensor) -> Path:
    """The file of these features."""
    facts = [VERSION, extractor.name, extractor.digest, extractor.resize]
    key = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8)
    key.update(rows.numpy().astype("<i8").tobytes())
    return cache_directory() / f"features-{data.fingerprint}-{key.hexdigest()}.npz"


def _open(path: Path, count: int) -> Tensor | None:
    """The features kept there; None where there are none, or none that are whole."""
    try:
        features = load_arrays(path).get("features")  # the archive's CRC-32 tells damage
    except DataError:
        return None
    if features is None or features.dtype != np.float32 or features.shape[:1] != (count,):
        return None
    return torch.from_numpy(features) if features.ndim == 2 else None
