"""Networks kept as one safetensors file, and the digest that says which weights they are."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from mezzotint.imaging import replacing

__all__ = ["weights_digest", "write"]


def weights_digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> str:
    """Hex digest of named tensors, in the order of their names, and of facts where given."""
    head = b"" if facts is None else json.dumps(facts).encode()
    whole = hashlib.blake2b(head, digest_size=8)
    for name, value in sorted(tensors.items()):
        whole.update(name.encode())
        whole.update(value.detach().cpu().contiguous().numpy().tobytes())
    return whole.hexdigest()


def write(path: Path, kind: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, and facts as JSON under `kind` in the metadata; whole or not at all."""
    with replacing(path) as file:
        file.write(save(dict(tensors), metadata={kind: json.dumps(facts)}))
