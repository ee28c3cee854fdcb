"""Tuning: the ascent against Adam by hand, and its end."""

import pytest
import torch

from mezzotint.finetuning.reward import RewardCheck, RewardStep, Tuning, climb


class Point(torch.nn.Module):
    """A network that is one number."""

    def __init__(self, value):
        super().__init__()
        self.value = torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))


def test_tuning_is_adams_ascent_of_the_mean_reward_and_ends_at_the_top():
    point, asked = Point(0.0), []

    def reward(seen, batch):
        asked.append((seen, batch))
        return -((point.value - torch.tensor([2.0, 4.0])) ** 2)

    plan = Tuning(images=1000, batch=3, learning_rate=0.1, check_every=400)
    records = list(climb(point, reward, lambda: {"outside": 1.0}, plan))
    climbed = [record for record in records if isinstance(record, RewardStep)]
    assert asked == [(3 * i, min(3, 1000 - 3 * i)) for i in range(334)]
    assert climbed[0] == RewardStep(3, -10.0)
    assert climbed[-1].images_seen == 1000
    assert float(point.value) == pytest.approx(3, abs=0.02)
    assert climbed[1].reward == pytest.approx(-((2.0 - 0.1) ** 2 + (4.0 - 0.1) ** 2) / 2)
    evaluated = [record.images_seen for record in records if isinstance(record, RewardCheck)]
    assert evaluated == [0, 402, 804, 1000]


def test_it_ends_where_an_outside_number_falls_below_its_bound():
    point = Point(0.0)
    plan = Tuning(images=100, batch=1, learning_rate=0.1, check_every=1, bound=0.9)

    def check():
        return {"steady": 0.5, "falling": 2 - float(point.value)}

    records = list(climb(point, lambda seen, batch: point.value[None], check, plan))
    evaluated = [record for record in records if isinstance(record, RewardCheck)]
    assert [record.in_bounds for record in evaluated] == [True, True, True, False]
    assert records[-1] is evaluated[-1]
    assert evaluated[-1].values["falling"] == pytest.approx(1.7)  # below 90 % of 2
