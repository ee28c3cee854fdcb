"""The library's log: who may read it, and that nothing else speaks."""

import ast
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mezzotint
from mezzotint.cli.stderr import log_to_stderr, tell
from mezzotint.runtime.log import is_first_rank, log
from mezzotint.runtime.progress_bar import bar

HOME = Path(mezzotint.__file__).parent
SPEAKERS = {"cli/main.py", "cli/stderr.py", "runtime/progress_bar.py"}
"""Modules that may write on standard error."""


def test_a_library_installs_no_handler_and_python_shows_its_warnings_alone():
    code = (
        "import mezzotint, mezzotint.runs.train, mezzotint.runs.find\n"
        "from mezzotint.runtime.log import log\n"
        "log.info('a notice')\nlog.warning('a warning')\nprint(log.handlers, log.level)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (answer.stdout, answer.stderr) == ("[] 0\n", "a warning\n")


def test_the_command_line_shows_both_and_takes_its_handler_away(capsys):
    for _ in range(2):
        with log_to_stderr():
            log.info("50 % of {it}")
            log.warning("few images")
        log.info("to nobody")
    assert capsys.readouterr() == ("", "50 % of {it}\nwarning: few images\n" * 2)
    assert not log.handlers
    assert log.level == logging.NOTSET


def test_it_writes_where_standard_error_is_at_that_moment(capsys, monkeypatch, tmp_path):
    with log_to_stderr(), (tmp_path / "log").open("w") as file:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", file)
            log.info("into a file")
        log.info("on the screen")
    assert (tmp_path / "log").read_text() == "into a file\n"
    assert capsys.readouterr().err == "on the screen\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to")
def test_a_log_on_a_full_disk_is_dropped(monkeypatch):
    full = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 - closing it fails
    monkeypatch.setattr(sys, "stderr", full)
    with log_to_stderr():
        log.info("dropped")
    tell("dropped too")
    with pytest.raises(OSError, match="space"):
        full.close()


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True), ({"WORLD_SIZE": "1", "RANK": "0"}, True), ({"WORLD_SIZE": "2"}, True),
        ({"WORLD_SIZE": "2", "RANK": "0"}, True), ({"WORLD_SIZE": "2", "RANK": "1"}, False),
    ],
)  # fmt: skip
def test_of_several_processes_rank_0_speaks(environment, first, monkeypatch, capsys):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_rank() == first
    with log_to_stderr():
        log.warning("few images")
    assert capsys.readouterr().err == ("warning: few images\n" if first else "")


def test_a_line_stands_above_the_bar(capsys):
    with log_to_stderr(), bar("drawing", 10, "{desc} {n_fmt}"):
        log.info("a notice")
    shown = capsys.readouterr().err
    assert re.search(r"drawing 0\r +\ra notice\n\rdrawing 0\r", shown), repr(shown)


def test_nothing_else_writes_on_standard_error():
    found = []
    for file in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            name = str(file.relative_to(HOME))
            if isinstance(node, ast.Attribute) and node.attr == "stderr" and name not in SPEAKERS:
                found.append(f"{name}:{node.lineno}")
    # A process that ends without Python's own end flushes what is left.
    assert [line.partition(":")[0] for line in found] == ["runtime/distributed.py"]


def test_diffusion_says_nothing():
    for file in (HOME / "diffusion").glob("*.py"):
        assert "logging" not in file.read_text(), file
