import ast
import mmap
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import mezzotint
from mezzotint.cli.main import build_app, run
from mezzotint.errors import (
    CheckpointError,
    DataError,
    DivergenceError,
    InputError,
    MezzotintError,
    PeerError,
    first_line,
    is_out_of_memory,
)
from mezzotint.runtime.distributed import init_distributed
from mezzotint.training import checkpoint
from tiny_runs import TINY

HOME = Path(mezzotint.__file__).parent
KINDS = {
    InputError: ValueError,
    DataError: ValueError,
    CheckpointError: ValueError,
    DivergenceError: ArithmeticError,
    PeerError: RuntimeError,
}


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
        "inspect.execute = lambda request: torch.empty(2**60)\n"
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


# --- kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "base"), KINDS.items())
def test_a_kind_is_exported_and_is_an_error_that_python_knows(kind, base):
    assert getattr(mezzotint, kind.__name__) is kind
    assert kind.__bases__ == (MezzotintError, base)
    assert not any(issubclass(kind, other) for other in KINDS if other is not kind)


def said(capsys):
    """The one line that the command line said."""
    line = capsys.readouterr().err
    assert line.startswith("mezzotint: ")
    assert line.count("\n") == 1
    return line


def wrong_input(tmp_path, tiny_run, monkeypatch):
    return ["sample", str(tiny_run.path), "--sampler", "heum", "--out", str(tmp_path / "a.png")]


def damaged_data(tmp_path, tiny_run, monkeypatch):
    np.savez(tmp_path / "a.npz", images=np.zeros((20, 1, 8, 8), np.uint8))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-50])
    return ["evaluate", str(tmp_path / "a.npz"), "--against", "digits"]


def damaged_checkpoint(tmp_path, tiny_run, monkeypatch):
    copy = Path(shutil.copytree(tiny_run.path, tmp_path / "run"))
    last = copy / "checkpoints" / "last.safetensors"
    checkpoint.backup_path(last).unlink(missing_ok=True)
    last.write_bytes(last.read_bytes()[:-50])
    return ["sample", str(copy), "--out", str(tmp_path / "a.png")]


def diverging(tmp_path, tiny_run, monkeypatch):
    monkeypatch.setattr(
        "mezzotint.training.gradients.losses_of",
        lambda denoiser, batch, part, *rest: (
            sum(p.sum() for p in denoiser.parameters()) * torch.nan
            + torch.zeros(len(batch.x0[part]))
        ),
    )
    settings = [word for setting in TINY for word in ("--set", setting)]
    return ["train", "digits", "--budget", "800images", "--out", str(tmp_path / "run"), *settings]


@pytest.mark.parametrize(
    ("kind", "case", "words"),
    [
        (InputError, wrong_input, "unknown sampler 'heum'"),
        (DataError, damaged_data, "cannot be read as .npz"),
        (CheckpointError, damaged_checkpoint, "cannot be read as a checkpoint"),
        (DivergenceError, diverging, "training diverged 6 times"),
    ],
)
def test_a_mistake_is_of_its_kind_one_line_and_exit_code_2(
    kind, case, words, tmp_path, tiny_run, monkeypatch, capsys
):
    for place in ("library", "command"):
        (tmp_path / place).mkdir()
    with pytest.raises(kind, match=words):
        build_app()(case(tmp_path / "library", tiny_run, monkeypatch), standalone_mode=False)
    capsys.readouterr()
    assert run(case(tmp_path / "command", tiny_run, monkeypatch)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mezzotint: ")
    assert words in error


def test_drawn_images_that_are_not_finite_diverged(tiny_run):
    model = mezzotint.load(tiny_run)
    with torch.no_grad():
        next(model.denoiser.parameters()).fill_(torch.nan)
    with pytest.raises(DivergenceError, match="NaN or infinite"):
        model.sample(n=1)


@pytest.fixture
def two_processes(monkeypatch):
    """What torchrun says to the first of two processes, without the second."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("mezzotint.runtime.distributed._store", lambda: None)
    monkeypatch.setattr("torch.distributed.init_process_group", lambda *words, **named: None)


PEERS = [
    torch.distributed.DistNetworkError("The client socket has failed to connect"),
    RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
]


@pytest.mark.parametrize("error", PEERS)
def test_a_process_that_is_gone_is_one_line_and_exit_code_1(
    error, two_processes, monkeypatch, capsys
):
    def failing(*arguments):
        raise error

    monkeypatch.setattr("mezzotint.runs.setup.setup", failing)
    monkeypatch.setattr("mezzotint.runs.train.setup", failing)
    assert run(["train", "digits", "--out", "nowhere"]) == 1
    assert "another process of this job has ended" in said(capsys)
    with pytest.raises(PeerError) as caught, init_distributed():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError("boom"), KeyError("boom")])
def test_a_bug_is_not_swallowed(error, several, request, monkeypatch):
    if several:
        request.getfixturevalue("two_processes")

    def failing(*arguments):
        raise error

    monkeypatch.setattr("mezzotint.runs.train.setup", failing)
    with pytest.raises(type(error)) as caught:
        run(["train", "digits", "--out", "nowhere"])
    assert caught.value is error


# --- handlers -----------------------------------------------------------------------------------

OURS = {kind.__name__ for kind in (MezzotintError, *KINDS)}
BASES = {"BaseException", "Exception", "ValueError", "ArithmeticError", "RuntimeError"}
TUPLES = {"DAMAGED", "UNREADABLE"}
"""Names of tuples that hold such a class."""

WIDE = {
    "cli/main.py run": "the last handler of all: what it does not know, it raises again",
    "cli/sweep.py _scales": "float() of a text",
    "cli/texts.py named_scales": "float() of a text",
    "config/build.py build_denoiser": "diffusion, which knows no other error",
    "data/cache.py _open": "a kept file; damaged, it is made again",
    "data/cache.py _open_measure": "a kept file; damaged, it is made again",
    "data/pixels.py _opened": "Pillow",
    "data/readers/folder.py _columns": "csv and UTF-8",
    "data/readers/hub.py _offline_unless_reachable": "requests or httpx",
    "data/readers/hub.py fetch": "the library datasets",
    "data/styles/resolve.py _numbers": "float() of a value",
    "evaluation/results.py evaluation_of": "json",
    "imaging/folders.py manifest_classes": "json",
    "imaging/npz.py _readable": "NumPy and zipfile",
    "imaging/npz.py load_npz": "json, and arrays that are no tensors",
    "imaging/png.py is_whole_png": "Pillow",
    "kernels/build.py triton_builds": "Triton",
    "metrics/cas.py real_cas": "json",
    "metrics/clip/clip.py load": "transformers",
    "metrics/extractors/pretrained.py _fetched_inception": "torch.hub",
    "metrics/extractors/pretrained.py _package": "an import",
    "metrics/extractors/pretrained.py dinov2": "transformers",
    "metrics/extractors/pretrained.py inception": "torch.load and torch-fidelity",
    "metrics/extractors/weights_io.py read": "a network of a file's facts",
    "reporting/reading.py _read_json": "json",
    "reporting/reading.py picture": "links in a circle",
    "runs/run.py _model": "load_state_dict",
    "runtime/atomic.py _reserved": "raised again",
    "runtime/checksum.py read_rows": "json",
    "runtime/distributed.py _peer_failures_in_one_line": "torch.distributed; others are raised",
    "sampling/model.py _sample_chunk": "memory; others are raised again",
    "sampling/model.py sigmas": "diffusion, which knows no other error",
    "training/memory.py fit_in_memory": "memory; others are raised again",
}
"""Handlers that would also catch one of our errors, or a bug: what lies behind their `try`."""


def names_in(node):
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def handlers(source):
    """(function, names of what is caught, number of guarded statements) of each handler.

    `contextlib.suppress` counts as a handler.
    """
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Try):
                for handler in node.handlers:
                    caught = names_in(handler.type) if handler.type else {"BaseException"}
                    yield function.name, caught, len(node.body)
            elif isinstance(node, ast.Call) and "suppress" in names_in(node.func):
                yield function.name, set().union(*map(names_in, node.args)), 1


def all_handlers():
    for file in sorted(HOME.rglob("*.py")):
        for name, caught, statements in handlers(file.read_text()):
            yield f"{file.relative_to(HOME).as_posix()} {name}", caught, statements


def test_a_handler_that_catches_more_than_it_names_has_a_reason():
    wide = {place for place, caught, _ in all_handlers() if caught & (BASES | TUPLES)}
    assert wide - WIDE.keys() == set(), "narrow it, or say in WIDE what lies behind its try"
    assert WIDE.keys() - wide == set(), "no longer wide"


def test_all_kinds_are_caught_at_the_command_lines_end_alone():
    everything = {place for place, caught, _ in all_handlers() if "MezzotintError" in caught}
    assert everything == {"cli/main.py run"}


def test_a_handler_of_ours_guards_one_statement():
    long = [place for place, caught, count in all_handlers() if caught & OURS and count > 1]
    assert long == []


@pytest.mark.parametrize(
    ("text", "caught", "count"),
    [
        ("try:\n  a()\n  b()\n except:\n  pass", {"BaseException"}, 2),
        ("try:\n  a()\n except (KeyError, errors.DataError):\n  pass",
         {"KeyError", "errors", "DataError"}, 1),
        ("with contextlib.suppress(OSError, ValueError):\n  a()", {"OSError", "ValueError"}, 1),
    ],
)  # fmt: skip
def test_handlers_are_found(text, caught, count):
    assert list(handlers(f"def f():\n {text}")) == [("f", caught, count)]
