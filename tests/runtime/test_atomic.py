"""Files that appear whole or not at all: order of flushes, threads, failures, killed processes."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import nullcontext

import pytest
import torch

from mezzotint import imaging
from mezzotint.metrics.extractors import weights_io
from mezzotint.runtime import atomic
from mezzotint.runtime.atomic import (
    appearing,
    append_bytes,
    flush_together,
    is_draft,
    publish,
    replacing,
    scratch_folder,
    write_bytes,
)
from mezzotint.training import checkpoint

posix = pytest.mark.skipif(os.name == "nt", reason="Windows flushes no directory, has no flock")


@pytest.fixture
def calls(monkeypatch):
    """What the system was asked to do: ("flush", inode, size) and ("rename", inode, target)."""
    seen = []
    fsync, replace = os.fsync, os.replace

    def flushed(descriptor):
        found = os.fstat(descriptor)
        seen.append(("flush", found.st_ino, found.st_size))
        fsync(descriptor)

    def renamed(source, target):
        seen.append(("rename", os.stat(source).st_ino, str(target)))
        replace(source, target)

    monkeypatch.setattr("os.fsync", flushed)
    monkeypatch.setattr("os.replace", renamed)
    return seen


def assert_lasts(path, calls):
    """The whole file was flushed, then renamed, then the directory was flushed."""
    file, folder = path.stat(), path.parent.stat()
    (renamed,) = (i for i, c in enumerate(calls) if c == ("rename", file.st_ino, str(path)))
    assert ("flush", file.st_ino, file.st_size) in calls[:renamed]
    assert folder.st_ino in [c[1] for c in calls[renamed + 1 :] if c[0] == "flush"]


def write_with_replacing(path):
    with replacing(path) as file:
        file.write(b"a" * 100_000)


def write_with_appearing(path):
    with appearing(path) as draft:
        draft.write_bytes(b"b" * 100_000)


def write_with_scratch_folder(path):
    with scratch_folder(path) as folder:
        (folder / "own").write_bytes(b"c" * 100_000)
        publish(folder / "own", path)


PRIMITIVES = [write_with_replacing, write_with_appearing, write_with_scratch_folder]
IMAGES = torch.arange(3 * 16, dtype=torch.uint8).view(3, 1, 4, 4)
USERS = {
    "a.bin": lambda path: write_bytes(path, b"data"),
    "a.png": lambda path: imaging.save_png(IMAGES[0], path),
    "a.gif": lambda path: imaging.save_animation(list(IMAGES), path, seconds_per_frame=0.1),
    "a.npz": lambda path: imaging.save_npz(path, IMAGES, torch.arange(3), {}),
    "manifest.jsonl": lambda path: imaging.save_folder(
        IMAGES, torch.arange(3), "abc", path.parent
    ),
    "weights": lambda path: weights_io.write(path, "kind", {"x": torch.zeros(2)}, {}),
    "a.safetensors": lambda path: checkpoint.write(path, {"x": torch.zeros(2)}, {}),
}


# --- order ------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("write", PRIMITIVES)
def test_a_file_is_flushed_before_and_its_directory_after_the_rename(write, tmp_path, calls):
    write(tmp_path / "a")
    assert_lasts(tmp_path / "a", calls)
    assert (tmp_path / "a").stat().st_size == 100_000


@posix
@pytest.mark.parametrize("name", USERS)
def test_every_writer_flushes(name, tmp_path, calls):
    USERS[name](tmp_path / name)
    assert_lasts(tmp_path / name, calls)


@posix
def test_the_backup_of_a_checkpoint_lasts_too(tmp_path, calls):
    path = tmp_path / "a.safetensors"
    for value in (1.0, 2.0):
        checkpoint.write(path, {"x": torch.full((3,), value)}, {})
    assert_lasts(path, calls)
    backup = checkpoint.backup_path(path)
    assert_lasts(backup, calls)
    assert [c[2] for c in calls if c[0] == "rename"] == [str(path), str(backup), str(path)]
    # The new file is on the disk before the old one gets its second name.
    new = calls.index(("flush", path.stat().st_ino, path.stat().st_size))
    assert new < calls.index(("rename", backup.stat().st_ino, str(backup)))


@posix
def test_new_folders_are_flushed_into_their_parents(tmp_path, calls):
    write_bytes(tmp_path / "a" / "b" / "c.bin", b"data")
    flushed = {c[1] for c in calls if c[0] == "flush"}
    folders = [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    assert {folder.stat().st_ino for folder in folders} <= flushed


@posix
@pytest.mark.parametrize("whole_system", [True, False])
def test_the_images_of_a_folder_are_flushed_before_its_manifest(
    whole_system, tmp_path, calls, monkeypatch
):
    flush = atomic._flush_file_system

    def flushed(folder):
        calls.append(("all",))
        return whole_system and flush(folder)

    monkeypatch.setattr(atomic, "_flush_file_system", flushed)
    manifest = imaging.save_folder(IMAGES, torch.arange(3), "abc", tmp_path / "new" / "out")
    last = calls.index(("rename", manifest.stat().st_ino, str(manifest)))
    files = [tmp_path / "new" / "out" / name / "00000.png" for name in "abc"]
    renames = [calls.index(("rename", f.stat().st_ino, str(f))) for f in files]
    everything = calls.index(("all",))
    assert max(renames) < everything < last
    flushed_inodes = [c[1] for c in calls[everything:last] if c[0] == "flush"]
    wanted = {path.stat().st_ino for f in files for path in (f, f.parent, f.parent.parent)}
    wanted |= {(tmp_path / "new").stat().st_ino, tmp_path.stat().st_ino}
    if whole_system and sys.platform == "linux":
        (only_manifest,) = flushed_inodes
        assert only_manifest == manifest.stat().st_ino
    else:
        assert wanted <= set(flushed_inodes)


def test_a_folder_that_is_not_there_cannot_be_flushed(tmp_path):
    with pytest.raises(FileNotFoundError):
        flush_together(tmp_path / "nowhere")


@posix
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_directory_that_the_system_cannot_flush_is_no_fault(number, tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", refuse)
    fault = pytest.raises(OSError, match="error") if number == errno.EIO else nullcontext()
    with fault:
        write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


# --- several writers --------------------------------------------------------------------------


@pytest.mark.parametrize("write", PRIMITIVES)
def test_threads_that_write_the_same_file_never_mix(write, tmp_path):
    path, size = tmp_path / "a", 70_000
    errors, torn, done = [], [], threading.Event()

    def body(number):
        return bytes([number]) * size

    def many(number):
        try:
            for _ in range(25):
                if write is write_with_replacing:
                    with replacing(path) as file:
                        for piece in range(0, size, 10_000):
                            file.write(body(number)[piece : piece + 10_000])
                elif write is write_with_appearing:
                    with appearing(path) as draft:
                        draft.write_bytes(body(number))
                else:
                    with scratch_folder(path) as folder:
                        (folder / "own").write_bytes(body(number))
                        publish(folder / "own", path)
        except BaseException as error:
            errors.append(error)

    def look():
        while not done.is_set():
            if path.exists():
                data = path.read_bytes()
                if len(data) != size or len(set(data)) != 1:
                    torn.append(data[:10])

    threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
    reader = threading.Thread(target=look)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert errors == []
    assert torn == []
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("write", PRIMITIVES)
def test_a_draft_that_was_taken_for_a_leftover_is_begun_again(write, tmp_path, monkeypatch):
    """Between making a draft and locking it, another writer may find it without a lock."""
    lock, taken = atomic._lock, []

    def late(file):
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        return lock(file)

    monkeypatch.setattr(atomic, "_lock", late)
    write(tmp_path / "a")
    assert len(taken) == 1
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").stat().st_size == 100_000


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("launch", [replacing, appearing, scratch_folder])
def test_an_exception_leaves_the_old_file_and_no_draft(launch, error, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail():
        with launch(path) as opened:
            if launch is replacing:
                opened.write(b"half")
            else:
                place = opened / "own" if launch is scratch_folder else opened
                place.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("write", PRIMITIVES)
@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_flush_or_rename_that_fails_leaves_the_old_file(call, write, tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_an_append_is_flushed(tmp_path, calls):
    path = tmp_path / "a"
    for data in (b"one\n", b"two\n"):
        append_bytes(path, data)
        assert ("flush", path.stat().st_ino, path.stat().st_size) in calls
    assert path.read_bytes() == b"one\ntwo\n"
    if os.name != "nt":
        assert tmp_path.stat().st_ino in {c[1] for c in calls}


def test_an_append_that_cannot_be_flushed_adds_nothing(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"one\n")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        append_bytes(tmp_path / "a", b"two\n")
    assert (tmp_path / "a").read_bytes() == b"one\n"


# --- modes ------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("name", USERS)
def test_who_may_read_a_file_is_for_the_umask_to_say(name, umask, tmp_path, monkeypatch):
    set_umask = os.umask
    before = set_umask(umask)
    try:
        # It is the whole process's: to look at it is to change it under other threads.
        monkeypatch.setattr("os.umask", lambda mask: pytest.fail("the umask was changed"))
        USERS[name](tmp_path / "out" / name)
    finally:
        set_umask(before)
    assert stat.S_IMODE((tmp_path / "out" / name).stat().st_mode) == 0o666 & ~umask


@posix
def test_only_its_owner_may_enter_a_scratch_folder(tmp_path):
    before = os.umask(0)
    try:
        with scratch_folder(tmp_path / "a") as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        os.umask(before)


# --- leftovers --------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from mezzotint.runtime import atomic
with getattr(atomic, sys.argv[1])(Path(sys.argv[2])) as opened:
    if sys.argv[1] == "scratch_folder":
        (opened / "own").write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
    if sys.argv[1] == "scratch_folder":
        atomic.publish(opened / "own", Path(sys.argv[2]))
"""


@pytest.fixture
def writer():
    """Begins to write a file in another process, which waits for the end of its input."""
    started = []

    def launch(primitive, path):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, primitive, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout.readline() == b"writing\n"
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


@posix
@pytest.mark.parametrize("write", PRIMITIVES)
@pytest.mark.parametrize("primitive", ["replacing", "appearing", "scratch_folder"])
def test_what_a_killed_process_left_is_removed(primitive, write, tmp_path, writer):
    process = writer(primitive, tmp_path / "a")
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = os.listdir(tmp_path)
    assert left
    assert all(is_draft(name, of="a") for name in left)
    write(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


@posix
@pytest.mark.parametrize("primitive", ["replacing", "appearing", "scratch_folder"])
def test_what_a_living_process_writes_is_left_alone(primitive, tmp_path, writer):
    process = writer(primitive, tmp_path / "a")
    drafts = set(os.listdir(tmp_path))
    write_bytes(tmp_path / "a", b"first")
    assert set(os.listdir(tmp_path)) == {"a"} | drafts
    process.communicate(b"")
    assert process.returncode == 0
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == (b"half" if primitive == "scratch_folder" else b"")


@posix
def test_files_that_are_no_drafts_of_this_one_are_left_alone(tmp_path):
    others = [
        ".a.txt.old",
        ".a.txt.new",
        ".a.txt.0a1b2c3d",
        ".a.txt.0a1b2c3.tmp",
        ".a.txt.b.0a1b2c3d.tmp",
        ".aXtxt.0a1b2c3d.tmp",
        "a.txt.0a1b2c3d.tmp",
    ]
    for name in [*others, ".a.txt.0a1b2c3d.tmp"]:
        (tmp_path / name).write_text("")
    write_bytes(tmp_path / "a.txt", b"")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a.txt"])


def test_names_with_signs_that_patterns_use(tmp_path):
    path = tmp_path / "a[0-9]*(b)?.txt"
    left = tmp_path / f".{path.name}.0a1b2c3d.tmp"
    left.write_text("")
    write_bytes(path, b"")
    assert left.exists() == (os.name == "nt")


@pytest.mark.parametrize("write", PRIMITIVES)
def test_where_there_are_no_locks_files_are_written_and_leftovers_stay(
    write, tmp_path, monkeypatch
):
    monkeypatch.setattr(atomic, "_lock", lambda file: None)
    left = tmp_path / ".a.0a1b2c3d.tmp"
    left.write_text("")
    write(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == [left.name, "a"]


def test_a_draft_is_known_by_its_name(tmp_path):
    with replacing(tmp_path / "config.toml"):
        (name,) = os.listdir(tmp_path)
        assert is_draft(name, of="config.toml")
        assert not is_draft(name, of="config")
        assert not is_draft("config.toml", of="config.toml")
    with scratch_folder(tmp_path / "b"):
        names = [name for name in os.listdir(tmp_path) if name.startswith(".b")]
        assert len(names) == 2
        assert all(is_draft(name, of="b") for name in names)


def test_drafts_lie_next_to_the_file_and_have_names_of_their_own(tmp_path):
    with appearing(tmp_path / "a") as first, appearing(tmp_path / "a") as second:
        assert first != second
        assert first.parent == second.parent == tmp_path
    assert os.listdir(tmp_path) == ["a"]
