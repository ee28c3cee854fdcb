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

from mezzotint.errors import InputError
from mezzotint.runtime.atomic import flush_file, publish, scratch_folder

__all__ = ["Checkpoint", "previous", "read", "recover", "restore", "write"]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def section(self, name: str) -> dict[str, Tensor]:
        """The tensors under `name.`, without that prefix."""
        prefix = name + "."
        return {key[len(prefix) :]: v for key, v in self.tensors.items() if key.startswith(prefix)}


def previous(path: Path) -> Path:
    """Where the backup of a checkpoint lies."""
    return path.with_suffix(f".previous{path.suffix}")


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Save a checkpoint whole or not at all; the former one becomes the backup. OSError passes."""
    # A copy of its own for every tensor: safetensors refuses shared memory.
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    said = json.dumps(dict(facts))
    metadata = {"mezzotint": said, "digest": _digest(plain, said)}
    _remove_old_drafts(path)
    with scratch_folder(path) as folder:  # the library writes under a name of its own
        fresh = folder / path.name
        _save(plain, metadata, fresh)
        if path.exists():
            flush_file(fresh)  # what fails here leaves the backup as it was
            _keep(path, previous(path))
        publish(fresh, path)


def _save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path) -> None:
    """Write a file, from the tensors' own memory."""
    path.touch()
    mode = path.stat().st_mode  # as the umask allows; the library's file is its owner's alone
    try:
        save_file(dict(tensors), path, dict(metadata))
    except SafetensorError as error:  # the system's, with its number in words alone
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    with contextlib.suppress(OSError):  # disks without modes
        path.chmod(stat.S_IMODE(mode))


def _keep(path: Path, name: Path) -> None:
    """Give what is there another name too; `path` is whole at every moment."""
    with scratch_folder(name) as folder:
        spare = folder / name.name
        try:
            os.link(path, spare)
        except OSError:  # exFAT and some network drives have no second names
            shutil.copyfile(path, spare)
        publish(spare, name)


def _remove_old_drafts(path: Path) -> None:
    """Remove what a killed process of an earlier version left: it is as large as a checkpoint."""
    shutil.rmtree(path.with_name(f".{path.name}.new"), ignore_errors=True)
    with contextlib.suppress(OSError):
        path.with_name(f".{path.name}.old").unlink()


def read(path: Path) -> Checkpoint:
    """Load a checkpoint; InputError names a file that is missing, cut short or damaged."""
    while True:
        version = _version(path)
        try:
            return _read(path)
        except InputError:
            # The library opens a file twice, and a training may replace it in between.
            if _version(path) == version:
                raise


def _version(path: Path) -> tuple[int, int, int] | None:
    """What differs when a file was replaced; None where there is none."""
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
        raise InputError(f"{path} cannot be read as a checkpoint: {error}") from error
    said = metadata.get("mezzotint", "")
    if metadata.get("digest") != _digest(tensors, said):
        raise InputError(f"{path} is damaged: its content does not match its digest")
    return Checkpoint(tensors, json.loads(said))


def recover(path: Path) -> tuple[Checkpoint, str | None]:
    """Load a checkpoint, or its backup where it cannot be read; and what happened, if anything."""
    try:
        return read(path), None
    except InputError as error:
        backup = previous(path)
        if not backup.exists():
            raise
        try:
            return read(backup), f"{error}; going on from {backup.name}"
        except InputError as second:
            raise InputError(
                f"{error}; and {second}: restore either from a copy, or train anew with another "
                "--out"
            ) from second


def restore(path: Path) -> None:
    """Put the backup in the place of a checkpoint that cannot be read; OSError passes.

    Else the next `write` would make that one the backup, and for a moment nothing would be whole.
    """
    _keep(previous(path), path)


def _digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """BLAKE2b over the facts and, in the order of their names, the tensors."""
    state = hashlib.blake2b(facts.encode(), digest_size=16)
    for name in sorted(tensors):
        value = tensors[name]
        state.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        state.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return state.hexdigest()
