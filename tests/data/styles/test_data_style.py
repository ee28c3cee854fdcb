"""A style: levels, cuts and what a person may ask for."""

import pytest
import torch

from mezzotint.data import Style
from mezzotint.errors import InputError

THICKNESS = Style(
    "thickness",
    ("thin", "medium", "thick"),
    (2.0, 3.0),
    (1.5, 2.5, 4.0),
    (1.0, 5.0),
    2.5,
    0.5,
    "px",
)
HAND = Style("hand", ("print", "cursive"))
NAN = float("nan")


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_levels_are_the_intervals_between_the_cuts():
    assert THICKNESS.level(column(0.0, 1.99, 2.0, 2.99, 3.0, 9.0, NAN)).tolist() == [
        0, 0, 1, 1, 2, 2, -1,
    ]  # fmt: skip
    assert HAND.level(column(1, 0, NAN)).tolist() == [1, 0, -1]


def test_a_network_hears_deviations_from_the_mean_and_choices_as_they_are():
    heard = THICKNESS.standard(column(2.5, 3.0, NAN))
    torch.testing.assert_close(heard, torch.tensor([0.0, 1.0, NAN]), equal_nan=True)
    assert HAND.standard(column(1, NAN)).tolist() == [1, -1]
    assert not HAND.standard(column(1)).is_floating_point()


@pytest.mark.parametrize(
    ("text", "value"),
    [("thick", 4.0), (" THIN ", 1.5), ("2.75", 2.75), ("2.75px", 2.75), ("-1e-1 px", -0.1)],
)
def test_a_style_is_asked_for_by_level_or_number(text, value):
    assert THICKNESS.parse(text) == value


def test_a_choice_is_asked_for_by_name():
    assert HAND.parse("Cursive") == 1.0


@pytest.mark.parametrize(
    ("style", "text", "words"),
    [
        (THICKNESS, "thik", ["'thik'", "did you mean 'thick'", "1 to 5px"]),
        (THICKNESS, "2deg", ["'2deg'", "1 to 5px"]),
        (THICKNESS, "1e999", ["'1e999'"]),
        (THICKNESS, "nan", ["'nan'"]),
        (HAND, "1", ["'1'", "cursive, print"]),
    ],
)
def test_what_is_no_level_is_refused_with_what_there_is(style, text, words):
    with pytest.raises(InputError) as caught:
        style.parse(text)
    assert all(word in str(caught.value) for word in words)


def test_steps_go_through_the_range_or_all_choices():
    assert THICKNESS.steps(5).tolist() == [1, 2, 3, 4, 5]
    assert HAND.steps(5).tolist() == [0, 1]


def test_levels_without_their_cuts_are_no_style():
    with pytest.raises(ValueError, match="3 levels need 2 cuts"):
        Style("x", ("a", "b", "c"), (1.0,), (0.5, 1.5))
