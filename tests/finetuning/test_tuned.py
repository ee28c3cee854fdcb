"""A run tuned to a prompt: gradients through the sampler against differences, and the new run."""

import dataclasses
import json

import pytest
import torch

import mezzotint
from mezzotint.finetuning.reward import RewardCheck, RewardStep, Tuning
from mezzotint.finetuning.tune import Reward, tuned
from mezzotint.runs.online_metrics import OnlineMetrics
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.sampling.model import SampleBatch
from mezzotint.training import checkpoint
from tiny_runs import trained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    return trained(out, "sampling.sampler=ddim", "sampling.evaluations=3")


@pytest.fixture
def model(run):
    """In float64, so that differences are exact."""
    found = run.model()[0]
    found.denoiser.double()
    return found


def brightness(x0, labels):
    return (labels + 1) * x0.mean((1, 2, 3))


DRAWING = SampleBatch.of(torch.tensor([3, 8]), 5)


def last_of(model, **traced):
    *_, last = model.iterate(DRAWING, **traced)
    return last.x


def slope_of(reward, weight, direction, step=1e-5):
    """The change of a reward as a weight moves along a direction, by central differences."""
    found = []
    with torch.no_grad():
        for side in (step, -step):
            weight += side * direction
            found.append(float(reward()))
            weight -= side * direction
    return (found[0] - found[1]) / (2 * step)


@pytest.mark.parametrize("traced", [1, 3])
def test_the_gradient_is_that_of_the_last_steps(model, traced):
    plain = last_of(model)
    assert not plain.requires_grad
    x = last_of(model, grad_steps=traced)
    torch.testing.assert_close(x.detach(), plain, rtol=1e-9, atol=1e-9)
    weight = next(p for p in model.denoiser.parameters() if p.ndim == 4)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight)
    labels = DRAWING.labels
    (gradient,) = torch.autograd.grad(brightness(x, labels).sum(), weight)
    if traced == 3:  # all of them: all steps have a gradient
        expected = slope_of(lambda: brightness(last_of(model), labels).sum(), weight, direction)
    else:  # what came before stands still: DDIM's last step is the denoiser itself
        *_, before, _ = model.iterate(DRAWING)
        condition = mezzotint.diffusion.Condition({"label": labels})

        def ended():
            return brightness(model.denoiser(before.x, before.sigma, condition), labels).sum()

        expected = slope_of(ended, weight, direction)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_a_tuned_run_is_a_run_like_any_other(run, digits, tmp_path):
    online = OnlineMetrics.of(digits, 40, "cpu")
    model, out = run.model()[0], tmp_path / "new"
    seen = []

    def watched(x0, labels):
        seen.append(float(x0.detach().abs().max()))
        return brightness(x0, labels)

    target = Reward(watched, 1, 0, {"prompt": "a bright {}"})
    plan = Tuning(images=32, batch=8, learning_rate=1e-2, check_every=16, bound=0.0)
    records = list(tuned(run, model, online, target, plan, out))
    kinds = [type(record) for record in records]
    assert kinds == [RewardCheck, *[RewardStep] * 2, RewardCheck, *[RewardStep] * 2, RewardCheck]
    assert max(seen) == 1  # pixels, and nothing beyond black and white
    new = Run.at(out)
    assert new.config == run.config
    before, after = (r.model()[0].sample(n=20, seed=9).double().mean() for r in (run, new))
    assert after > before + 2  # grey levels
    messages = json.loads((out / "tuning.json").read_text())
    assert messages["from"] == str(run.path)
    assert [row["kind"] for row in messages["rows"]] == [
        "check" if k is RewardCheck else "step" for k in kinds
    ]
    assert (out / "tuning.png").read_bytes().startswith(b"\x89PNG")
    assert new.images_seen() == run.images_seen()


def test_a_tuned_run_still_has_what_autoguidance_needs(tmp_path):
    base = trained(tmp_path / "base", "training.snapshot=0.5", "sampling.autoguidance=1.5")
    plan, out = Tuning(images=8, batch=8, check_every=8), tmp_path / "new"
    list(tuned(base, base.model()[0], Steady(), Reward(brightness, 1, 0, {}), plan, out))
    (weak, _), (other, _) = (
        run.model(CheckpointRef(checkpoint="snapshot")) for run in (base, Run.at(out))
    )
    assert torch.equal(weak.sample(n=4), other.sample(n=4))
    assert Run.at(out).model()[0].sample(n=2).shape == (2, 1, 8, 8)
    assert json.loads((out / "tuning.json").read_text())["sampling"]["autoguidance"] == 1.5


class Steady:
    """Online metrics that are always in bounds."""

    drawing = DRAWING

    def measure(self, model):
        return {"accuracy": 1.0, "coverage": 1.0}


def climbed(run, out, rank, seed=0):
    """Tune to brightness in two steps; the weights written, and what the model drew at the end."""
    model = run.model()[0]
    plan = Tuning(images=16, batch=8, learning_rate=1e-2, check_every=16, rank=rank)
    for _ in tuned(run, model, Steady(), Reward(brightness, 1, seed, {}), plan, out):
        drawn = model.sample(n=10, seed=9)
    return checkpoint.read(out / "checkpoints" / "last.safetensors").section("ema"), drawn


def ranks(before, after):
    """Of the change of each matrix, by name; what float32 rounds off (below 1e-5) is none."""
    found = {
        name: (after[name] - before[name]).flatten(1) for name in before if before[name].ndim > 1
    }
    return {n: int(torch.linalg.matrix_rank(change, atol=1e-5)) for n, change in found.items()}


def test_a_low_rank_is_the_rank_of_every_change(run, tmp_path):
    before = checkpoint.read(run.last).section("ema")
    low, drawn = climbed(run, tmp_path / "low", 2)
    assert (drawn != run.model()[0].sample(n=10, seed=9)).any()
    assert torch.equal(Run.at(tmp_path / "low").model()[0].sample(n=10, seed=9), drawn)
    assert low.keys() == before.keys()
    table = "mapping.tables.label.weight"
    found = ranks(before, low)
    assert found.pop(table) == 0
    assert set(found.values()) == {1, 2}
    assert all(rank == min(2, *before[n].flatten(1).shape) for n, rank in found.items())
    assert all(torch.equal(low[n], before[n]) for n in before if before[n].ndim == 1)
    full = ranks(before, climbed(run, tmp_path / "full", None)[0])
    assert all(full[name] > rank for name, rank in found.items() if rank == 2)
    messages, all_messages = (
        json.loads((tmp_path / name / "tuning.json").read_text()) for name in ("low", "full")
    )
    shapes = [before[name].flatten(1).shape for name in found]
    assert (messages["rank"], all_messages["rank"]) == (2, None)
    assert messages["trained"] == sum(min(2, *shape) * sum(shape) for shape in shapes)
    assert all_messages["trained"] == sum(w.numel() for w in before.values())


def test_a_low_rank_is_tuned_the_same_way_from_the_same_seed(run, tmp_path):
    first, again, other = (climbed(run, tmp_path / str(i), 2, i // 2)[0] for i in range(3))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_beyond_the_bound_are_not_kept(run, tmp_path):
    looks = iter([1.0, 0.97, 0.5])

    class Falling:
        drawing = SampleBatch.of(torch.arange(3))

        def measure(self, model):
            return {"accuracy": next(looks), "coverage": 1.0, "kd": 0.0}

    model, out, kept = run.model()[0], tmp_path / "new", []
    target = Reward(brightness, 1, 0, {})
    plan = Tuning(images=80, batch=8, check_every=8)
    for record in tuned(run, model, Falling(), target, plan, out):
        if isinstance(record, RewardCheck):
            kept.append({k: v.clone() for k, v in model.denoiser.network.state_dict().items()})
    assert record == RewardCheck(16, {"accuracy": 0.5, "coverage": 1.0}, in_bounds=False)
    found = Run.at(out).model()[0].denoiser.network.state_dict()
    assert all(torch.equal(found[name], kept[1][name]) for name in found)
    assert any(not torch.equal(found[name], kept[2][name]) for name in found)


def test_more_last_steps_than_there_are_is_refused(run, tmp_path):
    target = dataclasses.replace(Reward(brightness, 4, 0, {}))
    with pytest.raises(mezzotint.errors.InputError, match="the last 4 steps of 3"):
        next(tuned(run, run.model()[0], None, target, Tuning(images=8), tmp_path / "new"))
