"""A peer: the class-conditional recipe that somebody who uses diffusers follows.

Network      UNet2DModel (32, 64, 64), two layers a level, attention at the two lower levels,
             class embedding; all else as diffusers has it (32 groups, heads of 8 channels).
Training     x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps, t uniform in 0 ... 999, x0 in
             [-1, 1], cosine betas capped at 0.999 (Nichol and Dhariwal 2021, arXiv 2102.09672,
             eq. 17); the loss is |eps - network(x_t, t, class)|^2 (Ho et al. 2020, arXiv
             2006.11239, eq. 14). Adam, constant rate 1e-3, batch 128, no augmentation.
Sampling     DDIM without noise (Song et al. 2020, arXiv 2010.02502, eq. 12 with sigma_t = 0), 50
             evaluations, batch 250; the scheduler's defaults, which clip x0 to [-1, 1].
Variants     --as-it-comes: float32, no EMA. --best: bf16 autocast in training and sampling, and
             samples from diffusers' EMA with its warm-up for short runs, decay
             min(0.9999, 1 - (1 + step)^-0.75).
             Heads of 8 channels make the backward pass of bf16 attention slow on a CPU: --best
             may train fewer images a second than float32 does. See README.md.
Protocol     Trained on split("train") of the data that mezzotint loads, so with the same held-out
             images as mezzotint's own runs. The minutes are those of training alone: batches,
             steps and the EMA count; loading, saving and sampling do not. Nothing else may run
             meanwhile: cpu_seconds well below threads * seconds says that something did.

    python benchmarks/peers/diffusers_recipe.py train fashion-mnist --minutes 10 --best --out DIR
    python benchmarks/peers/diffusers_recipe.py draw DIR/10min

A snapshot is a folder DIR/10min: plain.safetensors, for --best also ema.safetensors, facts.json
(written last, so a folder that has it is whole) and, once drawn, samples.npz.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody uses
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from mezzotint.data import load
from mezzotint.errors import InputError
from mezzotint.imaging import save_npz, to_float, to_uint8

STEPS, BETAS = 1000, "squaredcos_cap_v2"
BATCH, DRAW_BATCH, EVALUATIONS = 128, 250, 50
RECENT = 100  # steps whose mean loss is told

Json = dict[str, Any]


def settings(channels: int, size: int, classes: int) -> Json:
    """Arguments of UNet2DModel, kept with the weights: their shapes do not tell the heads."""
    return {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": (32, 64, 64),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "num_class_embeds": classes,
        "norm_num_groups": 32,  # this and the next are diffusers' defaults
        "attention_head_dim": 8,
    }


def autocast(best: bool) -> torch.autocast:
    """bf16 for convolutions and products in the best variant; a no-op otherwise."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=best)


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless epochs in random order: float32 (B, C, H, W) in [-1, 1] and int64 (B,)."""
    while True:
        for pick in torch.randperm(len(images)).split(BATCH):
            yield to_float(images[pick]), labels[pick]


def train(
    source: str, minutes: float, snapshots: list[float], best: bool, out: Path, seed: int
) -> list[Path]:
    """Train for so many minutes; returns the snapshots' folders, the last at the end."""
    data = load(source)
    torch.manual_seed(seed)
    network = settings(data.channels, data.height, len(data.classes))
    model = UNet2DModel(**network)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = DDPMScheduler(num_train_timesteps=STEPS, beta_schedule=BETAS)
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, power=0.75)
    stops = [stop for stop in sorted(set(snapshots)) if 0 < stop < minutes] + [minutes]
    stream = batches(*data.split("train"))
    folders: list[Path] = []
    losses: list[float] = []
    seconds, cpu, seen = 0.0, 0.0, 0
    for stop in stops:
        while seconds < 60 * stop:
            start, cpu_start = time.perf_counter(), time.process_time()
            images, labels = next(stream)
            noise = torch.randn_like(images)
            t = torch.randint(STEPS, labels.shape)
            with autocast(best):
                predicted = model(scheduler.add_noise(images, noise, t), t, labels).sample
            loss = F.mse_loss(predicted.float(), noise)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if best:
                ema.step(model.parameters())
            losses = [*losses[1 - RECENT :], loss.item()]
            seconds += time.perf_counter() - start
            cpu += time.process_time() - cpu_start
            seen += len(images)
        facts: Json = {
            "source": source,
            "fingerprint": data.fingerprint,
            "network": network,
            "train_images": len(data.splits["train"]),
            "best": best,
            "seed": seed,
            "minutes": stop,
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "images_seen": seen,
            "loss": sum(losses) / len(losses),  # of the last RECENT steps
            "command": command(),
            **machine(),
        }
        weights = {"plain": model.state_dict()}
        if best:
            names = [name for name, _ in model.named_parameters()]
            weights["ema"] = dict(zip(names, ema.shadow_params, strict=True))
        folders.append(save(out / f"{stop:g}min", weights, facts))
        print(f"{folders[-1]}: {told(seen, seconds, cpu)}, loss {facts['loss']:.4f}", flush=True)
    return folders


def save(folder: Path, weights: dict[str, dict[str, Tensor]], facts: Json) -> Path:
    """Write a snapshot; returns its folder."""
    folder.mkdir(parents=True)
    for name, tensors in weights.items():
        save_file(tensors, folder / f"{name}.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))
    return folder


@torch.inference_mode()
def draw(snapshot: Path, samples: int, seed: int, out: Path) -> Path:
    """Draw samples, the classes in equal shares; writes an .npz and returns its path."""
    facts: Json = json.loads((snapshot / "facts.json").read_text())
    network = facts["network"]
    channels, size = network["in_channels"], network["sample_size"]
    weights = "ema" if facts["best"] else "plain"
    model = UNet2DModel(**network).eval()
    model.load_state_dict(load_file(snapshot / f"{weights}.safetensors"))
    scheduler = DDIMScheduler(num_train_timesteps=STEPS, beta_schedule=BETAS)
    scheduler.set_timesteps(EVALUATIONS)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % network["num_class_embeds"]
    parts: list[Tensor] = []
    start, cpu_start = time.perf_counter(), time.process_time()
    for part in labels.split(DRAW_BATCH):
        x = torch.randn(len(part), channels, size, size, generator=generator)
        with autocast(facts["best"]):
            for t in scheduler.timesteps:
                x = scheduler.step(model(x, t, part).sample.float(), t, x).prev_sample
        parts.append(to_uint8(x))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    how = {"weights": weights, "sampler": "ddim", "evaluations": EVALUATIONS, "seed": seed}
    pace = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    meta = {"command": command(), **how, **pace, **machine(), "training": facts}
    save_npz(out, torch.cat(parts), labels, meta)
    print(f"{out}: {told(samples, seconds, cpu)}", flush=True)
    return out


def told(images: int, seconds: float, cpu: float) -> str:
    """The pace in words."""
    pace = f"{images / seconds:.2f} images/s on {torch.get_num_threads()} threads"
    return f"{images:,} images in {seconds:.1f} s ({cpu:.1f} s of CPU), {pace}"


def command() -> str:
    """The line that was typed."""
    return shlex.join(["python", "benchmarks/peers/diffusers_recipe.py", *sys.argv[1:]])


def machine() -> Json:
    """Versions and hardware."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or "unknown"
    return {
        "hardware": f"{processor}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers")},
    }


def minutes_list(text: str) -> list[float]:
    """'2,5,10' -> [2.0, 5.0, 10.0]."""
    return [float(part) for part in text.split(",")]


def arguments() -> argparse.ArgumentParser:
    """The two commands."""
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--samples", type=int, default=10_000, help="how many; train: 0 draws none")
    both.add_argument("--seed", type=int, default=0)
    both.add_argument("--threads", type=int, default=2)
    parser = argparse.ArgumentParser(description="The recipe that a diffusers user follows.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("train", parents=[both], help="train, then draw from each snapshot")
    verb.add_argument("source", help="mnist, fashion-mnist, or what else mezzotint loads")
    verb.add_argument("--minutes", type=float, required=True, help="of training alone")
    verb.add_argument("--snapshots", type=minutes_list, default="2,5,10,30,60", help="minutes")
    variant = verb.add_mutually_exclusive_group()
    variant.add_argument("--as-it-comes", action="store_false", dest="best", help="the default")
    variant.add_argument("--best", action="store_true", help="bf16 autocast and EMA")
    verb.add_argument("--out", type=Path, required=True, help="a new folder")
    verb = verbs.add_parser("draw", parents=[both], help="draw labelled samples from a snapshot")
    verb.add_argument("snapshot", type=Path, help="a folder that train made")
    verb.add_argument("--out", type=Path, help="FILE.npz; else samples.npz in the snapshot")
    return parser


def main() -> None:
    """Run one command; what is already there is never overwritten."""
    parser = arguments()
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    out: Path = asked.out or asked.snapshot / "samples.npz"
    if asked.verb == "train" and not asked.minutes > 0:
        parser.error(f"--minutes {asked.minutes:g}: give more than 0")
    if asked.samples < (asked.verb == "draw"):
        parser.error(f"--samples {asked.samples}: give 1 or more (train: 0 draws none)")
    if out.exists():
        parser.error(f"--out {out} is already there: choose another name")
    if asked.verb == "draw" and not (asked.snapshot / "facts.json").exists():
        parser.error(f"{asked.snapshot} is no snapshot: give a folder that train made")
    try:
        if asked.verb == "draw":
            draw(asked.snapshot, asked.samples, asked.seed, out)
            return
        run = (asked.source, asked.minutes, asked.snapshots, asked.best, out, asked.seed)
        for folder in train(*run):
            if asked.samples:
                draw(folder, asked.samples, asked.seed, folder / "samples.npz")
    except InputError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
