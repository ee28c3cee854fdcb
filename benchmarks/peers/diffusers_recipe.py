"""A peer: the class-conditional recipe that somebody who uses diffusers follows.

Network      UNet2DModel (32, 64, 64), two layers a level, attention at the two lower levels,
             class embedding; all else as diffusers has it (32 groups, heads of 8 channels).
Training     x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps, t uniform in 0 ... 999, x0 in
             [-1, 1], cosine betas capped at 0.999 (Nichol and Dhariwal 2021, arXiv 2102.09672,
             eq. 17); the loss is |eps - network(x_t, t, class)|^2 (Ho et al. 2020, arXiv
             2006.11239, eq. 14). Adam, constant rate 1e-3, batch 128, no augmentation.
Sampling     DDIM without noise (Song et al. 2020, arXiv 2010.02502, eq. 12 with sigma_t = 0), 50
             evaluations, batch 250; the scheduler's defaults, which clip x0 to [-1, 1]. Or DDPM
             (Ho et al. 2020, algorithm 2) with all 1000, likewise.
Variants     As it comes: float32, the plain weights. At its best: bf16 autocast, torch.compile and
             diffusers' EMA with its warm-up for short runs, decay
             min(0.9999, 1 - (1 + step)^-0.75).
Protocol     `speed` measures how many images a second each variant trains, nothing else running;
             times the minutes, that is what each sees. `train` keeps plain and EMA weights at
             such numbers of images, on split("train") of the data that mezzotint loads, so with
             the same held-out images as mezzotint's own runs. What a run learns does not depend
             on how fast it goes: --through-our-kernels has the answer two to three times sooner,
             from the same layers, equal but for rounding (same_layers.py), --device cuda in
             minutes, both in bf16 where there are units for it; facts.json says so.

    python benchmarks/peers/diffusers_recipe.py speed fashion-mnist
    python benchmarks/peers/diffusers_recipe.py train fashion-mnist --images 25000 32000 --out DIR
    python benchmarks/peers/diffusers_recipe.py draw DIR/32000 --weights ema

A snapshot is a folder DIR/32000: plain.safetensors, ema.safetensors, facts.json (written last, so
a folder that has it is whole) and, once drawn, ddim-ema.npz.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from same_layers import replace_forwards
from torch import Tensor, nn

from mezzotint.data import ImageSet, load
from mezzotint.errors import MezzotintError
from mezzotint.imaging import save_npz, to_float, to_uint8
from mezzotint.kernels.precision import bf16_pays
from mezzotint.runtime.hardware import hardware

STEPS, BETAS = 1000, "squaredcos_cap_v2"
BATCH, DRAW_BATCH = 128, 250
SAMPLERS = {"ddim": (DDIMScheduler, 50), "ddpm": (DDPMScheduler, STEPS)}
"""With its number of evaluations."""

RECENT = 100  # steps whose mean loss is shown
ROUNDS, STEPS_A_ROUND = 3, 4  # of `speed`

VARIANTS = {"as it comes": (False, False), "bf16": (True, False), "bf16, compiled": (True, True)}
"""Autocast to bf16, torch.compile."""

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


def batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless epochs in random order: float32 (B, C, H, W) in [-1, 1] and int64 (B,)."""
    while True:
        for ref in torch.randperm(len(images)).split(BATCH):
            yield to_float(images[ref]), labels[ref]


def steps(
    data: ImageSet, model: nn.Module, bf16: bool, ema: EMAModel | None = None, device: str = "cpu"
) -> Iterator[tuple[int, float]]:
    """Training steps without end: the number of images, and the loss."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = DDPMScheduler(num_train_timesteps=STEPS, beta_schedule=BETAS)
    for images, labels in batches(*data.split("train")):
        images, labels = images.to(device), labels.to(device)
        noise = torch.randn_like(images)
        t = torch.randint(STEPS, labels.shape, device=device)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            predicted = model(scheduler.add_noise(images, noise, t), t, labels).sample
        loss = F.mse_loss(predicted.float(), noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if ema:
            ema.step(model.parameters())
        yield len(images), loss.item()


def speed(source: str) -> None:
    """Print the images that each variant trains a second, in turn, the median of the rounds."""
    data = load(source)
    running: dict[str, Iterator[tuple[int, float]]] = {}
    for name, (bf16, compiled) in VARIANTS.items():
        model = UNet2DModel(**settings(data.channels, data.height, len(data.classes)))
        if compiled:
            model.compile()
        ema = None if name == "as it comes" else averages(model)
        running[name] = steps(data, model, bf16, ema)
        for _ in range(3):  # warm-up; compiles
            next(running[name])
    pace: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(ROUNDS):
        for name, process in running.items():
            start = time.perf_counter()
            images = sum(next(process)[0] for _ in range(STEPS_A_ROUND))
            pace[name].append(images / (time.perf_counter() - start))
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {ROUNDS} rounds")
    for name, rates in pace.items():
        print(f"{name}: {statistics.median(rates):.1f} images/s trained")


def averages(model: nn.Module) -> EMAModel:
    """diffusers' EMA, as its examples set it for short runs."""
    return EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, power=0.75)


def train(asked: argparse.Namespace) -> None:
    """Train to each of the numbers of images and keep a snapshot there."""
    data = load(asked.source)
    torch.manual_seed(asked.seed)
    network = settings(data.channels, data.height, len(data.classes))
    model = UNet2DModel(**network).to(asked.device)
    if asked.ours:
        replace_forwards(model)
    ema = averages(model)
    process = steps(data, model, in_bf16(asked), ema, asked.device)
    seen, losses = 0, [0.0]
    start = time.perf_counter()
    for stop in sorted(asked.images):
        while seen < stop:
            images, loss = next(process)
            seen += images
            losses = [*losses[1 - RECENT :], loss]
        facts: Json = {
            "source": asked.source,
            "fingerprint": data.fingerprint,
            "network": network,
            "train_images": len(data.splits["train"]),
            "seed": asked.seed,
            "through_our_kernels": asked.ours,
            "device": asked.device,
            "seconds": round(time.perf_counter() - start, 2),
            "images_seen": seen,
            "loss": sum(losses) / len(losses),  # of the last RECENT steps
            "command": command(),
            **machine(),
        }
        names = [name for name, _ in model.named_parameters()]
        averaged = dict(zip(names, ema.shadow_params, strict=True))
        folder = save(asked.out / str(stop), {"plain": model.state_dict(), "ema": averaged}, facts)
        print(f"{folder}: {facts['seconds']:.0f} s, loss {facts['loss']:.4f}", flush=True)


def in_bf16(asked: argparse.Namespace) -> bool:
    """Whether a variant that only has to be right is computed in bf16: where that is faster."""
    return (asked.ours or asked.device != "cpu") and bf16_pays(asked.device)


def save(folder: Path, weights: dict[str, dict[str, Tensor]], facts: Json) -> Path:
    """Write a snapshot; returns its folder."""
    folder.mkdir(parents=True)
    for name, tensors in weights.items():
        packed = {key: value.contiguous() for key, value in tensors.items()}  # not channels_last
        save_file(packed, folder / f"{name}.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts, indent=1))
    return folder


@torch.inference_mode()
def draw(asked: argparse.Namespace) -> None:
    """Draw samples, the classes in equal shares, into an .npz."""
    facts: Json = json.loads((asked.snapshot / "facts.json").read_text())
    network = facts["network"]
    channels, size = network["in_channels"], network["sample_size"]
    model = UNet2DModel(**network).eval().to(asked.device)
    model.load_state_dict(load_file(asked.snapshot / f"{asked.weights}.safetensors"))
    if asked.ours:
        replace_forwards(model)
    kind, evaluations = SAMPLERS[asked.sampler]
    scheduler = kind(num_train_timesteps=STEPS, beta_schedule=BETAS)
    scheduler.set_timesteps(evaluations)
    generator = torch.Generator().manual_seed(asked.seed)
    labels = torch.arange(asked.samples) % network["num_class_embeds"]
    bf16 = in_bf16(asked)
    batches: list[Tensor] = []
    start = time.perf_counter()
    for part in labels.to(asked.device).split(DRAW_BATCH):
        x = torch.randn(len(part), channels, size, size, generator=generator).to(asked.device)
        with torch.autocast(asked.device, torch.bfloat16, enabled=bf16):
            for t in scheduler.timesteps:
                eps = model(x, t, part).sample.float()
                x = scheduler.step(eps, t, x, generator=generator).prev_sample
        batches.append(to_uint8(x).cpu())
    seconds = round(time.perf_counter() - start, 2)
    how = {"weights": asked.weights, "sampler": asked.sampler, "evaluations": evaluations}
    how |= {"seed": asked.seed, "device": asked.device, "seconds": seconds}
    how |= {"through_our_kernels": asked.ours}
    meta = {"command": command(), **how, **machine(), "training": facts}
    save_npz(asked.out, torch.cat(batches), labels, meta)
    print(f"{asked.out}: {asked.samples / seconds:.2f} images/s", flush=True)


def command() -> str:
    """The line that was typed."""
    return shlex.join(["python", "benchmarks/peers/diffusers_recipe.py", *sys.argv[1:]])


def machine() -> Json:
    """Versions and hardware."""
    return {**hardware(), "peer": "diffusers", "version": version("diffusers")}


def arguments() -> argparse.ArgumentParser:
    """The three commands."""
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument("--seed", type=int, default=0)
    both.add_argument("--through-our-kernels", action="store_true", dest="ours")
    both.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser = argparse.ArgumentParser(description="The recipe that a diffusers user follows.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("speed", help="images trained a second, as it comes and at its best")
    verb.add_argument("source", help="mnist, fashion-mnist, or what else mezzotint loads")
    verb = verbs.add_parser("train", parents=[both], help="train, with snapshots")
    verb.add_argument("source")
    verb.add_argument("--images", type=int, nargs="+", required=True, help="where to keep one")
    verb.add_argument("--out", type=Path, required=True, help="a new folder")
    verb = verbs.add_parser("draw", parents=[both], help="draw labelled samples from a snapshot")
    verb.add_argument("snapshot", type=Path, help="a folder that train made")
    verb.add_argument("--weights", choices=["plain", "ema"], default="ema")
    verb.add_argument("--sampler", choices=list(SAMPLERS), default="ddim")
    verb.add_argument("--samples", type=int, default=10_000)
    verb.add_argument("--out", type=Path, help="FILE.npz; else in the snapshot")
    return parser


def main() -> None:
    """Run one command; what is already there is never overwritten."""
    parser = arguments()
    asked = parser.parse_args()
    if asked.verb == "draw":
        asked.out = asked.out or asked.snapshot / f"{asked.sampler}-{asked.weights}.npz"
        if not (asked.snapshot / "facts.json").exists():
            parser.error(f"{asked.snapshot} is no snapshot: give a folder that train made")
        if asked.samples < 1:
            parser.error(f"--samples {asked.samples}: give 1 or more")
    if asked.verb != "speed" and asked.out.exists():
        parser.error(f"--out {asked.out} is already there: choose another name")
    if asked.verb == "train" and min(asked.images) < 1:
        parser.error(f"--images {min(asked.images)}: give 1 or more")
    if asked.verb != "speed" and asked.ours and asked.device != "cpu":
        parser.error("--through-our-kernels are kernels for CPUs: leave --device out")
    try:
        if asked.verb == "speed":
            speed(asked.source)
        elif asked.verb == "train":
            train(asked)
        else:
            draw(asked)
    except MezzotintError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
