from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzotint.data.splits import complete, limited, spread
from mezzotint.errors import InputError


def counts(indices, labels):
    return Counter(labels[indices].tolist())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(0, 9))
def test_the_cut_is_a_partition_with_a_share_of_every_class(sizes, seed):
    labels = torch.tensor([c for c, n in enumerate(sizes) for _ in range(n)] or [0])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    splits = complete({"train": torch.arange(len(labels))}, labels, 0.1)
    together = torch.cat(list(splits.values())).tolist()
    assert sorted(together) == list(range(len(labels)))
    for indices in splits.values():
        assert indices.tolist() == sorted(indices.tolist())
    for label, size in Counter(labels.tolist()).items():
        taken = counts(splits["test"], labels)[label]
        assert (taken == 0) if size < 3 else (taken >= 1 and abs(taken - 0.15 * size) < 1)


def test_the_whole_gets_its_exact_share():
    sizes = torch.tensor([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])  # MNIST's
    labels = torch.repeat_interleave(torch.arange(10), sizes)
    test = torch.arange(0)
    splits = complete({"train": torch.arange(60000), "test": test}, labels, 1 / 6)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [50000, 10000, 0]
    own = torch.bincount(labels[splits["validation"]])
    assert (own.double() - sizes.double() / 6).abs().max() < 1


def test_own_splits_are_kept_and_the_cut_is_repeatable():
    labels = torch.arange(300) % 3
    own = {"train": torch.arange(100), "validation": torch.arange(100, 120),
           "test": torch.arange(120, 300)}  # fmt: skip
    assert all(torch.equal(complete(own, labels, 0.5)[name], own[name]) for name in own)
    train = {"train": torch.arange(300)}
    first, second = complete(train, labels, 0.1), complete(train, labels, 0.1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    # Not a run of neighbours: a sorted source would give all of one kind.
    assert (first["test"].diff() > 1).any()


def test_a_limit_is_balanced_within_a_larger_one_and_leaves_the_test_split():
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate((50, 3, 80))])
    splits = complete({"train": torch.arange(133), "test": torch.arange(0)}, labels, 0.2)
    small, large = limited(splits, labels, 3, 8), limited(splits, labels, 3, 30)
    available = counts(splits["train"], labels)
    assert counts(small["train"], labels) == {0: 3, 1: available[1], 2: 3}
    assert counts(large["train"], labels) == {0: 14, 1: 2, 2: 14}
    assert (
        set(small["train"].tolist()) < set(large["train"].tolist()) < set(splits["train"].tolist())
    )
    assert [len(small["validation"]), len(large["validation"])] == [3, 6]
    assert small["test"] is splits["test"]
    assert torch.equal(limited(splits, labels, 3, 10**6)["train"], splits["train"])


def test_some_rows_of_a_set_that_lies_class_by_class_are_of_all_classes():
    labels, rows = torch.arange(3000) // 300, torch.arange(1, 3000, 2)
    some = spread(rows, 100)
    assert counts(some, labels) == dict.fromkeys(range(10), 10)
    assert (int(some[0]), int(some[-1])) == (1, 2999)
    assert (some.diff() > 0).all()
    assert spread(rows, len(rows)) is rows
    assert len(spread(rows[:0], 5)) == 0


def test_less_than_one_image_per_class_is_refused():
    labels = torch.arange(40) % 4
    splits = complete({"train": torch.arange(40)}, labels, 0.1)
    assert len(limited(splits, labels, 4, 4)["train"]) == 4
    with pytest.raises(InputError, match="limit 3 .* 4 classes: give 4"):
        limited(splits, labels, 4, 3)
