import math

import pytest

from mezzotint.training.lr import Constant, Plateau, WarmupCosine


def test_constant_warms_up_linearly():
    assert Constant()(0, 100, []) == 1
    assert [Constant(4)(i, 100, []) for i in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


def test_cosine_goes_from_one_to_the_floor():
    rate = WarmupCosine(warmup=0, floor=0.1)
    for share in (0, 0.25, 0.5, 1):
        expected = 0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * share))
        assert rate(int(1000 * share), 1000, []) == pytest.approx(expected)
    assert rate(2000, 1000, []) == pytest.approx(0.1)


def test_plateau_halves_after_patience_without_improvement():
    rate = Plateau(factor=0.5, patience=2)
    history = [1.0, 0.9, 0.95, 0.91, 0.8, 0.8, 0.8, 0.8, 0.8]
    got = [rate(0, 1, history[:n]) for n in range(len(history) + 1)]
    assert got == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
