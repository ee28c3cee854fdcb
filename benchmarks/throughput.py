"""One training step and one network evaluation, ours beside other libraries', at equal FLOPs.

    python benchmarks/throughput.py                       # 28x28x1, about 2 GFLOP an image
    python benchmarks/throughput.py --size 32 --channels 3 --gflop 9
    python benchmarks/throughput.py --size 32 --channels 3 --gflop 61 --batch 256 --device cuda

Every contestant's network is widened until a training step takes about the asked FLOPs an image,
forward and backward, counted by torch's FlopCounterMode; what it came to is printed. Then all
take turns, round after round, and the medians are compared as FLOP rates: what is left of a
difference in size cancels. The share is that of the matrix peak, measured in the same round.

The step is zero_grad, forward, mean squared error, backward, Adam(W); the data is random.
"""

import argparse
import contextlib
import dataclasses
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch.utils.flop_counter import FlopCounterMode

from mezzotint.benchmarking import PRODUCT
from mezzotint.kernels.precision import choose_compute, native_bf16
from mezzotint.runtime.cuda_graphs import CudaGraphs
from peers.networks import NETWORKS, Network
from peers.same_layers import through_our_kernels

Work = Callable[[], object]
Make = Callable[[int, int, int], Network]


@dataclass(frozen=True)
class Contestant:
    """A network with one way to run it."""

    name: str
    network: str
    """Whose, in `NETWORKS`."""

    prepare: Callable[[Network], Network] = lambda network: network
    bf16: bool | None = False
    """None: where mezzotint chooses it on this machine; and its steps are CUDA graphs on CUDA."""

    on: str | None = None
    """The only device that it runs on, or pays on; None: any."""


def contestants(device: str) -> tuple[Contestant, ...]:
    return tuple(c for c in CONTESTANTS if c.on in (None, device))


def channels_last(network: Network) -> Network:
    return network.to(memory_format=torch.channels_last)


def compiled(network: Network) -> Network:
    network.compile(dynamic=False)
    return network


CONTESTANTS = (
    Contestant("diffusers, as it comes", "diffusers"),
    Contestant("diffusers, bf16 autocast", "diffusers", bf16=True),
    Contestant("diffusers, bf16, channels_last", "diffusers", channels_last, bf16=True),
    Contestant("diffusers, torch.compile", "diffusers", compiled, on="cpu"),
    Contestant("diffusers, bf16, torch.compile", "diffusers", compiled, bf16=True),
    Contestant("the same layers, our kernels", "diffusers", through_our_kernels, None, on="cpu"),
    Contestant("azula, bf16 autocast", "azula", bf16=True),
    Contestant("smalldiffusion, bf16 autocast", "smalldiffusion", bf16=True, on="cpu"),
    Contestant("mezzotint, the preset's shape", "mezzotint", bf16=None),
    Contestant("mezzotint, 2x2 patches", "mezzotint-patch", bf16=None, on="cpu"),
    Contestant("mezzotint, the large preset's shape", "mezzotint-large", bf16=None, on="cuda"),
)


def flops(make: Make, units: int, at: tuple[int, int]) -> tuple[float, float]:
    """GFLOP an image, of a training step and of an evaluation.

    Counted without computing; on a CPU, torch would not see those of its attention.
    """
    with torch.device("meta"):
        network = make(units, *at)
        x, sigma, label = batch(2, *at)  # two: some networks squeeze a batch of one
        with FlopCounterMode(display=False) as counter:
            y = network(x, sigma, label)
            forward = counter.get_total_flops()
            y.sum().backward()
    return counter.get_total_flops() / 2e9, forward / 2e9


def batch(n: int, size: int, channels: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(n, channels, size, size).contiguous(memory_format=torch.channels_last)
    return x, torch.rand(n) + 0.1, torch.randint(0, 10, (n,))


def widened(make: Make, gflop: float, at: tuple[int, int]) -> tuple[Network, tuple[float, float]]:
    """The network of the width whose training step is nearest to so many GFLOP an image.

    And its GFLOP.
    """
    sizes: dict[int, tuple[float, float]] = {}
    for units in range(1, 33):  # each network says what a unit of width is
        sizes[units] = flops(make, units, at)
        if sizes[units][0] > gflop:
            break
    best = min(sizes, key=lambda units: abs(sizes[units][0] - gflop))
    return make(best, *at), sizes[best]


def step(
    network: Network, arguments: tuple[torch.Tensor, ...], bf16: bool, graphs: CudaGraphs
) -> Work:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True, capturable=graphs.active)
    target, device = torch.randn_like(arguments[0]), arguments[0].device.type

    def gradients() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = (network(*arguments) - target).square().mean()
        loss.backward()

    def run() -> None:
        graphs("gradients", gradients)
        graphs("optimizer", optimizer.step)

    return run


def evaluation(network: Network, arguments: tuple[torch.Tensor, ...], bf16: bool) -> Work:
    device = arguments[0].device.type

    def run() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            network(*arguments)

    return run


def seconds(work: Work, least: float = 0.4) -> float:
    """Of one call: the mean over at least so many seconds."""
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < least:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        count += 1
    return spent / count


def matrix_peak(device: str) -> tuple[float, str]:
    """TFLOP/s of a product of two square matrices, in float32 or bf16: the faster, and which."""
    side = PRODUCT.get(device, 2048)
    a = torch.randn(side, side, device=device)
    kinds = {"float32": a} | ({"bf16": a.bfloat16()} if native_bf16(device) else {})
    return max((2 * side**3 / 1e12 / seconds(lambda m=m: m @ m), k) for k, m in kinds.items())


def compete(name: str, arguments: argparse.Namespace, turns: Connection) -> None:
    """A contestant's process: says its GFLOP, then, whenever asked, images a second.

    Or the package that is missing, and no more.

    Each has one of its own, since ours tells the C library how to keep memory.
    """
    contestant = next(c for c in contestants(arguments.device) if c.name == name)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    at = (arguments.size, arguments.channels)
    data = batch(arguments.batch, *at)
    try:
        network, size = widened(NETWORKS[contestant.network], arguments.gflop, at)
    except ModuleNotFoundError as missing:
        turns.send(str(missing.name))
        return
    network, data = network.to(arguments.device), [part.to(arguments.device) for part in data]
    network = contestant.prepare(network)
    bf16, active, graphs = contestant.bf16, contextlib.nullcontext(), CudaGraphs(active=False)
    if bf16 is None:
        compute = dataclasses.replace(choose_compute(arguments.device), threads=arguments.threads)
        compute.place(network)
        bf16, active = compute.precision == "bfloat16", compute.active()
        graphs = CudaGraphs(compute.cuda_graphs)
    with active:
        works = step(network, data, bf16, graphs), evaluation(network, data, bf16)
        for work in works:
            for _ in range(CudaGraphs.STEADY):  # warm-up; compiles what is to be compiled
                work()
        turns.send(size)
        while turns.recv():
            turns.send([arguments.batch / seconds(work) for work in works])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--size", type=int, default=28, help="pixels along a side")
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--gflop", type=float, default=2.0, help="of a training step, an image")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--only", default="", help="contestants whose name this regular expression finds"
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    apart = multiprocessing.get_context("spawn")
    turns: dict[str, Connection] = {}
    for contestant in contestants(arguments.device):
        name = contestant.name
        if not re.search(arguments.only, name):
            continue
        turns[name], theirs = apart.Pipe()
        apart.Process(target=compete, args=(name, arguments, theirs), daemon=True).start()
        theirs.close()  # so that the end of the process is seen here
    said = {name: turn.recv() for name, turn in turns.items()}  # all are ready
    sizes = {name: size for name, size in said.items() if not isinstance(size, str)}
    for name in said.keys() - sizes.keys():
        print(f"left out: {name}, since {said[name]} is not installed (benchmarks/README.md)")
        turns.pop(name)
    speeds: dict[str, list[list[float]]] = {name: [] for name in turns}
    peaks = []
    for _ in range(arguments.rounds):
        peaks.append(matrix_peak(arguments.device))
        for name, turn in turns.items():
            turn.send(True)
            speeds[name].append(turn.recv())
    for turn in turns.values():
        turn.send(False)
    peak, kind = statistics.median_low(peaks)
    on_cuda = arguments.device == "cuda"
    place = torch.cuda.get_device_name() if on_cuda else f"{arguments.threads} threads"
    print(
        f"\n{arguments.size}^2 x {arguments.channels}, batch {arguments.batch}, {place}, "
        f"torch {torch.__version__}, {arguments.rounds} rounds; {kind} product "
        f"{peak:.2f} TFLOP/s\n"
    )
    heads = ["", "GFLOP", "trained/s", "TFLOP/s", "share", "x", "evaluated/s", "TFLOP/s", "x"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    first: list[float] = []
    for name, size in sizes.items():
        speed = [statistics.median(turn) for turn in zip(*speeds[name], strict=True)]
        rate = [s * g / 1e3 for s, g in zip(speed, size, strict=True)]
        first = first or rate
        cells = [name, f"{size[0]:.2f}", f"{speed[0]:.0f}", f"{rate[0]:.3f}"]
        cells += [f"{rate[0] / peak:.0%}", f"{rate[0] / first[0]:.2f}"]
        cells += [f"{speed[1]:.0f}", f"{rate[1]:.3f}", f"{rate[1] / first[1]:.2f}"]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
