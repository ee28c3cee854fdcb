"""The embedded source: scikit-learn's 1,797 real handwritten digits, 8x8, grey.

UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), its test part.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
import torch

from mezzotint.data.encoded import Encoded, Picture

__all__ = ["read_digits"]


def read_digits() -> Encoded:
    """The digits, their 17 grey levels 0..16 spread over 0..255; without a test split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8)

    def pictures() -> Iterator[Picture]:
        for index, pixels in enumerate(grey):
            # Binary PGM: the one encoding that is a header and the pixels themselves.
            yield Picture(f"digit {index}", b"P5 8 8 255\n" + pixels.tobytes())

    return Encoded(
        classes=tuple(str(name) for name in bunch.target_names),
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
        splits={"train": torch.arange(len(grey))},
        pictures=pictures,
        digest=hashlib.blake2b(grey.tobytes(), digest_size=20).hexdigest(),
    )
