"""The library's logger: progress and notices are INFO, what a user should know is WARNING.

The library installs no handler, so that Python shows warnings alone. The command line shows both
(`cli.stderr`); any other program that wants the notices too writes

    logging.basicConfig(format="%(message)s")
    logging.getLogger("mezzotint").setLevel("INFO")
"""

import logging
import os

__all__ = ["is_first_rank", "log"]

log = logging.getLogger("mezzotint")


def is_first_rank() -> bool:
    """Whether this process speaks: it is alone, or rank 0 of those that torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1")) == 1 or os.environ.get("RANK", "0") == "0"
