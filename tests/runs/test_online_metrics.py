"""Cheap metrics in training, against scipy and plain counting on the very same samples."""

import dataclasses
import time

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from mezzotint.config.schema import Sampling
from mezzotint.errors import InputError
from mezzotint.metrics.coverage import coverage
from mezzotint.metrics.extractors.classifier import Classifier
from mezzotint.metrics.extractors.extractor import shipped
from mezzotint.metrics.frechet import frechet_distance, moments
from mezzotint.metrics.registry import online_metrics
from mezzotint.runs.online_metrics import EVALUATIONS, OnlineMetrics, beats
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model
from tiny_runs import trained


@pytest.fixture(scope="module")
def model(tiny_run):
    return tiny_run.model()[0]


@pytest.fixture(scope="module")
def online(digits):
    return OnlineMetrics.of(digits, 160, "cpu")


class Painter:
    """A model that gives real images of the labels that it is asked for."""

    def __init__(self, data, split):
        self.images, self.labels = data.split(split)
        self.asked = []

    @property
    def sampling(self):
        return Sampling()

    def changed(self, **changes):
        return self

    def sample_batch(self, drawing):
        self.asked.append(drawing)
        seen = torch.zeros(10, dtype=torch.int64)
        rows = []
        for label in drawing.labels.tolist():
            own = (self.labels == label).nonzero()[:, 0]
            rows.append(int(own[seen[label] % len(own)]))
            seen[label] += 1
        return self.images[rows]


def test_numbers_are_those_of_independent_programs(online, model, digits):
    values = online.measure(model)
    images = model.changed(evaluations=EVALUATIONS).sample_batch(online.drawing)
    classifier = shipped(digits)
    samples = classifier.read(images)
    real = classifier.features(digits.split("validation")[0])
    ours, theirs = samples.features.double().numpy(), real.double().numpy()

    first, second = np.cov(ours.T), np.cov(theirs.T)
    root = scipy.linalg.sqrtm(first @ second + 1e-12 * np.eye(128)).real
    distance = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)
    assert values["fd"] == pytest.approx(distance, rel=1e-3)
    exact = frechet_distance(moments(samples.features), moments(real))
    assert values["fd"] == pytest.approx(exact, rel=1e-9)

    def kernel(a, b):
        return polynomial_kernel(a, b, degree=3, gamma=1 / 128, coef0=1)

    def inside(a):
        return (kernel(a, a).sum() - kernel(a, a).trace()) / (len(a) * (len(a) - 1))

    distance = inside(ours) + inside(theirs) - 2 * kernel(ours, theirs).mean()
    assert values["kd"] == pytest.approx(distance, rel=1e-6)

    right = (samples.probabilities.argmax(1) == online.drawing.labels).double().mean()
    assert values["accuracy"] == pytest.approx(float(right))

    draws = generator("gauge")
    torch.randperm(160, generator=draws)  # the kernel distance cuts its blocks first
    torch.randperm(153, generator=draws)
    rows = torch.randperm(153, generator=draws)
    order = torch.randperm(160, generator=draws)[:153]
    assert values["coverage"] == coverage(real[rows], samples.features[order]).coverage


def test_the_labels_are_those_of_validation_again_and_again(online, digits):
    labels = digits.split("validation")[1]
    assert torch.equal(online.drawing.labels, torch.cat([labels, labels[:7]]))
    painter = Painter(digits, "test")
    online.measure(painter)
    (asked,) = painter.asked
    assert torch.equal(asked.labels, online.drawing.labels)
    assert asked.keys.tolist() == [[0, i] for i in range(160)]


@pytest.mark.parametrize(("own", "spent"), [(4, 4), (10, 10), (50, EVALUATIONS)])
def test_a_sample_costs_ten_evaluations_at_most(online, model, own, spent):
    calls = []
    hook = model.denoiser.network.register_forward_hook(lambda *arguments: calls.append(1))
    small = dataclasses.replace(online, drawing=online.drawing[:20])
    try:
        small.measure(model.changed(evaluations=own))
    finally:
        hook.remove()
    assert len(calls) == spent


def test_real_images_are_near_and_wrong_ones_far(online, digits, model):
    good, bad = online.measure(Painter(digits, "test")), online.measure(model)
    assert set(good) == set(online_metrics()) == {"fd", "kd", "coverage", "accuracy"}
    assert good["accuracy"] > 0.98
    assert good["coverage"] > 0.85
    assert good["kd"] < 0.01
    for name in online_metrics():
        assert beats(name, good[name], bad[name]), name
        assert not beats(name, bad[name], good[name]), name
        assert not beats(name, good[name], good[name]), name


def test_the_same_weights_give_the_same_numbers(online, model):
    assert online.measure(model) == pytest.approx(online.measure(model), rel=1e-9)


def test_too_few_for_the_rank_have_no_frechet_distance(digits, model, quiet):
    small = OnlineMetrics.of(digits, 100, "cpu")
    assert len(small.drawing) == 100
    assert set(small.measure(model)) == {"kd", "coverage", "accuracy"}


@pytest.mark.parametrize("n", [1, 5, 6])
def test_too_few_images_for_distances_still_have_an_accuracy(n, digits, model):
    few = {**digits.splits, "validation": digits.splits["validation"][:n]}
    data = dataclasses.replace(digits, splits=few)
    found = OnlineMetrics.of(data, 20, "cpu").measure(model)
    assert set(found) == ({"accuracy"} if n < 6 else {"accuracy", "kd", "coverage"})


def test_the_cost_is_that_of_all_samples_and_not_of_starting_up(online, model, monkeypatch):
    assert online.cost(model) > 0
    drawn, clock = [], [0.0]

    def slow(model, drawing):
        evaluations = model.sampling.evaluations
        clock[0] += (0 if drawn else 30) + 0.025 * evaluations * len(drawing)
        drawn.append((evaluations, len(drawing)))
        return torch.zeros(len(drawing), 1, 8, 8, dtype=torch.uint8)

    monkeypatch.setattr(Model, "sample_batch", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    assert online.cost(model) == pytest.approx(0.25 * 160)
    assert drawn == [(1, 64), (EVALUATIONS, 64)]
    drawn.clear()
    few = dataclasses.replace(online, drawing=online.drawing[:9])
    assert few.cost(model) == pytest.approx(0.25 * 9)
    assert drawn == [(1, 9), (EVALUATIONS, 9)]


def test_the_reference_is_the_validation_split_and_has_no_anchors(online, digits):
    assert online.reference.facts["split"] == "validation"
    assert online.reference.facts["n_reference"] == 153
    assert not online.reference.anchors
    expected = shipped(digits).features(digits.split("validation")[0])
    assert torch.equal(online.reference.real.features, expected)


def test_the_classifier_reads_on_its_device(digits, monkeypatch, quiet):
    moved = []

    def on(classifier, device):
        moved.append((device, dataclasses.replace(classifier)))
        return moved[-1][1]

    monkeypatch.setattr(Classifier, "on", on)
    found = OnlineMetrics.of(digits, 40, "somewhere")
    ((device, classifier),) = moved
    assert device == "somewhere"
    assert found.reference.classifier is found.reference.extractor is classifier


def test_training_asks_for_the_device_that_it_trains_on(tmp_path, monkeypatch):
    devices = []

    def on(classifier, device):
        devices.append(device)
        return classifier

    monkeypatch.setattr(Classifier, "on", on)
    settings = ("training.metrics_every=16", "training.metrics_images=20")
    run = trained(tmp_path / "run", *settings, budget="32images")
    assert devices == [run.model()[0].compute.device]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_on_a_gpu_the_numbers_are_those_of_the_cpu(online, digits, model, quiet):
    there = OnlineMetrics.of(digits, 160, "cuda")
    assert next(there.reference.classifier.network.parameters()).is_cuda
    assert there.reference.real.features.device.type == "cpu"
    torch.testing.assert_close(
        there.reference.real.features, online.reference.real.features, rtol=1e-2, atol=1e-2
    )
    assert there.measure(model) == pytest.approx(online.measure(model), rel=0.05, abs=1e-3)


def test_without_validation_images_it_is_one_line(digits, quiet):
    splits = {**digits.splits, "validation": torch.empty(0, dtype=torch.int64)}
    with pytest.raises(InputError, match="digits has no validation images") as caught:
        OnlineMetrics.of(dataclasses.replace(digits, splits=splits), 50, "cpu")
    assert "\n" not in str(caught.value)
