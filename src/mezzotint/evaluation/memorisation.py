"""Is a sample a copy? Its distance to the nearest real image, beside what is usual.

Distances are root mean square differences per pixel, in grey levels of 0 … 255: 0 is a copy.
"""

import torch
from torch import Tensor

__all__ = ["nearest"]

CHUNK = 1024


def nearest(images: Tensor, reference: Tensor, *, self_excluded: bool = False) -> Tensor:
    """Distance (N,) of each image uint8 (N, C, H, W) to the nearest of reference (M, C, H, W).

    With `self_excluded`, image i is not compared with reference i: distances within a set.
    """
    ours, theirs = images.flatten(1).double(), reference.flatten(1).double()
    best = torch.full((len(ours),), float("inf"), dtype=torch.float64)
    for start in range(0, len(theirs), CHUNK):
        part = theirs[start : start + CHUNK]
        # Exact, unlike the faster expansion |a|^2 - 2ab + |b|^2: a copy must give 0.
        apart = torch.cdist(ours, part, compute_mode="donot_use_mm_for_euclid_dist")
        if self_excluded:
            rows = torch.arange(start, min(start + len(part), len(ours)))
            apart[rows, rows - start] = float("inf")
        best = torch.minimum(best, apart.min(1).values)
    return (best / ours.shape[1] ** 0.5).float()
