"""Time and memory as batch, width, data set, processes and number of samples grow.

    python benchmarks/scaling.py                     # all of it, about ten minutes on two cores
    python benchmarks/scaling.py --only images

Every point is a process of its own, so that its memory is its own; `processes` are two under
torchrun, a thread each, and the larger memory of the two. Peak memory is what the system
counted at most; of a data set that lies on the disk and is mapped into memory, pages that were
read count too, though they go as soon as somebody needs the room: what cannot go is `private`.
The images are noise, memory-mapped as mezzotint's own cache is.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mezzotint.benchmarking import fresh_model, noise_images
from mezzotint.config.presets import load_preset
from mezzotint.config.schema import Config
from mezzotint.config.tables import parse_config, with_deviation
from mezzotint.data import ImageSet
from mezzotint.kernels.precision import choose_compute
from mezzotint.runs.speed import training_steps, usual_time
from mezzotint.runtime.distributed import current_ranks, exit_process, init_distributed
from mezzotint.runtime.hardware import peak_memory
from mezzotint.sampling.model import SampleBatch

PRESET, SECONDS = "mnist", 10.0
POINTS = {
    "batch": (16, 64, 128, 256, 512),
    "width": (0.5, 1, 2),
    "images": (10_000, 60_000, 250_000, 1_000_000),
    "processes": (60_000, 1_000_000),
    "samples": (100, 1_000, 10_000),
}
HEADS = {
    "batch": "images in a step",
    "width": "times the preset's width",
    "images": "training images, mapped",
    "processes": "training images, mapped by two processes",
    "samples": "samples drawn",
}


def usual() -> tuple[Config, ImageSet]:
    """The preset, and noise in the shape of its images."""
    data = noise_images(PRESET)
    return parse_config(with_deviation(load_preset(PRESET), data.deviation), Config), data


def widened(config: Config, times: float) -> Config:
    levels = tuple(
        dataclasses.replace(level, width=int(level.width * times))
        for level in config.network.levels
    )
    network = dataclasses.replace(config.network, levels=levels)
    return config.model_copy(update={"network": network})


def mapped(data: ImageSet, images: int, folder: Path) -> ImageSet:
    """So many images like these, in a file of which the processes map one copy."""
    path, shape = folder / "images.npy", tuple(data.images.shape[1:])
    with current_ranks().rank0_first():
        if not path.exists():
            with path.open("wb") as file:  # not through a map: pages written would count, too
                header = {"descr": "|u1", "fortran_order": False, "shape": (images, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, images, len(data.images)):
                    file.write(data.images[: images - start].numpy().tobytes())
    return dataclasses.replace(
        data,
        images=torch.from_numpy(np.load(path, mmap_mode="c")),
        labels=torch.arange(images) % len(data.classes),
        splits={name: torch.arange(images) for name in data.splits},
    )


def train(folder: Path, batch: int = 0, width: float = 1, images: int = 0) -> float:
    """Images trained a second."""
    config, data = usual()
    config = widened(config, width)
    if batch:
        training = config.training.model_copy(update={"batch": batch})
        config = config.model_copy(update={"training": training})
    if images:
        data = mapped(data, images, folder)
    compute = choose_compute("auto")
    with compute.active():
        step, _ = usual_time(training_steps(config, data, compute), SECONDS)
    return config.training.batch / step


def sample(folder: Path, samples: int) -> float:
    """Images drawn a second."""
    config, data = usual()
    model = fresh_model(config, data, choose_compute("auto"))
    start = time.perf_counter()
    model.sample_batch(SampleBatch.of(torch.arange(samples) % len(model.classes)))
    return samples / (time.perf_counter() - start)


KINDS: dict[str, Callable[[Path, float], float]] = {
    "batch": lambda folder, n: train(folder, batch=int(n)),
    "width": lambda folder, times: train(folder, width=times),
    "images": lambda folder, n: train(folder, images=int(n)),
    "processes": lambda folder, n: train(folder, images=int(n)),
    "samples": lambda folder, n: sample(folder, int(n)),
}
LAUNCHERS = {"processes": ["-m", "torch.distributed.run", "--nproc-per-node", "2"]}


def private() -> float:
    """MiB of memory that is no file's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", choices=list(KINDS))
    parser.add_argument("--point", type=float, help=argparse.SUPPRESS)  # in the processes
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point is not None:
        with init_distributed() as ranks:
            speed = KINDS[arguments.only](arguments.folder, arguments.point)
            print(json.dumps([speed, peak_memory() / 2**20, private()]))
            if ranks.size > 1:
                exit_process(0)
        return
    for kind in [arguments.only] if arguments.only else KINDS:
        print(f"\n| {HEADS[kind]} | images/s | peak MiB | private MiB |\n" + "|---" * 4 + "|")
        for point in POINTS[kind]:
            with tempfile.TemporaryDirectory() as folder:
                asked = ["--only", kind, "--point", str(point), "--folder", folder]
                command = [sys.executable, *LAUNCHERS.get(kind, []), __file__, *asked]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            messages = (json.loads(line) for line in out.splitlines() if line.startswith("["))
            speed, peak, own = map(max, zip(*messages, strict=True))
            print(f"| {point:,} | {speed:.0f} | {peak:.0f} | {own:.0f} |", flush=True)


if __name__ == "__main__":
    main()
