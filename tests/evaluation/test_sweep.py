"""A sweep: its errors against closed forms, its numbers against those of the samples on disk."""

import dataclasses
import json
import shutil

import pytest
import scipy.linalg
import torch
from PIL import Image

import mezzotint
from mezzotint.config.schema import Sampling
from mezzotint.errors import CheckpointError, InputError
from mezzotint.evaluation.samples import run_samples
from mezzotint.evaluation.sweep import (
    Point,
    Setting,
    SweepRequest,
    advice,
    execute,
    jackknife,
    settings,
)
from mezzotint.metrics.extractors.extractor import shipped
from mezzotint.runs.run import Run
from mezzotint.runtime import checksum
from mezzotint.sampling.model import Model
from mezzotint.sampling.request import SamplingOptions
from mezzotint.training import checkpoint
from tiny_runs import trained


@pytest.fixture(scope="module")
def _run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "run", "training.snapshot=0.5")


@pytest.fixture
def run(_run, tmp_path):
    """A copy of that run with an early snapshot, whose weights do something: after so few steps a
    label changes next to nothing.
    """
    own = Run.at(shutil.copytree(_run.path, tmp_path / "run"))
    draws = torch.Generator().manual_seed(0)
    for file in (own.last, own.snapshot):
        saved = checkpoint.read(file)
        tensors = {
            name: torch.randn(value.shape, generator=draws) * 0.2
            if name.startswith("ema.")
            else value
            for name, value in saved.tensors.items()
        }
        checkpoint.write(file, tensors, saved.facts)
    return own


def ask(run, **changes):
    usual = {"n": 150, "scales": (1.0, 2.0), "options": SamplingOptions(evaluations=2)}
    return SweepRequest(run.path, **{**usual, **changes})


def swept(request):
    """Return what `sweep --json` prints."""
    return execute(request).to_json()


# --- errors and advice, from made-up numbers ---------------------------------------------------


def test_of_a_mean_the_jackknife_is_the_error_of_the_mean_of_groups():
    values = torch.randn(10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without = [float(values[torch.arange(10) != g].mean()) for g in range(10)]
    expected = float(values.mean(1).std(correction=1)) / 10**0.5
    assert jackknife(without) == pytest.approx(expected, rel=1e-12)


def point(scale, fd, coverage, wiggle, family="guidance"):
    """A point with the same wiggle of its value in each group."""
    values = {"fd": fd, "coverage": coverage}
    return Point(
        Setting(family, scale),
        values,
        {name: tuple(value + w for w in wiggle) for name, value in values.items()},
    )


def test_noise_that_two_settings_share_falls_out_of_their_difference():
    wiggle = torch.randn(10, generator=torch.Generator().manual_seed(1)).tolist()
    near, far = point(1, 5.0, 0.5, wiggle), point(2, 5.1, 0.5, wiggle)
    assert near.error("fd") > 0.1
    assert near.beyond(far, "fd") == pytest.approx((0.1, 0), abs=1e-12)
    assert far.beyond(near, "fd")[0] == pytest.approx(-0.1)  # less is better


def test_advice_names_the_best_and_what_is_no_worse_within_the_noise():
    still, loud = [0.0] * 10, [0.01 * (-1) ** g for g in range(10)]
    points = [
        point(1, 5.0, 0.90, still),
        point(1.5, 3.01, 0.60, loud),
        point(2, 3.0, 0.50, still),
        point(3, 4.0, 0.40, still),
    ]
    found, lines = advice(points, 500)
    assert found["fd"]["setting"]["scale"] == 2
    assert [setting["scale"] for setting in found["fd"]["alike"]] == [1.5]
    assert (found["coverage"]["setting"]["scale"], found["coverage"]["alike"]) == (1, [])
    assert lines == [
        "Least Frechet distance: guidance 2, 3 ± 0 (n = 500); no difference within the noise to "
        "guidance 1.5.",
        "Largest coverage: guidance 1, 0.9 ± 0 (n = 500); all others differ by more than the "
        "noise.",
        "Take guidance 2 for clear images, guidance 1 for varied ones such as training data.",
    ]


def test_advice_where_nothing_differs_or_one_is_best_in_both():
    loud = [0.5 * (-1) ** g for g in range(10)]
    _, lines = advice([point(1, 5.0, 0.5, [0.0] * 10), point(2, 5.1, 0.6, loud)], 200)
    assert "no difference between any of them within the noise" in lines[0]
    assert lines[2] == (
        "Take guidance 1: nothing is nearer to the real images, or covers more of them, by more "
        "than the noise; a larger --n tells more apart."
    )
    still = [0.0] * 10
    _, lines = advice([point(1.5, 5.0, 0.5, still), point(2, 5.1, 0.6, still)], 200)
    assert lines[2].startswith("Take guidance 1.5 for clear images, guidance 2 for varied")
    apart = {"fd": tuple(loud), "coverage": (0.6,) * 10}
    wide = Point(Setting("guidance", 2), {"fd": 5.1, "coverage": 0.6}, apart)
    _, lines = advice([point(1.5, 5.0, 0.5, still), wide], 200)
    assert lines[2].startswith("Take guidance 2: its Frechet distance is no larger within")
    _, lines = advice([point(1.5, 5.0, 0.5, still), point(2, 9.0, 0.6, loud)], 200)
    assert lines[2].startswith("Take guidance 1.5: it covers no less within the noise")
    _, lines = advice([point(1, 5.0, 0.5, loud), point(2, 4.1, 0.6, loud, "autoguidance")], 200)
    assert lines[2] == "Take autoguidance 2: both numbers point to it."


def titles(scales, interval=None, **more):
    more = {"guidable": True, "snapshot": True, **more}
    found = settings(SweepRequest("run", scales=scales, interval=interval), **more)
    return [(setting.family, setting.scale) for setting in found]


def test_every_curve_has_every_scale_and_plain_is_drawn_once():
    auto, inside = "autoguidance", "interval"
    assert titles((1, 2), snapshot=False) == [("guidance", 1), ("guidance", 2)]
    assert titles((1, 2)) == [("guidance", 1), ("guidance", 2), (auto, 2)]
    assert titles((2, 1), guidable=False) == [(auto, 2), (auto, 1)]
    assert titles((0, 2), (0.1, 2)) == [
        ("guidance", 0), ("guidance", 2), (inside, 0), (inside, 2), (auto, 0), (auto, 2),
    ]  # fmt: skip
    for scales in ((), (2,), (1, 1), (-1, 2), (1, float("nan"))):
        with pytest.raises(InputError, match="two or more different scales"):
            titles(scales)
    with pytest.raises(CheckpointError, match="nothing guides"):
        titles((1, 2), guidable=False, snapshot=False)


# --- a real run -------------------------------------------------------------------------------


def textbook_distance(a, b):
    """Heusel et al. 2017, by scipy's matrix square root."""
    a, b = torch.as_tensor(a).double(), torch.as_tensor(b).double()
    first, second = torch.cov(a.T), torch.cov(b.T)
    root = torch.as_tensor(scipy.linalg.sqrtm((first @ second).numpy()).real)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + torch.trace(first + second - 2 * root))


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # fewer images than features
def test_a_sweep_recommends_the_least_distance_of_what_the_model_draws(run, digits, monkeypatch):
    result = swept(ask(run, interval=(2.0, 100.0)))
    classifier = shipped(digits)
    held = classifier.features(digits.split("validation")[0])
    model = mezzotint.load(run, guide_model=True).changed(evaluations=2)
    drawing = run_samples(run.path, digits).batch(150)
    found = {}
    for row in result["points"]:
        auto = row["family"] == "autoguidance"
        own = model.changed(
            guidance=1 if auto else row["scale"],
            autoguidance=row["scale"] if auto else 1,
            interval=row["interval"],
        )
        reading = classifier.read(own.sample_batch(drawing))
        distance = textbook_distance(reading.features, held)
        assert row["values"]["fd"] == pytest.approx(distance, rel=1e-3)
        right = (reading.probabilities.argmax(1) == drawing.labels).double().mean()
        assert row["values"]["accuracy"] == pytest.approx(float(right))
        assert 0 < row["errors"]["fd"] < distance
        found[row["family"], row["scale"]] = distance
    assert len(set(found.values())) == 4
    advised = result["advice"]["fd"]["setting"]
    assert (advised["family"], advised["scale"]) == min(found, key=found.get)
    assert result["protocol"]["split"] == "validation"
    assert result["samples"]["snapshot_images_seen"] == 32

    # Written, whole, and found again: nothing is drawn twice.
    written = json.loads((run.path / "sweep.json").read_text())
    assert checksum.is_valid(written)
    assert checksum.strip_checksum(written) == json.loads(
        json.dumps({k: v for k, v in result.items() if k != "written"})
    )
    with Image.open(run.path / "sweep.png") as picture:
        assert picture.size == (1350, 690)
    monkeypatch.setattr(Model, "sample_batch", lambda *a: pytest.fail("drawn again"))
    again = swept(ask(run, interval=(2.0, 100.0)))
    assert again["points"] == result["points"]


def test_a_curve_without_an_interval_is_guided_everywhere_whatever_the_run_does(run):
    narrow = Run.at(shutil.copytree(run.path, run.path.with_name("narrow")))
    config = narrow.config.model_copy(
        update={"sampling": narrow.config.sampling.model_copy(update={"interval": (2.0, 100.0)})}
    )
    narrow = dataclasses.replace(narrow, config=config)
    narrow.write_config()
    ours, theirs = (
        {(p["family"], p["scale"]): p["values"] for p in swept(ask(r))["points"]}
        for r in (narrow, run)
    )
    assert ours == theirs


def test_plain_is_plain_for_a_run_that_guides_in_every_way():
    """Whatever guides in the settings of a run, scale 1 of every curve is the default of each."""
    own = Sampling(
        guidance=2.0,
        style_guidance={"slant": 3.0},
        autoguidance=2.0,
        interval=(0.1, 2.0),
        clip=True,
    )
    for family in ("guidance", "autoguidance"):
        plain = Sampling(**{**dict(own), **Setting(family, 1.0).options().changes()})
        assert plain == Sampling(clip=True)


def test_a_sweep_draws_without_the_style_guidance_of_the_run(run):
    keen = Run.at(shutil.copytree(run.path, run.path.with_name("keen")))
    own = keen.config.sampling.model_copy(update={"style_guidance": {"slant": 2.0}})
    config = keen.config.model_copy(update={"sampling": own})
    keen = dataclasses.replace(keen, config=config)
    keen.write_config()
    found, expected = (swept(ask(r)) for r in (keen, run))
    for one, other in zip(found["points"], expected["points"], strict=True):
        assert one["values"] == other["values"]
    guides = {"guidance", "style_guidance", "autoguidance", "interval"}
    assert not guides & set(found["samples"])


def test_a_sweep_that_was_interrupted_goes_on(run, monkeypatch):
    draw, calls = Model.sample_batch, []

    def drawing(model, drawing, *rest):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(model.sampling.guidance)
        return draw(model, drawing, *rest)

    monkeypatch.setattr(Model, "sample_batch", drawing)
    with pytest.raises(KeyboardInterrupt):
        swept(ask(run))
    assert not (run.path / "sweep.json").exists()
    monkeypatch.setattr(
        Model, "sample_batch", lambda m, *a: calls.append(m.sampling) or draw(m, *a)
    )
    swept(ask(run))
    assert calls[0] == 1.0  # the first setting, not drawn again
    assert [(s.guidance, s.autoguidance) for s in calls[1:]] == [(2.0, 1.0), (1.0, 2.0)]


def test_too_few_samples_are_refused_before_anything_is_drawn(run, monkeypatch):
    monkeypatch.setattr(Model, "sample_batch", lambda *a: pytest.fail("drawn"))
    with pytest.raises(InputError, match="--n 143 is too few .* 128 features: 144 or more"):
        swept(ask(run, n=143))
