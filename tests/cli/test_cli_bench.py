"""`mezzotint bench`: what it prints of numbers made up; the digits, measured quickly."""

import json
import sys

import pytest

from mezzotint import benchmarking as benchmark
from mezzotint.benchmarking import BenchmarkResult, Work
from mezzotint.config.schema import Budget
from mezzotint.runtime.device import Compute


@pytest.fixture
def made_up(monkeypatch):
    """Have `bench` find these numbers."""

    def found(budget="10m", profile=None, **changes):
        numbers = {
            "preset": "fashion-mnist",
            "shape": (1, 28, 28),
            "hardware": {"processor": "A processor", "torch": "2.13.0"},
            "compute": Compute("cpu", "bfloat16", 2),
            "kernels": True,
            "peak": 2e12,
            "training": Work(images=64, seconds=0.25, repeats=9, flop=2e9),
            "sampling": Work(images=100, seconds=0.5, repeats=7, flop=1e9),
            "steps": 6,
            "evaluations": 12,
            "profile": {"convolutions forward": 0.75, "rest": 0.25}
            if profile is None
            else profile,
            "memory": 3 * 2**29,
            "budget": Budget.parse(budget),
            **changes,
        }
        monkeypatch.setattr(benchmark, "execute", lambda request: BenchmarkResult(**numbers))

    return found


def test_json_has_every_number_with_its_unit(cli, made_up):
    made_up()
    assert json.loads(cli("bench --json").out) == {
        "preset": "fashion-mnist",
        "image": [1, 28, 28],
        "device": "cpu",
        "precision": "bfloat16",
        "threads": 2,
        "kernels": True,
        "hardware": {"processor": "A processor", "torch": "2.13.0"},
        "peak": {"tflops": 2.0},
        "training": {
            "batch": 64,
            "images_per_second": 256.0,
            "gflop_per_image": 2.0,
            "tflops": 0.512,
            "share_of_peak": 0.256,
            "repeats": 9,
        },
        "sampling": {  # a step of two evaluations: 200 images a second through each of six
            "chunk": 100,
            "evaluations": 12,
            "images_per_second": pytest.approx(200 / 6),
            "evaluations_per_second": 400.0,
            "gflop_per_evaluation": 0.5,
            "tflops": 0.2,
            "share_of_peak": 0.1,
            "repeats": 7,
        },
        "profile": {"convolutions forward": 0.75, "rest": 0.25},
        "peak_memory_bytes": 3 * 2**29,
        "budget": {"amount": 600.0, "unit": "seconds", "seconds": 600.0, "images": 142_848},
    }


def test_the_table_says_the_same_for_a_person(cli, made_up):
    made_up()
    lines = [" ".join(line.split()) for line in cli("bench").out.splitlines()]
    assert lines == [
        "fashion-mnist: 1x28x28 images, 64 a training step, 100 drawn at once",
        "A processor: cpu in bfloat16, threads 2, with C++ kernels, torch 2.13.0",
        "",
        "a second GFLOP TFLOP/s of peak",
        "matrix products 2.000 100 %",
        "training, images 256.0 2 0.512 26 %",
        "evaluations of the network 400.0 0.5 0.200 10 %",
        "drawing, images of 12 evaluations 33.3",
        "",
        "a training step's time:",
        "convolutions forward 75.0 %",
        "rest 25.0 %",
        "",
        "peak memory 1.50 GiB",
        "10.0 min of training, the preset's budget, see about 142,848 images",
    ]


def test_a_share_above_the_peak_is_explained(cli, made_up):
    made_up(peak=0.5e12)  # training does 0.512 TFLOP/s
    assert "102 %" in (text := cli("bench").out)
    assert "above 100 %: fewer multiplications" in text


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("70s", "70 s of training, the preset's budget, see about 16,666 images"),
        ("5Mimages", "5,000,000 images, the preset's budget, take about 5.8 h of training"),
        ("30epochs", "30 epochs of 10,000 images, the preset's budget, take about 21.0 min of"),
    ],
)
def test_a_budget_is_shown_in_images_or_in_time(cli, made_up, budget, words):
    made_up(budget)  # 256 images a second, of which 93 in 100 are a training's
    assert words in cli("bench").out


def test_what_is_not_known_is_left_out(cli, made_up):
    made_up(profile={}, memory=0, kernels=False, hardware={
        "processor": "A processor", "torch": "2.13.0", "card": "A card",
    })  # fmt: skip
    text = cli("bench").out
    assert "a training step's time" not in text
    assert "peak memory" not in text
    assert "A card: cpu in bfloat16, threads 2, without C++ kernels" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("bench fashon-mnist", ["'fashon-mnist'", "did you mean 'fashion-mnist'", ".toml"]),
        ("bench mine.toml", ["no preset 'mine.toml'"]),
        ("bench digits --device gpu", ["'gpu'", "'auto', 'cpu', 'cuda', 'mps'"]),
        ("bench digits --seconds 0", ["--seconds", "0.1"]),
        ("bench digits --seconds long", ["--seconds", "valid number"]),
        ("bench digits mnist", ["mnist"]),
    ],
)
def test_what_cannot_be_measured_is_answered_in_one_line(refused, unchanged, line, words):
    with unchanged():
        message = refused(line)
    assert all(word in message for word in words), message


def test_digits_are_measured_and_leave_nothing(cli, unchanged, monkeypatch):
    # FLOPs are counted as a direct convolution's: with our kernels, a share may pass 1.
    monkeypatch.setattr(sys.modules["mezzotint.kernels.calls"], "library", lambda: None)
    with unchanged():
        answer = cli("bench digits --device cpu --seconds 1 --json")
    assert answer.code == 0
    assert "training" in answer.err
    result = json.loads(answer.out)
    assert result["image"] == [1, 8, 8]
    assert result["precision"] == "float32"
    assert sum(result["profile"].values()) == pytest.approx(1)
    assert result["hardware"]["processor"]
    for kind in ("training", "sampling"):
        assert 0 < result[kind]["share_of_peak"] < 1
        assert result[kind]["share_of_peak"] == pytest.approx(
            result[kind]["tflops"] / result["peak"]["tflops"]
        )
