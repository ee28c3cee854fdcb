"""What a person can do wrong: exit code 2, one line that helps, nothing written or changed."""

import os
import re
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mezzotint.data.readers.hub import FetchError
from mezzotint.runtime import checksum

TRAIN = ["train", "digits", "--out", "new", "--budget", "32images"]


def folder_of_images(root, classes=("cat", "dog"), each=4):
    draws = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(each):
            pixels = draws.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


# --- the words themselves ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tran digits", ["'tran'", "'train'", "--help"]),
        ("smaple runs/x", ["'smaple'", "'sample'"]),
        ("--versoin", ["--versoin", "--version"]),
        ("train digits", ["--out"]),
        ("train --out new", ["Missing argument", "'source'"]),
        ("train digits --out new --limt 3", ["--limt", "--limit"]),
        ("train digits --out new --budgte 3s", ["--budgte", "--budget"]),
        ("train digits --out new --limit many", ["--limit", "integer"]),
        ("train digits --out new --limit 0", ["--limit", "1", "got '0'"]),
        ("train digits --out new --size 3", ["--size", "4"]),
        ("train digits --out new --size 1000", ["--size", "256"]),
        ("train digits --out", ["--out", "argument"]),
        ("train digits more --out new", ["more"]),
        ("data", ["Missing argument", "'source'"]),
        ("sample run --n 0 --out a.png", ["--n", "1", "got '0'"]),
        ("sample run --seed x --out a.png", ["--seed", "integer"]),
        ("sample run --evaluations 0 --out a.png", ["--evaluations", "1"]),
        ("sample run --guidance much --out a.png", ["--guidance", "number"]),
        ("sample run --interval 3 --out a.png", ["--interval"]),
    ],
)
def test_what_does_not_parse_is_answered_in_one_line(refused, unchanged, line, words):
    with unchanged():
        message = refused(line)
    assert all(word.lower() in message.lower() for word in words), message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "10x"], ["'10x'", "40s", "30epochs", "5Mimages"]),
        (["--budget", "0s"], ["'0s'", "40s"]),
        (["--budget", "-3m"], ["'-3m'", "40s"]),
        (["--checkpoint-every", "3epochs"], ["--checkpoint-every", "'3epochs'", "60s"]),
        (["--checkpoint-every", "often"], ["'often'"]),
        (["--preset", "fashon-a"], ["'fashon-a'", "did you mean 'fashion-a'", ".toml"]),
        (["--preset", "mine.toml"], ["'mine.toml'"]),
        (["--set", "training.bach=3"], ["training.bach", "did you mean 'batch'"]),
        (["--set", "trainig.batch=3"], ["'trainig'", "did you mean 'training'"]),
        (
            [
                *(
                    "--set",
                    "training.label_dropout=0",
                    "--set",
                    "training.model_guidance.max_scale=1",
                ),
                *("--set", "sampling.guidance=2"),
            ],
            ["sampling.guidance = 2", "training.label_dropout = 0", "set sampling.guidance to 1"],
        ),
        (["--set", "training.batch=0"], ["training.batch = 0", "greater than or equal to 1"]),
        (["--set", "training.batch"], ["key=value", "'training.batch'"]),
        (["--set", "sampling.sampler=hean"], ["did you mean 'heun'"]),
        (["--set", "objective.schedule=3"], ["objective.schedule", "table"]),
        (["--set", "network.block.norm=grup"], ["did you mean 'group'"]),
        (["--device", "gpu"], ["'gpu'", "'auto', 'cpu', 'cuda', 'mps'"]),
        (["--limit", "9"], ["limit 9", "10"]),
    ],
)
def test_a_setting_that_cannot_be_is_answered_before_anything_is_made(
    refused, unchanged, options, words
):
    with unchanged():
        message = refused([*TRAIN, *options])
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("smaple run", "'smaple'. Did you mean 'sample'? See "),
        ("sample run --n 0", "than or equal to 1, got '0'. See "),
        ("sample run --lable 3", "--label"),
        ("edit compos", "Did you mean 'compose'? See "),
    ],
)
def test_what_is_mistyped_names_the_help_of_its_verb(refused, unchanged, command, words):
    with unchanged():
        message = refused(command)
    assert words in message
    verb = command.split()[0] if command.split()[0] in ("sample", "edit") else ""
    assert message.rstrip().endswith(f"{verb} --help".lstrip())


def test_a_device_that_is_not_there_is_named(refused, unchanged, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with unchanged():
        message = refused([*TRAIN, "--device", "cuda"])
    assert "no cuda device" in message
    assert "say cpu" in message


# --- data that is not there or broken ---------------------------------------------------------


@pytest.mark.parametrize("verb", ["data nowhere", "train nowhere --out new --budget 32images"])
def test_a_source_that_is_not_there_is_answered_with_those_there_are(refused, unchanged, verb):
    with unchanged():
        message = refused(verb)
    assert "'nowhere'" in message
    assert all(name in message for name in ("digits", "mnist", "folder", "hf:OWNER/NAME"))


def test_a_mistyped_source_is_answered_with_the_closest(refused, unchanged):
    with unchanged():
        assert "did you mean 'fashion-mnist'" in refused("data fashon-mnist")


def test_a_named_set_without_copy_and_network_says_where_it_looked(
    refused, unchanged, monkeypatch, tmp_path
):
    def unreachable(repository):
        raise FetchError("no network")

    monkeypatch.setattr("mezzotint.data.readers.hub.fetch", unreachable)
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("MEZZOTINT_DATA", str(tmp_path / "here"))
    with unchanged():
        message = refused("train fashion-mnist --out new", "--data-dir", tmp_path / "there")
    assert f"not at {tmp_path / 'there' / 'fashion-mnist'}" in message
    assert f"not at {tmp_path / 'here' / 'fashion-mnist'}" in message
    assert "no network" in message
    assert "zalando-datasets/fashion_mnist" in message
    assert "--data-dir DIR or MEZZOTINT_DATA=DIR" in message


def test_a_hub_set_that_is_not_there_is_answered_the_same_way(refused, unchanged, monkeypatch):
    def unreachable(repository):
        raise FetchError(f"{repository} is gone")

    monkeypatch.setattr("mezzotint.data.readers.hub.fetch", unreachable)
    with unchanged():
        message = refused("data hf:some/thing")
    assert "some/thing is gone" in message
    assert "parquet" in message
    assert "hf:OWNER/NAME" in refused("data hf:thing")


def test_an_empty_class_is_named(refused, unchanged, tmp_path):
    folder_of_images(tmp_path / "photos")
    (tmp_path / "photos" / "owl").mkdir()
    with unchanged():
        message = refused("train photos --out new --budget 32images")
    assert "photos/owl" in message
    assert "keep that folder elsewhere" in message


def test_a_folder_without_classes_is_answered_with_the_layout(refused, unchanged, tmp_path):
    (tmp_path / "photos").mkdir()
    with unchanged():
        message = refused("data photos")
    assert "class subfolders" in message
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    assert "subfolder" in refused("data photos")
    assert "is a file" in refused("data photos/a.png")


@pytest.mark.parametrize("keep", [0, 10, 40, 70, 100])
def test_a_picture_that_is_cut_short_is_named(refused, unchanged, tmp_path, keep):
    broken = folder_of_images(tmp_path / "photos") / "dog" / "2.png"
    broken.write_bytes(broken.read_bytes()[:keep])
    with unchanged():
        message = refused("train photos --out new --budget 32images", quiet=False)
    assert "photos/dog/2.png" in message


# --- an --out that holds something else -------------------------------------------------------


def test_training_leaves_a_file_alone(refused, unchanged, tmp_path):
    (tmp_path / "new").write_text("my thesis")
    with unchanged():
        message = refused(TRAIN)
    assert "--out new is a file" in message
    assert "choose a directory" in message


def test_training_leaves_a_folder_of_something_else_alone(refused, unchanged, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "thesis.txt").write_text("my thesis")
    with unchanged():
        message = refused(TRAIN)
    assert "thesis.txt" in message
    assert "empty or new directory" in message


def test_a_configuration_that_no_checkpoint_can_mend_is_left_alone(refused, unchanged, digits_run):
    file = digits_run / "config.toml"
    for checkpoint in (digits_run / "checkpoints").iterdir():
        checkpoint.unlink()
    file.write_text(file.read_text().replace("batch = 16", "bach = 16"))
    for _ in ("edited", "written so"):
        with unchanged():
            message = refused("sample run --out a.png")
        assert "training.bach" in message
        assert "'batch'" in message
        file.write_text(checksum.text_with_checksum(file.read_text().partition("\n")[2]))
    file.write_text("[training\n")
    with unchanged():
        assert "config.toml is not valid TOML" in refused("sample run --out a.png")


@pytest.mark.parametrize("damage", ["half of it", "nothing", "noise"])
def test_a_damaged_configuration_is_mended_from_a_checkpoint(cli, digits_run, damage):
    file, whole = digits_run / "config.toml", (digits_run / "config.toml").read_text()
    words = "sample run --n 4 --evaluations 1 --out"
    assert cli(f"{words} whole.npz").code == 0
    if damage == "nothing":
        file.unlink()
    else:
        noise = whole.encode()[:100] + b"\xff\xfe" + whole.encode()[100:]
        file.write_bytes(whole.encode()[:500] if damage == "half of it" else noise)
    answer = cli(f"{words} mended.npz")
    assert answer.code == 0
    assert "the copy in checkpoints/last.safetensors counts" in answer.err
    drawn = [digits_run.parent / f"{name}.npz" for name in ("whole", "mended")]
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("guidance = 1.0", "guidance = 2.0", ["sampling.guidance is 2.0, and was 1.0"]),
        ("learning_rate = 0.0", "learning_rate = 0.1", ["training.learning_rate is 0.1"]),
        ("batch = 16", "bach = 16", ["training.bach", "'batch'"]),
        ("batch = 16", "batch = 0", ["training.batch = 0", "greater than"]),
    ],
)
@pytest.mark.parametrize("words_of", ["sample run --out a.png", "evaluate run", "inspect run"])
def test_an_edited_configuration_is_refused_and_never_ignored(
    refused, unchanged, digits_run, before, after, words, words_of
):
    file = digits_run / "config.toml"
    edited = re.sub(rf"(?m)^{before}", after, file.read_text())
    assert edited != file.read_text()
    file.write_text(edited)
    with unchanged():
        message = refused(words_of)
    assert "config.toml" in message
    assert all(word in message for word in words), message


def test_an_edit_that_says_the_same_is_obeyed_and_so_is_one_without_a_checkpoint(cli, digits_run):
    file = digits_run / "config.toml"
    file.write_text(file.read_text() + "\n# a remark\n")
    assert cli("sample run --n 4 --evaluations 1 --out a.npz").code == 0
    for checkpoint in (digits_run / "checkpoints").iterdir():
        checkpoint.unlink()
    file.write_text(file.read_text().replace("\nseed = 0", "\nseed = 7"))
    assert "seed 7" in cli("inspect run").out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--set", "training.batch=8"], ["training.batch was 16, is now 8"]),
        (["--set", "training.seed=4"], ["training.seed was 0, is now 4"]),
        (["--set", "network.block.norm=rms"], ["network.block.norm was group, is now rms"]),
        (["--size", "16"], ["origin.size was not set, is now 16"]),
        (["--limit", "100"], ["origin.limit was not set, is now 100"]),
        (["--preset", "mnist"], ["objective.schedule.mean was -0.6, is now -0.8"]),
    ],
)
def test_a_run_of_another_configuration_is_answered_with_the_difference(
    refused, unchanged, digits_run, tiny, more, words
):
    with unchanged():
        message = refused(
            ["train", "digits", "--out", "run", "--budget", "64images", *tiny, *more], quiet=False
        )
    assert "another configuration" in message
    assert "another --out" in message
    assert all(word in message for word in words), message


def test_a_run_of_another_source_is_answered_with_both(
    refused, unchanged, digits_run, tiny, tmp_path
):
    folder_of_images(tmp_path / "photos", each=10)
    with unchanged():
        message = refused(
            ["train", "photos", "--out", "run", "--budget", "64images", *tiny], quiet=False
        )
    assert "origin.source was digits, is now photos" in message


def test_a_folder_written_another_way_is_the_same_source(cli, tiny, tmp_path):
    folder_of_images(tmp_path / "photos", each=10)
    command = ["--out", "run", "--budget", "32images", *tiny]
    assert cli(["train", "photos", *command]).code == 0
    again = cli(["train", f"../{tmp_path.name}/photos/", *command])
    assert again.code == 0
    assert "resumed at 32 images" in again.err


# --- sampling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("sample nowhere --out a.png", ["nowhere is no run", "train"]),
        ("sample . --out a.png", ["no run", "config.toml"]),
        ("sample run", ["--out FILE.png", "--strip", "--animate"]),
        ("sample run --label cat --out a.png", ["'cat'", "0, 1, 2"]),
        ("sample run --label 10 --out a.png", ["'10'", "0..9"]),
        ("sample run --sampler hean --out a.png", ["'hean'", "did you mean 'heun'"]),
        ("sample run --weights best --out a.png", ["weights", "ema", "raw", "'best'"]),
        (
            "sample run --checkpoint ema --out a.png",
            ["--checkpoint", "'last', 'best', 'snapshot'", "'ema'"],
        ),
        (
            "sample run --autoguidance 2 --out a.png",
            ["no early snapshot", "training.snapshot=0.1"],
        ),
        ("sample run --autoguidance -1 --out a.png", ["no early snapshot"]),
        ("evaluate run --autoguidance 2", ["no early snapshot", "leave --autoguidance and"]),
        ("evaluate run --interval 2 1", ["0 <= low < high", "2 1"]),
        ("sample run --n 5 --seeds 2 --label 1 --out a.png", ["--n 5 and --seeds 2", "give one"]),
        ("evaluate run --split dev", ["'dev'", "'test', 'validation', 'train'"]),
        ("select run --threshold 90 --out a", ["--threshold", "got '90'"]),
        ("sweep nowhere", ["nowhere is no run"]),
        ("sweep run --scales 1;2", ["--scales", "1,1.5,2,3", "'1;2'"]),
        ("sweep run --scales 2", ["two or more different scales", "'2'"]),
        ("sweep run --scales 1,-2", ["0 or above", "'1,-2'"]),
        ("sweep run --n 100", ["--n 100", "128 features", "144 or more"]),
        ("sweep run --interval 2 1", ["0 <= low < high"]),
        ("sample run --guidance -1 --out a.png", ["guidance = -1", "greater than or equal to 0"]),
        ("sample run --out a.jpg", ["a.jpg", ".png", ".npz", "folder"]),
        ("sample run --strip a.gif", ["--strip a.gif", ".png"]),
        ("sample run --animate a.png", ["--animate a.png", ".gif", ".webp"]),
        ("sample run --out run", ["--out run", "left alone"]),
        ("sample run --out run/config.toml/a.png", ["nothing can be written"]),
        ("inspect run --set training.batch=3", ["--set", "a run is what it is"]),
        ("inspect fashin-a", ["'fashin-a'", "did you mean 'fashion-a'"]),
        ("inspect fashion-a --set training.bach=3", ["training.bach", "'batch'"]),
        ("data digits --out sheet.jpg", ["sheet.jpg", ".png"]),
    ],
)
def test_what_cannot_be_drawn_is_answered_in_one_line(refused, unchanged, digits_run, line, words):
    with unchanged():
        message = refused(line)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.PNG", "folder"])
def test_a_file_that_is_there_is_left_alone(refused, unchanged, digits_run, tmp_path, name):
    (tmp_path / name).write_text("my thesis")
    with unchanged():
        message = refused(f"sample run --n 2 --out {name}")
    assert f"{name} is already there" in message
    assert "another name" in message


@pytest.mark.parametrize("option", ["--strip a.png", "--animate a.gif"])
def test_a_trajectory_that_is_there_is_left_alone(
    refused, unchanged, digits_run, tmp_path, option
):
    (tmp_path / option.split()[1]).write_text("my thesis")
    with unchanged():
        message = refused(f"sample run --n 2 --out new.png {option}")
    assert "already there" in message
    assert "--overwrite" in message


@pytest.mark.parametrize("more", ["", " --overwrite"])
def test_a_folder_that_holds_something_is_left_alone(
    refused, unchanged, digits_run, tmp_path, more
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("my thesis")
    with unchanged():
        message = refused(f"sample run --n 2 --out folder{more}")
    assert "holds something" in message
    assert "empty or new folder" in message


def test_a_run_without_checkpoint_says_so(refused, unchanged, digits_run):
    for file in (digits_run / "checkpoints").iterdir():
        file.unlink()
    with unchanged():
        message = refused("sample run --out a.png")
    assert "no checkpoint yet" in message
    assert "train" in message


def test_a_damaged_checkpoint_is_named(refused, unchanged, digits_run):
    for file in (digits_run / "checkpoints").iterdir():
        file.write_bytes(file.read_bytes()[:-100])
    with unchanged():
        message = refused("sample run --out a.png")
    assert "last" in message
    assert "safetensors" in message


def test_more_evaluations_than_a_schedule_has_levels_are_refused(refused, unchanged, ddpm_run):
    with unchanged():
        message = refused("sample ddpm --n 2 --evaluations 101 --out a.png")
    assert "100" in message
    assert "101" in message
    with unchanged():
        assert "101" in refused("sample ddpm --n 2 --sampler heun --evaluations 201 --out a.png")


# --- a training that cannot go well -----------------------------------------------------------


def test_a_learning_rate_that_breaks_everything_ends_with_advice(refused, tiny, tmp_path):
    message = refused(
        ["train", "digits", "--out", "new", "--budget", "320images", *tiny,
         "--set", "training.learning_rate=1e30"],
        quiet=False,
    )  # fmt: skip
    assert "diverged" in message
    assert "lower training.learning_rate" in message
    assert (tmp_path / "new" / "checkpoints" / "last.safetensors").is_file()


@pytest.mark.parametrize("out", ["/proc/nope/run", "/dev/null/run"])
def test_a_place_that_cannot_be_written_is_named(refused, unchanged, tiny, out):
    with unchanged():
        message = refused(
            ["train", "digits", "--out", out, "--budget", "32images", *tiny], quiet=False
        )
    assert out in message
    assert "choose another --out" in message


@pytest.mark.parametrize("out", ["/proc/nope/a.png", "/proc/nope/a.npz", "/proc/nope/folder"])
def test_samples_cannot_be_written_just_anywhere(refused, unchanged, digits_run, out):
    with unchanged():
        message = refused(f"sample run --n 2 --out {out}", quiet=False)
    assert "/proc/nope" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_named(refused, unchanged, digits_run, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with unchanged():
        assert "locked" in refused("sample run --n 2 --out locked/a.png")


def with_small_files(arguments, limit=20_000):
    """The command in a process that may not write files larger than `limit` bytes."""
    return subprocess.run(
        [sys.executable, "-m", "mezzotint", *arguments],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        check=False,
    )


@pytest.mark.slow
def test_a_full_disk_is_answered_in_one_line_and_loses_nothing(digits_run, tiny, tmp_path, cli):
    new = with_small_files([*TRAIN, *tiny])
    assert new.returncode == 2
    line = new.stderr.splitlines()[-1]
    assert line.startswith("mezzotint: cannot write in new: File too large")
    assert "free space" in line
    assert not list((tmp_path / "new").rglob("*.safetensors*"))

    before = {path: path.read_bytes() for path in (digits_run / "checkpoints").iterdir()}
    longer = ["train", "digits", "--out", "run", "--budget", "128images", *tiny]
    full = with_small_files(longer)
    assert full.returncode == 2
    assert full.stderr.splitlines()[-1].startswith("mezzotint: cannot write in run: File too")
    assert before == {path: path.read_bytes() for path in (digits_run / "checkpoints").iterdir()}

    again = cli(longer)
    assert again.code == 0
    assert "resumed at 64 images" in again.err
    assert "128 of 128 images seen" in again.out
