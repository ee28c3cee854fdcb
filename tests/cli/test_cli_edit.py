"""`edit compose`: the same canvas by the library, boxes that hold the ink, and every refusal."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import mezzotint
from mezzotint import imaging
from mezzotint.config.registry import SAMPLERS
from mezzotint.editing.compose import read_text
from mezzotint.editing.compose.compose import compose, random_text, read_back
from mezzotint.errors import InputError
from mezzotint.sampling.model import SampleBatch

COMPOSE = "edit compose run --evaluations 2"


@pytest.fixture
def model(digits_run):
    return mezzotint.load(digits_run).changed(evaluations=3)


def result(answer):
    assert answer.code == 0, answer
    return json.loads(answer.out)


# --- the library ------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_canvas_of_one_class_is_the_image_that_sample_draws(model, sampler):
    model = model.changed(sampler=sampler)
    images = model.sample_batch(SampleBatch.of(torch.tensor([7, 3]), seed=5))
    pages = compose(model, ["7", "3"], seed=5)
    for page, image in zip(pages, images, strict=True):
        assert torch.equal(page.image, image)


def test_places_far_apart_are_images_on_a_ground(model):
    (page,) = compose(model, ["31 7"], spacing=16)
    left, middle, right = (ink.window for ink in page.inks)
    assert left[0] + 8 <= middle[0]
    assert middle[0] + 8 <= right[0]
    assert page.image.shape == (1, 8, right[0] + 8)
    covered = torch.zeros(page.image.shape[2], dtype=torch.bool)
    for x, *_ in (left, middle, right):
        covered[x : x + 8] = True
    assert (page.image[:, :, ~covered] == 0).all()
    assert torch.equal(
        page.image[:, :, :8], model.sample_batch(SampleBatch.of(torch.tensor([3])))[0]
    )


def test_a_canvas_is_the_same_alone_and_among_others(model):
    together = compose(model, ["20", "265", "7;1"], seed=1)
    again = compose(model, ["20", "265"], seed=1)
    for page, same in zip(together, again, strict=False):
        gap = (page.image.int() - same.image.int()).abs()
        assert int(gap.max()) <= 1
        assert page.inks == same.inks
    assert not torch.equal(compose(model, ["20"], seed=2)[0].image, together[0].image)
    assert compose(model, []) == []
    watched = []
    compose(model, ["1"] * 3, watch=watched.append)
    assert watched[-1] == 3


def test_rows_of_a_grid_stand_below_each_other(model):
    (page,) = compose(model, ["12;34"])
    first, second, third, fourth = (ink.window for ink in page.inks)
    assert first[1] == second[1] == 0
    assert third[1] == fourth[1] > 0
    assert page.image.shape[1] == third[1] + 8


def test_guidance_reaches_the_windows(model):
    plain, guided = (compose(model.changed(guidance=g), ["83"])[0].image for g in (1, 3))
    assert not torch.equal(plain, guided)


def test_random_texts_are_of_the_seed_and_use_every_class():
    texts = [random_text(tuple("0123456789"), 5, 0, i) for i in range(60)]
    assert texts[3] == random_text(tuple("0123456789"), 5, 0, 3)
    assert all(len(text) == 5 for text in texts)
    assert set("".join(texts)) == set("0123456789")
    assert random_text(("cat", "dog"), 2, 0, 0).count(",") == 1
    odd = ("a, b", "c; d")
    assert {label for i in range(9) for label in read_text(random_text(odd, 2, 0, i), odd)[0]} == {
        0,
        1,
    }


def test_what_is_read_back_is_the_window(model):
    pages = compose(model, ["31", "7"], spacing=20)

    class Reader:
        seen = ()

        def read(self, images):
            self.seen = [*self.seen, images]
            probabilities = torch.nn.functional.one_hot(torch.tensor([3, 0, 7]), 10)
            return type("Reading", (), {"probabilities": probabilities})

    reader = Reader()
    found = read_back(pages, reader)
    assert found.windows.tolist() == found.boxes.tolist() == [True, False, True]
    windows, boxes = reader.seen
    assert torch.equal(windows[2], pages[1].image)
    assert torch.equal(windows[1], pages[0].image[:, :, -8:])
    for box, ink, window in zip(boxes, [*pages[0].inks, *pages[1].inks], windows, strict=True):
        for y in range(8):
            for x in range(8):
                left, top, width, height = ink.box
                at = (ink.window[1] + y, ink.window[0] + x)
                inside = top <= at[0] < top + height and left <= at[1] < left + width
                assert box[0, y, x] == (window[0, y, x] if inside else 0)


@pytest.mark.parametrize("spacing", [-5, 33])
def test_a_spacing_that_cannot_be_is_one_line(model, spacing):
    with pytest.raises(InputError, match=f"-4 to 32 pixels.*got {spacing}"):
        compose(model, ["12"], spacing=spacing)


# --- the verb ---------------------------------------------------------------------------------


def test_a_png_is_the_canvas_enlarged(cli, digits_run, tmp_path):
    answer = cli(COMPOSE.split() + ["2026", "--out", "a.png", "--seed", "3"])
    assert answer.code == 0, answer
    assert "1 images of 4 places" in answer.out
    model = mezzotint.load(digits_run).changed(evaluations=2)
    (page,) = compose(model, ["2026"], seed=3)
    shown = np.asarray(Image.open(tmp_path / "a.png"))
    factor = imaging.scale_for(8)
    assert np.array_equal(shown[::factor, ::factor], page.image[0].numpy())


def test_a_folder_has_images_and_boxes_that_hold_their_ink(cli, digits_run, tmp_path):
    command = f"{COMPOSE} --random 3 --n 4 --out many --spacing 8 --json"
    messages = result(cli(command))
    assert (messages["n"], messages["places"]) == (4, 12)
    notes = json.loads((tmp_path / "many" / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in notes["categories"]}
    assert len(notes["images"]) == 4
    for image in notes["images"]:
        pixels = np.asarray(Image.open(tmp_path / "many" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"])
        own = [note for note in notes["annotations"] if note["image_id"] == image["id"]]
        assert "".join(names[note["category_id"]] for note in own) == image["text"]
        outside = pixels.copy()
        for x, y, width, height in (note["bbox"] for note in own):
            outside[y : y + height, x : x + width] = 0
        assert outside.max() < 0.5 * 127.5 + 1  # no ink but in boxes
    assert cli(command.replace("many", "again")).code == 0
    for file in (tmp_path / "many").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_file_of_strings_is_drawn_line_by_line_and_read(cli, digits_run, tmp_path):
    (tmp_path / "lines.txt").write_text("12\n\n3 4;5\n")
    messages = result(cli(f"{COMPOSE} --strings lines.txt --out pages --read --json"))
    assert messages["places"] == 5
    assert 0 <= messages["read"]["images"] <= messages["read"]["boxes"] <= 1
    notes = json.loads((tmp_path / "pages" / "annotations.json").read_text())
    assert [image["text"] for image in notes["images"]] == ["12", "3 4;5"]
    assert "read by the data set's classifier" in cli(f"{COMPOSE} 1 --out b.png --read").out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["12x", "--out", "a.png"], ["'x' is no class", "choose one of 0, 1"]),
        (["", "--out", "a.png"], ["asks for no class", '"012"']),
        (["1" * 257, "--out", "a.png"], ["257 places", "256"]),
        (["--out", "a.png"], ["TEXT", "--random 5", "--strings FILE"]),
        (["12", "--random", "3", "--out", "a.png"], ["TEXT", "one of them"]),
        (["12", "--out", "a.jpg"], ["a.jpg", ".png or a folder"]),
        (["12", "--n", "2", "--out", "a.png"], ["a.png holds one image", "2", "folder"]),
        (["12", "--out", "a.png", "--spacing", "99"], ["got 99", "-4 to 32"]),
        (["12", "--out", "a.png", "--sampler", "hean"], ["did you mean 'heun'"]),
        (["12", "--out", "a.png", "--weights", "best"], ["ema", "'best'"]),
        (["--strings", "none.txt", "--out", "new"], ["none.txt", "cannot be read"]),
        (["--strings", "empty.txt", "--out", "new"], ["empty.txt", "one a line"]),
        (["--strings", "empty.txt", "--n", "3", "--out", "new"], ["leave --n out"]),
        (["--random", "0", "--out", "new"], ["--random", "1"]),
        (["12"], ["--out"]),
        (["12", "--out", "run"], ["run holds something already"]),
    ],
)
def test_what_cannot_be_composed_is_one_line(
    refused, unchanged, digits_run, tmp_path, options, words
):
    (tmp_path / "empty.txt").write_text("\n \n")
    with unchanged():
        message = refused([*COMPOSE.split(), *options])
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("edit compse run 12 --out a.png", ["'compse'", "'compose'"]),
        ("edit inpaint run --out a.png", ["'inpaint'"]),
        ("edit compose nowhere 12 --out a.png", ["nowhere is no run"]),
        ("edit compose run 12 --out a.png --spcing 3", ["--spcing", "--spacing"]),
    ],
)
def test_a_mistyped_verb_is_answered_as_others_are(refused, unchanged, digits_run, line, words):
    with unchanged():
        message = refused(line)
    assert all(word in message for word in words), message


# --- for real ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_numbers_of_a_trained_model_are_read(cli):
    assert cli("train digits --out trained --budget 8000images --device cpu").code == 0
    messages = result(
        cli("edit compose trained --random 4 --n 25 --out many --read --json --spacing 2")
    )
    assert messages["read"]["boxes"] > 0.7  # 0.84 when this was written; chance is 0.1
    assert cli("edit compose trained 2026 --out 2026.png").code == 0
