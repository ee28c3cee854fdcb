"""The levels that a model's sampler visits on a device without float64."""

import pytest
import torch

from mezzotint.config.registry import SAMPLERS
from mezzotint.config.schema import Sampling
from mezzotint.diffusion import LinearBeta, ZeroTerminal
from mezzotint.evaluation.analyses.recognition import evaluations_spent
from mezzotint.sampling.model import MPS_LARGEST_SIGMA, Model, SampleBatch
from mezzotint.sampling.trajectories import trajectory
from tiny import make_data, make_state

DRAWING = SampleBatch.of(torch.tensor([0, 1]))


@pytest.fixture
def model(monkeypatch):
    """A model that works in float32, as on Apple's devices, with several levels above the cap."""
    monkeypatch.setattr(Model, "single_precision", lambda self: True)
    data, settings = make_data(), Sampling(evaluations=100)
    schedule = ZeroTerminal(LinearBeta(1000))
    return Model(make_state().denoiser, settings, schedule, (1, 4, 4), data.classes, 0.0, 0.58)


def test_levels_beyond_the_cap_are_one_level(model):
    levels, full = model.sigmas(), model.schedule.levels()
    assert levels[0] == MPS_LARGEST_SIGMA
    assert (levels[1:] < levels[:-1]).all()
    assert (full > MPS_LARGEST_SIGMA).sum() > 1
    visited = full[(torch.linspace(1, 0, 100).double() * 1000).long().clamp(max=999)]
    capped = {min(float(sigma), MPS_LARGEST_SIGMA) for sigma in visited.float()}
    assert levels.tolist() == [*sorted(capped, reverse=True), 0.0]
    assert len(levels) == 100  # a step less than was asked for


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_a_picture_and_says_what_it_spends(model, sampler):
    model, calls = model.changed(sampler=sampler), []
    model.denoiser.network.register_forward_pre_hook(lambda module, arguments: calls.append(1))
    frames = trajectory(model, DRAWING)
    assert all(step.x.isfinite().all() for step in frames)
    assert [float(step.sigma) for step in frames] == model.sigmas().tolist()
    spent = evaluations_spent(model)
    assert (spent[0], spent[-1]) == (0, len(calls))
    assert len(spent) == len(frames)
    each = [after - before for before, after in zip(spent, spent[1:], strict=False)]
    assert set(each[:-1]) == {2 if sampler == "heun" else 1}
    assert each[-1] == 1
