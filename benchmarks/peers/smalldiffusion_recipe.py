"""A peer with a trainer of its own: smalldiffusion's class-conditional Fashion-MNIST example.

Network      DiT, patches of 2 x 2, 6 blocks, 6 heads of 32, a tenth of the labels left out.
Training     smalldiffusion.training_loop: AdamW, 1e-3, sigma uniform over DDPM's 1,000 levels, eps
             predicted; weights averaged with decay 0.99; images mirrored at random. Batch 128
             where the example has 1,024: so few steps fit into minutes of a CPU.
Sampling     smalldiffusion.samples, 20 steps, gam 1.6, as in the example.

    python benchmarks/peers/smalldiffusion_recipe.py mnist --seconds 600 --out FILE.npz
    python benchmarks/time_to_quality.py evaluate FILE.npz

Trains for so many seconds, or to so many images (what a run learns does not depend on how fast it
goes), and draws. float32, all else as it comes.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mezzotint.data import load
from mezzotint.imaging import save_npz, to_float, to_uint8
from mezzotint.runtime.hardware import hardware
from networks import without_torchvision

without_torchvision()
from smalldiffusion import (  # noqa: E402 - it wants torchvision, which the line above stands in for
    CondEmbedderLabel,
    DiT,
    ScheduleDDPM,
    samples,
    training_loop,
)

BATCH, DRAW_BATCH, EVALUATIONS = 128, 250, 20


class Batches:
    """What training_loop asks of a loader: one epoch in random order an iteration."""

    def __init__(self, images: Tensor, labels: Tensor, mirror: bool) -> None:
        self.images, self.labels, self.mirror = images, labels, mirror

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for ref in torch.randperm(len(self.images)).split(BATCH):
            images = to_float(self.images[ref])
            flip = torch.rand(len(ref), 1, 1, 1) < (0.5 if self.mirror else 0.0)
            yield torch.where(flip, images.flip(3), images), self.labels[ref]


def main() -> None:
    """Train and draw."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source", help="mnist or fashion-mnist")
    until = parser.add_mutually_exclusive_group(required=True)
    until.add_argument("--seconds", type=float, default=float("inf"))
    until.add_argument("--images", type=float, default=float("inf"))
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="FILE.npz")
    asked = parser.parse_args()
    data = load(asked.source)
    torch.manual_seed(asked.seed)
    model = DiT(
        in_dim=data.height,
        channels=data.channels,
        patch_size=2,
        depth=6,
        head_dim=32,
        num_heads=6,
        mlp_ratio=4.0,
        cond_embed=CondEmbedderLabel(32 * 6, len(data.classes), 0.1),
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    schedule = ScheduleDDPM(beta_start=0.0001, beta_end=0.02, N=1000)
    loader = Batches(*data.split("train"), mirror=asked.source != "mnist")
    seen, start = 0, time.perf_counter()
    for step in training_loop(loader, model, schedule, lr=1e-3, conditional=True):
        average.update_parameters(model)  # yielded before the optimiser moves: one step late
        if seen >= asked.images or time.perf_counter() - start >= asked.seconds:
            break
        seen += len(step.x0)
    seconds = time.perf_counter() - start
    print(f"{seen:,} images in {seconds:.0f} s: {seen / seconds:.1f} images/s", flush=True)
    torch.manual_seed(asked.seed)
    labels = torch.arange(asked.samples) % len(data.classes)
    drawn, start = [], time.perf_counter()
    for part in labels.split(DRAW_BATCH):
        sigmas = schedule.sample_sigmas(EVALUATIONS)
        *_, x0 = samples(average.module, sigmas, gam=1.6, batchsize=len(part), cond=part)
        drawn.append(to_uint8(x0))
    drawing = time.perf_counter() - start
    training = {
        "source": asked.source,
        "images_seen": seen,
        "seconds": seconds,
        "seed": asked.seed,
    }
    meta = {
        "command": shlex.join(
            ["python", "benchmarks/peers/smalldiffusion_recipe.py", *sys.argv[1:]]
        ),
        "peer": "smalldiffusion",
        "version": version("smalldiffusion"),
        "weights": "ema",
        "sampler": "gradient estimation",
        "evaluations": EVALUATIONS,
        "seconds": drawing,
        "through_our_kernels": False,
        "training": training,
        **hardware(),
    }
    save_npz(asked.out, torch.cat(drawn), labels, meta)
    print(f"{asked.out}: {asked.samples / drawing:.2f} images/s", flush=True)


if __name__ == "__main__":
    main()
