import numpy as np
import pytest
import torch
from torch import nn

from mezzotint.training.ema import gamma, update_ema


@pytest.mark.parametrize(("width", "expected"), [(0.05, 16.97), (0.10, 6.94), (0.15, 3.56)])
def test_gamma_inverts_the_published_relation(width, expected):
    # Karras et al. 2024, section 3.1: widths 0.05, 0.10, 0.15 are gamma 16.97, 6.94, 3.56.
    assert gamma(width) == pytest.approx(expected, abs=0.01)


def test_gamma_of_an_impossible_width_is_an_error():
    with pytest.raises(ValueError, match="0.28"):
        gamma(0.5)


def test_the_average_has_the_power_profile():
    """After n steps, step k weighs proportionally to the power function's increment at k."""
    batch, steps, width = 8, 200, 0.1
    values = np.random.default_rng(0).normal(size=steps)
    network, ema = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for k, value in enumerate(values, start=1):
        network.weight.data.fill_(value)
        update_ema(ema, network, width, batch, k * batch)
    g = gamma(width)
    keep = (1 - 1 / np.arange(1, steps + 1)) ** (g + 1)
    weight = (1 - keep) * np.append(np.cumprod(keep[::-1])[-2::-1], 1.0)
    assert weight.sum() == pytest.approx(1)
    assert ema.weight.item() == pytest.approx(float(weight @ values), abs=1e-5)
    # The profile's own relative standard deviation is the width that was asked for.
    t = np.arange(1, steps + 1) / steps
    spread = np.sqrt(weight @ t**2 - (weight @ t) ** 2)
    assert spread == pytest.approx(width, abs=0.01)


def test_the_first_step_and_width_zero_copy():
    for width, seen in ((0.1, 8), (0.0, 800)):
        network, ema = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        network.weight.data.normal_()
        network.running_mean.normal_()
        update_ema(ema, network, width, 8, seen)
        assert torch.equal(ema.weight, network.weight)
        assert torch.equal(ema.running_mean, network.running_mean)
