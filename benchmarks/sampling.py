"""Quality against evaluations of the network, for every sampler, on one trained run.

    python benchmarks/sampling.py runs/fashion-mnist --n 2000

Each cell is the Frechet distance of n samples (classifier features, test split) less the floor of
n real images; all cells start from the same noise. The schedule is the run's own, guidance and
interval too unless given. The last column is the speed of the row's last cell.
"""

import argparse
import time
from pathlib import Path

import torch

from mezzotint.config.registry import SAMPLERS
from mezzotint.runs.run import Run
from mezzotint.sampling.model import SampleBatch
from quality import Metric

COUNTS = (4, 6, 8, 10, 12, 20, 50, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--n", type=int, default=2000, help="samples a cell")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--evaluations", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--interval", type=float, nargs=2)
    parser.add_argument("--seeds", type=int, default=1, help="cells are means; spread beside")
    arguments = parser.parse_args()
    run = Run.at(arguments.run)
    model, _ = run.model()
    metric = Metric.of(run.config.origin.source, arguments.n)
    labels = torch.arange(arguments.n) % len(model.classes)
    guided = {"guidance": arguments.guidance, "interval": arguments.interval}
    model = model.changed(**{k: value for k, value in guided.items() if value is not None})
    threads = model.compute.threads
    print(f"{run.path}, n = {arguments.n}, floor {metric.floor:.3f}, {threads} threads\n")
    counts = "".join(f" {count} |" for count in arguments.evaluations)
    print(f"| sampler |{counts} images/s |")
    print("|---" * (len(arguments.evaluations) + 2) + "|")
    for sampler in arguments.samplers:
        print(f"| {sampler} |", end="", flush=True)
        for count in arguments.evaluations:
            changed = model.changed(sampler=sampler, evaluations=count)
            found, seconds = [], 0.0
            for seed in range(arguments.seeds):
                start = time.perf_counter()
                images = changed.sample_batch(SampleBatch.of(labels, seed))
                seconds += time.perf_counter() - start
                found.append(metric.measure(images, labels).above)
            cell = f"{sum(found) / len(found):.3f}"
            if len(found) > 1:
                cell += f" ({min(found):.3f} to {max(found):.3f})"
            print(f" {cell} |", end="", flush=True)
        print(f" {arguments.n * arguments.seeds / seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
