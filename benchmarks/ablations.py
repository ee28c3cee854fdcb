"""The recipe, one change at a time: what it brings for the same time, over seeds.

    python benchmarks/ablations.py fashion-mnist --images 30000 --seeds 0 1 2 --out runs/ablations
    python benchmarks/ablations.py fashion-mnist --only 'levels|paired' --out runs/ablations

Every variant trains the source's preset, as it is for so many images, without guidance. The
default sees `--images`; one whose network costs more FLOPs an image sees fewer, so that all take
about the same time (on a CPU narrow networks take longer than their FLOPs, and so do small
batches). Its samples, drawn with the preset's sampler at scale 1, are held against the
*validation* split. What was measured is kept beside each run, and the same command goes on where
it stopped.
"""

import argparse
import contextlib
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch.utils.flop_counter import FlopCounterMode

import mezzotint
from experiments import Experiment, batches, data, growing, half_plain, paired, shifted
from mezzotint.cli.stderr import log_to_stderr
from mezzotint.config.build import build_denoiser
from mezzotint.config.presets import load_preset, recommended
from mezzotint.config.schema import Config
from mezzotint.config.tables import override, parse_config, with_deviation
from mezzotint.diffusion import Condition
from quality import Metric

Table = dict[str, Any]

PLAIN = ("training.model_guidance.max_scale=1", "sampling.guidance=1")


@dataclass(frozen=True)
class Variant:
    """What is changed: settings, and what is no setting."""

    name: str
    settings: tuple[str, ...] = ()
    experiment: Experiment = contextlib.nullcontext


def variants(preset: Table) -> tuple[Variant, ...]:
    """What is tried on a preset; "none" is the preset without guidance."""
    schedule, training = preset["objective"]["schedule"], preset["training"]
    batch, rate, warmup = training["batch"], training["learning_rate"], training["rate"]["warmup"]
    embedding = preset["network"]["embedding"]["width"]
    muon, adamw = ("training.optimizer=muon",), ("training.optimizer=adamw",)
    always = ("training.style_dropout=0",)
    so = guided(preset["sampling"]["guidance"])
    min_snr = ('objective.weight={kind = "min-snr", gamma = 5.0}',)
    return (
        Variant("none"),
        Variant("learned schedule", levels(schedule, kind="learned")),
        Variant("levels: mean 0.4 more", levels(schedule, 0.4)),
        Variant("levels: mean 0.4 less", levels(schedule, -0.4)),
        Variant("weight: min-SNR 5", min_snr),
        Variant("no attention", attending(preset, 0)),
        Variant("attention at the two lower levels", attending(preset, 2)),
        Variant("0.75 times as wide", widened(preset, 0.75)),
        Variant("1.5 times as wide", widened(preset, 1.5)),
        Variant("twice as wide", widened(preset, 2)),
        Variant("one block a level more", deepened(preset)),
        Variant("embedding of half the width", (f"network.embedding.width={embedding // 2}",)),
        Variant("embedding of twice the width", (f"network.embedding.width={embedding * 2}",)),
        Variant("noise paired within the class", experiment=batches(paired)),
        Variant("batch of half the size", (f"training.batch={batch // 2}",)),
        Variant("batch of twice the size", (f"training.batch={2 * batch}",)),
        Variant("batch that grows from half to twice the size", experiment=growing),
        Variant("shifts by a pixel", experiment=data(lambda images: shifted(images, False))),
        Variant("shifts by a pixel, embedded", always, data(lambda images: shifted(images, True))),
        Variant("a quarter of the warm-up", (f"training.lr_schedule.warmup={warmup // 4}",)),
        Variant("four times the warm-up", (f"training.lr_schedule.warmup={4 * warmup}",)),
        Variant("average of twice the width", ("training.ema=0.2",)),
        Variant("half the learning rate", (f"training.learning_rate={rate / 2}",)),
        Variant("twice the learning rate", (f"training.learning_rate={2 * rate}",)),
        Variant("guidance to 3 learned in, drawn at 1.5", guided(1.5)),
        Variant("guidance to 3 learned in, drawn at 2", guided(2)),
        Variant("guidance so, half of the images plain", so, batches(half_plain)),
        Variant("guidance so, noise paired within the class", so, batches(paired)),
        Variant("guidance so, no attention", (*so, *attending(preset, 0))),
        Variant("guidance so, weight: min-SNR 5", (*so, *min_snr)),
        Variant("AdamW, 2e-3", (*adamw, "training.learning_rate=2e-3")),
        Variant("Muon, 4e-3", (*muon, "training.learning_rate=4e-3")),
        Variant("Muon, 1e-2", (*muon, "training.learning_rate=1e-2")),
        Variant("Muon, 2e-2", (*muon, "training.learning_rate=2e-2")),
    )


def guided(scale: float) -> tuple[str, ...]:
    """Its second half takes longer, which `--images` must allow for: FLOPs here do not."""
    return (
        "training.model_guidance.max_scale=3",
        "training.model_guidance.start=0.5",
        f"sampling.guidance={scale:g}",
    )


def widened(preset: Table, factor: float) -> tuple[str, ...]:
    """The preset's levels of other widths, in whole groups of 16 channels."""
    levels = preset["network"]["levels"]
    return written(
        [level | {"width": 16 * max(1, round(factor * level["width"] / 16))} for level in levels]
    )


def deepened(preset: Table) -> tuple[str, ...]:
    levels = preset["network"]["levels"]
    return written([level | {"blocks": level.get("blocks", 1) + 1} for level in levels])


def attending(preset: Table, lowest: int) -> tuple[str, ...]:
    """Attention at so many of the preset's levels, the lowest ones."""
    levels = preset["network"]["levels"]
    first = len(levels) - lowest
    return written([level | {"attention": i >= first} for i, level in enumerate(levels)])


def written(levels: list[Table]) -> tuple[str, ...]:
    """Levels as a setting."""
    inline = (", ".join(f"{k} = {json.dumps(v)}" for k, v in level.items()) for level in levels)
    return (f"network.levels=[{', '.join(f'{{ {level} }}' for level in inline)}]",)


def levels(schedule: Table, more: float = 0.0, kind: str = "log-normal") -> tuple[str, ...]:
    """The preset's log-normal schedule with a mean of so much more, or learned from there."""
    mean, std = schedule["mean"] + more, schedule["std"]
    base = f'{{kind = "log-normal", mean = {mean:g}, std = {std:g}}}'
    learned = f'{{kind = "learned", base = {base}}}'
    return (f"objective.schedule={learned if kind == 'learned' else base}",)


def cost(config: Config, shape: tuple[int, ...]) -> int:
    """FLOPs of one evaluation of one image (C, H, W) of ten classes."""
    denoiser = build_denoiser(config, shape[0], 10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        label = Condition({"label": torch.zeros(1, dtype=torch.int64)})
        denoiser(torch.zeros(1, *shape), torch.ones(1), label)
    return counter.get_total_flops()


def measured(
    variant: Variant, metric: Metric, images: int, seed: int, preset: Path, out: Path
) -> Table:
    """Train, draw, measure; what was done before is found again."""
    place = out / re.sub(r"\W+", "-", variant.name) / str(seed)
    settings = (*PLAIN, f"training.seed={seed}", *variant.settings)
    with variant.experiment():
        run = mezzotint.train(
            metric.data.name,
            out=place,
            preset=str(preset),
            budget=f"{images}images",
            settings=settings,
        )
    if run.images_seen() < images:
        raise SystemExit(f"{place} was stopped early: the same command goes on with it")
    return metric.measured(run, seed)


def cell(values: list[float], form: str) -> str:
    """Mean and, of several, the standard deviation."""
    spread = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{spread}"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source")
    parser.add_argument("--images", type=int, default=30_000, help="that the default sees")
    parser.add_argument("--preset-for", type=int, help="the preset as it is for so many instead")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n", type=int, default=2500, help="samples")
    parser.add_argument("--only", default="", help="variants that this regular expression finds")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    metric = Metric.of(asked.source, asked.n, "validation")
    preset = load_preset(recommended(asked.source), asked.preset_for or asked.images)
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / "preset.toml"
    file.write_text(tomli_w.dumps(preset))

    def flop(variant: Variant) -> int:
        table = override(preset, [*PLAIN, *variant.settings])
        return cost(parse_config(with_deviation(table, 0.5), Config), metric.data.images.shape[1:])

    tried = variants(preset)
    usual = flop(tried[0])
    print("| change | images | validation loss | distance above the floor | accuracy |")
    print("|---" * 5 + "|")
    for variant in tried:
        if not re.search(asked.only, variant.name):
            continue
        images = round(asked.images * usual / flop(variant))
        rows = [measured(variant, metric, images, seed, file, asked.out) for seed in asked.seeds]
        cells = [cell([row[k] for row in rows], f) for k, f in FORMS.items()]
        print(
            f"| {variant.name} | {rows[0]['asked']['images']:,} | {' | '.join(cells)} |",
            flush=True,
        )


FORMS = {"loss": ".4f", "above": ".3f", "accuracy": ".3f"}

if __name__ == "__main__":
    with log_to_stderr():
        main()
