"""What must be settled before any test is imported."""

import logging
import os

import torch

# Triton reads this once, when torch's FLOP counter or anything else first imports it: without a
# card its kernels run in numpy.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest  # noqa: E402

from mezzotint.data import load  # noqa: E402
from mezzotint.runtime.device import Compute  # noqa: E402
from mezzotint.runtime.log import log  # noqa: E402
from tiny import make_data, make_plan, make_state  # noqa: E402
from tiny_runs import trained  # noqa: E402


@pytest.fixture(autouse=True)
def no_race(monkeypatch):
    """Train in float32 everywhere: two runs of one test may not differ by how a race ended."""
    monkeypatch.setattr("mezzotint.kernels.precision.has_bf16_units", lambda: False)


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A run of 64 images; to be read, not changed."""
    return trained(tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def logged():
    """What the library has logged in this test so far, in words."""
    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.setLevel(level)
    log.removeHandler(handler)


@pytest.fixture
def quiet(logged):
    """The library logs nothing in this test."""
    yield
    assert logged == []


@pytest.fixture
def data():
    """The small data set of tiny.py."""
    return make_data()


@pytest.fixture
def compute():
    return Compute("cpu", "float32", torch.get_num_threads())


@pytest.fixture
def new_state():
    return make_state


@pytest.fixture
def new_plan():
    return make_plan
