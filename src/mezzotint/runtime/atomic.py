"""Write files that appear whole or not at all, also after a power loss.

A file is first written as a draft next to its target: `.NAME.TOKEN.tmp`, TOKEN being random, so
that neither processes nor threads share one. The draft is flushed to the disk and renamed; then
the directory is flushed, which makes the rename last.

A writer holds a lock (flock) on its draft while it lives. A draft without a lock was left by a
killed process, and the next writer of the same file removes it. Where the system has no such
lock (Windows, some network drives), leftovers stay; Windows cannot flush a directory either.
"""

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "appearing",
    "append_bytes",
    "flush_file",
    "flush_together",
    "is_draft",
    "publish",
    "replacing",
    "scratch_folder",
    "write_bytes",
]

CANNOT_FLUSH = {errno.EACCES, errno.EPERM, errno.EBADF, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}
"""Errors of a system that cannot open or flush this directory; all others are faults."""


@contextmanager
def appearing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield the draft of a file, empty; at the end it is flushed and takes the name `path`.

    After an exception the draft is removed, and a file that was at `path` is still there.

    path: the target. Its folder is made.
    flush: False for one of many files in a new folder, which `flush_together` flushes. Leftovers
        are not looked for then, which would list the folder once per file.
    """
    _prepare(path, flush=flush)
    with _reserved(path) as (draft, held):
        yield draft
        _close_on_windows(held)
        publish(draft, path, flush=flush)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder next to `path`, for a program that names its own temporary files.

    Only its owner may enter it. `publish` moves a file out of it; the rest is removed.
    """
    _prepare(path, flush=True)
    with _reserved(path) as (draft, held):
        folder = _folder_of(draft)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        _remove(draft, held)


def publish(draft: Path, path: Path, *, flush: bool = True) -> None:
    """Flush a complete file, rename it to `path`, and flush the directory."""
    if flush:
        flush_file(draft)
    _rename(draft, path, flush=flush)


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file to write, which becomes `path` as in `appearing`; it stays open."""
    _prepare(path, flush=flush)
    with _reserved(path) as (draft, file):
        yield file
        file.flush()
        if flush:
            os.fsync(file.fileno())
        _close_on_windows(file)
        _rename(draft, path, flush=flush)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one step."""
    with replacing(path) as file:
        file.write(data)


def append_bytes(path: Path, data: bytes) -> None:
    """Add bytes to a file and flush it; after an OSError none of them are added."""
    fresh = not path.exists()
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        try:
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise
    if fresh:
        _flush_folder(path.parent)


def flush_file(path: Path) -> None:
    """Flush a file to the disk."""
    # Windows flushes only what is open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_together(folder: Path) -> None:
    """Flush all that lies in a folder and below, and the folder itself.

    Linux flushes the whole file system in one call. For thousands of small files that takes a
    hundredth of the time of one flush per file.
    """
    if _flush_file_system(folder):
        return
    for place, _, files in os.walk(folder):
        for file in files:
            flush_file(Path(place) / file)
        _flush_folder(Path(place))
    for parent in folder.absolute().parents:  # they may be new too
        _flush_folder(parent)


def is_draft(name: str, of: str) -> bool:
    """Return whether a name is that of a draft of a file, or of its scratch folder.

    >>> is_draft(".config.toml.0a1b2c3d.tmp", of="config.toml")
    True
    """
    return bool(re.fullmatch(rf"\.{re.escape(of)}\.[0-9a-f]{{8}}\.tmp(\.d)?", name))


def _prepare(path: Path, *, flush: bool) -> None:
    """Make the folder of a file, and remove what killed writers of that file left."""
    folder = path.parent
    if not folder.is_dir():
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        if flush:
            for place in new:
                _flush_folder(place.parent)
    elif flush:
        _remove_leftovers(path)


@contextmanager
def _reserved(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a draft of `path`, and the same as a file with a lock; removed after an exception."""
    while True:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with draft.open("xb") as held:
            # Before it had its lock, another writer may have taken it for a leftover.
            if _lock(held) is False or not os.path.exists(draft):
                continue
            try:
                yield draft, held
            except BaseException:
                _remove(draft, held)
                raise
            return


def _rename(draft: Path, path: Path, *, flush: bool) -> None:
    os.replace(draft, path)
    if flush:
        _flush_folder(path.parent)


def _remove(draft: Path, held: BinaryIO) -> None:
    _close_on_windows(held)
    with suppress(OSError):
        draft.unlink()


def _close_on_windows(held: BinaryIO) -> None:
    """Close a file on Windows, which cannot rename it open; elsewhere its lock is still needed."""
    if os.name == "nt":
        held.close()


def _remove_leftovers(path: Path) -> None:
    """Remove the drafts of `path` whose writers do not live any more."""
    with suppress(OSError):  # a folder that cannot be listed
        for name in os.listdir(path.parent):
            draft = path.with_name(name)
            if is_draft(name, of=path.name) and not name.endswith(".d"):
                with suppress(OSError), draft.open("rb+") as file:  # gone, or another user's
                    if _lock(file):
                        shutil.rmtree(_folder_of(draft), ignore_errors=True)
                        draft.unlink()


def _folder_of(draft: Path) -> Path:
    return draft.with_name(f"{draft.name}.d")


def _lock(file: BinaryIO) -> bool | None:
    """Lock a file until it closes; return False if another has the lock, None without locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _flush_folder(folder: Path) -> None:
    """Flush the names in a directory, where the system can."""
    try:
        flush_file(folder)
    except OSError as error:
        if error.errno not in CANNOT_FLUSH:
            raise


def _flush_file_system(folder: Path) -> bool:
    """Flush the file system of a folder with Linux's syncfs; return False where it is missing."""
    if sys.platform != "linux":
        return False
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(descriptor) == 0:
            return True
        number = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if number == errno.ENOSYS:
        return False
    raise OSError(number, os.strerror(number), str(folder))
