"""Noise of images: Philox by its published answers, normals by statistics, all by JavaScript."""

import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mezzotint.runtime.noise import image_noise, philox

LOW = 0xFFFFFFFF
JAVASCRIPT = Path(__file__).with_name("noise.mjs")


def noise(seed, i, step=0, count=1000, part=0):
    """Numbers of one image, float64 (count,)."""
    key, parts = (torch.tensor([x]) for x in (seed, i)), torch.tensor([part])
    return image_noise(*key, step, (count,), tiles=parts)[0]


def words(seed, i, step, block):
    """The four words of a block as integers."""
    numbers = (block, step, i & LOW, i >> 32 & LOW, seed & LOW, seed >> 32 & LOW)
    tensors = [torch.tensor(x) for x in numbers]
    return [int(word) for word in philox(tensors[:4], tensors[4:])]


@pytest.fixture(scope="module")
def many():
    """A thousand images of a thousand numbers each."""
    return image_noise(torch.full((1000,), 3), torch.arange(1000), 0, (1000,))


# Random123 (Salmon et al. 2011), its file kat_vectors, philox 4x32 10.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, answer):
    counter, key, answer = (
        [torch.tensor(int(word, 16)) for word in text.split()] for text in (counter, key, answer)
    )
    assert list(philox(counter, key)) == answer


def test_words_are_those_of_torchs_own_philox(tmp_path):
    """numpy's Philox has words of 64 bits; the one in torch's headers has 32."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    source = tmp_path / "philox.cpp"
    source.write_text("""
        #include <ATen/core/PhiloxRNGEngine.h>
        #include <cstdio>
        #include <cstdlib>
        int main(int, char** given) {
          uint64_t x[3];
          for (int k = 0; k < 3; ++k) x[k] = std::strtoull(given[k + 1], nullptr, 10);
          at::Philox4_32 engine(x[0], x[1], x[2]);  // seed, subsequence, offset in blocks
          for (int k = 0; k < 8; ++k) std::printf("%u\\n", engine());
        }""")
    include = Path(torch.__file__).parent / "include"
    subprocess.run(
        [compiler, "-std=c++20", f"-I{include}", source, "-o", tmp_path / "philox"], check=True
    )
    for seed, i, step, block in ((0, 0, 0, 0), (2**63 - 5, 2**40 + 9, 3, 5), (-1, 7, 2**31, 1)):
        arguments = map(str, (seed & 2**64 - 1, i, (step << 32) + block))
        said = subprocess.run(
            [tmp_path / "philox", *arguments], capture_output=True, check=True, text=True
        )
        expected = [int(line) for line in said.stdout.split()]
        assert words(seed, i, step, block) + words(seed, i, step, block + 1) == expected


@pytest.mark.parametrize(
    ("image", "printed"),
    [
        (
            (0, 0, 0, 4, 0),
            "-0x1.f1bcc711a5e2ep-4 -0x1.599bbd5f1b9adp0 -0x1.4f5b59a99da5ep-4 "
            "-0x1.c81bb0eb3bc15p-3",
        ),
        (
            (7, 123456, 3, 4, 0),
            "0x1.018e63b4c6071p-4 0x1.2c3c6106f69bep-1 -0x1.567e170b6eb04p-1 0x1.3c1845de30020p-2",
        ),
        (
            (-1, 5, 0, 4, 0),
            "-0x1.3b8252cbb36efp-1 -0x1.f45c9e24dbf24p-1 0x1.15d6ef7496174p0 0x1.fca704513278cp-3",
        ),
        (
            (12345678901234567, 1099511627781, 1, 3, 0),
            "-0x1.4709895520bd8p0 0x1.bc6b3dee89b72p-6 -0x1.e4172a3c3b33ep-1",
        ),
        (
            (3, 2, 0, 5, 2),
            "-0x1.0e67175bfc86cp0 -0x1.71ccafd7122fap-3 0x1.5d634fb092d42p-2 "
            "0x1.6dd29ba8e4012p0 0x1.af523b482625bp0",
        ),
    ],
)
def test_numbers_are_those_that_javascript_printed(image, printed):
    expected = torch.tensor([float.fromhex(x) for x in printed.split()], dtype=torch.float64)
    torch.testing.assert_close(noise(*image), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "image", [(0, 0, 0, 1000, 0), (2**63 - 1, 2**62 + 1, 17, 1000, 0), (-(2**63), 9, 1, 333, 3)]
)
def test_javascript_draws_the_same_numbers(image):
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node")
    said = subprocess.run(
        [node, JAVASCRIPT, *map(str, image)], capture_output=True, check=True, text=True
    )
    numbers = [float.fromhex(line) for line in said.stdout.split()]
    expected = torch.tensor(numbers, dtype=torch.float64)
    torch.testing.assert_close(noise(*image), expected, rtol=1e-12, atol=1e-12)


def test_numbers_are_normal(many):
    from scipy.stats import kstest

    x = many.flatten()
    sigma = len(x) ** -0.5
    assert abs(float(x.mean())) < 4 * sigma
    assert abs(float((x**2).mean()) - 1) < 4 * sigma * 2**0.5
    assert abs(float((x**3).mean())) < 4 * sigma * 15**0.5
    assert abs(float((x**4).mean()) - 3) < 4 * sigma * 96**0.5
    assert kstest(x.numpy(), "norm").pvalue > 0.01
    assert 4.5 < float(x.abs().max()) < 6


def test_images_seeds_steps_parts_and_positions_are_independent(many):
    seeds, indices = torch.full((1000,), 3), torch.arange(1000)

    def drawn(seeds=seeds, indices=indices, step=0, **part):
        return image_noise(seeds, indices, step, (1000,), **part)

    others = {
        "images": (many[1:], many[:-1]),
        "images 2^32 apart": (many, drawn(indices=indices + 2**32)),
        "seeds": (many, drawn(seeds + 1)),
        "seeds 2^32 apart": (many, drawn(seeds + 2**32)),
        "seed and index exchanged": (many, drawn(indices, seeds)),
        "steps": (many, drawn(step=1)),
        "later steps": (drawn(step=7), drawn(step=8)),
        "parts": (many, drawn(tiles=torch.ones(1000, dtype=torch.int64))),
        **{f"positions {k} apart": (many[:, k:], many[:, :-k]) for k in (1, 2, 28)},
    }
    for name, (x, y) in others.items():
        sigma = x.numel() ** -0.5
        assert abs(float((x * y).mean())) < 4 * sigma, name
        # Box-Muller's two normals share a radius, which the squares would show.
        assert abs(float(((x**2 - 1) * (y**2 - 1)).mean())) < 4 * sigma * 2, name


def test_no_two_of_two_million_images_share_their_first_64_bits():
    zero, i = torch.tensor(0), torch.arange(1_000_000)
    found = [philox((zero, zero, i, zero), (torch.tensor(seed), zero)) for seed in (0, 1)]
    bits = torch.cat([(w0 << 32) + w1 for w0, w1, *_ in found])
    assert len(bits.unique()) == 2_000_000


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 9), (1, 1, 1)])
def test_an_image_has_the_same_bits_alone_and_in_any_batch(shape):
    seeds, indices = torch.arange(70) % 3 - 1, torch.arange(70) * 2**30
    together = image_noise(seeds, indices, 2, shape)
    assert together.shape == (70, *shape)
    assert together.dtype == torch.float64
    assert bool(together.isfinite().all())
    for rows in (slice(0, 1), slice(69, 70), slice(3, 20), slice(11, 64)):
        assert torch.equal(image_noise(seeds[rows], indices[rows], 2, shape), together[rows])


def test_an_image_of_an_odd_number_of_pixels_begins_a_larger_one():
    assert torch.equal(noise(1, 2, count=63), noise(1, 2, count=64)[:63])


def test_parts_of_a_canvas_follow_each_other_without_overlap():
    whole = noise(4, 9, count=24)
    for part in range(3):
        assert torch.equal(noise(4, 9, count=8, part=part), whole[8 * part : 8 * part + 8])
    odd = [set(noise(4, 9, count=7, part=part).tolist()) for part in range(3)]
    assert all(not a & b for a, b in pairwise(odd))


def test_any_device_draws_the_same_numbers():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA")
    key = torch.arange(8), torch.arange(8)
    found = image_noise(*key, 1, (3, 8, 8), "cuda")
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), image_noise(*key, 1, (3, 8, 8)), rtol=0, atol=1e-12)
