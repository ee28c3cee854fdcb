import pytest
import torch

from mezzotint.data import Augment, ImageSet
from mezzotint.data.sources import FASHION
from mezzotint.errors import InputError


def made(classes):
    images = torch.arange(6 * 2 * 3, dtype=torch.uint8).reshape(6, 1, 2, 3)
    splits = {"train": torch.tensor([1, 4]), "validation": torch.tensor([0]),
              "test": torch.tensor([2, 3, 5])}  # fmt: skip
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    return ImageSet("made", images, labels, tuple(classes), splits, 0.0, 1.0, Augment(), "")


def test_shape_and_splits():
    data = made("ab")
    assert (data.channels, data.height, data.width) == (1, 2, 3)
    images, labels = data.split("train")
    assert torch.equal(images, torch.stack([data.images[1], data.images[4]]))
    assert labels.tolist() == [1, 0]
    with pytest.raises(InputError, match="did you mean 'train'"):
        data.split("trian")


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("Sandal", 5), ("sandal", 5), (5, 5), ("5", 5), ("tshirt/TOP", 0), ("t shirt top", 0),
        ("AnkleBoot", 9), ("ankle_boot", 9), ("Shirt", 6), (0, 0),
    ],
)  # fmt: skip
def test_a_class_by_name_nearly_its_name_or_index(label, index):
    assert made(FASHION).class_index(label) == index


def test_a_name_wins_over_an_index():
    data = made(["2", "0", "1", "cat"])
    assert [data.class_index(label) for label in (2, "0", 1, 3, "CAT")] == [0, 1, 2, 3, 3]


@pytest.mark.parametrize("label", ["boots", -1, "-1", 10, "", "/", True, "shoe"])
def test_anything_else_names_the_classes(label):
    with pytest.raises(InputError) as error:
        made(FASHION).class_index(label)
    assert "Ankle boot" in str(error.value)
    assert "0..9" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_ambiguous_name_is_refused():
    data = made(["a-b", "ab", "A b"])
    assert data.class_index("ab") == 1
    with pytest.raises(InputError):
        data.class_index("a_b")
    assert made(["a", "A"]).class_index("A") == 1
