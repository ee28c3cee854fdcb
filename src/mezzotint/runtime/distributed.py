"""Several processes that work as one, started by torchrun.

    torchrun --nproc-per-node 4 -m mezzotint train mnist --out runs/mnist

Every process is a rank of `Ranks`. All ranks decide alike from the same numbers, so nothing is
sent but sums: of gradients, of losses, of images drawn. What only one may do, rank 0 does
(`first`), and there is never a collective inside of that. Where a decision hangs on a clock, a
signal or a disk, rank 0's answer counts (`broadcast_from_rank0`), or anybody's (`any`).
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

from mezzotint.errors import PeerError

__all__ = [
    "SINGLE_PROCESS",
    "Ranks",
    "current_ranks",
    "is_peer_failure",
    "init_distributed",
    "exit_process",
]

TIMEOUT = datetime.timedelta(days=1)
"""How long a rank waits for one that lives but does not answer: it may be decoding a large set, or
training a classifier of it, for all. A dead one is noticed at once, by its broken connections."""


@dataclass(frozen=True)
class Ranks:
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

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
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
        self.all_reduce_([count])
        return bool(count.item() > 0)

    def broadcast_from_rank0(self, value: float) -> float:
        """Rank 0's value."""
        rank0 = torch.tensor([value if self.first else 0.0], dtype=torch.float64)
        self.all_reduce_([rank0])
        return float(rank0.item())

    def barrier(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def rank0_first(self) -> Iterator[None]:
        """Rank 0 goes first, the others when it is done: what it made, they find."""
        if not self.first:
            self.barrier()
        yield
        if self.first:
            self.barrier()


SINGLE_PROCESS = Ranks()


def current_ranks() -> Ranks:
    """Return the ranks that this process has joined; without torchrun, SINGLE_PROCESS."""
    if not (dist.is_available() and dist.is_initialized()):
        return SINGLE_PROCESS
    return Ranks(dist.get_rank(), dist.get_world_size())


@contextmanager
def init_distributed() -> Iterator[Ranks]:
    """Within the block, be one of the processes that torchrun started; alone without it.

    The process stays one of them until it ends: see `exit_process`.

    Raises:
        PeerError: Another process ended or does not answer, now or later in the block.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with _peer_failures_in_one_line():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=_store(),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=TIMEOUT,
        )
        yield current_ranks()


@contextmanager
def _peer_failures_in_one_line() -> Iterator[None]:
    """Raise torch's errors about another process as a PeerError."""
    try:
        yield
    except RuntimeError as error:
        if not is_peer_failure(error):
            raise
        raise PeerError(
            "another process of this job has ended or does not answer (torchrun says which); "
            "nothing saved before is lost, the same command goes on"
        ) from error


def exit_process(code: int) -> NoReturn:
    """End a process that has joined a process group, with all it printed.

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
    store = dist.TCPStore(host, port, is_master=leads, timeout=TIMEOUT)
    if not kept:  # new at every start; and nodes may count their restarts differently
        return store
    return dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def is_peer_failure(error: BaseException) -> bool:
    """Whether an exception says that another process is gone, or does not answer."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error)
