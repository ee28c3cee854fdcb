"""What is written, where it stands, and its boxes: by hand, by brute force, and there and back."""

import json

import pytest
import torch

from mezzotint.editing.compose import (
    LARGEST,
    Room,
    annotations,
    ink_box,
    laid_out,
    read_text,
    rooms,
)
from mezzotint.errors import InputError

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Sandal", "Bag", "Ankle boot")


@pytest.mark.parametrize(
    ("text", "classes", "rows"),
    [
        ("2026", DIGITS, [[2, 0, 2, 6]]),
        ("3 8 1", DIGITS, [[3, None, 8, None, 1]]),
        (" 12; 3", DIGITS, [[1, 2], [3]]),
        ("1,0", DIGITS, [[1, 0]]),
        ("Sandal", CLOTHES, [[2]]),
        ("sandal, ,bag; ankle boot", CLOTHES, [[2, None, 3], [4]]),
        ("T-shirt/top,Trouser", CLOTHES, [[0, 1]]),
        ("031", CLOTHES, [[0, 3, 1]]),  # no class is called so: indices
        ("abba", ("a", "b"), [[0, 1, 1, 0]]),
        ("ab", ("a", "ab", "b"), [[1]]),  # a class's name wins over its letters
    ],
)
def test_text_is_read_as_rows_of_classes(text, classes, rows):
    assert read_text(text, classes) == rows


@pytest.mark.parametrize(
    ("text", "classes", "words"),
    [
        ("20x6", DIGITS, ["'x' is no class", "choose one of 0, 1"]),
        ("Sandel", CLOTHES, ["'Sandel' is no class", "did you mean 'Sandal'"]),
        ("Sandal,Bagg", CLOTHES, ["'Bagg'", "did you mean 'Bag'"]),
        ("9", CLOTHES, ["'9'", "index 0..4"]),
        ("", DIGITS, ["asks for no class", '"012"']),
        (" ; ", CLOTHES, ["asks for no class", '"T-shirt/top,Trouser,Sandal"']),
    ],
)
def test_a_text_that_cannot_be_is_answered_in_one_line(text, classes, words):
    with pytest.raises(InputError) as caught:
        read_text(text, classes)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ground", [-1.0, 1.0])
def test_a_room_is_where_the_mean_ink_is(ground):
    means = torch.full((2, 1, 20, 20), ground)
    means[0, 0, 3:17, 5:9] *= -0.5
    means[1, 0, 6:8, 2:18] *= -0.5
    means += 0.01 * torch.rand(means.shape, generator=torch.Generator().manual_seed(0))
    assert rooms(means, ground) == [Room(5, 9, 3, 17), Room(2, 18, 6, 8)]


ROOM = [Room(5, 23, 4, 24), Room(10, 18, 4, 24), Room(6, 22, 5, 23)]


@pytest.mark.parametrize("spacing", [-3, 0, 2, 7])
def test_between_mean_boxes_of_neighbours_is_the_spacing(spacing):
    rows = [[0, 1, 2, 0], [1, 1], [2]]
    layout = laid_out(rows, ROOM, (28, 28), spacing)
    assert layout.labels == (0, 1, 2, 0, 1, 1, 2)
    boxes = [
        (left + ROOM[label].left, left + ROOM[label].right)
        for (_, left), label in zip(layout.corners, layout.labels, strict=True)
    ]
    for a, b in [(0, 1), (1, 2), (2, 3), (4, 5)]:
        assert boxes[b][0] - boxes[a][1] == spacing
    assert [top for top, _ in layout.corners] == [0] * 4 + [20 + spacing] * 2 + [40 + 2 * spacing]
    assert min(left for _, left in layout.corners) == 0
    assert layout.width == max(left for _, left in layout.corners) + 28
    assert layout.height == 2 * (20 + spacing) + 28
    assert len({boxes[i][0] for i in (0, 4, 6)}) == 1  # rows begin under each other


def test_a_gap_is_half_a_window():
    close, wide = (laid_out([row], ROOM, (28, 28), 2) for row in ([0, 1], [0, None, 1]))
    assert wide.corners[1][1] - close.corners[1][1] == 14


def test_too_much_for_one_canvas_is_one_line():
    with pytest.raises(InputError, match=f"{LARGEST + 1} places"):
        laid_out([[1] * LARGEST, [None]], ROOM, (28, 28), 2)


def test_a_box_is_what_a_loop_finds_and_survives_the_json():
    draws = torch.Generator().manual_seed(1)
    inks, found = [], []
    for k in range(6):
        ink = torch.zeros(1, 12, 12)
        ink[0, 2 : 4 + k, 3 : 5 + k // 2] = 0.6 + torch.rand(
            ink[0, 2 : 4 + k, 3 : 5 + k // 2].shape, generator=draws
        )
        ink[0, 0, 0] = 0.4  # too faint to see
        inks.append(ink if k % 2 else -ink)
        found.append(ink_box(inks[-1], k, (k, 7 * k)))
    messages = json.loads(
        json.dumps(annotations(["a.png"], [(40, 60)], ["x"], [found], tuple("abcdef")))
    )
    assert messages["images"] == [
        {"id": 1, "file_name": "a.png", "width": 60, "height": 40, "text": "x"}
    ]
    names = {category["id"]: category["name"] for category in messages["categories"]}
    for k, (ink, note) in enumerate(zip(inks, messages["annotations"], strict=True)):
        seen = [(y, x) for y in range(12) for x in range(12) if abs(float(ink[0, y, x])) >= 0.5]
        ys, xs = [y for y, _ in seen], [x for _, x in seen]
        expected = [7 * k + min(xs), k + min(ys), len(set(xs)), len(set(ys))]
        assert note["bbox"] == expected
        assert note["area"] == len(seen)
        assert names[note["category_id"]] == "abcdef"[k]
        assert note["image_id"] == 1
    assert [note["id"] for note in messages["annotations"]] == [1, 2, 3, 4, 5, 6]


def test_a_window_without_ink_is_its_own_box():
    empty = ink_box(torch.zeros(1, 8, 8), 0, (2, 3))
    assert (empty.box, empty.window, empty.pixels) == ((3, 2, 8, 8), (3, 2, 8, 8), 0)
