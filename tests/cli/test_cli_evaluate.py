"""`evaluate`, `report` and `select`: numbers against scipy and plain counting, and bad input."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from mezzotint import imaging
from mezzotint.cli.evaluate import text as evaluate_text
from mezzotint.data import load
from mezzotint.evaluation.results import add_section
from mezzotint.metrics.cas import Cas
from mezzotint.metrics.clip import scorers, small_clip
from mezzotint.metrics.extractors.extractor import shipped
from mezzotint.runtime.device import resolve_device
from mezzotint.sampling.model import Model

QUICK = "--metrics fd,kd,coverage,accuracy,score,distinct"


def result(answer):
    assert answer.code == 0, answer
    assert answer.out.count("\n") == 1
    return json.loads(answer.out)


def written(folder):
    return json.loads((folder / "evaluation.json").read_text())


@pytest.fixture
def digits():
    return load("digits")


@pytest.fixture
def real(tmp_path, digits):
    """Real test images posing as samples."""
    images, labels = digits.split("test")
    return imaging.save_npz(tmp_path / "real.npz", images, labels, {})


@pytest.fixture
def quick_clip(monkeypatch):
    """A small CLIP that has seen next to nothing."""
    recipe = small_clip.Recipe(images=1000)
    monkeypatch.setattr(
        scorers, "fit", lambda *a, **k: small_clip.fit(*a, **{**k, "recipe": recipe})
    )


def textbook_distance(a, b):
    """Heusel et al. 2017, by scipy's matrix square root."""
    a, b = a.double().numpy(), b.double().numpy()
    first, second = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(first @ second).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)


# --- what it says -----------------------------------------------------------------------------


def test_a_run_is_evaluated_by_the_samples_on_disk(cli, digits_run, digits):
    metrics = result(cli(f"evaluate run {QUICK} --json"))["metrics"]
    (block,) = (digits_run / "evaluation" / "drawn").rglob("*.npz")
    samples = imaging.load_npz(block)
    classifier = shipped(digits)
    reading = classifier.read(samples.images)
    test, _ = digits.split("test")
    expected = textbook_distance(reading.features, classifier.features(test))
    assert metrics["fd270"]["value"] == pytest.approx(expected, rel=1e-3)
    right = (reading.probabilities.argmax(1) == samples.labels).double().mean()
    assert metrics["accuracy"]["value"] == pytest.approx(float(right))
    assert metrics["distinct"]["value"] == 1
    protocol = metrics["fd270"]["protocol"]
    assert (protocol["n"], protocol["n_reference"], protocol["split"]) == (270, 270, "test")
    assert protocol["hash"] == classifier.digest
    assert protocol["fingerprint"] == digits.fingerprint
    assert set(metrics["kd270"]["anchors"]) == {"noise", "blur", "one class missing"}
    assert written(digits_run)["metrics"] == metrics


def test_real_images_are_better_than_a_run_and_worse_than_their_anchors(cli, digits_run, real):
    samples = result(cli(f"evaluate run {QUICK} --json"))["metrics"]
    images = result(cli(f"evaluate {real} --against digits {QUICK} --json"))["metrics"]
    assert images["fd270"]["value"] < 1e-6 < images["fd270"]["floor"]
    assert images["fd270"]["value"] < samples["fd270"]["value"]
    assert images["accuracy"]["value"] > 0.98
    assert images["coverage"]["value"] > images["coverage"]["anchors"]["one class missing"]


def test_all_parts_of_an_evaluation_are_made_and_the_report_shows_them(
    cli, digits_run, quick_clip, tmp_path
):
    found = result(cli("evaluate run --n 150 --json"))
    for part in ("memorisation", "recognition", "difficulty", "clip", "per_class", "confusion"):
        assert part in found, part
    for picture in found["pictures"].values():
        with Image.open(digits_run / picture) as image:
            assert min(image.size) > 50
    assert sum(map(sum, found["confusion"]["rows"])) == 150
    page = result(cli("report run --json"))["report"]
    text = (tmp_path / page).read_text()
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text
    assert text.count("data:image/png;base64,") >= len(found["pictures"])
    assert all(name in text for name in found["metrics"])


def test_cas_reads_all_images_of_a_file_and_refuses_at_once_what_it_cannot_score(
    cli, digits, tmp_path, monkeypatch
):
    images, labels = digits.split("train")
    arguments = []

    def scored(images, labels, data, *, device, watch):
        arguments.append((len(images), data.name, device))
        for seen in (128, 12_928, 25_728):  # every hundred steps of 128 images
            watch(1, seen)
        return Cas((0.5,))

    monkeypatch.setattr("mezzotint.evaluation.analyses.cas.cas", scored)
    monkeypatch.setattr("mezzotint.runtime.progress_bar.EVERY", 0)
    imaging.save_npz(tmp_path / "all.npz", images, labels, {})
    answer = cli("evaluate all.npz --against digits --metrics cas --device cpu --json")
    found = result(answer)
    messages = [line for line in answer.err.splitlines() if "synthetic, seed 1" in line]
    assert [line.split(": ")[2].split(" of")[0] for line in messages] == ["12,928", "25,728"]
    assert arguments == [
        (len(images), "digits", "cpu")
    ]  # not only as many as there are test images
    assert found["metrics"]["cas"]["protocol"]["n"] == len(images)
    result(cli("evaluate all.npz --against digits --metrics cas --n 200 --json"))
    assert arguments[1] == (200, "digits", resolve_device())
    some = labels != 3
    imaging.save_npz(tmp_path / "some.npz", images[some], labels[some], {})
    answer = cli("evaluate some.npz --against digits --metrics cas,fd")
    assert answer.code == 2
    assert "none of 3" in answer.err
    assert len(arguments) == 2


def test_cas_of_a_run_without_test_images_is_refused_before_anything_is_drawn(
    cli, refused, digits, tiny, tmp_path, monkeypatch
):
    for split, number in (("train", 2), ("val", 1)):  # too few to cut a test split from
        for label in range(2):
            for i, image in enumerate(digits.images[digits.labels == label][:number]):
                imaging.save_png(image, tmp_path / "few" / split / str(label) / f"{i}.png")
    assert cli(["train", "few", "--out", "run", "--budget", "16images", *tiny]).code == 0
    monkeypatch.setattr(Model, "sample_batch", None)
    message = refused("evaluate run --metrics cas --split validation", quiet=False)
    assert "cas reads a test split, and few has none" in message


def test_a_second_evaluation_adds_to_the_first_and_draws_nothing_anew(
    cli, digits_run, monkeypatch
):
    first = result(cli("evaluate run --metrics accuracy --json"))
    monkeypatch.setattr(Model, "sample_batch", None)
    second = result(cli("evaluate run --metrics kd --json"))
    assert set(first["metrics"]) == {"accuracy"}
    assert set(second["metrics"]) == {"accuracy", "kd270"}
    assert set(written(digits_run)["metrics"]) == {"accuracy", "kd270"}
    assert second["metrics"]["accuracy"] == first["metrics"]["accuracy"]


def test_an_evaluation_of_other_settings_is_replaced_not_without_a_word(cli, digits_run):
    cli("evaluate run --metrics accuracy")
    answer = cli("evaluate run --metrics distinct --guidance 2 --n 50")
    assert "run holds an evaluation of other data, guidance, n, which this one will" in answer.err
    assert set(written(digits_run)["metrics"]) == {"distinct"}
    assert "holds an evaluation" not in cli("evaluate run --metrics kd --guidance 2 --n 50").err


def test_a_selection_that_came_first_stays_and_is_no_other_evaluation(cli, digits_run):
    hashed = result(cli("evaluate run --metrics distinct --json"))["samples"]["hash"]
    (digits_run / "evaluation.json").unlink()
    chosen = {"hash": hashed, "rows": []}
    add_section(digits_run, "selection", chosen)
    answer = cli("evaluate run --metrics accuracy --json")
    assert "holds an evaluation" not in answer.err
    assert set(result(answer)["metrics"]) == {"accuracy"}
    assert written(digits_run)["selection"] == chosen


def test_copies_of_training_images_are_flagged_and_held_out_images_are_not(
    cli, tmp_path, digits, real
):
    images, labels = digits.split("train")
    copies = imaging.save_npz(tmp_path / "copies.npz", images[:270], labels[:270], {})
    asked = "--against digits --metrics memorisation --json"
    found = result(cli(f"evaluate {copies} {asked}"))["memorisation"]
    assert found["flagged"]
    assert "are memorised" in found["summary"]
    assert found["summary"].startswith(found["pixels"]["summary"])
    assert not result(cli(f"evaluate {real} {asked}"))["memorisation"]["flagged"]


def test_a_folder_says_the_same_as_an_npz(cli, tmp_path, digits, real):
    images, labels = digits.split("test")
    imaging.save_folder(images, labels, digits.classes, tmp_path / "folder")
    asked = f"--against digits {QUICK} --json"
    folder = result(cli(f"evaluate folder {asked}"))["metrics"]
    npz = result(cli(f"evaluate {real} {asked}"))["metrics"]
    assert folder["kd270"]["value"] == pytest.approx(npz["kd270"]["value"], abs=1e-6)
    assert folder["accuracy"]["value"] == npz["accuracy"]["value"]


def test_images_without_labels_get_the_numbers_that_need_none(cli, tmp_path, digits):
    images, _ = digits.split("test")
    np.savez(tmp_path / "theirs.npz", arr_0=images.permute(0, 2, 3, 1).numpy())
    asked = "--metrics kd,coverage,score --against digits --json"
    found = result(cli(f"evaluate theirs.npz {asked}"))["metrics"]
    assert found["classifier_score"]["value"] > 9
    found = result(cli("evaluate theirs.npz --against digits --json"))
    assert "accuracy" not in found["metrics"]
    assert "fd270" in found["metrics"]


def test_a_person_reads_a_table(cli, real):
    text = cli(f"evaluate {real} --against digits {QUICK}").out
    head = next(line for line in text.splitlines() if "real images" in line and "blur" in line)
    assert "one class missing" in head
    assert any(line.startswith("fd270") for line in text.splitlines())


def test_a_metric_that_cannot_be_compared_says_why_and_nothing_is_lost(cli, real, tmp_path):
    line = f"evaluate {real} --against digits --metrics accuracy,distinct,score"
    ours = result(cli(f"{line} --json"))["metrics"]
    theirs = json.loads(json.dumps(ours))
    theirs["accuracy"]["value"] -= 0.25
    theirs["distinct"]["protocol"]["n"] = 200
    del theirs["classifier_score"]
    (tmp_path / "other.json").write_text(json.dumps({"metrics": theirs}))
    found = result(cli(f"{line} --compare other.json --json"))
    assert found["metrics"] == ours
    assert found["compared"]["differences"] == {"accuracy": pytest.approx(0.25)}
    reasons = found["compared"]["not_compared"]
    assert reasons == {
        "distinct": "distinct has two protocols and is not compared: n 270 here and 200 there",
        "classifier_score": "not both evaluations hold classifier_score with its protocol: "
        "evaluate both alike",
    }
    messages = evaluate_text(found).partition("difference to other.json:\n")[2].splitlines()
    assert sorted(messages) == sorted(f"  {row}" for row in ["accuracy +0.25", *reasons.values()])


def test_what_holds_nothing_to_compare_with_is_refused_before_evaluating(
    refused, real, tmp_path, monkeypatch
):
    monkeypatch.setattr("mezzotint.evaluation.evaluate.evaluate", None)
    add_section(tmp_path / "chosen", "selection", {"rows": []})
    message = refused(f"evaluate {real} --against digits --compare chosen")
    assert "chosen holds no metrics to compare with" in message


@pytest.mark.parametrize("verb", [f"evaluate run {QUICK}", "sweep run --n 150 --scales 1,2"])
def test_what_could_not_be_written_is_refused_before_anything_is_drawn(
    refused, digits_run, tmp_path, monkeypatch, unchanged, verb
):
    monkeypatch.setattr(Model, "sample_batch", None)
    (tmp_path / "file").write_text("")
    with unchanged():
        for place in ("file", "file/below"):
            words = f"--out {place}: nothing can be written in {tmp_path / 'file'}"
            assert words in refused(f"{verb} --out {place}")
        monkeypatch.setattr("os.access", lambda place, mode: place != digits_run)
        assert f"nothing can be written in {digits_run}" in refused(verb)


# --- in training ------------------------------------------------------------------------------


def test_training_measures_samples_and_keeps_the_best_by_a_metric(cli, tmp_path, tiny):
    asked = [
        "--set", "training.metrics_every=64", "--set", "training.metrics_images=20",
        "--set", "training.metrics_share=1.0", "--set", "training.best=kd",
    ]  # fmt: skip
    answer = cli(["train", "digits", "--out", "run", "--budget", "1600images", *tiny, *asked])
    assert answer.code == 0
    assert "measuring 20 samples takes about" in answer.err
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    evaluated = [row for row in rows if row["kind"] == "metrics"]
    assert evaluated
    values = [row["values"]["kd"] for row in evaluated]
    best = [i for i in range(len(values)) if values[i] == min(values[: i + 1])]
    assert [row["best"] for row in evaluated] == [i in best for i in range(len(values))]
    kept = cli("sample run --n 1 --checkpoint best --out one.png --evaluations 1")
    assert kept.code == 0


# --- select -----------------------------------------------------------------------------------


def test_select_keeps_the_best_of_every_pool(cli, digits_run, tmp_path):
    found = result(cli("select run --score classifier --pool 6 --top 2 --out best --json"))
    rows = [
        json.loads(line) for line in (tmp_path / "best/manifest.jsonl").read_text().splitlines()
    ]
    assert len(rows) == found["kept"] == 20
    assert found["drawn"] == 60
    for label in range(10):
        own = [row for row in rows if row["label"] == label]
        assert len(own) == 2
        assert all(label * 6 <= row["draw"] < label * 6 + 6 for row in own)
    classifier = shipped(load("digits"))
    for row in rows[:4]:
        pixels = torch.from_numpy(np.asarray(Image.open(tmp_path / "best" / row["file"])).copy())
        share = classifier.read(pixels[None, None]).probabilities[0, row["label"]]
        assert row["score"] == pytest.approx(float(share), abs=1e-4)
    assert Image.open(tmp_path / "best/ranked.png").size[0] > 100


def test_refill_draws_until_the_wanted_number_passes(cli, digits_run, tmp_path):
    found = result(
        cli(
            "select run --score classifier --refill 3 --threshold 0.05 --label 5 --out some --json"
        )
    )
    rows = [
        json.loads(line) for line in (tmp_path / "some/manifest.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 3
    assert all(row["score"] >= 0.05 and row["label"] == 5 for row in rows)
    assert found["drawn"] >= 3


def test_where_all_pass_none_are_drawn_that_are_not_wanted(cli, digits_run, tmp_path):
    found = result(
        cli("select run --score classifier --refill 3 --threshold 0 --label 5 --out all --json")
    )
    assert found["drawn"] == found["kept"] == 3
    assert found["share_passed"] == 1  # there is no chance below 0


def test_a_selection_is_drawn_as_it_is_asked_for(cli, digits_run, tmp_path):
    line = "select run --score classifier --refill 1 --threshold 0 --label 5 --out {} --json"
    plain = result(cli(line.format("plain") + " --guidance 0 --evaluations 2"))
    assert (plain["guidance"], plain["evaluations"]) == (0, 2)
    one = "sample run --label 5 --n 1 --out one.npz --guidance 0 --evaluations 2"
    assert cli(one).code == 0
    drawn = np.asarray(Image.open(tmp_path / "plain" / "5" / "00000.png"))
    assert np.array_equal(np.load(tmp_path / "one.npz")["images"][0, 0], drawn)


def test_select_by_clip_measures_what_it_did(cli, digits_run, quick_clip):
    found = result(
        cli("select run --pool 10 --top 2 --pools 5 --out best --json --label 3"),
    )
    assert found["effect"] == []
    found = result(cli("select run --pool 50 --top 1 --pools 1 --out few --json"))
    assert (found["kept"], found["effect"]) == (10, [])  # one of a class has no spread
    found = result(cli("select run --pool 10 --top 2 --pools 5 --out more --json"))
    assert [row["pool"] for row in found["effect"]] == [2, 4, 6, 10]
    assert len({row["n"] for row in found["effect"]}) == 1
    scores = [row["score"] for row in found["effect"]]
    assert scores[-1] > scores[0]
    assert written(digits_run)["selection"]["rows"] == found["effect"]
    assert (digits_run / written(digits_run)["selection"]["picture"]).exists()


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate nothing", ["nothing", "does not exist"]),
        ("evaluate few.npz --against digits", ["100 images", "129", "kd"]),
        ("evaluate few.npz", ["--against"]),
        ("evaluate few.npz --against digits --n 1000 --metrics kd", ["100", "1,000"]),
        ("evaluate large.npz --against digits --metrics kd", ["9x9", "8x8"]),
        ("evaluate colour.npz --against digits --metrics kd", ["RGB", "grey"]),
        ("evaluate float.npz --against digits --metrics kd", ["float32", "uint8"]),
        ("evaluate none.npz --against digits --metrics kd", ["holds no images"]),
        ("evaluate wrong.npz --against digits --metrics kd", ["labels", "0 to 9"]),
        ("evaluate bare.npz --against digits --metrics accuracy", ["labels"]),
        ("evaluate empty --against digits --metrics kd", ["empty", "no images"]),
        ("evaluate few.npz --against digits --metrics fdd", ["fdd", "fd"]),
        ("evaluate few.npz --against digits --metrics kd --split best", ["best"]),
        ("evaluate few.npz --against digits --metrics kd --extractor inceptoin", ["inception"]),
        ("evaluate few.npz --against digits --metrics kd --compare nowhere", ["nowhere"]),
        ("report nothing", ["nothing", "no run"]),
        ("select run --pool 3 --top 4 --out new", ["--top 4", "3"]),
        ("select run --refill 4 --out new", ["--threshold"]),
        ("select run --score beauty --out new", ["beauty", "classifier"]),
    ],
)
def test_what_cannot_be_evaluated_is_answered_in_one_line(
    refused, tmp_path, digits, digits_run, line, words
):
    images, labels = digits.split("test")
    images, labels = images[:100].numpy(), labels[:100].numpy()
    np.savez("few.npz", images=images, labels=labels)
    np.savez("large.npz", images=np.zeros((9, 1, 9, 9), np.uint8))
    np.savez("colour.npz", images=np.zeros((9, 3, 8, 8), np.uint8))
    np.savez("float.npz", images=images.astype(np.float32))
    np.savez("none.npz", weights=np.zeros(3))
    np.savez("wrong.npz", images=images, labels=labels + 5)
    np.savez("bare.npz", images=images)
    (tmp_path / "empty").mkdir()
    message = refused(line, quiet=False)
    assert all(word in message for word in words), message
