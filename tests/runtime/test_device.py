import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from mezzotint.errors import InputError
from mezzotint.kernels import precision
from mezzotint.kernels.precision import bf16_pays, choose_compute
from mezzotint.runtime.device import Compute, resolve_device


def test_an_absent_or_unknown_device_is_refused_in_one_line():
    with pytest.raises(InputError, match="choose auto"):
        resolve_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no cuda"):
            resolve_device("cuda")


def test_bf16_is_chosen_only_where_its_race_is_won(monkeypatch):
    monkeypatch.setattr("mezzotint.kernels.precision.has_bf16_units", lambda: True)
    for gain, expected in ((0.9, "float32"), (2.0, "bfloat16")):
        monkeypatch.setattr("mezzotint.kernels.precision._bf16_race", lambda gain=gain: gain)
        assert choose_compute("cpu").precision == expected
        assert bf16_pays("cpu") == (expected == "bfloat16")
    monkeypatch.setattr("mezzotint.kernels.precision.has_bf16_units", lambda: False)
    assert choose_compute("cpu").precision == "float32"
    assert not bf16_pays("cpu")


def test_a_rank_without_bf16_units_asks_like_the_others(monkeypatch):
    asked = []
    ranks = SimpleNamespace(broadcast_from_rank0=lambda gain: asked.append(gain) or gain)
    monkeypatch.setattr("mezzotint.kernels.precision.current_ranks", lambda: ranks)
    monkeypatch.setattr("mezzotint.kernels.precision._bf16_race", lambda: 2.0)
    for units in (True, False):
        monkeypatch.setattr(
            "mezzotint.kernels.precision.has_bf16_units", lambda units=units: units
        )
        choose_compute("cpu")
    assert asked == [2.0, 0.0]


def test_threads_that_ask_at_once_wait_for_one_race(monkeypatch):
    """Two races would slow each other, and two commands could have two precisions."""
    running, most = [], []

    def slow(x, weight, bias):
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return weight * 2

    monkeypatch.setattr(precision, "has_bf16_units", lambda: True)
    monkeypatch.setattr(precision, "conv3x3", slow)
    precision._bf16_race.cache_clear()
    try:
        with ThreadPoolExecutor(3) as pool:
            gains = list(pool.map(lambda _: precision._bf16_gain(), range(3)))
    finally:
        precision._bf16_race.cache_clear()
    assert len(set(gains)) == 1
    assert max(most) == 1


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with Compute(threads=1).active():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_autocast_does_products_in_the_chosen_precision():
    x = torch.randn(4, 4)
    with Compute(precision="bfloat16").autocast():
        assert (x @ x).dtype == torch.bfloat16
    with Compute(precision="float32").autocast():
        assert (x @ x).dtype == torch.float32


def test_what_tensors_leave_behind_is_asked_of_the_system_but_once():
    """In a process of its own, since it is kept for good."""
    code = """
import resource, torch
from mezzotint.runtime.device import Compute
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    whole = [torch.ones(3_000_000) for _ in range(20)]  # 240 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
with Compute().active():
    print(faults(), faults(), faults())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, _, third = map(int, run.stdout.split())
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library")
    assert third < first / 5
