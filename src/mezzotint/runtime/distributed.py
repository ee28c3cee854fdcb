"""Several processes that work as one, started by torchrun.

    torchrun --nproc-per-node 4 -m mezzotint train mnist --out runs/mnist

Every process is a rank of a `World`. All ranks decide alike from the same numbers, so nothing is
sent but sums: of gradients, of losses, of images drawn. What only one may do, rank 0 does
(`first`), and there is never a collective inside of that. Where a decision hangs on a clock, a
signal or a disk, rank 0's answer counts (`same`), or anybody's (`any`).
"""

import datetime
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["ALONE", "World", "current", "is_loss", "joined", "leave"]

PATIENCE = datetime.timedelta(days=1)
"""How long a rank waits for one that lives but does not answer: it may be decoding a large set, or
training a classifier of it, for all. A dead one is noticed at once, by its broken connections."""


@dataclass(frozen=True)
class World:
    """Which of how many processes this is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes and speaks for all."""
        return self.rank == 0

    def share(self, n: int) -> slice:
        """The part of n things that is this rank's: neighbours, as even as can be."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one dtype and device by their sums over all ranks.

        The sums have the same bits on every rank.
        """
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def any(self, flag: bool) -> bool:
        """Whether it is so on some rank."""
        count = torch.tensor([float(flag)])
        self.add([count])
        return bool(count.item() > 0)

    def same(self, value: float) -> float:
        """Rank 0's value."""
        told = torch.tensor([value if self.first else 0.0], dtype=torch.float64)
        self.add([told])
        return float(told.item())

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Rank 0 goes first, the others when it is done: what it made, they find."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = World()


def current() -> World:
    """The world that this process has joined; alone without."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined() -> Iterator[World]:
    """Within the block, be one of the processes that torchrun started; alone without it.

    The process stays one of them until it ends: see `leave`.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=_store(),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=PATIENCE,
    )
    yield current()


def leave(code: int) -> NoReturn:
    """End a process that has joined a world, with all it printed.

    At once, without taking the group apart: gloo's threads may still hold the last sum, and then
    destroy_process_group aborts a process that has done all it should.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _store() -> dist.Store:
    """Where the ranks find each other; what torchrun keeps from start to start, apart for each.

    Without that they read where the ranks of the last start were, and call dead processes.
    """
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    leads = not kept and os.environ["RANK"] == "0"
    store = dist.TCPStore(host, port, is_master=leads, timeout=PATIENCE)
    if not kept:  # new at every start; and nodes may count their restarts differently
        return store
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def is_loss(error: BaseException) -> bool:
    """Whether an exception says that another process is gone, or does not answer."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)
