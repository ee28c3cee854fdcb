"""Fused passes for CPUs, in C++, built on the user's machine when they are first needed.

Where a U-Net's time goes on a CPU is not its convolutions, which oneDNN runs near the machine's
peak, but everything between them: torch's GroupNorm of channels_last bfloat16 takes ten times as
long as the memory it reads, and each pointwise step is a pass of its own. One function here does
normalisation, conditioning and activation in one pass, and their gradients in another.

Without a compiler, and on other devices, the same formulas run as torch operations.
"""

from mezzotint.kernels.build import compiler, library
from mezzotint.kernels.group_norm import fits, group_norm

__all__ = ["compiler", "fits", "group_norm", "library"]
