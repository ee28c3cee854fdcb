"""torchrun starts several processes of the command; what comes out is what one makes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mezzotint.training.checkpoint import read

pytestmark = pytest.mark.slow

TINY = [
    "--set", "network.levels=[{width=16}, {width=16, attention=true}]",
    "--set", "network.embedding.width=16", "--set", "training.batch=16",
    "--set", "training.validate_every=320", "--set", "training.preview_every=320",
    "--set", "training.log_every=16",
    "--set", "training.model_guidance.max_scale=1", "--set", "sampling.guidance=1",
]  # fmt: skip


def command(processes, *words, restarts=0):
    if processes == 1:
        return [sys.executable, "-m", "mezzotint", *map(str, words)]
    module = ["-m", "--", "mezzotint", *map(str, words)]
    options = ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    options += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    return [sys.executable, "-m", "torch.distributed.run", *options, *module]


def run(processes, *words):
    made = subprocess.run(
        command(processes, *words),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def launch(processes, *words, restarts=0):
    return subprocess.Popen(
        command(processes, *words, restarts=restarts),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def seen(out):
    last = out / "checkpoints" / "last.safetensors"
    return read(last).facts["images_seen"] if last.exists() else 0


def wait_for(process, out, images):
    """Until it has saved so many images."""
    end = time.monotonic() + 120
    while seen(out) < images:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)


def ranks(pid):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True
    )
    return sorted(map(int, listed.stdout.split()))


def apart(ours, theirs):
    """Largest difference of any weight."""
    a, b = (
        read(run / "checkpoints" / "last.safetensors").section("network") for run in (ours, theirs)
    )
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def losses(path, kind):
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return {line["images_seen"]: line["loss"] for line in lines if line["kind"] == kind}


def test_training_drawing_and_evaluating_give_what_one_process_gives(tmp_path):
    one, three = tmp_path / "one", tmp_path / "three"
    for processes, out in ((1, one), (3, three)):
        run(processes, "train", "digits", *TINY, "--budget", "640images", "--out", out)
    assert apart(one, three) < 1e-2  # Adam's first steps depend on signs of tiny gradients
    for kind in ("step", "validation"):
        assert losses(three, kind) == pytest.approx(losses(one, kind), rel=1e-2)
    assert sorted(p.name for p in (three / "samples").iterdir()) == [
        "000000320.png",
        "000000640.png",
    ]
    # From here on of the same run: images and numbers must be equal.
    drawn = []
    for processes in (1, 3):
        file = tmp_path / f"drawn{processes}.npz"
        run(processes, "sample", one, "--n", 700, "--evaluations", 2, "--out", file)
        drawn.append(np.load(file)["images"])
    assert (drawn[0] == drawn[1]).all()
    evaluated = []
    for processes, seed in ((3, 1), (1, 1), (3, 1)):  # drawn by three, found by one, by three
        messages = run(
            processes, "evaluate", one, "--metrics", "fd,kd,accuracy,memorisation",
            "--seed", seed, "--evaluations", 2, "--json",
        )  # fmt: skip
        evaluated.append(json.loads(messages))
    assert evaluated[0]["metrics"] == evaluated[1]["metrics"] == evaluated[2]["metrics"]
    assert evaluated[0]["memorisation"] == evaluated[1]["memorisation"]


def test_a_sweep_gives_what_one_process_gives(tmp_path):
    out, found = tmp_path / "run", []
    run(1, "train", "digits", *TINY, "--budget", "640images", "--out", out)
    for processes in (2, 1):
        messages = run(
            processes, "sweep", out, "--n", 200, "--scales", "1,2", "--evaluations", 2, "--json"
        )  # fmt: skip
        found.append(json.loads(messages))
        written = json.loads((out / "sweep.json").read_text())
        assert written["points"] == found[-1]["points"]
        blocks = sorted((out / "evaluation" / "drawn").rglob("*.npz"))
        assert len(blocks) == 2
        shutil.rmtree(out / "evaluation" / "drawn")  # so that the one draws its own
        (out / "sweep.json").unlink()
    assert found[0]["points"] == found[1]["points"]
    assert found[0]["sentences"] == found[1]["sentences"]


def test_another_number_of_processes_goes_on(tmp_path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    words = ("train", "digits", *TINY, "--budget", "3200images", "--checkpoint-every", "32images")
    run(1, *words, "--out", whole)
    for processes, images in ((2, 160), (1, 480)):
        process = launch(processes, *words, "--out", out)
        wait_for(process, out, images)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        assert images <= seen(out) < 3200
    run(3, *words, "--out", out)
    assert seen(out) == 3200
    assert losses(out, "validation") == pytest.approx(losses(whole, "validation"), rel=0.05)


def test_a_dead_rank_ends_the_job_and_is_named(tmp_path):
    out = tmp_path / "run"
    words = ("train", "digits", *TINY, "--budget", "200000images", "--out", out)
    process = launch(2, *words, "--checkpoint-every", "64images")
    wait_for(process, out, 64)
    os.kill(ranks(process.pid)[1], signal.SIGKILL)
    start = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - start < 60
    assert process.returncode != 0
    assert "local_rank: 1" in said
    assert seen(out) >= 64


def test_a_killed_rank_is_started_again_and_the_run_completes(tmp_path):
    out = tmp_path / "run"
    words = ("train", "digits", *TINY, "--budget", "4800images", "--checkpoint-every", "64images")
    process = launch(2, *words, "--out", out, restarts=3)
    for rank, images in enumerate((320, 1600)):
        wait_for(process, out, images)
        os.kill(ranks(process.pid)[rank], signal.SIGKILL)
        time.sleep(1)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert seen(out) == 4800
    assert sorted(losses(out, "step")) == list(range(16, 4801, 16))


def test_a_verb_that_does_not_share_its_work_says_so(tmp_path):
    process = launch(2, "data", "digits")
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "data works in one process: start it without torchrun" in said
