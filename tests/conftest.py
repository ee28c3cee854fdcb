"""What must be settled before any test is imported."""

import os

import torch

# Triton reads this once, when torch's FLOP counter or anything else first imports it: without a
# card its kernels run in numpy.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
