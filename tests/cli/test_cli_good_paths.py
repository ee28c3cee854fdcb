"""The verbs at work, compared with each other, the library and scikit-learn."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import mezzotint
from mezzotint import imaging
from mezzotint.runs import progress
from mezzotint.runs.run import Run

SAMPLE = "sample run --evaluations 4"


def result(answer):
    """The one JSON object on standard output."""
    assert answer.code == 0, answer
    assert answer.out.count("\n") == 1
    return json.loads(answer.out)


def pixels(path):
    return np.asarray(Image.open(path))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- data and inspect -------------------------------------------------------------------------


def test_data_counts_what_scikit_learn_counts(cli):
    facts = result(cli("data digits --json"))
    digits = load_digits()
    assert sum(facts["splits"].values()) == len(digits.target) == 1797
    share = facts["splits"]["train"] / 1797
    assert sum(facts["classes"].values()) == facts["splits"]["train"]
    for name, total in zip("0123456789", np.bincount(digits.target), strict=True):
        assert abs(facts["classes"][name] - share * total) < 2
    assert (facts["size"], facts["channels"]) == ([8, 8], 1)
    scaled = digits.images / 8 - 1
    assert facts["pixels"]["mean"] == pytest.approx(scaled.mean(), abs=0.01)
    assert facts["pixels"]["deviation"] == pytest.approx(scaled.std(), abs=0.01)


def test_data_says_the_same_to_a_person(cli, tmp_path):
    facts = result(cli("data digits --limit 50 --json"))
    text = cli("data digits --limit 50 --out sheet.png").out
    assert "digits: 50 train, 10 validation" in text
    assert f"{facts['pixels']['deviation']:.3f}" in text
    assert sum(facts["classes"].values()) == 50
    assert Image.open(tmp_path / "sheet.png").size[0] > 80
    assert "sheet: sheet.png" in text


def test_data_takes_a_folder_of_ones_own(cli, tmp_path):
    for name, count in {"cat": 30, "dog": 20}.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(count):
            colour = (i, 5 * i, 100)
            Image.new("RGB", (12, 10), colour).save(tmp_path / "photos" / name / f"{i}.png")
    facts = result(cli("data photos --size 8 --json"))
    assert sum(facts["splits"].values()) == 50
    assert list(facts["classes"]) == ["cat", "dog"]
    assert (facts["size"], facts["channels"]) == ([8, 8], 3)


def test_data_shows_styles_and_examples_of_their_levels(cli, tmp_path):
    command = "data digits --style thickness --style slant"
    facts = result(cli(f"{command} --json"))
    assert list(facts["styles"]) == ["thickness", "slant"]
    thickness = facts["styles"]["thickness"]
    assert list(thickness["levels"]) == ["thin", "medium", "thick"]
    assert sum(thickness["levels"].values()) == facts["images"]
    assert facts["correlations"]["slant"]["slant"] == pytest.approx(1)
    text = cli(f"{command} --out styles.png").out
    assert f"thin | {thickness['cuts'][0]:.4g} | medium" in text
    picture = Image.open(tmp_path / "styles.png")
    assert picture.height > 6 * 64  # three rows for each, of digits eight times as large
    assert cli("data digits --style boldness").code == 2


def test_inspect_warns_that_a_hundred_unscaled_betas_leave_the_image(cli):
    facts = result(cli("inspect fashion-a --json"))
    left = np.prod(1 - np.linspace(1e-4, 0.02, 100))
    assert facts["terminal_snr"] == pytest.approx(left / (1 - left), rel=1e-9)
    assert facts["sigma_max"] == pytest.approx(np.sqrt(1 / left - 1), rel=1e-9)
    assert len(facts["warnings"]) == 1
    assert "terminal SNR 0.57" in facts["warnings"][0]
    assert "rescaled" in facts["warnings"][0]
    assert result(cli("inspect fashion-a-corrected --json"))["warnings"] == []
    assert "warning: the noisiest level still shows the image" in cli("inspect fashion-a").out


def test_inspect_adds_up(cli):
    facts = result(cli("inspect digits --json"))
    assert facts["parameters"] == sum(layer["parameters"] for layer in facts["layers"])
    assert facts["flops"] == sum(layer["flops"] for layer in facts["layers"])
    smaller = result(cli(["inspect", "digits", "--set", "network.levels=[{width=8}]", "--json"]))
    assert smaller["parameters"] < facts["parameters"] / 5
    text = cli("inspect digits").out
    assert f"{facts['parameters']:,} parameters" in text
    assert all(layer["name"] in text for layer in facts["layers"])


def test_inspect_draws_the_schedule_of_a_run(cli, digits_run, tmp_path):
    facts = result(cli("inspect run --out pictures --json"))
    saved = mezzotint.load(digits_run).denoiser.network
    assert facts["parameters"] == sum(p.numel() for p in saved.parameters())
    assert facts["input"] == [1, 8, 8]
    assert sorted(facts["pictures"]) == ["pictures/forward.png", "pictures/schedule.png"]
    assert all(Image.open(tmp_path / path).size[0] > 100 for path in facts["pictures"])


# --- train ------------------------------------------------------------------------------------


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(cli, tiny, unchanged):
    with unchanged():
        facts = result(cli(["train", "digits", "--out", "new", *tiny, "--dry-run", "--json",
                            "--budget", "3epochs"]))  # fmt: skip
        train = result(cli("data digits --json"))["splits"]["train"]
        assert facts["dry_run"] is True
        assert facts["images"] == 3 * train
        text = cli(["train", "digits", "--out", "new", *tiny, "--dry-run", "--budget", "9s"]).out
        assert "budget 9s (as measured)" in text
        assert "nothing was written" in text


def test_a_run_is_trained_resumed_and_continued(cli, tiny, tmp_path):
    command = ["train", "digits", "--out", "run", *tiny, "--json", "--budget"]
    first = cli(command, "64images")
    facts = result(first)
    assert (facts["images_seen"], facts["images"]) == (64, 64)
    log = lines(tmp_path / "run" / "metrics.jsonl")
    steps = [row["images_seen"] for row in log if row["kind"] == "step"]
    assert steps == [16, 32, 48, 64]
    held = [row["loss"] for row in log if row["kind"] == "validation"]
    assert facts["validation_loss"] == held[-1]
    assert "resumed" not in first.err

    again = cli(command, "64images")
    assert "resumed at 64 images" in again.err
    assert result(again)["images_seen"] == 64
    assert lines(tmp_path / "run" / "metrics.jsonl") == log

    more = cli(command, "112images")
    assert "resumed at 64 images" in more.err
    assert result(more)["images_seen"] == 112
    log = lines(tmp_path / "run" / "metrics.jsonl")
    steps = [row["images_seen"] for row in log if row["kind"] == "step"]
    assert steps == [16, 32, 48, 64, 80, 96, 112]

    config = (tmp_path / "run" / "config.toml").read_bytes()
    smaller = cli(command, "32images")
    assert (smaller.code, smaller.out) == (2, "")
    assert "seen 112 images, more than a budget of 32" in smaller.err
    without = cli(command[:-1])  # a run's budget is its own until another is given
    assert result(without)["images"] == 112
    assert (tmp_path / "run" / "config.toml").read_bytes() == config


def test_ctrl_c_saves_and_the_same_command_goes_on(cli, tiny, monkeypatch):
    step = progress._Meter.step

    def step_and_press(self, record):
        step(self, record)
        signal.raise_signal(signal.SIGINT)

    command = ["train", "digits", "--out", "run", *tiny, "--budget", "64images", "--json"]
    with monkeypatch.context() as pressed:
        pressed.setattr(progress._Meter, "step", step_and_press)
        answer = cli(command)
    assert answer.code == 130
    facts = json.loads(answer.out)
    assert (facts["images_seen"], facts["stopped"]) == (16, "interrupted")
    again = cli(command)
    assert "resumed at 16 images" in again.err
    assert result(again)["images_seen"] == 64


def test_a_small_budget_is_still_a_training(cli, tiny):
    facts = result(cli(["train", "digits", "--out", "run", *tiny, "--json", "--budget",
                        "0.001epochs"]))  # fmt: skip
    assert facts["images_seen"] == 16


def test_training_tells_a_person_what_to_do_next(cli, tiny, tmp_path):
    answer = cli(["train", "digits", "--out", "run", *tiny, "--budget", "32images"])
    last = answer.out.splitlines()[-1]
    assert last == "next: mezzotint sample run --out grid.png"
    assert cli(last.removeprefix("next: mezzotint ")).code == 0
    assert (tmp_path / "grid.png").is_file()


# --- sample -----------------------------------------------------------------------------------


def test_arrays_a_folder_and_the_library_hold_the_same_images(cli, digits_run, tmp_path):
    facts = result(cli(f"{SAMPLE} --n 20 --seed 3 --out a.npz --json"))
    assert facts["written"] == {"out": "a.npz"}
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    images, labels = arrays["images"], arrays["labels"]
    assert (images.dtype, images.shape, labels.dtype) == (np.uint8, (20, 1, 8, 8), np.int64)
    assert labels.tolist() == [k // 2 for k in range(20)]
    assert len(np.unique(images, axis=0)) == 20
    meta = json.loads(str(arrays["meta"]))
    assert {k: meta[k] for k in ("n", "seed", "evaluations")} == {
        "n": 20, "seed": 3, "evaluations": 4,
    }  # fmt: skip

    assert cli(f"{SAMPLE} --n 20 --seed 3 --out folder").code == 0
    rows = lines(tmp_path / "folder" / "manifest.jsonl")
    assert [row["index"] for row in rows] == list(range(20))
    for row in rows:
        assert np.array_equal(pixels(tmp_path / "folder" / row["file"]), images[row["index"], 0])
        assert row["label"] == labels[row["index"]]
        assert row["file"].startswith(f"{row['class']}/")

    drawn = mezzotint.load(digits_run).sample(n=20, seed=3, evaluations=4)
    assert np.array_equal(drawn.numpy(), images)


def test_a_grid_holds_the_images_it_was_asked_for(cli, digits_run, tmp_path):
    assert cli(f"{SAMPLE} --n 3 --label 7 --out a.npz").code == 0
    assert cli(f"{SAMPLE} --n 3 --label 7 --out a.png").code == 0
    samples = imaging.load_npz(tmp_path / "a.npz")
    assert samples.labels.tolist() == [7, 7, 7]
    sheet = pixels(tmp_path / "a.png")
    for image in samples.images[:, 0].numpy():
        assert any(contains(sheet, np.kron(image, np.ones((k, k)))) for k in range(1, 9))


def contains(sheet, image):
    windows = np.lib.stride_tricks.sliding_window_view(sheet, image.shape)
    hits = np.argwhere(windows[:, :, 0, 0] == image[0, 0])
    return any(np.array_equal(windows[y, x], image) for y, x in hits)


def test_seeds_are_the_first_images_of_several_seeds(cli, digits_run, tmp_path):
    assert cli(f"{SAMPLE} --label 4 --seeds 3 --seed 5 --out several.npz").code == 0
    several = imaging.load_npz(tmp_path / "several.npz").images
    for k in range(3):
        assert cli(f"{SAMPLE} --label 4 --n 1 --seed {5 + k} --out one{k}.npz").code == 0
        one = imaging.load_npz(tmp_path / f"one{k}.npz").images[0]
        assert (one.int() - several[k].int()).abs().max() <= 1


def test_an_image_does_not_depend_on_how_many_are_drawn(cli, digits_run, tmp_path):
    assert cli(f"{SAMPLE} --label 4 --n 7 --out seven.npz").code == 0
    assert cli(f"{SAMPLE} --label 4 --n 2 --out two.npz").code == 0
    seven, two = (imaging.load_npz(tmp_path / f"{n}.npz").images for n in ("seven", "two"))
    assert (seven[:2].int() - two.int()).abs().max() <= 1


def test_settings_change_what_is_drawn(cli, digits_run, tmp_path):
    base = "--n 4 --seed 1"
    changes = {
        "plain": "",
        "more": "--evaluations 9",
        "other": "--sampler ddim",
        "noisy": "--sampler ddpm",
        "raw": "--weights raw",
        "seeded": "--seed 2",
    }
    drawn = {}
    for name, change in changes.items():
        assert cli(f"{SAMPLE} {base} {change} --out {name}.npz").code == 0
        drawn[name] = imaging.load_npz(tmp_path / f"{name}.npz").images
    for name in changes:
        assert torch.equal(drawn[name], drawn["plain"]) == (name == "plain"), name


def test_guidance_1_is_none_and_an_interval_without_levels_too(cli, digits_run, tmp_path):
    def draw(name, options):
        assert cli(f"{SAMPLE} --n 4 {options} --out {name}.npz").code == 0
        return imaging.load_npz(tmp_path / f"{name}.npz").images.int()

    plain = draw("plain", "")
    assert torch.equal(draw("one", "--guidance 1"), plain)
    never = draw("never", "--guidance 5 --interval 1000 2000")
    assert (never - plain).abs().max() <= 1
    assert (draw("all", "--guidance 50") - plain).abs().max() > 1


def test_a_strip_and_an_animation_show_the_way(cli, digits_run, tmp_path):
    line = f"{SAMPLE} --n 5 --out a.npz --strip strip.png --animate film.gif --json"
    assert result(cli(line))["written"] == {
        "out": "a.npz", "strip": "strip.png", "animate": "film.gif",
    }  # fmt: skip
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4 + 1  # noise, then every step; the last is shown longer
        assert film.info["loop"] == 0
        film.seek(film.n_frames - 1)
        assert film.info["duration"] > 1000
        last = np.asarray(film.convert("L"))
    final = imaging.load_npz(tmp_path / "a.npz").images
    k = next(k for k in range(1, 33) if contains(last, np.kron(final[0, 0], np.ones((k, k)))))
    assert all(contains(last, np.kron(image, np.ones((k, k)))) for image in final[:, 0].numpy())
    strip = pixels(tmp_path / "strip.png")
    assert strip.shape[0] >= 2 * 5 * 8  # x and the estimate of every image
    assert strip.shape[1] >= 5 * 8  # noise and four steps
    assert cli(f"{SAMPLE} --n 2 --animate film.webp").code == 0
    with Image.open(tmp_path / "film.webp") as film:
        assert film.n_frames > 1


def test_overwriting_is_asked_for(cli, digits_run, tmp_path):
    assert cli(f"{SAMPLE} --n 2 --out a.npz").code == 0
    before = (tmp_path / "a.npz").read_bytes()
    assert cli(f"{SAMPLE} --n 2 --seed 9 --out a.npz --overwrite").code == 0
    assert (tmp_path / "a.npz").read_bytes() != before


def test_a_dry_drawing_writes_nothing(cli, digits_run, unchanged):
    with unchanged():
        facts = result(cli(f"{SAMPLE} --n 2 --out a.npz --dry-run --json"))
        assert facts["dry_run"] is True
        assert (facts["n"], facts["evaluations"]) == (2, 4)
        assert "nothing was written" in cli(f"{SAMPLE} --n 2 --out a.npz --dry-run").out


def test_a_sampler_is_a_name_or_a_table_wherever_it_is_given(cli, digits_run, tmp_path):
    def drawn(sampler):
        facts = result(cli([*SAMPLE.split(), "--out", "a.npz", "--overwrite", "--json",
                            "--sampler", sampler]))  # fmt: skip
        return facts["sampler"], imaging.load_npz(tmp_path / "a.npz").images

    table = {"kind": "ddim", "eta": 0.5}
    named, images = drawn('{kind = "ddim", eta = 0.5}')
    model = mezzotint.load(digits_run)
    assert named == table
    assert torch.equal(images, model.sample(n=len(images), sampler=table, evaluations=4))
    assert drawn('{kind = "ddim", eta = 0.0}')[0] == "ddim"
    others = [drawn(name)[1] for name in ("ddim", "ddpm")]
    assert not any(torch.equal(images, other) for other in others)
    answer = cli([*SAMPLE.split(), "--out", "b.npz", "--sampler", "{kind='ddim',eta=0.5}"])
    assert ", ddim (eta 0.5), 4 evaluations" in answer.out


def test_all_levels_of_a_discrete_schedule_can_be_visited(cli, ddpm_run, tmp_path):
    facts = result(cli("sample ddpm --n 2 --out a.npz --animate film.gif --json"))
    assert (facts["sampler"], facts["evaluations"]) == ("ddpm", 100)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames > 50


def test_the_best_checkpoint_can_be_drawn_from(cli, digits_run, tmp_path):
    assert cli(f"{SAMPLE} --n 2 --out last.npz").code == 0
    assert cli(f"{SAMPLE} --n 2 --checkpoint best --out best.npz").code == 0
    # One validation, at the end: the best is the last.
    last, best = (imaging.load_npz(tmp_path / f"{n}.npz").images for n in ("last", "best"))
    assert torch.equal(last, best)


# --- the command itself -----------------------------------------------------------------------


def test_the_module_is_the_command():
    answer = subprocess.run(
        [sys.executable, "-m", "mezzotint", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == mezzotint.__version__
    wrong = subprocess.run(
        [sys.executable, "-m", "mezzotint", "tran"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith("mezzotint: ")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="wants Linux's full device")
def test_a_training_whose_log_is_on_a_full_disk_goes_on(tmp_path, tiny):
    words = ["train", "digits", "--budget", "64images", "--out", str(tmp_path / "run"), *tiny]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "mezzotint", *words],
            stdout=subprocess.DEVNULL,
            stderr=full,
            check=False,
        )
    assert ended.returncode == 0
    assert Run.at(tmp_path / "run").images_seen() == 64


def test_without_a_verb_the_verbs_are_shown(cli):
    answer = cli([])
    assert answer.code == 0
    assert answer.err == ""
    assert all(verb in answer.out for verb in ("data", "inspect", "train", "sample", "demo"))
    assert cli("--version").out.strip() == mezzotint.__version__
    assert cli("--version").out.count("\n") == 1


HELP = """
import resource, sys
from mezzotint.cli.main import run
code = run(sys.argv[1:])
heavy = {"torch", "numpy", "matplotlib", "datasets", "pyarrow", "PIL"}
print(*sorted(heavy & sys.modules.keys()), file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize("verb", ["", "data", "inspect", "train", "sample", "demo"])
def test_help_is_instant_and_has_examples(verb):
    answer = subprocess.run(
        [sys.executable, "-c", HELP, *verb.split(), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    heavy, seconds = answer.stderr.split("\n")[:2]
    assert heavy == ""
    assert float(seconds) < 0.5
    if verb:
        assert f"mezzotint {verb} " in answer.stdout
        assert "--json" in answer.stdout
        assert "Example" in answer.stdout


def test_a_group_of_verbs_shows_its_help(cli):
    answer = cli("edit")
    assert (answer.code, answer.err) == (0, "")
    assert "compose" in answer.out
