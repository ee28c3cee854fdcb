"""The C++ files, compiled once for this processor and kept in the user's cache directory.

They are plain files without torch's headers, so they take seconds to build and are called with
pointers. The name under which it is kept has two digests. The first is of the sources and of
everything that the compiler says about itself and this processor, so that a home shared by unlike
machines is safe; the second is of the file itself, because one that was cut short would not fail
to load but end the process.

A digest in its own name says that a file is whole, not who made it, and to load it is to run it.
So a file is loaded only where nobody but this user and root could have written it.
"""

import ctypes
import hashlib
import importlib.util
import logging
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from mezzotint.runtime.atomic import publish, scratch_folder
from mezzotint.runtime.cache import cache_directory

__all__ = ["compiler", "library", "triton_builds"]

SOURCES = sorted(Path(__file__).parent.glob("*.cpp"))
HEADERS = sorted(Path(__file__).parent.glob("*.h"))

OPTIONS = ["-O3", "-std=c++17", "-shared", "-fPIC"]
WIDE = "-mprefer-vector-width=512"  # compilers use half of AVX-512; a sixth faster, same bytes
TUNED = [
    ["-march=native", WIDE, "-fopenmp"],
    ["-march=native", "-fopenmp"],
    ["-march=native"],
    ["-fopenmp"],
    [],
]
"""Best first; the first that the compiler takes. Never -ffast-math: NaN must stay NaN."""

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def compiler() -> list[str] | None:
    """The C++ compiler as it is called: CXX (`g++`, `ccache g++`), else c++, g++ or clang++.

    None where that is not there.
    """
    named = os.environ.get("CXX", "").strip()
    calls = [[named], named.split()] if named else [["c++"], ["g++"], ["clang++"]]
    return next((call for call in calls if shutil.which(call[0])), None)


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The kernels, built if this is their first use here; None where that cannot be done.

    MEZZOTINT_KERNELS=0 goes without them, to find out whether they are what is wrong.
    """
    if _unwanted():
        return None
    command = compiler()
    if command is None:
        return None
    folder = _safe_folder()
    for get in (_kept, _made):  # what a compiler refused once is not tried at every start
        for tuned in TUNED:
            try:
                return get(command, tuned, folder)
            except (OSError, subprocess.CalledProcessError):
                continue
    return None


@lru_cache(maxsize=1)
def triton_builds() -> bool:
    """Whether Triton is there, and a C compiler with Python's headers, which it calls to launch.

    It fails in as many ways as there are installations of these; torch does without it.
    """
    if _unwanted() or importlib.util.find_spec("triton") is None:
        return False
    try:
        runtime = importlib.import_module("triton.runtime")
        runtime.driver.active.get_current_device()  # builds and loads what talks to the driver
    except Exception:
        return False
    return True


def _unwanted() -> bool:
    return os.environ.get("MEZZOTINT_KERNELS") == "0"


def _kept(command: list[str], tuned: list[str], folder: Path | None) -> ctypes.CDLL:
    """The library of these options from the cache; OSError where it is not there or damaged."""
    if folder is None:
        raise FileNotFoundError
    for file in folder.glob(f"{_name(command, tuned)}-*.so"):
        if danger := _danger(file):
            _warn(file, danger)
        elif file.stem.endswith(_digest(file.read_bytes())):
            return ctypes.CDLL(str(file))
    raise FileNotFoundError


def _made(command: list[str], tuned: list[str], folder: Path | None) -> ctypes.CDLL:
    """The library of these options, compiled; CalledProcessError where the compiler refuses."""
    name = _name(command, tuned)
    for kept in (folder, None) if folder else (None,):  # None: only for this process
        try:
            with _scratch(kept, name) as scratch:
                made = scratch / "kernels.so"
                _run([*command, *OPTIONS, *tuned, *map(str, SOURCES), "-o", str(made)])
                loaded = ctypes.CDLL(str(made))  # stays when the file goes
                if kept:
                    made.chmod(stat.S_IMODE(made.stat().st_mode) & 0o644)
                    publish(made, kept / f"{name}-{_digest(made.read_bytes())}.so")
                return loaded
        except OSError:
            continue
    raise OSError("the compiler makes nothing that can be loaded")


@contextmanager
def _scratch(kept: Path | None, name: str) -> Iterator[Path]:
    """Yield a folder to compile in, which only this user may enter: in `kept`, if there is one."""
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="kernels-") as scratch:
            yield Path(scratch)
    else:
        kept.mkdir(mode=0o755, parents=True, exist_ok=True)
        if danger := _danger(kept):  # another user has made it since `_safe_folder`
            raise PermissionError(danger)
        with scratch_folder(kept / name) as own:
            yield own


def _safe_folder() -> Path | None:
    """Return the folder of compiled kernels, there or not; None, and a warning, if not safe."""
    folder = cache_directory().absolute() / "kernels"  # the loader looks relative names up
    try:
        danger = _danger(folder)
    except OSError:  # not there yet
        return folder
    if not danger:
        return folder
    _warn(folder, danger)
    return None


def _danger(path: Path) -> str:
    """Return why somebody else could have written this file or in this folder, or ""."""
    if os.name == "nt":  # Windows has no such modes
        return ""
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {found.st_uid}"
    mode = stat.S_IMODE(found.st_mode)
    return f"has mode {mode:04o}" if mode & OTHERS_MAY_WRITE else ""


def _warn(path: Path, danger: str) -> None:
    """Log once a start that compiled code at `path` is not loaded, and how to mend it."""
    logging.getLogger("mezzotint").warning(
        f"{path} {danger}, so no compiled kernels are loaded from it and they are built again: "
        "it must belong to you or root, with no right to write for others; use chown and "
        "chmod go-w, or set MEZZOTINT_CACHE to a folder of your own"
    )


def _name(command: list[str], tuned: list[str]) -> str:
    # The predefined macros name the compiler's version and the processor's instructions.
    macros = _run([*command, *tuned, "-dM", "-E", "-x", "c++", os.devnull])
    options = repr((OPTIONS, TUNED, tuned)).encode()
    return (
        f"kernels-{_digest(*(file.read_bytes() for file in SOURCES + HEADERS), macros, options)}"
    )


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]


def _run(command: list[str]) -> bytes:
    return subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, capture_output=True
    ).stdout
