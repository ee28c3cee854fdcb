import numpy as np
import pytest
import torch
from PIL import Image

from mezzotint.data import load
from mezzotint.errors import DataError
from mezzotint.imaging import save_folder

RANDOM = np.random.default_rng(3)


def grey(height=6, width=6):
    return RANDOM.integers(0, 256, (height, width), dtype=np.uint8)


def rgb(height=6, width=6):
    return RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8)


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pixels_labels_and_classes_are_those_of_the_files(tmp_path):
    root = tmp_path / "pets"
    arrays = {}
    for name in ("dog", "cat"):
        for i in range(4):
            arrays[name, i] = rgb(5, 7)
            write(root / name / f"{i}.{('png', 'BMP', 'PNG', 'bmp')[i]}", arrays[name, i])
    (root / ".hidden").mkdir()
    data = load(str(root))
    assert (data.name, data.classes) == ("pets", ("cat", "dog"))
    assert data.images.shape == (8, 3, 5, 7)  # non-square is left alone
    assert data.images.dtype == torch.uint8
    for row, label in enumerate(data.labels):
        expected = arrays[data.classes[label], row % 4]
        assert np.array_equal(data.images[row].permute(1, 2, 0), expected)


def test_a_folder_of_ours_has_the_classes_that_it_was_written_with(tmp_path, logged):
    classes = ("T-shirt/top", "Sandal", "unused", "Bag")
    images = torch.from_numpy(np.stack([grey() for _ in range(12)]))[:, None]
    labels = torch.tensor([3, 1, 0] * 4)
    for split in ("train", "test"):
        save_folder(images, labels, classes, tmp_path / "own" / split)
    data = load(str(tmp_path / "own"))
    assert data.classes == ("T-shirt/top", "Sandal", "Bag")  # sorted by name, Bag is first
    found, own = data.split("test")
    for label, name in enumerate(data.classes):
        assert torch.equal(found[own == label], images[labels == classes.index(name)])

    write(tmp_path / "own" / "train" / "Added" / "0.png", grey())  # by somebody
    assert load(str(tmp_path / "own")).classes == (*data.classes, "Added")

    lines = (tmp_path / "own" / "train" / "manifest.jsonl").read_text().splitlines()
    for text, words in [
        ('{"other": "file"}', "manifest.jsonl is not a manifest of class folders"),
        (lines[0].replace("Bag", "\\ud800"), "manifest.jsonl is not a manifest of class folders"),
        ("\n".join([*lines, lines[0].replace(": 3", ": 7")]), "calls a class by two names"),
        ("", None),
    ]:
        (tmp_path / "own" / "train" / "manifest.jsonl").write_text(text)
        assert load(str(tmp_path / "own")).classes[:2] == ("Added", "Bag")
        assert words is None or any(words in line for line in logged)


@pytest.mark.parametrize(("kind", "options"), [("jpg", {}), ("webp", {"lossless": True})])
def test_photos_equal_pillows_own_decoding(tmp_path, kind, options):
    path = tmp_path / "set" / "only" / f"a.{kind}"
    path.parent.mkdir(parents=True)
    Image.fromarray(rgb(16, 16)).save(path, **options)
    expected = np.asarray(Image.open(path).convert("RGB"))
    assert np.array_equal(load(str(tmp_path / "set")).images[0].permute(1, 2, 0), expected)


def grey_modes():
    base = grey()
    alpha = grey()
    deep = RANDOM.integers(0, 65536, (6, 6)).astype(np.uint16)
    bits = base > 127
    over_white = np.rint((base / 255 * (alpha / 255) + 1 - alpha / 255) * 255)
    return {
        "L": (Image.fromarray(base), base),
        "1": (Image.fromarray(bits), bits * 255),
        "LA": (Image.fromarray(np.dstack([base, alpha])), over_white),
        "I;16": (Image.fromarray(deep), np.rint(deep / 257)),
    }


def colour_modes():
    base = rgb()
    alpha = grey()[..., None]
    over_white = np.rint((base / 255 * (alpha / 255) + 1 - alpha / 255) * 255)
    indexed = Image.fromarray(base).quantize(8)
    return {
        "RGB": (Image.fromarray(base), base),
        "RGBA": (Image.fromarray(np.dstack([base, alpha])), over_white),
        "P": (indexed, np.asarray(indexed.convert("RGB"))),
    }


@pytest.mark.parametrize("mode", ["L", "1", "LA", "I;16"])
def test_grey_modes_make_one_channel(tmp_path, mode):
    image, expected = grey_modes()[mode]
    (tmp_path / "set" / "a").mkdir(parents=True)
    image.save(tmp_path / "set" / "a" / "x.png")
    assert Image.open(tmp_path / "set" / "a" / "x.png").mode == mode
    found = load(str(tmp_path / "set")).images
    assert found.shape == (1, 1, 6, 6)
    assert np.abs(found[0, 0].numpy() - expected).max() <= (1 if mode == "LA" else 0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_one_colour_file_makes_three_channels(tmp_path, mode):
    image, expected = colour_modes()[mode]
    write(tmp_path / "set" / "a" / "0.png", plain := grey())
    image.save(tmp_path / "set" / "a" / "1.png")
    assert Image.open(tmp_path / "set" / "a" / "1.png").mode == mode
    found = load(str(tmp_path / "set")).images
    assert found.shape == (2, 3, 6, 6)
    assert np.array_equal(found[0], np.stack([plain] * 3))
    assert np.abs(found[1].permute(1, 2, 0).numpy() - expected).max() <= (mode == "RGBA")


def test_a_palette_with_a_transparent_colour_shows_white_there(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    (tmp_path / "set" / "a").mkdir(parents=True)
    image.save(tmp_path / "set" / "a" / "x.png", transparency=1)
    pixels = load(str(tmp_path / "set")).images[0].permute(1, 2, 0)
    assert pixels.tolist() == [[[10, 20, 30], [255] * 3], [[255] * 3, [10, 20, 30]]]


def test_a_photo_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying: turn clockwise to see it
    kept = grey(4, 8)
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.fromarray(kept).save(tmp_path / "set" / "a" / "x.jpg", exif=exif, quality=100)
    decoded = np.asarray(Image.open(tmp_path / "set" / "a" / "x.jpg"))
    assert np.array_equal(load(str(tmp_path / "set")).images[0, 0], np.rot90(decoded, -1))


def test_a_given_size_is_the_central_square_resized(tmp_path):
    array = grey(10, 16)
    write(tmp_path / "set" / "a" / "x.png", array)
    found = load(str(tmp_path / "set"), size=5).images[0, 0]
    centre = Image.fromarray(array[:, 3:13]).resize((5, 5), Image.Resampling.BICUBIC)
    assert np.array_equal(found, np.asarray(centre))


def test_mixed_sizes_take_the_commonest_side_and_say_so(tmp_path, logged):
    for i, shape in enumerate([(8, 8), (6, 9), (7, 6), (12, 6)]):
        write(tmp_path / "set" / "a" / f"{i}.png", grey(*shape))
    data = load(str(tmp_path / "set"))
    assert data.images.shape == (4, 1, 6, 6)
    assert any("4 sizes" in line and "6x6" in line for line in logged)


def test_own_split_folders_are_used(tmp_path):
    pixels = {}
    for split, number in (("train", 6), ("val", 2), ("test", 3)):
        for label in ("a", "b"):
            for i in range(number):
                array = grey()
                pixels[split, label, i] = array
                write(tmp_path / "set" / split / label / f"{i}.png", array)
    data = load(str(tmp_path / "set"))
    assert {name: len(own) for name, own in data.splits.items()} == {
        "train": 12, "validation": 4, "test": 6,
    }  # fmt: skip
    for split, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        images, labels = data.split(split)
        seen = {
            (array.numpy().tobytes(), "ab"[y]) for array, y in zip(images, labels, strict=True)
        }
        assert seen == {(v.tobytes(), k[1]) for k, v in pixels.items() if k[0] == folder}


def test_what_is_no_split_with_classes_is_left_out_not_without_a_word(tmp_path, logged):
    root = tmp_path / "set"
    for label in ("a", "b"):
        for i in range(10):
            write(root / "train" / label / f"{i}.png", grey())
    single = load(str(root))
    write(root / "test" / "1.png", grey())  # as competitions hide what it is
    write(root / "Val" / "1.png", grey())
    write(root / "extra" / "a" / "1.png", grey())
    data = load(str(root))
    assert {name: own.tolist() for name, own in data.splits.items()} == {
        name: own.tolist() for name, own in single.splits.items()
    }
    assert len(data.splits["test"]) == 3  # 15 % of 20, cut from train
    assert [line for line in logged if "left out" in line] == [
        f"{root / 'Val'} has no class subfolders, so no labels: left out",
        f"{root / 'extra'} is of no split that is used (train, validation, test): left out",
        f"{root / 'test'} has no class subfolders, so no labels: left out",
    ]


def test_one_split_under_two_names_is_refused_and_both_are_named(tmp_path):
    for split in ("train", "val", "validation"):
        write(tmp_path / "set" / split / "a" / "0.png", grey())
    with pytest.raises(DataError) as error:
        load(str(tmp_path / "set"))
    assert "set holds two validation splits, val and validation" in one_line(error)


def test_a_class_called_train_is_a_class(tmp_path):
    for name in ("train", "bus"):
        write(tmp_path / "set" / name / "0.png", grey())
    assert load(str(tmp_path / "set")).classes == ("bus", "train")


def test_number_names_are_sorted_by_number(tmp_path):
    for name in range(11):
        write(tmp_path / "set" / str(name) / "0.png", grey())
    data = load(str(tmp_path / "set"))
    assert data.classes == tuple(str(name) for name in range(11))
    assert data.class_index(10) == 10


def test_what_is_no_image_is_left_out_and_counted(tmp_path, logged):
    write(tmp_path / "set" / "a" / "0.png", grey())
    (tmp_path / "set" / "a" / "notes.txt").write_text("hello")
    assert len(load(str(tmp_path / "set")).images) == 1
    assert any(": 1 files that are not PNG" in line for line in logged)


def test_mistakes_name_the_folder_or_file(tmp_path):
    root = tmp_path / "set"
    write(root / "a" / "0.png", grey(32, 32))
    (root / "empty").mkdir()
    with pytest.raises(DataError) as error:
        load(str(root))
    assert str(root / "empty") in one_line(error)
    (root / "empty").rmdir()

    whole = (root / "a" / "0.png").read_bytes()
    for broken in (whole[: len(whole) // 2], whole[:20], b"", b"hello"):
        (root / "a" / "1.png").write_bytes(broken)
        with pytest.raises(DataError) as error:
            load(str(root))
        assert str(root / "a" / "1.png") in one_line(error)

    write(tmp_path / "flat" / "0.png", grey())
    with pytest.raises(DataError) as error:
        load(str(tmp_path / "flat"))
    assert "class subfolders" in one_line(error)

    write(tmp_path / "more" / "train" / "a" / "0.png", grey())
    write(tmp_path / "more" / "test" / "b" / "0.png", grey())
    with pytest.raises(DataError) as error:
        load(str(tmp_path / "more"))
    assert str(tmp_path / "more" / "test" / "b") in one_line(error)
