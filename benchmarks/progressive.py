"""Low resolution first: does a training that begins on small images come further in equal time?

    python benchmarks/progressive.py fashion-mnist --images 7000 --seeds 0 1 2 --out runs/small

Direct: the source's preset without guidance sees `--images` at full size. Progressive: the same
network spends `--share` of that time on images of `--small` pixels, and begins the rest, at full
size, with those weights (`train --from`; progressive growing without new layers, after Karras et
al. 2018, arXiv 1710.10196). How many images a time holds is measured before, steps of both sizes
in turn. Samples of scale 1, drawn as the preset says, are held against the *validation* split.
"""

import argparse
from pathlib import Path
from typing import Any

import mezzotint
from ablations import FORMS, PLAIN, cell
from mezzotint.cli.stderr import log_to_stderr
from mezzotint.config.presets import load_preset, recommended
from mezzotint.config.schema import Config
from mezzotint.config.tables import override, parse_config, with_deviation
from mezzotint.data import load
from mezzotint.kernels.precision import choose_compute
from mezzotint.runs.run import Run
from mezzotint.runs.speed import training_steps, usual_time
from quality import Metric

ROUNDS, SECONDS = 3, 4.0


def step_seconds(source: str, images: int, sizes: tuple[int | None, ...]) -> list[float]:
    """Of a training step at each size, the least of rounds taken in turn; the preset as it is for
    so many images.
    """
    compute = choose_compute("auto")
    preset = override(load_preset(recommended(source), images), PLAIN)
    sets = [load(source, size=size) for size in sizes]
    found: list[list[float]] = [[] for _ in sizes]
    with compute.active():
        for _ in range(ROUNDS):
            for data, times in zip(sets, found, strict=True):
                config = parse_config(with_deviation(preset, data.deviation), Config)
                times.append(usual_time(training_steps(config, data, compute), SECONDS)[0])
    return [min(times) for times in found]


def trained(source: str, out: Path, images: int, seed: int, **more: Any) -> Run:
    return mezzotint.train(
        source,
        out=out,
        budget=f"{images}images",
        settings=(*PLAIN, f"training.seed={seed}", "training.preview_every=0"),
        **more,
    )


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source")
    parser.add_argument("--images", type=int, default=30_000, help="that the direct one sees")
    parser.add_argument("--small", type=int, default=14, help="pixels a side of the first part")
    parser.add_argument("--share", type=float, nargs="+", default=[0.4], help="of the time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n", type=int, default=1000, help="samples")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    small, full = step_seconds(asked.source, asked.images, (asked.small, None))
    print(f"a step takes {1000 * small:.0f} ms at {asked.small} pixels, {1000 * full:.0f} at full")
    metric = Metric.of(asked.source, asked.n, "validation")
    print("| training | images | validation loss | distance above the floor | accuracy |")
    print("|---" * 5 + "|")
    for share in (0.0, *asked.share):
        first, rest = round(share * asked.images * full / small), round((1 - share) * asked.images)
        rows = []
        for seed in asked.seeds:
            place, base = asked.out / f"{share:g}" / str(seed), None
            if first:
                base = trained(asked.source, place / "small", first, seed, size=asked.small).path
            run = trained(asked.source, place / "full", rest, seed, init_from=base)
            rows.append(metric.measured(run, seed))
        name = f"{share:.0%} of the time at {asked.small} pixels" if first else "direct"
        cells = [cell([row[k] for row in rows], form) for k, form in FORMS.items()]
        print(f"| {name} | {first:,} + {rest:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    with log_to_stderr():
        main()
