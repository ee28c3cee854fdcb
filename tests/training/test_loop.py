import copy
import dataclasses
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from mezzotint.data import spread
from mezzotint.diffusion import Condition, Denoiser, Edm, Learned, LogNormal, loss, positions
from mezzotint.errors import InputError
from mezzotint.imaging import to_float
from mezzotint.runtime.rng import generator
from mezzotint.training import (
    Diverged,
    MicroBatchReduced,
    Skipped,
    Stepped,
    Stopped,
    Validated,
    loop,
    train,
    validation,
    validation_loss,
)
from mezzotint.training.batches import UNGUIDED_EVERY, held_out, next_batch, rows_after
from mezzotint.training.checkpoint import read, write
from mezzotint.training.step import update_second_moments


def weights(state):
    return {k: v.clone() for k, v in state.denoiser.network.state_dict().items()}


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_every_epoch_visits_every_training_image_once(data, new_plan):
    plan = new_plan(batch=7)
    n = len(data.splits["train"])
    seen = torch.cat([rows_after(data, plan, start) for start in range(0, 7 * n, 7)])
    for epoch in range(7):
        chunk = seen[epoch * n : (epoch + 1) * n]
        assert torch.equal(chunk.sort().values, data.splits["train"])
    assert not torch.equal(seen[:n], seen[n : 2 * n])


def test_records_come_in_order_and_validation_where_due(data, new_state, new_plan, compute):
    records = list(train(new_state(), data, new_plan(), compute))
    steps = [r.images_seen for r in records if isinstance(r, Stepped)]
    assert steps == list(range(8, 81, 8))
    validated = [r.images_seen for r in records if isinstance(r, Validated)]
    assert validated == [24, 48, 72, 80]
    at = [i for i, r in enumerate(records) if isinstance(r, Validated)]
    assert all(isinstance(records[i + 1], Stepped) for i in at)


def test_validation_loss_is_the_mean_over_held_out_images_at_fixed_noise(
    data, new_state, new_plan, compute
):
    state, plan = new_state(), new_plan()
    list(train(state, data, plan, compute))
    rows = data.splits["validation"]
    x0 = to_float(data.images[rows])
    eps = torch.randn(x0.shape, generator=generator("validation noise", 0))
    u = (torch.arange(5).double() + torch.rand(5, generator=generator("validation levels"))) / 5
    state.denoiser.network = state.ema
    with torch.no_grad():
        each = loss(
            state.denoiser,
            x0,
            Condition({"label": data.labels[rows]}),
            plan.schedule.sigma(u).float(),
            eps,
            plan.loss_weight,
        )
    assert state.history[-1] == pytest.approx(float(each.mean()), rel=1e-6)


def test_model_guidance_is_trained_from_its_start_on(data, new_state, new_plan, compute):
    plain, guided = new_state(), new_state()
    plan = new_plan(max_model_guidance=2.0, model_guidance_start=0.5)
    losses = [
        [r.loss for r in train(state, data, p, compute) if isinstance(r, Stepped)]
        for state, p in ((plain, new_plan()), (guided, plan))
    ]
    same = [a == b for a, b in zip(*losses, strict=True)]
    assert same == [True] * 5 + [False] * 5
    assert guided.history[0] == plain.history[0]
    # What is validated is the plain denoiser.
    rows = data.splits["validation"]
    x0, condition = to_float(data.images[rows]), Condition({"label": data.labels[rows]})
    eps = torch.randn(x0.shape, generator=generator("validation noise", 0))
    u = (torch.arange(5).double() + torch.rand(5, generator=generator("validation levels"))) / 5
    guided.denoiser.network = guided.ema
    with torch.no_grad():
        sigma = plan.schedule.sigma(u).float()
        each = loss(guided.denoiser, x0, condition, sigma, eps, plan.loss_weight)
    assert guided.history[-1] == pytest.approx(float(each.mean()), rel=1e-5)


def test_what_is_validated_is_of_all_classes_also_where_they_lie_one_after_the_other(
    data, new_state, new_plan, compute, monkeypatch
):
    data = dataclasses.replace(data, labels=torch.arange(len(data.labels)) // 20)
    data.splits["validation"] = torch.arange(len(data.labels))
    seen = []

    def watched(data, plan, rows, *rest):
        seen.append(rows)
        return held_out(data, plan, rows, *rest)

    monkeypatch.setattr(validation, "held_out", watched)
    validation_loss(new_state(), data, new_plan(validation_images=8), compute)
    assert data.labels[torch.cat(seen)].unique().tolist() == data.labels.unique().tolist()


def test_scales_of_guidance_are_even_and_each_fourth_image_goes_without(data, new_state, new_plan):
    plan = new_plan(batch=8000, dropout={"label": 0.2}, max_model_guidance=3.0)
    condition = next_batch(data, plan, 0, "cpu").condition
    scale = condition.factors["guidance"]
    assert scale.isnan().nonzero()[:, 0].tolist() == list(
        range(UNGUIDED_EVERY - 1, 8000, UNGUIDED_EVERY)
    )
    asked = scale[~scale.isnan()]
    assert 1 < float(asked.min()) < 1.01
    assert 2.99 < float(asked.max()) <= 3
    assert float(asked.mean()) == pytest.approx(2, abs=0.03)
    early = next_batch(data, new_plan(max_model_guidance=3.0, model_guidance_start=0.5), 0, "cpu")
    assert list(early.condition.factors) == ["label"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_model_guidance": 1.5, "model_guidance_start": 0.4},
        {"schedule": Learned(LogNormal(), pieces=4)},
    ],
)
def test_stopping_after_any_step_and_going_on_changes_nothing(
    data, new_state, new_plan, compute, tmp_path, changes
):
    new_plan = partial(new_plan, **changes)
    for norm in ("group", "batch"):
        whole = new_state(norm)
        expected = [r for r in train(whole, data, new_plan(), compute) if isinstance(r, Stepped)]
        file = tmp_path / f"{norm}.safetensors"
        got, images = [], 0
        while images < 80:
            state = new_state(norm)
            if images:
                state.restore(read(file))
            for record in train(state, data, new_plan(), compute):
                if isinstance(record, Stepped):
                    got.append(record)
                    break
            write(file, state.tensors(), state.facts())
            images = state.images_seen
        assert got == expected
        assert_equal(state.tensors(), whole.tensors())
        assert state.history == whole.history


def test_micro_batches_give_the_gradient_of_the_whole_batch(data, new_state, new_plan, compute):
    whole, parts = new_state(), new_state(micro_batch=3)
    for state in (whole, parts):
        list(train(state, data, new_plan(images=8), compute))
        state.denoiser.double()
    for ours, theirs in zip(whole.denoiser.parameters(), parts.denoiser.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("can't allocate memory: 8 GB"),
        RuntimeError("could not create a primitive"),  # oneDNN's whole message
    ],
)
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_mathematics(
    data, new_state, new_plan, compute, error
):
    def small_memory(module, arguments):
        if len(arguments[0]) > 2:
            raise error

    plan = new_plan(images=40, validate_every=1000, validation_images=2)
    plain, short = new_state(), new_state()
    short.denoiser.network.register_forward_pre_hook(small_memory)
    short.ema.register_forward_pre_hook(lambda module, arguments: None)
    list(train(plain, data, plan, compute))
    records = list(train(short, data, plan, compute))
    assert [r.micro_batch for r in records if isinstance(r, MicroBatchReduced)] == [2]
    assert short.images_seen == 40
    for ours, theirs in zip(plain.denoiser.parameters(), short.denoiser.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=2e-4)


def test_out_of_memory_with_one_image_says_what_to_do(data, new_state, new_plan, compute):
    def no_memory(module, arguments):
        raise torch.OutOfMemoryError("out of memory")

    state = new_state()
    state.denoiser.network.register_forward_pre_hook(no_memory)
    with pytest.raises(InputError, match="smaller network"):
        list(train(state, data, new_plan(), compute))


def test_other_runtime_errors_are_not_taken_for_lack_of_memory(data, new_state, new_plan, compute):
    def broken(module, arguments):
        raise RuntimeError("shapes do not match")

    state = new_state()
    state.denoiser.network.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="shapes"):
        list(train(state, data, new_plan(), compute))


def test_a_step_that_is_not_finite_is_skipped_and_counted(data, new_state, new_plan, compute):
    state, calls = new_state(), []

    def poison(module, arguments, output):
        calls.append(1)
        return output * float("nan") if len(calls) == 2 else None

    state.denoiser.network.register_forward_hook(poison)
    steps = train(state, data, new_plan(validate_every=1000, images=80), compute)
    next(steps)
    before = weights(state)
    record = next(steps)
    assert record == Skipped(16, 1)
    assert_equal(weights(state), before)
    next(steps)
    after = next(steps)
    assert isinstance(after, Stepped)
    assert math.isfinite(after.loss)
    assert state.skipped == 1
    assert state.nonfinite_run == 0


def test_a_run_of_such_steps_ends_the_loop(data, new_state, new_plan, compute):
    state = new_state()
    state.denoiser.network.register_forward_hook(lambda m, g, output: output * float("nan"))
    *_, last = train(state, data, new_plan(images=8000), compute)
    assert last == Diverged(8 * loop.MAX_NONFINITE_STEPS)
    assert not state.healthy()


def test_early_stopping_and_target(data, new_state, new_plan, compute):
    state = new_state()
    *_, last = train(state, data, new_plan(images=8000, target=100.0), compute)
    assert isinstance(last, Stopped)
    assert state.images_seen == 24
    state = new_state()
    state.history = [0.1, 0.2, 0.3, 0.4]
    *_, last = train(state, data, new_plan(images=8000, patience=3), compute)
    assert (last.images_seen, last.reason) == (0, "no improvement in 3 validations")
    state.history = [0.1, 0.2, 0.3]
    assert not isinstance(next(train(state, data, new_plan(patience=3), compute)), Stopped)


def test_scaled_gradients_are_the_gradients(data, new_state, new_plan, compute):
    """Scales are powers of two, so that nothing is rounded otherwise."""
    states = new_state(), new_state()
    states[1].scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    losses = [
        [r.loss for r in train(state, data, new_plan(), compute) if isinstance(r, Stepped)]
        for state in states
    ]
    assert losses[0] == losses[1]
    assert_equal(weights(states[0]), weights(states[1]))


def test_a_gradient_too_large_for_its_scale_is_left_out_and_the_scale_halved(
    data, new_state, new_plan, compute
):
    state = new_state()
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=1000)
    before = weights(state)
    first, *_ = train(state, data, new_plan(images=8), compute)
    assert isinstance(first, Skipped)
    assert_equal(weights(state), before)
    assert state.scaler.get_scale() == 2.0**125
    assert state.skipped == 1


def test_the_label_is_dropped_at_its_probability(data, new_state, new_plan):
    plan = new_plan(batch=4000, dropout={"label": 0.25})
    batch = next_batch(data, plan, 0, "cpu")
    share = float((batch.condition.factors["label"] < 0).float().mean())
    assert share == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 4000) ** 0.5)


@pytest.mark.slow
def test_training_learns_what_pixels_have_in_common(data, new_state, new_plan, compute):
    """All pixels of an image are equal here; independent ones would leave the loss at 1.

    EDM's target is scaled so that predicting 0, the best for independent Gaussian pixels, costs 1.
    """
    flat = data.images[:, :, :1, :1].expand(-1, 1, 4, 4).contiguous()
    plan = new_plan(images=2800, validate_every=2800)
    steps = train(new_state(), dataclasses.replace(data, images=flat), plan, compute)
    losses = [r.loss for r in steps if isinstance(r, Stepped)]
    assert sum(losses[:3]) / 3 == pytest.approx(1, abs=0.4)
    assert sum(losses[-50:]) / 50 < 0.7


def test_a_learned_schedule_draws_where_the_loss_is_larger(data, new_state, new_plan, compute):
    """Losses that grow by a known law, in place of a network's."""
    plan = new_plan(schedule=Learned(LogNormal(), pieces=4, floor=0.01), batch=40, images=20_000)
    state = new_state()
    size = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for _ in range(4000):
        batch = next_batch(
            data, plan, state.images_seen, "cpu", second_moments=state.second_moments
        )
        update_second_moments(state, batch, size[(batch.position * 4).long()], 4)
        state.images_seen += plan.batch
    assert state.second_moments == pytest.approx([1, 4, 9, 16], rel=0.05)
    assert plan.schedule.resampled(state.second_moments).shares == pytest.approx(
        [0.99 * k / 10 + 0.0025 for k in (1, 2, 3, 4)], rel=0.02
    )


def test_validation_in_small_memory_gives_the_same_loss(data, new_state, new_plan, compute):
    def small_memory(module, arguments):
        if len(arguments[0]) > 2:
            raise RuntimeError("can't allocate memory: 8 GB")

    state, plan = new_state(), new_plan()
    list(train(state, data, plan, compute))
    whole = validation_loss(state, data, plan, compute)
    state.ema.register_forward_pre_hook(small_memory)
    assert validation_loss(state, data, plan, compute) == pytest.approx(whole, rel=1e-5)


def test_the_averaged_denoiser_shares_its_weights_and_leaves_the_modes_alone(
    data, new_state, new_plan, compute
):
    state = new_state()
    list(train(state, data, new_plan(), compute))
    averaged = state.ema_denoiser
    for ours, theirs in zip(averaged.parameters(), state.ema.parameters(), strict=True):
        assert ours is theirs
    assert averaged.parameterization == state.denoiser.parameterization
    assert not any(module.training for module in averaged.modules())
    assert all(module.training for module in state.denoiser.modules())


def test_validation_has_the_bits_of_a_denoiser_whose_network_is_the_average(
    data, new_state, new_plan, compute
):
    state, plan = new_state("batch"), new_plan(max_model_guidance=2.0, model_guidance_start=0.5)
    list(train(state, data, plan, compute))
    swapped = copy.deepcopy(state)
    swapped.denoiser.network = swapped.ema
    batch = held_out(
        data, plan, spread(data.splits["validation"], plan.validation_images),
        positions(5, generator("validation levels")), 0,
    )  # fmt: skip
    with torch.no_grad():
        each = loss(
            swapped.denoiser, batch.x0, batch.condition, batch.sigma, batch.eps, plan.loss_weight
        )
    assert state.history[-1] == float(each.double().sum()) / 5


def test_a_thread_that_uses_the_training_network_is_not_given_the_average_by_a_validation(
    data, new_state, new_plan, compute
):
    state, plan = new_state(), new_plan()
    list(train(state, data, plan, compute))
    x, sigma = to_float(data.images[:4]), torch.ones(4)

    def denoised():
        with torch.no_grad():
            return state.denoiser(x, sigma)

    expected, seen = denoised(), []
    with torch.no_grad():
        assert not torch.equal(Denoiser(state.ema, Edm(0.58))(x, sigma), expected)

    def elsewhere(*arguments):
        hook.remove()  # once, and not within itself
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(denoised).result())

    hook = state.ema.register_forward_pre_hook(elsewhere)
    validation_loss(state, data, plan, compute)
    assert seen
    assert all(torch.equal(each, expected) for each in seen)
