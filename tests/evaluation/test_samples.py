"""Samples to evaluate: a run's stream and its blocks, other people's files and folders."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import mezzotint
from mezzotint import imaging
from mezzotint.data import Style
from mezzotint.errors import CheckpointError, DataError, InputError
from mezzotint.evaluation import samples
from mezzotint.evaluation.samples import (
    SampleSet,
    folder_samples,
    limited,
    npz_samples,
    run_samples,
)
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.runtime import progress_bar
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.request import SamplingOptions
from tiny_runs import TINY, trained


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of a run of 64 images, one's own to spoil."""
    return shutil.copytree(tiny_run.path, tmp_path / "run")


@pytest.fixture
def drawn(monkeypatch):
    """How many images each call of `Model.sample_batch` made."""
    calls = []

    def counting(model, drawing, *rest):
        calls.append(len(drawing))
        return draw(model, drawing, *rest)

    draw = Model.sample_batch
    monkeypatch.setattr(Model, "sample_batch", counting)
    return calls


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 16 samples, of two chunks each."""
    monkeypatch.setattr(samples, "BLOCK", 16)
    monkeypatch.setitem(mezzotint.sampling.model.LARGEST_CHUNK, "cpu", 8)


def stream(path, data=None, **changes):
    changes = {"evaluations": 2, **changes}
    seed = changes.pop("seed", 0)
    known = {"weights", "checkpoint", "device"}
    ref = CheckpointRef(**{name: changes.pop(name) for name in known & set(changes)})
    return run_samples(path, data, checkpoint=ref, options=SamplingOptions(**changes), seed=seed)


def blocks(path):
    return sorted((path / "evaluation" / "drawn").rglob("*.npz"))


# --- a run's stream ---------------------------------------------------------------------------


def test_samples_are_those_of_the_model_with_the_labels_of_the_train_split(run, digits):
    source = stream(run, digits, seed=3)
    found = source.samples(20)
    model = mezzotint.load(run)
    labels = digits.split("train")[1]
    assert found.images.dtype == torch.uint8
    whole = source.batch(len(labels))
    assert torch.equal(whole.labels.bincount(), labels.bincount())
    assert not torch.equal(whole.labels, labels)
    assert whole.keys[:3].tolist() == [[3, 0], [3, 1], [3, 2]]
    twice = source.batch(2 * len(labels)).labels
    assert torch.equal(twice[: len(labels)], twice[len(labels) :])
    assert torch.equal(found.labels, whole.labels[:20])
    asked = SampleBatch(found.labels, torch.tensor([[3, i] for i in range(20)]))
    assert torch.equal(model.changed(evaluations=2).sample_batch(asked), found.images)


def test_the_first_of_a_longer_stream_are_the_same_images(run, small_blocks):
    source = stream(run)
    shorter, longer = source.samples(20), source.samples(40)
    assert torch.equal(longer.labels[:20], shorter.labels)
    assert torch.equal(longer.images[:16], shorter.images[:16])  # whole chunks: the same bytes
    assert (longer.images[16:20].int() - shorter.images[16:].int()).abs().max() <= 1
    assert torch.equal(source.samples(5).images, longer.images[:5])
    fresh = stream(shutil.copytree(run, run.with_name("fresh")))
    shutil.rmtree(fresh.run.path / "evaluation")
    assert torch.equal(fresh.samples(40).images, longer.images)


def test_blocks_on_disk_are_not_drawn_again(run, drawn, small_blocks):
    first = stream(run).samples(40)
    assert drawn == [16, 16, 8]
    assert [path.name for path in blocks(run)] == ["00000000.npz", "00000016.npz", "00000032.npz"]
    again = stream(run).samples(40)
    assert torch.equal(again.images, first.images)
    assert torch.equal(again.labels, first.labels)
    stream(run).samples(35)
    assert drawn == [16, 16, 8]
    stream(run).samples(60)  # the short block is drawn to its end, and one more
    assert drawn == [16, 16, 8, 16, 12]
    blocks(run)[1].unlink()
    stream(run).samples(60)
    assert drawn[5:] == [16]


def test_facts_name_the_generator_of_noise_unless_it_is_torchs(run, drawn):
    """Blocks and evaluations made before Philox do not name it, and are found again."""
    new, old = stream(run), stream(run, noise="torch")
    assert {name: fact for name, fact in new.facts.items() if name not in old.facts} == {
        "noise": "philox"
    }
    assert new.with_options(SamplingOptions(noise="torch")).facts == old.facts
    assert old.with_options(SamplingOptions(noise="philox")).facts == new.facts
    assert not torch.equal(new.samples(8).images, old.samples(8).images)
    assert drawn == [8, 8]
    assert len({path.parent for path in blocks(run)}) == 2


def test_a_style_that_an_image_does_not_have_is_found_again(run, drawn):
    table = torch.tensor([[float("nan")], [2.5]])
    labels = torch.tensor([1, 2])
    source = stream(run)
    asks = dataclasses.replace(source.model, styles=(Style("slant", ("left",)),))
    source = dataclasses.replace(source, model=asks)
    images = torch.zeros(2, *asks.shape, dtype=torch.uint8)
    asked = SampleBatch.of(labels, 0, table)
    source._keep(images, asked, 0)
    assert torch.equal(source._found(asked, 0), images)
    assert source._found(SampleBatch.of(labels, 0, table.nan_to_num(1.0)), 0) is None
    assert source._found(SampleBatch.of(labels, 0, table + 1), 0) is None


def test_images_that_changed_since_the_training_are_reported(digits, tmp_path, logged):
    images, labels = digits.images[:300], digits.labels[:300]
    imaging.save_folder(images, labels, digits.classes, tmp_path / "own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        run = mezzotint.train("own", out="run", budget="16images", preset="digits", settings=TINY)
        stream(run.path)
        assert not any("other images" in line for line in logged)
        imaging.save_png(images[0], tmp_path / "own" / "0" / "more.png")
        stream(run.path)
        assert any("own holds other images than run was trained on" in line for line in logged)


def test_an_interrupted_drawing_goes_on(run, drawn, small_blocks, monkeypatch):
    draw = Model.sample_batch

    def two_blocks(model, drawing, watch):
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(model, drawing, watch)

    with monkeypatch.context() as patch:
        patch.setattr(Model, "sample_batch", two_blocks)
        with pytest.raises(KeyboardInterrupt):
            stream(run).samples(48)
    assert drawn == [16, 16]
    stream(run).samples(48)
    assert drawn == [16, 16, 16]


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_block_is_drawn_anew(run, drawn, small_blocks, content):
    whole = stream(run).samples(20)
    path = blocks(run)[0]
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    assert torch.equal(stream(run).samples(20).images, whole.images)
    assert drawn == [16, 4, 16]
    stream(run).samples(20)


def test_a_moved_run_still_finds_its_blocks(run, drawn, tmp_path):
    before = stream(run).samples(12)
    there = run.rename(tmp_path / "elsewhere")
    after = stream(there).samples(12)
    assert torch.equal(after.images, before.images)
    assert drawn == [12]
    assert (before.facts["path"], after.facts["path"]) == (str(run), str(there))


def test_changed_weights_are_drawn_from_anew(run, drawn, tmp_path):
    """The same number of images seen, the same settings: only the weights are others."""
    before = stream(run).samples(12)
    own = (run / "checkpoints/last.safetensors").read_bytes()
    other = trained(tmp_path / "other", "training.seed=1")
    shutil.copy(other.last, run / "checkpoints/last.safetensors")
    after = stream(run).samples(12)
    assert drawn == [12, 12]
    assert {**before.facts, "hash": ""} == {**after.facts, "hash": ""}
    assert before.facts["hash"] != after.facts["hash"]
    assert not torch.equal(after.images, before.images)
    (run / "checkpoints/last.safetensors").write_bytes(own)
    assert torch.equal(stream(run).samples(12).images, before.images)


@pytest.mark.parametrize(
    "change",
    [
        {"evaluations": 3}, {"sampler": "heun"}, {"guidance": 2.0}, {"clip": True},
        {"start": "noise"}, {"schedule": {"kind": "karras", "sigma_max": 9.0, "sigma_min": 0.01}},
        {"interval": (0.1, 5.0), "guidance": 2.0}, {"seed": 1}, {"weights": "raw"},
        {"checkpoint": "best"},
    ],
    ids=lambda change: ",".join(change),
)  # fmt: skip
def test_other_settings_are_drawn_anew_and_are_facts(run, drawn, change):
    before = stream(run).samples(4)
    after = stream(run, **change).samples(4)
    assert drawn == [4, 4]
    assert after.facts != before.facts
    assert json.loads(json.dumps(after.facts)) == after.facts
    stream(run, **change).samples(4)
    assert drawn == [4, 4]


def test_facts_say_what_was_drawn(run):
    facts = stream(run, sampler="heun", evaluations=5, seed=2).samples(3).facts
    expected = {
        "kind": "run", "path": str(run), "weights": "ema", "checkpoint": "last",
        "images_seen": 64, "sampler": "heun", "evaluations": 5, "guidance": 1.0, "seed": 2, "n": 3,
    }  # fmt: skip
    assert expected.items() <= facts.items()
    kept = json.loads(str(np.load(blocks(run)[0])["meta"]))
    assert {**kept, "n": 3} == facts


def test_a_run_that_cannot_be_written_to_is_evaluated_all_the_same(run, drawn, logged):
    (run / "evaluation").write_text("in the way")
    assert len(stream(run).samples(6).images) == 6
    assert "keeps no samples" in logged[0]
    assert drawn == [6]


def test_what_is_done_and_left_is_logged(run, small_blocks, logged, monkeypatch):
    monkeypatch.setattr(progress_bar, "EVERY", 0)
    stream(run).samples(16)
    logged.clear()
    stream(run).samples(64)  # the first block is there: time counts from the first chunk drawn
    assert [line.partition(" images")[0] for line in logged] == [
        f"drawing: {done} of 64" for done in range(32, 65, 8)
    ]


def test_a_run_is_held_against_its_own_kind_of_images(run, digits):
    other = dataclasses.replace(digits, classes=tuple("abcdefghij"), name="letters")
    larger = dataclasses.replace(digits, images=torch.zeros(9, 3, 9, 9, dtype=torch.uint8))
    for data, words in ((other, "letters has 10 of 8x8 grey"), (larger, "10 of 9x9 RGB")):
        with pytest.raises(InputError, match=words) as caught:
            stream(run, data)
        assert "evaluate it against digits" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_run_is_known_by_its_configuration(run, tmp_path):
    assert Run.is_at(run)
    assert not Run.is_at(tmp_path)
    with pytest.raises(CheckpointError, match="is no run"):
        stream(tmp_path)


# --- .npz files -------------------------------------------------------------------------------


@pytest.fixture
def pictures(digits):
    images, labels = digits.split("test")
    return images[:12], labels[:12]


def test_our_own_npz_is_read_as_it_was_written(tmp_path, digits, pictures):
    images, labels = pictures
    path = imaging.save_npz(tmp_path / "ours.npz", images, labels, {})
    found = npz_samples(path, digits)
    assert torch.equal(found.images, images)
    assert torch.equal(found.labels, labels)
    assert found.facts.items() >= {"kind": "npz", "path": str(path), "n": 12}.items()
    imaging.save_npz(path, images.flip(-1), labels, {})  # another file of the same name
    assert npz_samples(path, digits).facts != found.facts
    path.unlink()
    imaging.save_npz(path, images, labels, {})
    assert npz_samples(path, digits).facts == found.facts


def npz(folder, **arrays):
    np.savez(folder / "some.npz", **arrays)
    return folder / "some.npz"


@pytest.mark.parametrize(
    ("images", "labels"),
    [("arr_0", "arr_1"), ("samples", "y"), ("x", "labels"), ("images", "y")],
)
@pytest.mark.parametrize("form", ["NHWC", "NCHW", "NHW"])
def test_other_peoples_npz_are_read(tmp_path, digits, pictures, images, labels, form):
    array = pictures[0].numpy()
    array = {"NCHW": array, "NHWC": array.transpose(0, 2, 3, 1), "NHW": array[:, 0]}[form]
    kind = np.int32 if labels == "y" else np.uint8
    path = npz(tmp_path, **{images: array, labels: pictures[1].numpy().astype(kind)})
    found = npz_samples(path, digits)
    assert torch.equal(found.images, pictures[0])
    assert torch.equal(found.labels, pictures[1])
    assert found.labels.dtype == torch.int64
    assert found.images.is_contiguous()


def test_rgb_of_other_people_keeps_its_pixels(tmp_path, digits):
    colour = dataclasses.replace(digits, images=torch.zeros(9, 3, 6, 5, dtype=torch.uint8))
    array = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
    found = npz_samples(npz(tmp_path, arr_0=array), colour)
    assert found.images.shape == (4, 3, 6, 5)
    assert int(found.images[2, 1, 5, 4]) == array[2, 5, 4, 1]
    assert found.labels is None


def test_a_single_4_dimensional_array_is_the_images_whatever_its_name(tmp_path, digits, pictures):
    path = npz(tmp_path, fakes=pictures[0].numpy(), latents=np.zeros((12, 64)))
    found = npz_samples(path, digits)
    assert torch.equal(found.images, pictures[0])
    assert found.labels is None
    with pytest.raises(DataError, match="holds no images"):
        npz_samples(npz(tmp_path, a=pictures[0].numpy(), b=pictures[0].numpy()), digits)


def wrong(images, labels):
    """Name -> (arrays, words of the refusal)."""
    return {
        "float": ({"images": images / 255}, "float64 images: they must be uint8"),
        "int64": ({"images": images.astype(np.int64)}, "int64 images: they must be uint8"),
        "size": ({"images": images[:, :, :7, :7]}, "7x7 grey, and digits has 8x8 grey"),
        "height": ({"images": images[:, :, :7]}, "7x8 grey, and digits has 8x8 grey"),
        "channels": ({"images": images.repeat(3, 1)}, "8x8 RGB, and digits has 8x8 grey"),
        "four channels": ({"images": images.repeat(4, 1)}, "C = 1 or 3"),
        "flat": ({"images": images.reshape(12, 64)}, r"holds no images.*images \(12, 64\)"),
        "none": ({"weights": np.zeros(3)}, r"holds no images.*weights \(3,\)"),
        "nothing": ({}, "holds no images.*no array"),
        "empty": ({"images": images[:0], "labels": labels[:0]}, "at least one image"),
        "labels too large": ({"images": images, "labels": labels + 5}, "5 to 14.*are 0 to 9"),
        "labels negative": ({"images": images, "labels": labels - 1}, "-1 to 8.*are 0 to 9"),
        "too few labels": (
            {"images": images, "labels": labels[:9]},
            r"12 images and labels \(9,\)",
        ),
        "one-hot": ({"images": images, "labels": np.eye(10, dtype=int)[labels]}, r"\(12, 10\)"),
        "words": ({"images": images, "labels": labels.astype(str)}, "labels: they must be integ"),
        "float labels": ({"images": images, "labels": labels / 2}, "float64 labels: they must be"),
        "objects": ({"images": np.array([None, 1], dtype=object)}, "cannot be read as .npz"),
    }


@pytest.mark.parametrize("kind", wrong(np.zeros((12, 1, 8, 8)), np.arange(12) % 10))
def test_an_npz_that_cannot_be_evaluated_is_one_line(tmp_path, digits, pictures, kind):
    labels = np.arange(12) % 10
    arrays, words = wrong(pictures[0].numpy(), labels)[kind]
    with pytest.raises(DataError, match=words) as caught:
        npz_samples(npz(tmp_path, **arrays), digits)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "array", "flipped", "missing"])
def test_a_file_that_is_no_npz_is_one_line(tmp_path, digits, pictures, kind):
    path = tmp_path / "file.npz"
    np.savez_compressed(path, images=pictures[0].numpy())
    content = path.read_bytes()
    if kind == "array":
        np.save(tmp_path / "plain", pictures[0].numpy())
        content = (tmp_path / "plain.npy").read_bytes()
    middle = len(content) // 2
    flipped = content[: middle - 40] + bytes(b ^ 255 for b in content[middle - 40 : middle])
    path.write_bytes(
        {
            "text": b"these are no images", "empty": b"", "cut": content[:middle],
            "array": content, "flipped": flipped + content[middle:], "missing": b"",
        }[kind]
    )  # fmt: skip
    if kind == "missing":
        path.unlink()
    wrong = "does not exist" if kind == "missing" else r"cannot be read as \.npz"
    with pytest.raises(DataError, match=f"file.npz {wrong}") as caught:
        npz_samples(path, digits)
    assert "\n" not in str(caught.value)


# --- folders ----------------------------------------------------------------------------------


def write(images, folder, mode=None, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        picture = imaging.to_pillow(image)
        (picture.convert(mode) if mode else picture).save(folder / f"{i:03d}.{suffix}")
    return folder


def test_a_folder_that_was_written_comes_back_with_its_labels(tmp_path, digits, pictures, quiet):
    images, labels = pictures
    folder = tmp_path / "samples"
    imaging.save_folder(images, labels, digits.classes, folder)
    found = folder_samples(folder, digits)
    pairs = {(image.tobytes(), int(k)) for image, k in zip(images.numpy(), labels, strict=True)}
    assert {
        (image.tobytes(), int(k))
        for image, k in zip(found.images.numpy(), found.labels, strict=True)
    } == pairs
    assert len(found.images) == 12
    assert found.facts.items() >= {"kind": "folder", "path": str(folder), "n": 12}.items()
    imaging.save_png(pictures[0][0].flip(-1), folder / "0" / "00000.png")
    assert folder_samples(folder, digits).facts != found.facts


def test_class_folders_may_have_names_made_safe(tmp_path, digits, pictures, quiet):
    named = dataclasses.replace(digits, classes=("0", "T-shirt/top", *"23456789"))
    images, labels = pictures
    imaging.save_folder(images, labels, named.classes, tmp_path / "out")
    assert (tmp_path / "out" / "T-shirt_top").is_dir()
    found = folder_samples(tmp_path / "out", named)
    assert torch.equal(found.labels.sort().values, labels.sort().values)


def test_pictures_directly_in_a_folder_have_no_labels(tmp_path, digits, pictures, quiet):
    folder = write(pictures[0], tmp_path / "flat")
    (folder / "notes.txt").write_text("by hand")
    (folder / ".hidden.png").write_bytes(b"left by an archive")
    (folder / ".cache").mkdir()
    found = folder_samples(folder, digits)
    assert torch.equal(found.images, pictures[0])
    assert found.labels is None


@pytest.mark.parametrize("place", ["flat", "classes"])
def test_grey_saved_as_rgb_is_grey_again_and_grey_is_repeated_for_rgb(
    tmp_path, digits, pictures, place, quiet
):
    images = pictures[0]
    folder = tmp_path / place
    write(images, folder / "3" if place == "classes" else folder, mode="RGB")
    found = folder_samples(folder, digits)
    assert torch.equal(found.images, images)
    assert (found.labels is None) == (place == "flat")
    colour = dataclasses.replace(digits, images=digits.images.expand(-1, 3, -1, -1))
    grey = tmp_path / "grey"
    write(images, grey / "3" if place == "classes" else grey)
    assert torch.equal(folder_samples(grey, colour).images, images.expand(-1, 3, -1, -1))


@pytest.mark.parametrize("place", ["flat", "classes"])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("size", "9x9 grey, and digits has 8x8 grey"),
        ("mixed", "holds images of several sizes"),
        ("colour", "8x8 RGB, and digits has 8x8 grey"),
        ("broken", "is truncated or no image"),
        ("nothing", "no images|neither class subfolders|holds no PNG"),
    ],
)
def test_a_folder_that_cannot_be_evaluated_is_one_line(
    tmp_path, digits, pictures, place, kind, words, quiet
):
    folder = tmp_path / "given"
    inner = folder / "3" if place == "classes" else folder
    inner.mkdir(parents=True)
    if kind == "size":
        write(torch.zeros(3, 1, 9, 9, dtype=torch.uint8), inner)
    elif kind == "mixed":
        write(pictures[0], inner)
        Image.new("L", (9, 8)).save(inner / "wide.png")
    elif kind == "colour":
        write(pictures[0], inner)
        Image.new("RGB", (8, 8), "red").save(inner / "red.png")
    elif kind == "broken":
        write(pictures[0], inner)
        (inner / "half.png").write_bytes((inner / "000.png").read_bytes()[:60])
    with pytest.raises(DataError, match=words) as caught:
        folder_samples(folder, digits)
    assert "\n" not in str(caught.value)


def test_a_folder_of_an_unknown_class_is_one_line(tmp_path, digits, pictures, quiet):
    write(pictures[0], tmp_path / "given" / "eleven")
    with pytest.raises(DataError, match="'eleven' is no class here") as caught:
        folder_samples(tmp_path / "given", digits)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_one_line(tmp_path, digits, quiet):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none holds no images: give a folder with PNG"):
        folder_samples(tmp_path / "none", digits)


# --- fewer of them ----------------------------------------------------------------------------


def test_fewer_are_a_random_part_with_their_own_labels(digits):
    images, labels = digits.split("test")
    whole = SampleSet(images, labels, {"path": "x", "n": 270})
    some = limited(whole, 50, seed=1)
    order = torch.randperm(270, generator=generator("judged", 1))[:50].sort().values
    assert torch.equal(some.images, images[order])
    assert torch.equal(some.labels, labels[order])
    assert some.facts == {"path": "x", "n": 50, "seed": 1}
    assert not torch.equal(limited(whole, 50, seed=2).images, some.images)
    assert limited(whole, 270, seed=1) is whole
    bare = dataclasses.replace(whole, labels=None)
    assert limited(bare, 9, seed=0).labels is None
