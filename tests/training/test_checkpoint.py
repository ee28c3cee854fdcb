import errno
import os
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError, safe_open

from mezzotint.errors import CheckpointError
from mezzotint.training import checkpoint
from mezzotint.training.checkpoint import backup_path, read, recover, write


@pytest.fixture
def file(tmp_path):
    return tmp_path / "checkpoints" / "last.safetensors"


def tensors(value):
    return {
        "network.a": torch.full((3, 2), value),
        "network.count": torch.tensor(7),
        "ema.a": torch.arange(4, dtype=torch.bfloat16),
    }


def test_what_was_written_is_read_back(file):
    write(file, tensors(1.5), {"images_seen": 3, "history": [0.1, 1e-17]})
    got = read(file)
    assert got.facts == {"images_seen": 3, "history": [0.1, 1e-17]}
    for name, value in tensors(1.5).items():
        assert torch.equal(got.tensors[name], value)
        assert got.tensors[name].dtype == value.dtype
    assert set(got.section("network")) == {"a", "count"}


def test_the_former_one_stays_as_backup(file):
    for value in (1.0, 2.0, 3.0):
        write(file, tensors(value), {"images_seen": value})
    assert read(file).facts["images_seen"] == 3
    assert read(backup_path(file)).facts["images_seen"] == 2
    assert sorted(p.name for p in file.parent.iterdir()) == [
        "last.previous.safetensors",
        "last.safetensors",
    ]


@pytest.mark.parametrize("damage", ["half", "empty", "flipped byte", "gone"])
def test_a_damaged_file_falls_back_to_the_backup_and_says_so(file, damage):
    write(file, tensors(1.0), {"images_seen": 1})
    write(file, tensors(2.0), {"images_seen": 2})
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "flipped byte":
        content[-3] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    with pytest.raises(CheckpointError, match="last.safetensors"):
        read(file)
    found, notice = recover(file)
    assert found.facts["images_seen"] == 1
    assert "last.previous.safetensors" in notice
    assert "\n" not in notice


def test_without_a_good_backup_the_error_names_the_file(file):
    write(file, tensors(1.0), {})
    file.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="last.safetensors"):
        recover(file)


def test_a_failed_write_leaves_the_former_file(file, monkeypatch):
    write(file, tensors(1.0), {"images_seen": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(file, tensors(2.0), {"images_seen": 2})
    assert read(file).facts["images_seen"] == 1
    assert [p.name for p in file.parent.iterdir()] == ["last.safetensors"]


def test_a_checkpoint_replaced_while_it_is_read_is_read_again(file, monkeypatch):
    """The library opens a file for its header and once more for its tensors."""
    write(file, tensors(1.0), {"value": 1})

    @contextmanager
    def opened(path, framework):
        with safe_open(path, framework) as header:
            if read_once:
                yield header
                return
            read_once.append(path)
            write(path, tensors(2.0), {"value": 2})
            with safe_open(path, framework) as content:
                yield SimpleNamespace(
                    metadata=header.metadata, keys=content.keys, get_tensor=content.get_tensor
                )

    read_once: list[object] = []
    monkeypatch.setattr(checkpoint, "safe_open", opened)
    found = read(file)
    assert found.facts["value"] == 2
    assert (found.tensors["network.a"] == 2).all()


def test_a_file_that_is_damaged_and_stays_so_is_said_after_one_look(file, monkeypatch):
    write(file, tensors(1.0), {})
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    looks = []
    look = checkpoint._read
    monkeypatch.setattr(checkpoint, "_read", lambda path: looks.append(path) or look(path))
    with pytest.raises(CheckpointError, match="damaged"):
        read(file)
    assert len(looks) == 1


def test_a_full_disk_is_the_systems_own_error(file, monkeypatch):
    write(file, tensors(1.0), {})

    def full(*arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    monkeypatch.setattr("mezzotint.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(file, tensors(2.0), {})
    assert caught.value.errno == errno.ENOSPC
    assert torch.equal(read(file).tensors["network.a"], tensors(1.0)["network.a"])


@pytest.mark.parametrize("version", ["this", "earlier"])
def test_what_a_kill_left_half_written_is_gone_after_the_next_save(file, version):
    write(file, tensors(1.0), {})
    if version == "this":
        draft = file.with_name(f".{file.name}.0a1b2c3d.tmp")
        draft.touch()
        litter = draft.with_name(f"{draft.name}.d")
    else:
        os.link(file, file.with_name(f".{file.name}.old"))
        litter = file.with_name(f".{file.name}.new")
    litter.mkdir()
    (litter / ".tmpAbCdEf").write_bytes(b"half")
    write(file, tensors(2.0), {})
    assert sorted(p.name for p in file.parent.iterdir()) == sorted(
        [file.name, backup_path(file).name]
    )


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        read(tmp_path / "x.safetensors")


def test_a_file_system_without_second_names_keeps_the_backup_too(file, monkeypatch):
    def refuse(path, other):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    for value in (1.0, 2.0, 3.0):
        write(file, tensors(value), {"images_seen": value})
    assert read(file).facts["images_seen"] == 3
    assert read(backup_path(file)).facts["images_seen"] == 2
    assert len(list(file.parent.iterdir())) == 2


def test_no_bit_can_be_another_unseen(file):
    write(file, {"a": torch.arange(3.0)}, {"images_seen": 12345})
    whole, wanted = file.read_bytes(), read(file)
    for place in range(len(whole)):
        for bit in range(8):
            file.write_bytes(
                whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]
            )
            try:
                found = read(file)
            except CheckpointError:
                continue
            assert found.facts == wanted.facts
            assert torch.equal(found.tensors["a"], wanted.tensors["a"])


def test_a_backup_put_in_its_place_leaves_nothing_else(file):
    """A rename between two names of one file does nothing, and leaves both."""
    for value in (1.0, 2.0):
        write(file, tensors(value), {"images_seen": value})
    file.write_bytes(b"damaged")
    checkpoint.restore(file)
    assert read(file).facts["images_seen"] == 1
    write(file, tensors(3.0), {"images_seen": 3})
    assert read(backup_path(file)).facts["images_seen"] == 1
    assert sorted(os.listdir(file.parent)) == sorted([file.name, backup_path(file).name])
