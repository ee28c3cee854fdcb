"""Checkpoints: named tensors and JSON facts in one safetensors file; never pickled code.

A file is written by `runtime.atomic`, and the one that it replaces stays as
`NAME.previous.safetensors`. Whenever the process dies or the power fails, there is a whole file.
A digest of tensors and facts tells a damaged file from a good one.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mezzotint.errors import CheckpointError
from mezzotint.runtime.atomic import flush_file, publish, scratch_folder

__all__ = ["Checkpoint", "backup_path", "read", "recover", "restore", "write"]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file: tensors and JSON facts, by name."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def section(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name.`, without that prefix."""
        prefix = name + "."
        return {key[len(prefix) :]: v for key, v in self.tensors.items() if key.startswith(prefix)}


def backup_path(path: Path) -> Path:
    """Return the path of a checkpoint's backup."""
    return path.with_suffix(f".previous{path.suffix}")


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Save a checkpoint atomically, after making the existing file the backup.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.

    """
    # Copy every tensor, because safetensors refuses tensors that share memory.
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    said = json.dumps(dict(facts))
    metadata = {"mezzotint": said, "digest": _digest(plain, said)}
    _remove_old_drafts(path)
    with scratch_folder(path) as folder:  # the library writes under a name of its own
        fresh = folder / path.name
        _save(plain, metadata, fresh)
        if path.exists():
            flush_file(fresh)  # if this fails, the backup is unchanged
            _keep(path, backup_path(path))
        publish(fresh, path)


def _save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """Write a safetensors file with the permissions that the umask allows."""
    path.touch()
    mode = path.stat().st_mode  # safetensors would let only the owner read the file
    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:  # an OSError whose errno is only in the message
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    with contextlib.suppress(OSError):  # disks without modes
        path.chmod(stat.S_IMODE(mode))


def _keep(path: Path, name: Path) -> None:
    """Link or copy the file `path` to `name`; both are complete at every moment."""
    with scratch_folder(name) as folder:
        spare = folder / name.name
        try:
            os.link(path, spare)
        except OSError:  # exFAT and some network drives have no hard links
            shutil.copyfile(path, spare)
        publish(spare, name)


def _remove_old_drafts(path: Path) -> None:
    """Remove temporary files of a killed earlier version; each is as large as a checkpoint."""
    shutil.rmtree(path.with_name(f".{path.name}.new"), ignore_errors=True)
    with contextlib.suppress(OSError):
        path.with_name(f".{path.name}.old").unlink()


def read(path: Path) -> Checkpoint:
    """Load a checkpoint; CheckpointError names a file that is missing, cut short or damaged."""
    while True:
        version = _version(path)
        try:
            return _read(path)
        except CheckpointError:
            # The library opens a file twice, and a training may replace it in between.
            if _version(path) == version:
                raise


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return a value that changes when the file is replaced; None if there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {error}") from error
    said = metadata.get("mezzotint", "")
    if metadata.get("digest") != _digest(tensors, said):
        raise CheckpointError(f"{path} is damaged: its content does not match its digest")
    return Checkpoint(tensors, json.loads(said))


def recover(path: Path) -> tuple[Checkpoint, str | None]:
    """Load a checkpoint, or its backup if the checkpoint cannot be read.

    Returns:
        The checkpoint, and a message if it is the backup, else None.

    Raises:
        InputError: Neither can be read, or there is no backup.

    """
    try:
        return read(path), None
    except CheckpointError as error:
        backup = backup_path(path)
        if not backup.exists():
            raise
        try:
            return read(backup), f"{error}; going on from {backup.name}"
        except CheckpointError as second:
            raise CheckpointError(
                f"{error}; and {second}: restore either from a copy, or train anew with another "
                "--out"
            ) from second


def restore(path: Path) -> None:
    """Replace a damaged checkpoint by its backup.

    Without this, the next `write` would replace the intact backup by the damaged file.

    Raises:
        OSError: The file cannot be written.

    """
    _keep(backup_path(path), path)


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """BLAKE2b over the facts and, in the order of their names, the tensors."""
    state = hashlib.blake2b(facts.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()
