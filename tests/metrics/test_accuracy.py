"""Accuracy, confusion and score against scikit-learn and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn import metrics

from mezzotint.errors import InputError
from mezzotint.metrics.accuracy import accuracy, classifier_score, confusion, per_class
from mezzotint.runtime.rng import generator

CLASSES = 4


@pytest.fixture
def probabilities():
    return torch.randn(200, CLASSES, generator=generator("logits")).mul(2).softmax(1)


@pytest.fixture
def labels():
    return torch.randint(CLASSES, (200,), generator=generator("labels"))


def test_accuracy_confusion_and_recall_are_those_of_scikit_learn(probabilities, labels):
    read = probabilities.argmax(1)
    assert accuracy(probabilities, labels) == metrics.accuracy_score(labels, read)
    counts = confusion(probabilities, labels, CLASSES)
    assert counts.dtype == torch.int64
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(labels, read))
    np.testing.assert_allclose(
        per_class(probabilities, labels), metrics.recall_score(labels, read, average=None)
    )


def test_rows_are_asked_and_columns_are_read():
    probabilities = torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [1.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 0])
    assert confusion(probabilities, labels, 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    shares = per_class(probabilities, labels)
    assert shares[:2].tolist() == [0.5, 1.0]
    assert shares[2].isnan()  # nobody asked


def test_the_score_is_the_mean_divergence_from_the_mean(probabilities):
    p = probabilities.double().numpy()
    expected = math.exp(np.mean([entropy(row, p.mean(0)) for row in p]))
    assert classifier_score(probabilities) == pytest.approx(expected, rel=1e-6)


def test_the_score_takes_rows_that_sum_to_1_only_nearly(probabilities):
    off = probabilities * (1 + 0.01 * torch.rand(200, 1, generator=generator("off")))
    assert classifier_score(off) == pytest.approx(classifier_score(probabilities), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 7])
def test_the_score_runs_from_1_to_the_number_of_classes(classes):
    sure = torch.eye(classes).repeat(3, 1)
    assert classifier_score(sure) == pytest.approx(classes, rel=1e-12)
    assert classifier_score(torch.full((10, classes), 1 / classes)) == 1
    assert classifier_score(sure[:1].repeat(9, 1)) == 1  # sure, but always of one class
    half = torch.eye(classes)[[0, 1] * 5]
    assert classifier_score(half) == pytest.approx(2, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "labels", "classes", "message"),
    [
        ((3, 4), [0, 1], 4, "3 images and labels of shape"),
        ((2, 4), [0, 4], 4, "from 0 to 4: the classifier knows 0 to 3"),
        ((2, 4), [-1, 1], 4, "from -1 to 1"),
        ((2, 4), [0, 1], 5, "4 classes, but 5"),
        ((0, 4), [], 4, "shape"),
        ((4,), [0], 4, "shape"),
    ],
)
def test_mistakes_are_named(shape, labels, classes, message):
    with pytest.raises(InputError, match=message):
        confusion(torch.full(shape, 0.25), torch.tensor(labels, dtype=torch.int64), classes)
