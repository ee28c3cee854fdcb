"""Kill the training at random moments; what comes out is what would have come out anyway."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from mezzotint.runtime import checksum
from mezzotint.training.checkpoint import read

KILLS = 10
IMAGES = 24_000

COMMAND = [
    sys.executable, "-m", "mezzotint", "train", "digits",
    "--budget", f"{IMAGES}images", "--checkpoint-every", "320images",
    "--set", "network.levels=[{width=16}, {width=16, attention=true}]",
    "--set", "network.embedding.width=16", "--set", "training.batch=16",
    "--set", "training.validate_every=1000", "--set", "training.preview_every=4000",
    "--set", "training.log_every=100",
]  # fmt: skip


def start(out):
    return subprocess.Popen(
        [*COMMAND, "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_new_checkpoint(process, file, before):
    """Until this very process has saved; a restart from zero would not count."""
    while process.poll() is None:
        with_new = file.exists() and file.stat().st_mtime_ns != before
        if with_new and read_images(file) > 0:
            return True
        time.sleep(0.01)
    return False


def read_images(file):
    return read(file).facts["images_seen"]


def rows(out):
    lines, damaged = checksum.read_rows(out / "metrics.jsonl")
    assert damaged == 0
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def assert_same_checkpoint(ours, theirs):
    a, b = read(ours), read(theirs)
    assert a.tensors.keys() == b.tensors.keys()
    for name in a.tensors:
        assert torch.equal(a.tensors[name], b.tensors[name]), name
    assert {**a.facts, "seconds": 0} == {**b.facts, "seconds": 0}


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = start(whole)
    process.communicate(timeout=600)
    assert process.returncode == 0
    moments = random.Random(os.environ.get("MEZZOTINT_TEST_SEED", "7"))
    last = broken / "checkpoints" / "last.safetensors"
    resumed = []
    for _ in range(KILLS):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start(broken)
        assert wait_for_new_checkpoint(process, last, before), process.communicate()[1]
        time.sleep(moments.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        assert process.returncode == -signal.SIGKILL, "finished before it could be killed"
        resumed += [line for line in said.splitlines() if line.startswith("resumed at")]
    process = start(broken)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    resumed += [line for line in said.splitlines() if line.startswith("resumed at")]
    stood = [int(line.split()[2]) for line in resumed]
    assert len(stood) == KILLS
    assert stood == sorted(set(stood))
    assert stood[0] > 0
    for name in ("last", "best"):
        file = f"checkpoints/{name}.safetensors"
        assert_same_checkpoint(broken / file, whole / file)
    assert rows(broken) == rows(whole)


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    out = tmp_path / "run"
    process = start(out)
    assert wait_for_new_checkpoint(process, out / "checkpoints" / "last.safetensors", 0)
    process.send_signal(signal.SIGINT)
    said, heard = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    stopped = next(line for line in heard.splitlines() if line.startswith("stopped at"))
    images = int(stopped.split()[2].replace(",", ""))
    assert read_images(out / "checkpoints" / "last.safetensors") == images
    assert 0 < images < IMAGES
