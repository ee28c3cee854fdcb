"""Noise dealt out near the images: against all permutations, and by what it may not change."""

from itertools import permutations

import pytest
import torch
from tiny import make_data, make_plan

from mezzotint.randomness import generator
from mezzotint.training.batches import next_batch, rows_after
from mezzotint.training.pairing import paired


def distance(x0, eps):
    return float((x0 - eps).square().sum())


@pytest.mark.parametrize("seed", range(3))
def test_no_other_order_within_the_labels_is_nearer(seed):
    draws = generator("pairing", seed)
    x0, eps = torch.randn(2, 9, 1, 4, 4, generator=draws)
    labels = torch.tensor([2, 0, 2, 2, 0, 7, 0, 2, 2])
    best = sum(
        min(distance(x0[own], eps[own][list(order)]) for order in permutations(range(len(own))))
        for own in ((labels == label).nonzero()[:, 0] for label in (0, 2, 7))
    )
    assert distance(x0, paired(x0, eps, labels)) == pytest.approx(best, rel=1e-5)


def test_each_label_keeps_its_noise():
    draws = generator("pairing")
    x0, eps = torch.randn(2, 40, 1, 4, 4, generator=draws)
    labels = torch.arange(40) % 4
    dealt = paired(x0, eps, labels)
    for label in range(4):
        own = labels == label
        assert torch.equal(dealt[own].flatten().sort()[0], eps[own].flatten().sort()[0])
    assert not torch.equal(dealt, eps)


def test_shares_of_a_paired_batch_are_its_parts():
    data, plan = make_data(), make_plan(pair_noise=True)
    whole = next_batch(data, plan, 16, "cpu")
    parts = [next_batch(data, plan, 16, "cpu", part) for part in (slice(0, 3), slice(3, 8))]
    for name in ("x0", "eps", "sigma"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(p, name) for p in parts]))
    labels = data.labels[rows_after(data, plan, 16)]
    assert torch.equal(whole.eps, paired(whole.x0, whole.eps, labels))  # already the best order
    plain = next_batch(data, make_plan(), 16, "cpu")
    assert torch.equal(whole.x0, plain.x0)
    assert distance(whole.x0, whole.eps) < distance(plain.x0, plain.eps)
