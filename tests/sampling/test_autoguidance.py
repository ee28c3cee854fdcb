"""The early snapshot of a run, and drawing with it as the guide model."""

import dataclasses
import shutil

import pytest
import torch

import mezzotint
from mezzotint.errors import CheckpointError, InputError
from mezzotint.evaluation.samples import run_samples
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runs.setup import TrainRequest, setup
from mezzotint.runs.trainer import CheckpointInterval, Trainer
from mezzotint.sampling.model import SampleBatch
from mezzotint.sampling.request import SamplingOptions
from mezzotint.training import Stepped, checkpoint
from tiny_runs import TINY, trained

STEADY = ('training.lr_schedule={kind="constant"}', "sampling.evaluations=4")
EARLY = "checkpoints/early.safetensors"


@pytest.fixture(scope="module")
def _run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return trained(out, *STEADY, "training.snapshot=0.4", budget="96images")


@pytest.fixture
def run(_run, tmp_path):
    """A copy of a run that kept its weights at 0.4 of 96 images."""
    return Run.at(shutil.copytree(_run.path, tmp_path / "run"))


def equal(ours, theirs, part):
    a, b = checkpoint.read(ours).section(part), checkpoint.read(theirs).section(part)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_snapshot_is_what_a_shorter_training_ends_with(run, tmp_path):
    assert run.images_seen("snapshot") == 48  # the first step at or beyond 0.4 * 96 = 38.4
    assert run.images_seen() == 96
    shorter = trained(tmp_path / "shorter", *STEADY, budget="48images")
    for part in ("ema", "network"):
        assert equal(run.snapshot, shorter.last, part)
        assert not equal(run.snapshot, run.last, part)
    assert not shorter.snapshot.exists()


def test_an_interrupted_training_keeps_the_same_snapshot(run, tmp_path):
    settings = (*TINY, *STEADY, "training.snapshot=0.4")
    request = TrainRequest("digits", tmp_path / "broken", budget="96images", settings=settings)
    for stop in (16, 48, 80, 96):
        broken, data = setup(request)
        with Trainer(broken, data, CheckpointInterval(32, "images")) as trainer:
            for record in trainer.run():
                if isinstance(record, Stepped) and record.images_seen == stop:
                    break  # as if killed: what was not saved is lost
    for part in ("ema", "network"):
        assert equal(broken.snapshot, run.snapshot, part)
        assert equal(broken.last, run.last, part)
    ours, theirs = (checkpoint.read(each.snapshot).facts["images_seen"] for each in (broken, run))
    assert ours == theirs == 48


def test_a_larger_budget_keeps_it_anew_only_where_its_share_is_still_to_come(run, tmp_path):
    settings = (*TINY, *STEADY, "training.snapshot=0.4")
    for budget, at in (("112images", 48), ("288images", 128)):  # 45 is past, 116 is not
        mezzotint.train("digits", out=run.path, budget=budget, settings=settings)
        assert run.images_seen("snapshot") == at


def walked(model, labels=(3, 5)):
    return list(model.iterate(SampleBatch.of(torch.tensor(labels))))


def stirred(model):
    """With weights that do something: after so few steps a label changes next to nothing."""
    torch.manual_seed(0)
    for each in (model, model.guide_model):
        for parameter in each.denoiser.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_an_estimate_is_the_formula_over_both_models(run):
    model = stirred(mezzotint.load(run, guide_model=True))
    seen = []
    for guidance in (1.0, 0.0, 2.0):
        own = model.changed(guidance=guidance)
        weak = model.guide_model.changed(guidance=guidance)
        # Both samplers start from the same noise, so their first estimates are of the same x.
        good, bad, both = (walked(m)[1].x0 for m in (own, weak, own.changed(autoguidance=2.5)))
        torch.testing.assert_close(both, bad + 2.5 * (good - bad), rtol=1e-5, atol=1e-5)
        seen += [good, bad, both]
    for i, one in enumerate(seen):
        assert not any(torch.allclose(one, other, atol=1e-3) for other in seen[:i])


def test_scale_1_or_an_equal_model_or_a_level_outside_the_interval_is_plain(run):
    model = mezzotint.load(run, guide_model=True)
    plain = walked(mezzotint.load(run))
    equal_models = dataclasses.replace(model, guide_model=model)
    for same in (
        model,
        model.changed(autoguidance=1),
        equal_models.changed(autoguidance=3),
        model.changed(autoguidance=3, interval=(1e6, 1e7)),
    ):
        for ours, theirs in zip(walked(same), plain, strict=True):
            assert torch.equal(ours.x, theirs.x)
            assert torch.equal(ours.x0, theirs.x0)
    assert not torch.equal(walked(model.changed(autoguidance=3))[-1].x, plain[-1].x)


def test_a_guide_model_without_model_guidance_is_guided_by_two_evaluations(tmp_path):
    """A scale in the condition of a network that was not trained with it would be noise."""
    more = (
        "training.snapshot=0.3",
        "training.model_guidance.max_scale=3",
        "training.model_guidance.start=0.5",
    )
    run = trained(tmp_path / "learned", *STEADY, *more, budget="96images")
    model = stirred(mezzotint.load(run, guide_model=True)).changed(guidance=2)
    assert (model.max_model_guidance, model.guide_model.max_model_guidance) == (3, 1)
    good = walked(model)[1].x0
    free, label = (walked(model.guide_model.changed(guidance=g))[1].x0 for g in (0, 1))
    assert not torch.allclose(free, label, atol=1e-3)
    bad = free + 2 * (label - free)
    both = walked(model.changed(autoguidance=1.5))[1].x0
    torch.testing.assert_close(both, bad + 1.5 * (good - bad), rtol=1e-5, atol=1e-5)


def test_the_settings_may_ask_for_it_and_training_previews_do_without(tmp_path):
    more = ("training.snapshot=0.5", "sampling.autoguidance=2", "training.preview_every=16")
    run = trained(tmp_path / "run", *STEADY, *more)
    assert len(list((run.path / "samples").iterdir())) == 4  # from before the snapshot on
    assert mezzotint.load(run).guide_model is not None
    assert mezzotint.load(run, guide_model=False).guide_model is None


def test_without_a_snapshot_or_with_a_damaged_one_it_is_one_line(run):
    with pytest.raises(InputError, match="guide_model=True"):
        mezzotint.load(run).sample(autoguidance=2)
    data = bytearray(run.snapshot.read_bytes())
    data[-5] ^= 1
    run.snapshot.write_bytes(data)
    mezzotint.load(run).sample(n=1)  # is not concerned
    with pytest.raises(CheckpointError, match=r"early.safetensors is damaged"):
        run.model(CheckpointRef(guide_model=True))
    run.snapshot.unlink()
    with pytest.raises(CheckpointError, match=r"no early snapshot .*training.snapshot=0.1"):
        run.model(CheckpointRef(guide_model=True))


def test_the_facts_of_samples_name_the_guide_model_only_where_it_took_part(run):
    plain = run_samples(run.path)
    weak = run_samples(run.path, checkpoint=CheckpointRef(guide_model=True))
    assert weak.facts == plain.facts  # so that what was drawn before is found
    assert not {"autoguidance", "guide_model"} & set(plain.facts)
    guided = weak.with_options(SamplingOptions(autoguidance=2))
    assert guided.facts["autoguidance"] == 2
    assert len(guided.facts["guide_model"]) > 8
    assert guided.with_options(SamplingOptions(autoguidance=1)).facts == plain.facts
    narrow = SamplingOptions(guidance=2, interval=(0.1, 2), autoguidance=1)
    assert weak.with_options(narrow) != plain
