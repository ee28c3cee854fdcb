"""The small training of tiny.py, as fixtures."""

import pytest
import torch
from tiny import make_data, make_plan, make_state

from mezzotint.machine import Compute


@pytest.fixture
def data():
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
