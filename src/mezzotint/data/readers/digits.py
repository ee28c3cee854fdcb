"""Read the embedded source: 1,797 real handwritten digits, 8x8, grey.

UCI "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), its test part.
`digits.npz` holds images uint8 (N, 8, 8), values 0 to 16, and labels int64 (N,); its licence is
in `digits-LICENSE.txt`.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from mezzotint.data.encoded import Encoded, Picture

__all__ = ["read_digits"]

FILE = Path(__file__).with_name("digits.npz")


def read_digits() -> Encoded:
    """Return the digits, their 17 grey levels spread over 0 to 255, without a test split."""
    from mezzotint.imaging import load_arrays

    arrays = load_arrays(FILE)
    grey = np.rint(arrays["images"] * (255 / 16)).astype(np.uint8)  # (N, 8, 8)

    def pictures() -> Iterator[Picture]:
        for index, pixels in enumerate(grey):
            # Binary PGM: the one encoding that is a header and the pixels themselves.
            yield Picture(f"digit {index}", b"P5 8 8 255\n" + pixels.tobytes())

    return Encoded(
        classes=tuple("0123456789"),
        labels=torch.from_numpy(arrays["labels"]),
        splits={"train": torch.arange(len(grey))},
        pictures=pictures,
        digest=hashlib.blake2b(grey.tobytes(), digest_size=20).hexdigest(),
    )
