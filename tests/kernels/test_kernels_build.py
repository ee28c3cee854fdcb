"""Building the kernels: with compilers that refuse, folders that cannot be used, files cut short.

Most tests build a file of one line that tells how it was built, which takes no time.
"""

import ctypes
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mezzotint.kernels import build, compiler, fits, group_norm, library
from mezzotint.networks.blocks import Block, ConvBlock

CALLS = sys.modules[fits.__module__]  # its name in the package is the function's
USUAL = compiler()
needs_compiler = pytest.mark.skipif(USUAL is None, reason="no C++ compiler")

SMALL = """
#ifdef _OPENMP
const int openmp = 1;
#else
const int openmp = 0;
#endif
#ifndef ANSWER
#define ANSWER 40
#endif
extern "C" int answer() { return ANSWER + openmp; }
"""


def fresh():
    """The library as a new process would find it."""
    return library.__wrapped__()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache and an empty place for temporary files, with spaces in their names."""
    for variable in ("MEZZOTINT_KERNELS", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    folder, scratch = tmp_path / "the cache", tmp_path / "the scratch"
    scratch.mkdir()
    monkeypatch.setenv("MEZZOTINT_CACHE", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    return folder


@pytest.fixture
def small(tmp_path, monkeypatch):
    source = tmp_path / "a small file.cpp"
    source.write_text(SMALL)
    monkeypatch.setattr(build, "SOURCES", [source])
    return source


@pytest.fixture
def wrapped(tmp_path, monkeypatch):
    """Makes CXX a script around the usual compiler; returns what it was asked to compile."""

    def wrap(before=""):
        log, script = tmp_path / "log", tmp_path / "my c++"
        log.unlink(missing_ok=True)
        call = shlex.join(USUAL)
        script.write_text(
            f'#!/bin/sh\necho "$*" >> {shlex.quote(str(log))}\n{before}\nexec {call} "$@"\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))
        return lambda: [line for line in log.read_text().splitlines() if "-shared" in line]

    return wrap


def takes(options, source, tmp_path):
    """Whether the usual compiler of this machine has the options at all."""
    call = [*USUAL, *options.split(), "-shared", "-fPIC", source, "-o", tmp_path / "tried.so"]
    return subprocess.run(call, capture_output=True).returncode == 0


def refusing(*words, only="*"):
    """A line of shell that fails for a call with one of the words."""
    return "\n".join(f'case "$*" in {only}{word}*) exit 1;; esac' for word in words)


# --- none -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variables", [{"CXX": "/nowhere/c++"}, {"CXX": "no-such-compiler -O3"}, {"PATH": ""}]
)
def test_without_a_compiler_the_network_works(variables, monkeypatch, cache):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert compiler() is None
    monkeypatch.setattr(CALLS, "library", fresh)
    block = ConvBlock(8, 16, 0, Block())
    torch.nn.init.normal_(block.conv2.weight)
    x = torch.ones(2, 8, 4, 4).cumsum(3)
    torch.testing.assert_close(block(x, None), block.double()(x.double(), None).float())
    assert not cache.exists()


def test_they_can_be_switched_off(monkeypatch, cache):
    monkeypatch.setenv("MEZZOTINT_KERNELS", "0")
    assert fresh() is None
    assert not cache.exists()


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",  # writes nothing
        "exit 1",
        'for last; do :; done; case "$*" in *-shared*) echo junk > "$last";; esac',
        "kill -9 $$",
    ],
)
def test_a_program_that_is_no_compiler_leaves_no_kernels(script, tmp_path, monkeypatch, cache):
    program = tmp_path / "c++"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    assert fresh() is None
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_file_that_cannot_be_run_leaves_no_kernels(tmp_path, monkeypatch):
    program = tmp_path / "c++"
    program.write_bytes(b"\x7fELF?")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    assert fresh() is None


# --- compilers --------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("only", ["*", "*-shared*"], ids=["at once", "when it compiles"])
@pytest.mark.parametrize(
    ("refused", "options"),
    [
        ((), "-march=native -fopenmp"),
        (("-march=native",), "-fopenmp"),
        (("-fopenmp",), "-march=native"),
        (("-march=native", "-fopenmp"), ""),
    ],
)
def test_the_best_options_that_a_compiler_takes(refused, options, only, small, wrapped, tmp_path):
    if not takes(options, small, tmp_path):
        pytest.skip(f"{USUAL} has no {options}")
    compiled = wrapped(refusing(*refused, only=only))
    fresh()
    taken = compiled()[-1]
    for option in ("-march=native", "-fopenmp"):
        assert (option in taken) == (option in options)
    times = len(compiled())
    again = fresh()  # nothing is compiled, nor tried that was refused before
    assert len(compiled()) == times
    assert again.answer() == (41 if "-fopenmp" in options else 40)


@needs_compiler
def test_the_real_file_is_right_without_any_of_its_options(wrapped, monkeypatch):
    wrapped(refusing("-march=native", "-fopenmp"))
    monkeypatch.setattr(build, "OPTIONS", ["-O1", *build.OPTIONS[1:]])  # is built faster
    plain = fresh()
    assert plain is not None
    monkeypatch.setattr(CALLS, "library", lambda: plain)
    x = torch.arange(2 * 24 * 15.0).sin().reshape(2, 24, 3, 5)
    gain, bias = torch.linspace(-1, 1, 24), torch.linspace(0, 3, 24)
    got = group_norm(x, 3, gain, bias, None, None, epsilon=1e-5, silu=True)
    wanted = F.silu(F.group_norm(x.double(), 3, gain.double(), bias.double(), 1e-5))
    torch.testing.assert_close(got.double(), wanted, rtol=2e-6, atol=2e-6)


@needs_compiler
def test_a_compiler_may_be_named_with_arguments(small, monkeypatch):
    monkeypatch.setenv("CXX", f"env {' '.join(USUAL)} -DANSWER=10")
    assert fresh().answer() in (10, 11)
    monkeypatch.setenv("CXX", f"env {' '.join(USUAL)} -DANSWER=20")
    assert fresh().answer() in (20, 21)  # what defines something else is another compiler


@needs_compiler
def test_another_source_is_built_anew(small):
    assert fresh().answer() in (40, 41)
    small.write_text(SMALL.replace("40", "50"))
    assert fresh().answer() in (50, 51)


@needs_compiler
def test_another_choice_of_options_is_not_content_with_what_is_kept(small, wrapped, monkeypatch):
    compiled = wrapped()
    for tuned in ([[]], [["-O1"], []]):
        monkeypatch.setattr(build, "TUNED", tuned)
        fresh()
    assert len(compiled()) == 2


@needs_compiler
def test_a_compiler_takes_nothing_from_the_keyboard(small, wrapped, tmp_path):
    heard = tmp_path / "heard"
    wrapped(f"cat >> {shlex.quote(str(heard))}")
    reading, writing = os.pipe()
    os.write(writing, b"typed for what comes next")
    os.close(writing)
    saved = os.dup(0)
    os.dup2(reading, 0)
    try:
        assert fresh().answer() in (40, 41)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reading)
    assert heard.read_text() == ""


# --- the cache --------------------------------------------------------------------------------


@needs_compiler
def test_one_file_is_kept_and_nothing_else(small, cache, tmp_path):
    fresh()
    (folder,) = cache.iterdir()
    (kept,) = folder.iterdir()
    assert kept.suffix == ".so"
    assert not list((tmp_path / "the scratch").glob("kernels*"))


@needs_compiler
@pytest.mark.parametrize("kind", ["a file in the way", "a file above", "no right to write"])
def test_a_cache_that_takes_nothing(kind, small, cache, tmp_path, monkeypatch):
    if kind == "no right to write":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        cache.mkdir(mode=0o500)
    else:
        cache.write_text("")
        if kind == "a file above":
            monkeypatch.setenv("MEZZOTINT_CACHE", str(cache / "below"))
    assert fresh().answer() in (40, 41)
    assert not list((tmp_path / "the scratch").glob("kernels*"))  # loaded, and gone again


@needs_compiler
@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:5000] + b"?" + b[5001:]],
    ids=["cut short", "empty", "one byte"],
)
def test_a_damaged_file_is_replaced(damage, small, wrapped, cache):
    compiled = wrapped()
    fresh()
    (kept,) = cache.glob("kernels/*.so")
    whole = kept.read_bytes()
    kept.unlink()  # and not written over: this process has it loaded
    kept.write_bytes(damage(whole))
    before = len(compiled())
    assert fresh().answer() in (40, 41)
    assert len(compiled()) == before + 1
    if sys.platform == "linux":  # where it makes the same bytes, under the same name
        assert kept.read_bytes() == whole
    fresh()
    assert len(compiled()) == before + 1


@needs_compiler
def test_a_cache_named_from_home_or_from_here(small, wrapped, tmp_path, monkeypatch):
    compiled = wrapped()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name, folder in [("~/mine", tmp_path / "mine"), ("here", tmp_path / "here")]:
        monkeypatch.setenv("MEZZOTINT_CACHE", name)
        fresh()
        assert len(list(folder.glob("kernels/*.so"))) == 1
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MEZZOTINT_CACHE", ".")
    assert fresh().answer() in (40, 41)
    assert len(compiled()) == 2  # one for each folder


SINGLE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("build", sys.argv[1])
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)
build.SOURCES = [build.Path(sys.argv[2])]
print(build.library().answer())
"""


@needs_compiler
def test_two_processes_at_once(small, wrapped, cache):
    compiled = wrapped('case "$*" in *-shared*) sleep 0.5;; esac')
    call = [sys.executable, "-c", SINGLE, build.__file__, str(small)]
    both = [subprocess.Popen(call, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert answers[0] == answers[1] != ""
    assert len(compiled()) == 2  # else they did not meet
    assert all(file.suffix == ".so" for file in (cache / "kernels").iterdir())
    assert isinstance(fresh(), ctypes.CDLL)
    assert len(compiled()) == 2


# --- who may have written it ------------------------------------------------------------------

NOBODY = 65534


@pytest.fixture
def kept(small, wrapped, cache):
    """A compiled file in the cache, and what the compiler was asked for since."""
    compiled = wrapped()
    fresh()
    (file,) = cache.glob("kernels/*.so")
    before = len(compiled())
    return file, lambda: compiled()[before:]


def loaded_from(folder):
    """Whether this process has a library from a folder in its memory."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("wants Linux's list of what is mapped")
    return str(folder) in Path("/proc/self/maps").read_text()


def planted(file):
    """Put another library at the place of a file, under a name with its right digest."""
    other = file.parents[2] / "other.cpp"
    other.write_text('extern "C" int answer() { return 666; }')
    made = other.with_suffix(".so")
    subprocess.run([*USUAL, "-shared", "-fPIC", str(other), "-o", str(made)], check=True)
    digest = build._digest(made.read_bytes())
    place = file.with_name(f"{file.stem.rpartition('-')[0]}-{digest}.so")
    file.unlink()
    return made.rename(place)


@needs_compiler
@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_not_loaded(mode, kept, caplog):
    file, compiled = kept
    file = planted(file)
    file.chmod(mode)
    assert fresh().answer() in (40, 41)
    assert len(compiled()) == 1
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{file} has mode {mode:04o}")
    assert "chmod go-w" in line
    assert "\n" not in line


@needs_compiler
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_nothing_is_loaded_from_a_folder_that_others_may_write(mode, kept, cache, caplog):
    file, compiled = kept
    file = planted(file)
    file.chmod(0o644)
    (cache / "kernels").chmod(mode)
    assert fresh().answer() in (40, 41)
    assert len(compiled()) == 1
    assert list((cache / "kernels").iterdir()) == [file]  # nor is anything kept there
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{cache / 'kernels'} has mode {mode:04o}")


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="wants root")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_belongs_to_another_user_is_not_loaded(what, kept, caplog):
    file, compiled = kept
    file = planted(file)
    file.chmod(0o644)
    os.chown(file if what == "file" else file.parent, NOBODY, -1)
    assert fresh().answer() in (40, 41)
    assert len(compiled()) == 1
    (line,) = (record.getMessage() for record in caplog.records)
    assert f"belongs to user {NOBODY}" in line


@needs_compiler
def test_a_line_is_said_once_though_every_option_is_refused(kept, cache, wrapped, caplog):
    (cache / "kernels").chmod(0o777)
    wrapped(refusing("-march=native", "-fopenmp", only="*-shared*"))
    assert fresh().answer() == 40
    assert len(caplog.records) == 1


@needs_compiler
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077])
def test_only_the_owner_may_write_what_is_kept_whatever_the_umask(umask, small, cache, caplog):
    before = os.umask(umask)
    try:
        fresh()
        again = fresh()
    finally:
        os.umask(before)
    assert again.answer() in (40, 41)
    (file,) = cache.glob("kernels/*.so")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644 & ~umask
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o755 & ~umask
    assert caplog.records == []


@needs_compiler
def test_what_is_safe_is_loaded_from_the_cache(kept, cache):
    _, compiled = kept
    again = fresh()
    assert compiled() == []
    assert loaded_from(cache / "kernels")
    assert again.answer() in (40, 41)
