"""What numbers were made on, and how much memory that took."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Json = dict[str, Any]

__all__ = ["hardware", "peak_memory"]


def hardware() -> Json:
    """What the numbers were made on."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mezzotint": _own_version(),
    }


def _own_version() -> str:
    try:
        return version("mezzotint")
    except PackageNotFoundError:  # used from its source folder, not installed
        return "not installed"


def _processor() -> str:
    """The processor's name, where the system tells it."""
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def peak_memory() -> int:
    """Peak memory of this process in bytes: the device's on CUDA, else resident; 0 if unknown."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
