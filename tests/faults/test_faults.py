"""The campaign of faults at a smaller size; the command by itself does more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "n", "least"),
    [
        ("kills", 10, 10),
        ("changes", 8, 8),
        ("corruptions", 30, 30),
        ("disk", 2, 6),
        ("memory", 3, 4),
        ("numbers", 4, 4),
        ("places", 1, 5),
        ("fuzzing", 7, 91),
    ],
)
def test_no_fault_loses_anything(name, n, least):
    seed = os.environ.get("MEZZOTINT_TEST_SEED", "7")
    command = [sys.executable, "-m", "faults", name, "--n", str(n), "--seed", seed]
    tests = str(Path(__file__).parents[1])
    paths = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(rf"{name}: (\d+) trials", done.stdout)[1]) >= least
    assert "BAD" not in done.stdout
