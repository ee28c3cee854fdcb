"""Several processes that train and draw as one, against the one."""

import contextlib
import datetime
import functools
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from mezzotint.data import Augment
from mezzotint.diffusion import Learned, LogNormal
from mezzotint.imaging import to_float
from mezzotint.runtime.device import Compute
from mezzotint.runtime.distributed import SINGLE_PROCESS, Ranks, current_ranks, exit_process
from mezzotint.training import Stepped, batches, train
from mezzotint.training.checkpoint import read, write
from tiny import make_data, make_plan, make_state

PLANS = {
    "plain": {},
    "guided": {"max_model_guidance": 1.5, "model_guidance_start": 0.4},
    "learned": {"schedule": Learned(LogNormal(), pieces=4)},
    "long": {"learning_rate": 2e-3},  # at 1e-2, rounding grows a millionfold in 200 steps
}


def in_float64(images):
    return to_float(images).double()


def trained(out, images, which, wrong=False):
    """Train the small network in float64 and keep its weights and losses, as the first rank."""
    data = make_data()
    object.__setattr__(data, "augment", Augment(flip=True, shift=1))
    state, plan = make_state(), make_plan(images=images, **PLANS[which])
    state.denoiser.double()
    state.ema.double()
    compute = Compute("cpu", "float32", 1)
    with contextlib.ExitStack() as stack:
        # Else a difference of 1e-16 may become one of 1e-7.
        stack.enter_context(mock.patch.object(batches, "to_float", in_float64))
        if wrong:  # all take the first rank's share
            same = mock.patch.object(Ranks, "share", lambda self, n: slice(0, n // self.size))
            stack.enter_context(same)
        losses = [r.loss for r in train(state, data, plan, compute) if isinstance(r, Stepped)]
    if compute.ranks.first:
        write(out, state.tensors(), {"losses": losses, "held": state.history})
    return state


def rank_of(rank, size, place, work):
    torch.set_num_threads(1)
    patience = datetime.timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/store", rank=rank, world_size=size, timeout=patience
    )
    work()
    exit_process(0)


def several(size, place, work):
    """Run `work` in so many processes that know of each other."""
    place.mkdir()
    start_processes(rank_of, (size, place, work), size, start_method="spawn")


def difference(ours, theirs):
    a, b = read(ours), read(theirs)
    assert a.tensors.keys() == b.tensors.keys()
    return max(float((a.tensors[k] - b.tensors[k]).abs().max()) for k in a.tensors)


@pytest.mark.parametrize(
    "which", [pytest.param(w, marks=[] if w == "plain" else pytest.mark.slow) for w in PLANS]
)
def test_two_processes_train_what_one_does(tmp_path, which):
    trained(tmp_path / "one", 160, which)
    several(2, tmp_path / "two", functools.partial(trained, tmp_path / "two/w", 160, which))
    assert difference(tmp_path / "one", tmp_path / "two/w") < 1e-9
    one, two = (read(tmp_path / name).facts for name in ("one", "two/w"))
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    assert two["held"] == pytest.approx(one["held"], rel=1e-6)


@pytest.mark.slow
def test_a_wrong_share_shows(tmp_path):
    trained(tmp_path / "one", 80, "plain")
    work = functools.partial(trained, tmp_path / "two/w", 80, "plain", True)
    several(2, tmp_path / "two", work)
    assert difference(tmp_path / "one", tmp_path / "two/w") > 1e-4


@pytest.mark.slow
def test_four_processes_train_what_one_does_for_two_hundred_steps(tmp_path):
    trained(tmp_path / "one", 1600, "long")
    several(4, tmp_path / "four", functools.partial(trained, tmp_path / "four/w", 1600, "long"))
    assert difference(tmp_path / "one", tmp_path / "four/w") < 1e-9


@pytest.mark.parametrize("n", [1, 7, 8, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_all_of_it_and_even(n, size):
    parts = [range(n)[Ranks(rank, size).share(n)] for rank in range(size)]
    assert [i for part in parts for i in part] == list(range(n))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_alone_nothing_is_sent():
    tensors = [torch.ones(2), torch.zeros(3)]
    SINGLE_PROCESS.all_reduce_(tensors)
    assert [t.tolist() for t in tensors] == [[1, 1], [0, 0, 0]]
    assert SINGLE_PROCESS.any(True)
    assert not SINGLE_PROCESS.any(False)
    assert SINGLE_PROCESS.broadcast_from_rank0(0.1) == 0.1
    assert SINGLE_PROCESS.first
    assert current_ranks() == SINGLE_PROCESS


def summed(place):
    ranks_ = current_ranks()
    values = [torch.full((2, 2), 1.0 + ranks_.rank), torch.tensor([10.0 * ranks_.rank])]
    ranks_.all_reduce_(values)
    images = torch.zeros(3, dtype=torch.uint8)
    images[ranks_.rank] = 200 + ranks_.rank
    ranks_.all_reduce_([images])
    first = []
    with ranks_.rank0_first():
        first.append((place / "made").exists())
        (place / "made").touch()
    facts = {
        "sums": [v.flatten().tolist() for v in values],
        "images": images.tolist(),
        "any": [ranks_.any(ranks_.rank == 1), ranks_.any(False)],
        "same": ranks_.broadcast_from_rank0(0.1 + ranks_.rank),
        "found": first[0],
    }
    write(place / f"rank{ranks_.rank}", {"x": torch.zeros(1)}, facts)


def test_sums_answers_and_turns_are_those_of_all(tmp_path):
    place = tmp_path / "two"
    several(2, place, functools.partial(summed, place))
    for rank in range(2):
        facts = read(place / f"rank{rank}").facts
        assert facts["sums"] == [[3.0] * 4, [10.0]]
        assert facts["images"] == [200, 201, 0]
        assert facts["any"] == [True, False]
        assert facts["same"] == 0.1
        assert facts["found"] == (rank == 1)
