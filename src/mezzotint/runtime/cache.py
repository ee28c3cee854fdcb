"""Where what can be made again is kept."""

import os
from pathlib import Path

__all__ = ["cache_directory"]


def cache_directory() -> Path:
    """Where decoded images are kept; it may not exist yet."""
    import platformdirs

    chosen = os.environ.get("MEZZOTINT_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("mezzotint")
