"""`tune`: a new run like any other, and what it refuses; then filtering and retraining."""

import json

import pytest

from mezzotint import imaging
from mezzotint.metrics.clip import scorers, small_clip

SMALL = ["--budget", "16images", "--batch", "8", "--check-every", "8", "--check-images", "30"]


@pytest.fixture(autouse=True)
def quick_clip(monkeypatch):
    """A small CLIP that has seen next to nothing."""
    recipe = small_clip.Recipe(images=256)
    monkeypatch.setattr(
        scorers, "fit", lambda *a, **k: small_clip.fit(*a, **{**k, "recipe": recipe})
    )


def test_a_tuned_run_is_drawn_from_and_reported_unchanged(cli, digits_run, tmp_path):
    options = ["--out", "new", "--evaluations", "2", "--bound", "0", "--json"]
    answer = cli(["tune", "run", "--prompt", "a clear {}", *SMALL, *options])
    assert answer.code == 0, answer
    found = json.loads(answer.out)
    assert (found["images_seen"], found["kept"], found["stopped"]) == (16, 16, "budget used up")
    assert set(found["before"]) == set(found["after"]) == {"accuracy", "coverage"}
    assert "16 images  reward" in answer.err
    rows = json.loads((tmp_path / "new" / "tuning.json").read_text())["rows"]
    assert [row["images_seen"] for row in rows] == [0, 8, 8, 16, 16]
    for run in ("run", "new"):
        assert cli(f"sample {run} --n 10 --evaluations 2 --out {run}.npz").code == 0
    old, new = (imaging.load_npz(tmp_path / f"{run}.npz").images for run in ("run", "new"))
    assert (old != new).any()
    assert cli("report new").code == 0
    again = cli(["tune", "run", "--prompt", "a clear {}", *SMALL, "--out", "new"])
    assert again.code == 2
    assert "--out new" in again.err


def test_a_rank_is_kept_and_reported(cli, digits_run, tmp_path):
    options = ["--rank", "2", "--out", "new", "--evaluations", "2", "--bound", "0"]
    answer = cli(["tune", "run", "--prompt", "a clear {}", *SMALL, *options])
    assert answer.code == 0, answer
    messages = json.loads((tmp_path / "new" / "tuning.json").read_text())
    assert messages["rank"] == 2
    assert f"changes of rank 2, {messages['trained']:,} numbers" in answer.out
    assert cli("sample new --n 10 --evaluations 2 --out new.png").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "a clear 7"], ["put {} where"]),
        (["--prompt", "a clear {}", "--score", "classifier"], ["'classifier'", "clip:ID"]),
        (["--prompt", "a clear {}", "--budget", "10m"], ["--budget takes images", "10m"]),
        (["--prompt", "a clear {}", "--rank", "0"], ["rank is at least 1, got 0"]),
        (["--prompt", "a clear {}", "--rank", "900"], ["rank 900 has", "give a rank of at most"]),
        (["--prompt", "a clear {}", "--last", "99", "--evaluations", "4"], ["99 steps of 4"]),
    ],
)
def test_what_cannot_be_tuned_is_answered_in_one_line(refused, digits_run, options, words):
    message = refused(
        ["tune", "run", *options, "--out", "new", "--check-images", "20"], quiet=False
    )
    assert all(word in message for word in words), message


def test_what_was_filtered_is_a_source_to_train_on(cli, digits_run, tiny):
    words = "select run --score classifier --refill 12 --threshold 0.01 --out clean/train --json"
    kept = cli(words)
    assert kept.code == 0, kept
    answer = cli(["train", "clean", "--preset", "digits", "--budget", "16images", "--out", "again",
                  *tiny, "--json"])  # fmt: skip
    assert answer.code == 0, answer
    facts = json.loads(cli("data clean --json").out)
    assert sum(facts["classes"].values()) == facts["splits"]["train"]
    assert list(facts["classes"]) == list("0123456789")
    assert cli("sample again --n 10 --evaluations 2 --out again.png").code == 0
