"""What several tests of the evaluation need."""

import pytest

from mezzotint.data import load


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
