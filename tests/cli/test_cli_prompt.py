"""`sample --prompt`: what it draws, and what it refuses."""

import json

import pytest

from mezzotint import imaging
from mezzotint.data import load
from mezzotint.imaging import to_float
from mezzotint.metrics.clip import scorers, small_clip
from mezzotint.metrics.clip.likelihood import prompt_log_likelihood

FEW = ["--n", "12", "--evaluations", "4", "--json", "--out"]


@pytest.fixture(autouse=True)
def quick_clip(monkeypatch):
    """A small CLIP that has seen little."""
    recipe = small_clip.Recipe(images=1000)
    monkeypatch.setattr(
        scorers, "fit", lambda *a, **k: small_clip.fit(*a, **{**k, "recipe": recipe})
    )


def test_a_prompt_without_a_known_word_is_refused_before_a_clip_is_trained(
    cli, refused, digits_run, monkeypatch
):
    monkeypatch.setattr(scorers, "fit", lambda *a, **k: pytest.fail("trained"))
    line = ["sample", "run", "--prompt", "xylophone", "--label", "3", "--out", "a.png"]
    assert "no word that the small CLIP" in refused(line)


def drawn(cli, tmp_path, name, *options):
    """What a command answered, and the images that it wrote."""
    answer = cli(["sample", "run", *options, *FEW, f"{name}.npz"])
    assert answer.code == 0, answer
    return json.loads(answer.out), imaging.load_npz(tmp_path / f"{name}.npz"), answer.err


def test_a_prompt_names_the_class_and_is_followed(cli, digits_run, tmp_path):
    facts, found, _ = drawn(cli, tmp_path, "p", "--prompt", "a clear 7", "--prompt-scale", "2")
    named = ("prompt", "prompt_scale", "prompt_interval", "prompt_gradient", "score")
    assert [facts[name] for name in named] == ["a clear 7", 2, None, "x0", "clip"]
    assert found.labels.tolist() == [7] * 12
    _, plain, _ = drawn(cli, tmp_path, "plain", "--label", "7")
    digits = load("digits")
    log_likelihood = prompt_log_likelihood(
        scorers.clip_for(digits, "clip"), "a clear 7", digits.classes
    )
    means = [float(log_likelihood(to_float(e.images), e.labels).mean()) for e in (found, plain)]
    assert means[0] > means[1]
    for other in (["--prompt-scale", "0"], ["--prompt-interval", "900", "1000"]):
        _, same, _ = drawn(cli, tmp_path, other[0], "--prompt", "a clear 7", *other)
        assert (same.images == plain.images).all()


def test_a_prompt_for_every_class_and_one_that_decides_alone(cli, digits_run, tmp_path):
    facts, found, said = drawn(cli, tmp_path, "all", "--prompt", "a magical clear {}")
    assert "was not taught magical, and guesses" in said
    assert len(set(found.labels.tolist())) == 10
    other = ["--prompt-gradient", "network"]
    _, other, _ = drawn(cli, tmp_path, "network", "--prompt", "a magical clear {}", *other)
    assert (other.images != found.images).any()
    drawn(cli, tmp_path, "alone", "--prompt", "a clear thing", "--guidance", "0")
    text = cli(["sample", "run", "--prompt", "a clear 7", "--n", "2", "--dry-run", "--out", "x"])
    assert "prompt 'a clear 7' at 1 by clip" in text.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", ""], ["--prompt", "empty"]),
        (["--prompt", "a clear thing"], ["names no single class", "--label", "--guidance 0"]),
        (["--prompt", "a 3 or a 5"], ["names no single class"]),
        (["--prompt", "wonderful", "--label", "3"], ["no word", "blurry", "--score clip:ID"]),
        (["--prompt", "a 7", "--score", "classifier"], ["classifier", "clip:ID"]),
        (["--prompt", "a 7", "--prompt-gradient", "no"], ["x0 or network", "'no'"]),
        (["--prompt", "a 7", "--prompt-interval", "2", "1"], ["--prompt-interval 2 1"]),
        (["--prompt-scale", "2"], ["--prompt-scale", "give --prompt"]),
        (["--score", "clip"], ["--score", "give --prompt"]),
    ],
)
def test_what_no_prompt_can_be_is_answered_in_one_line(refused, digits_run, options, words):
    message = refused(["sample", "run", *options, "--out", "a.png"], quiet=False)
    assert all(word in message for word in words), message
