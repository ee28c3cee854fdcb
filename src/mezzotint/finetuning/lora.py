"""Training few numbers: the change of each weight is a matrix of low rank.

    W = W0 + (alpha / r) B A,   W0 (out, in) stands still, B (out, r) and A (r, in) are trained

with B zero in the beginning, so that the network is what it was, and A normal (Hu et al. 2021,
arXiv 2106.09685, section 4.1). A convolution's kernel is the matrix (out, in x height x width).
A's entries have variance 1 / in, and alpha = sqrt(r in): so Adam's first step of rate lr moves an
entry of W by about lr, at any rank (Kalajdzievski 2023, arXiv 2312.03732, why sqrt(r)) and in any
layer, as it does where all weights are trained. Biases, gains and tables stand still.
"""

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from mezzotint.errors import InputError

__all__ = ["low_rank", "merged", "numbers"]


class _Change(nn.Module):
    """W0 -> W."""

    def __init__(self, weight: Tensor, rank: int, draws: Generator) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        self.scale = (columns / rank) ** 0.5  # alpha / r
        a = torch.randn(rank, columns, generator=draws) / columns**0.5
        self.a = nn.Parameter(a.to(weight))
        self.b = nn.Parameter(weight.new_zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in, ...) -> the same."""
        with torch.autocast(weight.device.type, enabled=False):  # as it will be merged
            change = self.scale * self.b @ self.a  # (out, in x ...)
        changed = weight + change.reshape(weight.shape)
        return torch.empty_like(weight).copy_(changed)  # laid out alike, so rounded alike


@contextmanager
def low_rank(network: nn.Module, rank: int, draws: Generator) -> Iterator[None]:
    """Within, only changes of this rank ask for a gradient; afterwards they are in the weights.

    Of convolutions and linear layers; a weight with fewer rows or columns has as many as the rank
    of its change. `draws` (on the CPU) decides A. InputError as `numbers`.
    """
    numbers(network, rank)
    still = [p for p in network.parameters() if p.requires_grad]
    for p in still:
        p.requires_grad_(False)
    layers = _layers(network).values()
    for layer in layers:
        change = _Change(layer.weight, rank, draws)
        parametrize.register_parametrization(layer, "weight", change)
    try:
        yield
    finally:
        for layer in layers:
            parametrize.remove_parametrizations(layer, "weight")
        for p in still:
            p.requires_grad_(True)


def merged(network: nn.Module) -> dict[str, Tensor]:
    """The weights as they are used, by the names they have outside of `low_rank`."""
    state = network.state_dict().items()
    plain = {name: value for name, value in state if ".parametrizations." not in name}
    used = {f"{name}.weight": m.weight.detach() for name, m in _layers(network).items()}
    return plain | used


def numbers(network: nn.Module, rank: int | None) -> int:
    """How many numbers are trained at a rank; None: with all weights.

    InputError for a rank below 1, or one that has no fewer numbers than the weights it changes.
    """
    if rank is None:
        return sum(p.numel() for p in network.parameters())
    if rank < 1:
        raise InputError(f"a rank is at least 1, got {rank}; without one all weights are trained")
    shapes = [layer.weight.flatten(1).shape for layer in _layers(network).values()]
    weights = sum(rows * columns for rows, columns in shapes)

    def trained(rank: int) -> int:
        return sum(min(rank, *shape) * sum(shape) for shape in shapes)

    if trained(rank) >= weights:
        most = bisect_left(range(rank), weights, key=trained) - 1
        raise InputError(
            f"rank {rank} has {trained(rank):,} numbers to train, and the weights themselves are "
            f"{weights:,}: give a rank of at most {most}, or none to train all weights"
        )
    return trained(rank)


def _layers(network: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """What is changed, by name."""
    return {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
