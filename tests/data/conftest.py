import os
from pathlib import Path

import pytest

REAL = Path(
    os.environ.get("MEZZOTINT_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache for every test, and no named sets from elsewhere."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MEZZOTINT_CACHE", str(folder))
    monkeypatch.delenv("MEZZOTINT_DATA", raising=False)
    return folder


@pytest.fixture(scope="session")
def real():
    """The folder with real copies of mnist, fashion-mnist and cifar10."""
    missing = [
        name for name in ("mnist", "fashion-mnist", "cifar10") if not (REAL / name).is_dir()
    ]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {REAL}")
    return REAL
