"""What several tests of runs need."""

import pytest
from tiny_runs import trained

from mezzotint.data import load


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run of 64 images; to be read, not changed."""
    return trained(tmp_path_factory.mktemp("runs") / "digits")
