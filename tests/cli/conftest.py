"""The command line in this process: what it answers, and a tiny run to draw from."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from mezzotint.cli.main import run
from mezzotint.data import load

TINY = [
    "--device", "cpu",
    "--set", "network.levels=[{width=8}]",
    "--set", "network.embedding={width=16, features=8}",
    "--set", "training.batch=16",
    "--set", "training.learning_rate=0.01",
    "--set", "training.lr_schedule={kind='constant'}",
    "--set", "training.preview_every=0",
    "--set", "training.validation_images=32",
    "--set", "training.log_every=16",
    "--set", "training.model_guidance.max_scale=1", "--set", "sampling.guidance=1",
]  # fmt: skip


class Answer(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory):
    """A cache that all these tests share: digits are decoded once, and not in a test."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEZZOTINT_CACHE", str(folder))
        load("digits")
    return folder


@pytest.fixture(autouse=True)
def single(tmp_path, monkeypatch, warm_cache):
    """An empty working directory, no named sets, float32 on every machine."""
    monkeypatch.setenv("MEZZOTINT_CACHE", str(warm_cache))
    monkeypatch.delenv("MEZZOTINT_DATA", raising=False)
    monkeypatch.setattr("mezzotint.kernels.precision.has_bf16_units", lambda: False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capsys):
    """Call the command with words or a list of arguments."""

    def call(arguments, *more):
        words = arguments.split() if isinstance(arguments, str) else list(arguments)
        capsys.readouterr()
        code = run([*words, *map(str, more)])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(cli):
    """Call the command and return the one line of its refusal."""

    def call(arguments, *more, quiet=True):
        answer = cli(arguments, *more)
        lines = answer.err.splitlines()
        assert answer.code == 2, answer
        assert answer.out == ""
        assert "Traceback" not in answer.err
        assert lines[-1].startswith("mezzotint: ")
        assert [line for line in lines if line.startswith("mezzotint: ")] == lines[-1:]
        assert len(lines) == 1 or not quiet, answer.err
        return lines[-1]

    return call


def trained(folder, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mezzotint.kernels.precision.has_bf16_units", lambda: False)
        assert run(["train", "digits", "--out", str(folder), *TINY, *more]) == 0
    return folder


@pytest.fixture(scope="session")
def _digits_run(tmp_path_factory, warm_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEZZOTINT_CACHE", str(warm_cache))
        return trained(tmp_path_factory.mktemp("runs") / "digits", "--budget", "64images")


@pytest.fixture(scope="session")
def _ddpm_run(tmp_path_factory, warm_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEZZOTINT_CACHE", str(warm_cache))
        folder = tmp_path_factory.mktemp("runs") / "ddpm"
        return trained(folder, "--budget", "32images", "--preset", "fashion-a")


@pytest.fixture(scope="session")
def _styled_run(tmp_path_factory, warm_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEZZOTINT_CACHE", str(warm_cache))
        folder = tmp_path_factory.mktemp("runs") / "styled"
        styles = ("--style", "thickness", "--style", "slant")
        return trained(folder, "--budget", "64images", *styles)


@pytest.fixture
def styled_run(_styled_run, tmp_path):
    """A copy of a run that has learned thickness and slant."""
    return Path(shutil.copytree(_styled_run, tmp_path / "styled"))


@pytest.fixture
def digits_run(_digits_run, tmp_path):
    """A copy of a run of 64 images, one's own to spoil."""
    return Path(shutil.copytree(_digits_run, tmp_path / "run"))


@pytest.fixture
def ddpm_run(_ddpm_run, tmp_path):
    """A copy of a run with T = 100 that samples on its training levels."""
    return Path(shutil.copytree(_ddpm_run, tmp_path / "ddpm"))


@pytest.fixture
def tiny():
    """The options that make a training take no time."""
    return TINY


@pytest.fixture
def unchanged(tmp_path):
    """Within the block, nothing below the working directory is written, changed or removed."""

    def contents():
        return {
            path.relative_to(tmp_path): path.read_bytes() if path.is_file() else None
            for path in tmp_path.rglob("*")
        }

    class Watch:
        def __enter__(self):
            self.before = contents()

        def __exit__(self, kind, error, traceback):
            if kind is None:
                assert contents() == self.before

    return Watch
