"""The C++ files, compiled once for this processor and kept in the user's cache directory.

They are plain files without torch's headers, so they take seconds to build and are called with
pointers. The name under which it is kept has two digests. The first is of the sources and of
everything that the compiler says about itself and this processor, so that a home shared by unlike
machines is safe; the second is of the file itself, because one that was cut short would not fail
to load but end the process.
"""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from platformdirs import user_cache_path

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
    for get in (_kept, _made):  # what a compiler refused once is not tried at every start
        for tuned in TUNED:
            try:
                return get(command, tuned)
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


def _kept(command: list[str], tuned: list[str]) -> ctypes.CDLL:
    """The library of these options from the cache; OSError where it is not there or damaged."""
    for file in _cache().glob(f"{_name(command, tuned)}-*.so"):
        if file.stem.endswith(_digest(file.read_bytes())):
            return ctypes.CDLL(str(file))
    raise FileNotFoundError


def _made(command: list[str], tuned: list[str]) -> ctypes.CDLL:
    """The library of these options, compiled; CalledProcessError where the compiler refuses."""
    name = _name(command, tuned)
    for folder in (_cache(), None):  # None: among temporary files, where the cache takes nothing
        try:
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="kernels-") as scratch:
                made = Path(scratch) / "kernels.so"
                _run([*command, *OPTIONS, *tuned, *map(str, SOURCES), "-o", str(made)])
                loaded = ctypes.CDLL(str(made))  # stays when the file goes
                if folder:  # whole or not at all, also where two start at once
                    made.replace(folder / f"{name}-{_digest(made.read_bytes())}.so")
                return loaded
        except OSError:
            continue
    raise OSError("the compiler makes nothing that can be loaded")


def _name(command: list[str], tuned: list[str]) -> str:
    # The predefined macros name the compiler's version and the processor's instructions.
    macros = _run([*command, *tuned, "-dM", "-E", "-x", "c++", os.devnull])
    options = repr((OPTIONS, TUNED, tuned)).encode()
    return (
        f"kernels-{_digest(*(file.read_bytes() for file in SOURCES + HEADERS), macros, options)}"
    )


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _cache() -> Path:
    chosen = os.environ.get("MEZZOTINT_CACHE")
    return (Path(chosen).expanduser() if chosen else user_cache_path("mezzotint")).absolute()


def _run(command: list[str]) -> bytes:
    return subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, capture_output=True
    ).stdout
