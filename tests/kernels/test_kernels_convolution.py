"""Convolutions by fewer multiplications against torch's in float64."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from mezzotint.kernels import build, compiler, convolution, convolves, library
from mezzotint.networks.blocks import Block, Conv3x3, ConvBlock
from mezzotint.runtime.rng import generator

CALLS = sys.modules["mezzotint.kernels.calls"]
OWN = sys.modules["mezzotint.kernels.convolution"]  # its name in the package is the function's


@pytest.fixture(autouse=True, scope="module")
def built():
    kernels = library()
    if kernels is None or not kernels.convolution_lanes():
        pytest.skip("no C++ compiler, or a processor without AVX2")


def draw(*shape, key=0):
    return torch.randn(shape, generator=generator("convolution", key, *shape))


def arguments(batch, channels, made, height, width):
    x = draw(batch, channels, height, width)
    weight = draw(made, channels, 3, 3) / (9 * channels) ** 0.5
    return x, weight, draw(made), draw(batch, made, height, width, key=1)


def formula(x, weight, bias):
    return F.conv2d(x, weight, bias, padding=1)


def with_gradients(function, x, weight, bias, dy):
    leaves = [t.detach().clone().requires_grad_() for t in (x, weight, bias)]
    y = function(*leaves)
    return y, *torch.autograd.grad(y, leaves, dy)


# (B, C, D, H, W): whole tiles of 4x4 and parts of them, one block of images and several, channels
# that fill two vectors and that do not, and so many that several blocks enter one sum.
SHAPES = [
    (2, 16, 32, 28, 28),
    (64, 32, 16, 7, 7),
    (9, 48, 80, 13, 6),
    (3, 16, 16, 1, 3),
    (1, 16, 16, 65, 30),
    (70, 96, 96, 8, 5),
    (5, 128, 128, 14, 14),
]


def close(got, wanted, share):
    """The root mean square of the differences is at most this share of that of the numbers."""
    assert got.shape == wanted.shape
    assert (got.double() - wanted.double()).norm() <= share * wanted.double().norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_float64(shape):
    x, weight, bias, dy = arguments(*shape)
    got = with_gradients(convolution, x, weight, bias, dy)
    wanted = with_gradients(formula, x.double(), weight.double(), bias.double(), dy.double())
    for one, exact in zip(got, wanted, strict=True):
        assert one.dtype == torch.float32
        # 2e-6 and 1e-5 are usual: sums over many pixels lose digits, in torch's own way too.
        close(one, exact, 3e-5 if one.shape == weight.shape else 6e-6)


def test_a_residual_is_added_and_has_the_gradient_of_the_sum():
    x, weight, bias, dy = arguments(9, 48, 80, 13, 6)
    residual = draw(9, 80, 13, 6, key=2)
    single = with_gradients(convolution, x, weight, bias, dy)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias, residual)]
    y = convolution(*leaves)
    assert torch.equal(y, single[0] + residual)
    *others, dbeside = torch.autograd.grad(y, leaves, dy)
    for a, b in zip(others, single[1:], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(dbeside, dy)
    assert torch.equal(residual, draw(9, 80, 13, 6, key=2))  # read, not written to
    with pytest.raises(ValueError, match="has the result's shape"):
        convolution(x, weight, bias, residual[:1])


def test_every_place_of_the_window_is_where_torch_has_it():
    x = draw(1, 16, 5, 6)
    for row in range(3):
        for column in range(3):
            weight = torch.zeros(16, 16, 3, 3)
            weight[range(16), range(16), row, column] = 1.0
            moved = F.pad(x, (1, 1, 1, 1))[:, :, row : row + 5, column : column + 6]
            close(convolution(x, weight, None), moved, 6e-6)


def test_other_strides_are_read_as_they_are():
    x, weight, bias, dy = arguments(4, 32, 16, 10, 9)
    wanted = with_gradients(convolution, x, weight, bias, dy)
    other = x.contiguous(memory_format=torch.channels_last)
    rotated = weight.contiguous(memory_format=torch.channels_last)
    apart = torch.stack([dy, dy], dim=4)[..., 0]
    for a, b in zip(with_gradients(convolution, other, rotated, bias, apart), wanted, strict=True):
        assert torch.equal(a, b)
    assert wanted[0].is_contiguous(memory_format=torch.channels_last)


def test_only_the_gradients_that_are_wanted_are_made():
    x, weight, bias, dy = arguments(3, 16, 16, 9, 9)
    _, dx, dweight, dbias = with_gradients(convolution, x, weight, bias, dy)
    leaf = x.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(convolution(leaf, weight, bias), leaf, dy)[0], dx)
    leaf = weight.clone().requires_grad_()
    assert torch.equal(torch.autograd.grad(convolution(x, leaf, None), leaf, dy)[0], dweight)
    leaves = [x.clone().requires_grad_(), bias.clone().requires_grad_()]
    got = torch.autograd.grad(convolution(leaves[0], weight, leaves[1]), leaves, dy)
    assert torch.equal(got[0], dx)
    torch.testing.assert_close(got[1], dbias, rtol=1e-4, atol=1e-4)
    assert not convolution(x, weight, bias).requires_grad


@pytest.mark.parametrize("shape", [(13, 16, 96, 13, 13), (7, 96, 32, 9, 9), (4, 64, 16, 7, 7)])
def test_what_an_image_becomes_depends_neither_on_threads_nor_on_the_others(shape):
    x, weight, bias, dy = arguments(*shape)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 5, 8):
        torch.set_num_threads(threads)
        found.append(with_gradients(convolution, x, weight, bias, dy))
        some = convolution(x[1:4], weight, bias)
        assert torch.equal(some, found[-1][0][1:4])
    torch.set_num_threads(before)
    for other in found[1:]:
        for a, b in zip(found[0][:2], other[:2], strict=True):
            assert torch.equal(a, b)
        for a, b in zip(found[0][2:], other[2:], strict=True):  # sums over images, in parts
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_a_number_that_is_none_stays_in_its_tiles_and_image():
    x, weight, bias, _ = arguments(2, 16, 16, 12, 12)
    x[0, 3, 5, 6] = torch.nan
    y = convolution(x, weight, bias)
    assert y[0, :, 4:7, 5:8].isnan().all()
    assert y[1].isfinite().all()
    assert y[0, :, 8:, :].isfinite().all()


def test_wrong_shapes_are_refused():
    for shape in [(16, 8, 3, 3), (16, 16, 5, 5), (16, 16, 3)]:
        with pytest.raises(ValueError, match=r"wants \(B, C, H, W\) and \(D, C, 3, 3\)"):
            convolution(torch.zeros(4, 16, 8, 8), torch.zeros(shape), None)


def test_it_is_used_where_it_is_faster(monkeypatch):
    x, weight = torch.zeros(8, 32, 8, 8), torch.zeros(32, 32, 3, 3)
    assert convolves(x, weight)
    assert convolves(torch.zeros(32, 32, 1, 1), weight)
    assert not convolves(x[:1], weight)  # a lone small image
    assert not convolves(torch.zeros(1, 32, 129, 128), weight)
    assert not convolves(x.bfloat16(), weight.bfloat16())
    assert not convolves(torch.zeros(8, 12, 8, 8), torch.zeros(32, 12, 3, 3))
    assert not convolves(x, torch.zeros(12, 32, 3, 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert not convolves(x, weight)
    monkeypatch.setattr(CALLS, "library", lambda: None)
    assert not convolves(x, weight)


def test_kernels_without_threads_leave_several_to_torch(tmp_path, monkeypatch):
    file = build.SOURCES[[f.stem for f in build.SOURCES].index("convolution")]
    made = tmp_path / "alone.so"
    command = [*compiler(), *build.OPTIONS, "-march=native", str(file), "-o", str(made)]
    subprocess.run(command, check=True)
    monkeypatch.setattr(OWN, "library", lambda: build.ctypes.CDLL(str(made)))
    x, weight = torch.zeros(8, 32, 8, 8), torch.zeros(32, 32, 3, 3)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert not convolves(x, weight)
    torch.set_num_threads(1)
    assert convolves(x, weight)
    torch.set_num_threads(before)


def test_a_block_computes_the_same_with_and_without(monkeypatch):
    block = ConvBlock(32, 64, 0, Block())
    torch.nn.init.normal_(block.conv2.weight, std=0.05)
    assert isinstance(block.conv1, Conv3x3)
    x, dy = draw(8, 32, 14, 14), draw(8, 64, 14, 14, key=1)

    def both():
        leaves = [x.clone().requires_grad_(), *block.parameters()]
        y = block(leaves[0], None)
        return y, *torch.autograd.grad(y, leaves, dy)

    fused = both()
    monkeypatch.setattr(CALLS, "library", lambda: None)
    for a, b in zip(fused, both(), strict=True):
        close(a, b, 1e-4)


STARVED = """
import resource, torch
from mezzotint.kernels import conv3x3

torch.set_num_threads(1)
x = torch.randn(2, 512, 28, 28).to(memory_format=torch.channels_last)
w, ends = torch.randn(512, 512, 3, 3), set()
conv3x3(x[:, :16], w[:16, :16], None)
for spare in range(0, 96, 4):  # transformed, the weights take 36 MiB
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + spare * 2**20, resource.RLIM_INFINITY))
    try:
        y = conv3x3(x, w, None)
        ends.add("enough")
    except MemoryError as error:
        ends.add(str(error))
    except RuntimeError:
        ends.add("torch finds none")
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if "enough" in ends:
        break
expected = torch.nn.functional.conv2d(x, w, padding=1)
assert (y - expected).norm() < 1e-5 * expected.norm()
print(sorted(ends))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
def test_where_memory_runs_out_python_hears_of_it():
    said = subprocess.run([sys.executable, "-c", STARVED], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "convolve finds no memory to work in" in said.stdout
    assert "enough" in said.stdout
