import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mezzotint.data import cache as cache_module
from mezzotint.data import load
from mezzotint.errors import InputError
from mezzotint.runtime.atomic import appearing
from mezzotint.runtime.distributed import Ranks


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(1)
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(5):
            array = random.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "set" / name / f"{i}.bmp")
    return tmp_path / "set"


@pytest.fixture
def decodings(monkeypatch):
    """One entry for each time that pictures were decoded."""
    seen = []

    def counted(images, encoded, layout, fill=cache_module.fill):
        seen.append(layout)
        fill(images, encoded, layout)

    monkeypatch.setattr(cache_module, "fill", counted)
    return seen


def same(a, b):
    return (
        torch.equal(a.images, b.images)
        and torch.equal(a.labels, b.labels)
        and all(torch.equal(a.splits[name], b.splits[name]) for name in a.splits)
        and (a.mean, a.deviation, a.fingerprint) == (b.mean, b.deviation, b.fingerprint)
    )


def test_the_second_start_decodes_nothing(folder, cache, decodings):
    first, second = load(str(folder)), load(str(folder))
    assert same(first, second)
    assert len(decodings) == 1
    assert len(list(cache.iterdir())) == 2  # nothing temporary is left


def test_a_moved_folder_is_the_same_set_a_changed_byte_another(folder, tmp_path, decodings):
    first = load(str(folder))
    moved = folder.rename(tmp_path / "moved")
    assert load(str(moved)).fingerprint == first.fingerprint
    assert len(decodings) == 1
    file = moved / "a" / "3.bmp"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    changed = load(str(moved))
    assert changed.fingerprint != first.fingerprint
    assert (changed.images != first.images).sum() == 1
    assert len(decodings) == 2


def test_sizes_are_kept_apart(folder, decodings):
    assert load(str(folder), size=2).images.shape[2:] == (2, 2)
    assert load(str(folder)).images.shape[2:] == (4, 4)
    assert load(str(folder), size=4).fingerprint == load(str(folder)).fingerprint


def test_memory_mapped_equals_in_memory(folder, cache, decodings):
    inside = load(str(folder))
    for file in cache.iterdir():
        file.unlink()
    fresh, kept = load(str(folder), memory_budget=10), load(str(folder), memory_budget=10)
    assert len(decodings) == 2
    for mapped in (fresh, kept):
        assert same(mapped, inside)
        assert all(map(torch.equal, mapped.split("test"), inside.split("test")))
        mapped.images[0] = 0  # copy on write: neither file nor neighbour sees it
    assert same(load(str(folder)), inside)
    assert len(decodings) == 2


def test_what_would_be_too_much_in_several_processes_is_shared_by_them(folder, cache, monkeypatch):
    size = load(str(folder)).images.numel()

    def mapped(processes):
        monkeypatch.setattr("mezzotint.data.sources.current_ranks", lambda: Ranks(0, processes))
        kept = load(str(folder), memory_budget=2 * size)
        there = str(next(cache.glob("*.npy"))) in Path("/proc/self/maps").read_text()
        assert len(kept.images) * kept.images[0].numel() == size  # alive until here
        return there

    if not Path("/proc/self/maps").exists():
        pytest.skip("wants Linux's list of what is mapped")
    assert [mapped(processes) for processes in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize("budget", [10, 10**6])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "garbage"])
def test_a_damaged_file_is_made_anew(folder, cache, decodings, budget, suffix, damage):
    first = load(str(folder))
    file = next(cache.glob(f"*{suffix}"))
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": content[:-20], "garbage": b"x" * 500}[damage])
    assert same(load(str(folder), memory_budget=budget), first)
    assert len(decodings) == 2
    assert same(load(str(folder)), first)
    assert len(decodings) == 2


def test_a_flipped_pixel_in_the_cache_is_noticed(folder, cache, decodings):
    first = load(str(folder))
    file = next(cache.glob("*.npy"))
    content = bytearray(file.read_bytes())
    content[-7] ^= 64
    file.write_bytes(content)
    assert same(load(str(folder)), first)
    assert len(decodings) == 2


def test_too_little_memory_to_open_it_is_no_damage(folder, cache, decodings, monkeypatch):
    load(str(folder))

    def no_room(*arguments, **named):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", no_room)
    with pytest.raises(OSError, match="memory"):
        load(str(folder))
    assert len(decodings) == 1


def test_without_a_place_for_it_all_goes_on_and_says_so(folder, tmp_path, monkeypatch, logged):
    first = load(str(folder))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "file" / "below"))
    assert same(load(str(folder)), first)
    assert any("keeps no images" in line and "Not a directory" in line for line in logged)
    with pytest.raises(InputError, match="too much for memory.*Not a directory.*MEZZOTINT_CACHE"):
        load(str(folder), memory_budget=10)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such locks")
@pytest.mark.parametrize("budget", [10, 10**6])
def test_what_a_killed_process_left_is_removed_and_what_one_is_writing_is_not(
    folder, cache, budget
):
    load(str(folder))
    (kept,) = cache.glob("*.npy")
    left = kept.with_name(f".{kept.name}.0a1b2c3d.tmp")
    left.write_bytes(b"half")
    kept.unlink()
    with appearing(kept) as busy:
        busy.write_bytes(b"half")
        load(str(folder), memory_budget=budget)
        assert not left.exists()
        assert busy.exists()


def test_a_full_disk_is_noticed_beforehand(folder, cache, monkeypatch, logged):
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda path: SimpleNamespace(free=5))
    load(str(folder))
    assert any("free" in line for line in logged)
    assert list(cache.iterdir()) == []


def test_a_failed_decoding_leaves_nothing(folder, cache):
    (folder / "a" / "0.bmp").write_bytes((folder / "a" / "0.bmp").read_bytes()[:-5])
    for budget in (10, 10**6):
        with pytest.raises(ValueError, match="0.bmp is truncated"):
            load(str(folder), memory_budget=budget)
    assert list(cache.iterdir()) == []


def test_exact_statistics_of_large_sums():
    images = torch.randint(0, 256, (3000, 3, 8, 8), dtype=torch.uint8)
    pixels = cache_module._measured(images.numpy())
    chosen = torch.arange(0, 3000, 7)
    mean, deviation = pixels.statistics(chosen)
    values = images[chosen].double() / 127.5 - 1
    assert mean == pytest.approx(values.mean().item(), abs=1e-12)
    assert deviation == pytest.approx(values.std(correction=0).item(), abs=1e-12)
