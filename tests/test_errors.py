import mmap
import subprocess
import sys

import pytest

from mezzotint.errors import first_line, is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        ImportError("libx.so: failed to map segment from shared object"),
    ],
)
def test_memory_runs_out_in_many_words(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left"), ImportError("no module x"), ValueError("out of memory")],
)
def test_other_errors_are_others(error):
    assert not is_out_of_memory(error)


def test_a_map_larger_than_the_address_space_is_such_an_error():
    with pytest.raises(OSError, match="memory") as caught:
        mmap.mmap(-1, 2**62)
    assert is_out_of_memory(caught.value)


def test_a_command_without_memory_ends_in_one_line():
    code = (
        "import torch\n"
        "from mezzotint.runs import inspect\n"
        "from mezzotint.cli.main import run\n"
        "inspect.inspection = lambda *given: torch.empty(2**60)\n"
        "raise SystemExit(run(['inspect', 'digits']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mezzotint: memory ran out")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one\r\ntwo"), "one"),
        (ValueError(" \n "), "ValueError"),
        (KeyError(), "KeyError"),
    ],
)
def test_an_error_is_one_line(error, line):
    assert first_line(error) == line
