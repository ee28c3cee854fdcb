import numpy as np
import pytest
import torch

from mezzotint.runtime.rng import generator


def first(*key):
    return torch.rand(4, generator=generator(*key)).tolist()


def test_a_key_is_its_parts_and_nothing_else():
    assert first("image", 0, 1) == first("image", 0, 1)
    assert first("image", 0, 1) == first("image", np.int64(0), torch.tensor(1))
    others = [
        first(*key) for key in (("image", 1, 0), ("image", 0, 10), ("image", 0), ("step", 0, 1))
    ]
    assert first("image", 0, 1) not in others
    assert len(set(map(tuple, others))) == 4


def test_a_number_that_is_not_whole_is_no_part_of_a_key():
    with pytest.raises(TypeError):
        generator("image", 0.5)
