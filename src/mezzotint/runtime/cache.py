"""Where what can be made again is kept."""

import os
from pathlib import Path

__all__ = ["cache_directory"]


def cache_directory() -> Path:
    """Return the folder of decoded images, reference weights and kernels; it may not exist yet.

    It is `MEZZOTINT_CACHE`, else the user's own cache directory.
    """
    import platformdirs

    chosen = os.environ.get("MEZZOTINT_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("mezzotint")
