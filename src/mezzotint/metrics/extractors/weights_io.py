"""Networks kept as one safetensors file, and the digest that says which weights they are."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mezzotint.errors import DataError, is_out_of_memory
from mezzotint.runtime.atomic import write_bytes

__all__ = ["read", "weights_digest", "write"]

Facts = dict[str, Any]
T = TypeVar("T")


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
    write_bytes(path, save(dict(tensors), metadata={kind: json.dumps(facts)}))


def read(path: Path, kind: str, made: Callable[[Facts, dict[str, Tensor]], T]) -> T:
    """What `made` makes of the facts and tensors that `write` wrote; DataError if damaged."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()[kind])
            names = file.keys()  # the file itself cannot be iterated
            tensors = {name: file.get_tensor(name) for name in names}
        return made(facts, tensors)
    # `made` builds a network of what the file says: facts that are damaged, or of another version,
    # fail in all these ways.
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise  # the file may be whole
        raise DataError(f"{path} is damaged: delete it, it is made again") from error
