"""Fused passes, in C++ for CPUs, built on the user's machine when they are first needed.

Much of a U-Net's time on a CPU goes between its convolutions: torch's GroupNorm of channels_last
bfloat16 takes ten times as long as the memory it reads, and each pointwise step is a pass of its
own. One function here does normalisation, conditioning and activation in one pass, and their
gradients in another; a second one does attention, whose table of weights never leaves the cache:
for heads of 8 channels, which make poor matrix products, in less than half of torch's time. What
is left are convolutions, which oneDNN runs near the machine's peak; the third function does those
of float32 with a quarter of the multiplications, in half of the time.

The first has a twin for CUDA, in Triton, which comes with torch there. A convolution's bias, which
torch adds and sums slowly where channels lie side by side, has a kernel there alone. Without a
compiler, and on other devices, the same formulas run as torch operations.
"""

from mezzotint.kernels.attention import attention
from mezzotint.kernels.bias import biased
from mezzotint.kernels.build import compiler, library
from mezzotint.kernels.calls import fits, normalises
from mezzotint.kernels.convolution import conv3x3, convolution, convolves
from mezzotint.kernels.group_norm import group_norm

__all__ = [
    "attention",
    "biased",
    "compiler",
    "conv3x3",
    "convolution",
    "convolves",
    "fits",
    "group_norm",
    "library",
    "normalises",
]
