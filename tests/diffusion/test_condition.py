"""Conditions: order, null, dropping at rates, rows."""

import math

import pytest
import torch

from mezzotint.diffusion import Condition, is_null

NAN = float("nan")


def example(n: int = 6) -> Condition:
    """One factor of each kind: integers, floats, rows of floats."""
    return Condition(
        {
            "label": torch.arange(n),
            "style": torch.linspace(-1, 1, n),
            "colour": torch.arange(3.0 * n).reshape(n, 3),
        }
    )


def same(a: Condition, b: Condition) -> None:
    """Equal, in the same order, NaN where NaN is."""
    assert list(a.factors) == list(b.factors)
    for name in a.factors:
        torch.testing.assert_close(
            a.factors[name], b.factors[name], rtol=0, atol=0, equal_nan=True
        )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_minus_one_and_nan_are_null():
    assert is_null(torch.tensor([0, -1, 3])).tolist() == [False, True, False]
    assert is_null(torch.tensor([0.0, NAN, -1.0])).tolist() == [False, True, False]
    assert is_null(torch.tensor([[0.0, NAN], [1.0, -1.0]])).tolist() == [True, False]


def test_null_sets_every_factor_but_those_kept():
    got = example(2).null(keep=("style",))
    expected = Condition(
        {
            "label": torch.tensor([-1, -1]),
            "style": torch.tensor([-1.0, 1.0]),
            "colour": torch.full((2, 3), NAN),
        }
    )
    same(got, expected)


def test_dropout_at_probability_0_or_at_none_is_the_identity():
    same(example().dropout({"label": 0.0, "style": 0.0}, seeded()), example())
    same(example().dropout({}, seeded()), example())


def test_dropout_at_probability_1_is_null():
    rates = dict.fromkeys(("label", "style", "colour"), 1.0)
    same(example().dropout(rates, seeded()), example().null())


def test_factors_are_dropped_at_their_own_probabilities_and_independently():
    n = 40_000
    rates = {"label": 0.1, "style": 0.5, "colour": 0.3}
    dropped = example(n).dropout(rates, seeded(1))
    gone = {name: is_null(values).double() for name, values in dropped.factors.items()}
    for name, rate in rates.items():
        # Five standard deviations of a binomial.
        assert float(gone[name].mean()) == pytest.approx(
            rate, abs=5 * math.sqrt(rate * (1 - rate) / n)
        )
    for a, b in (("label", "style"), ("label", "colour"), ("style", "colour")):
        correlation = torch.corrcoef(torch.stack([gone[a], gone[b]]))[0, 1]
        assert abs(float(correlation)) < 5 / math.sqrt(n)


def test_what_is_not_dropped_is_kept_and_a_row_is_dropped_whole():
    condition = example(500)
    dropped = condition.dropout({"label": 0.5, "colour": 0.5}, seeded(2))
    for name, values in dropped.factors.items():
        free = is_null(values)
        assert torch.equal(values[~free], condition.factors[name][~free])
    colour = dropped.factors["colour"]
    assert torch.equal(colour.isnan().all(1), colour.isnan().any(1))


def test_the_probability_of_one_factor_does_not_move_the_dropout_of_another():
    one = example(100).dropout({"label": 0.2, "style": 0.5}, seeded(3)).factors["style"]
    two = example(100).dropout({"label": 0.9, "style": 0.5}, seeded(3)).factors["style"]
    torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_rows_taken_apart_and_joined_are_the_whole():
    whole = example(6)
    same(whole[:2].concat(whole[2:3], whole[torch.tensor([3, 4, 5])]), whole)


def test_the_length_is_the_number_of_images():
    assert [len(example(4)), len(example(4)[1:]), len(Condition())] == [4, 3, 0]


def test_moving_to_a_device_keeps_the_values():
    same(example().to("cpu"), example())
    moved = example().to("meta")
    assert {values.device.type for values in moved.factors.values()} == {"meta"}


def test_styles_are_null_behind_a_null_label_and_sometimes_all_together():
    n = 40_000
    condition = example(n).dropout({"label": 0.1, "style": 0.2}, seeded(4))
    jointly = condition.drop_styles_jointly(0.3, seeded(5))
    free = {name: is_null(values) for name, values in jointly.factors.items()}
    unlabelled = free["label"]
    assert torch.equal(jointly.factors["label"], condition.factors["label"])
    assert bool((free["style"] & free["colour"])[unlabelled].all())
    # Elsewhere: a colour is null with all the others, a style also by its own chance.
    shares = {name: float(free[name][~unlabelled].double().mean()) for name in free}
    assert shares["colour"] == pytest.approx(0.3, abs=0.012)
    assert shares["style"] == pytest.approx(1 - 0.7 * 0.8, abs=0.012)
    kept = ~free["style"]
    assert torch.equal(jointly.factors["style"][kept], condition.factors["style"][kept])


def test_joint_dropout_with_no_chance_and_no_null_label_is_the_identity():
    same(example().drop_styles_jointly(0.0, seeded()), example())
