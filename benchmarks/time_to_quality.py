"""How good after so many minutes, ours beside the recipe that a diffusers user follows.

    python benchmarks/time_to_quality.py evaluate DIR/32000/ddim-ema.npz     # a peer, once
    python benchmarks/time_to_quality.py compare fashion-mnist --minutes 2 5 10 --peer-speed 41 52
    python benchmarks/time_to_quality.py compare cifar10 --preset cifar10-large --minutes 20 --cas

`evaluate` measures samples of peers/diffusers_recipe.py and keeps the result in
peers/results.json.
`compare` trains our preset for each of the minutes, draws as many samples and measures them with
the same metrics. The peer's speed, as it comes and at its best, in images a second, is what
`peers/diffusers_recipe.py speed` prints on this machine; times the minutes it says how many images
the peer sees, and its row is the kept result with at least so many. CAS is of one classifier,
trained on plain samples, as many as there are training images.

Distances are Frechet distances of classifier features against the test split, less the floor.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import mezzotint
from mezzotint.cli.stderr import log_to_stderr
from mezzotint.imaging import load_npz
from mezzotint.metrics.cas import cas
from mezzotint.sampling.model import SampleBatch
from quality import Metric

RESULTS = Path(__file__).parent / "peers" / "results.json"
VARIANTS = {"as it comes": "plain", "at its best": "ema"}


def kept() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else []


def check(file: Path) -> dict[str, Any]:
    """Measure a peer's samples and keep the result."""
    samples = load_npz(file)
    meta, n = samples.meta, len(samples.images)
    source = meta["training"]["source"]
    found = Metric.of(source, n).measure(samples.images, samples.labels)
    row = {
        "peer": meta["peer"],
        "source": source,
        "weights": meta["weights"],
        "sampler": meta["sampler"],
        "images_seen": meta["training"]["images_seen"],
        "n": n,
        "above": round(found.above, 4),
        "accuracy": round(found.accuracy, 4),
        "seed": meta["training"]["seed"],
        "through_our_kernels": meta["through_our_kernels"],
        "version": meta["version"],
    }
    same = ("peer", "source", "weights", "sampler", "images_seen", "n", "seed")
    others = [r for r in kept() if any(r[key] != row[key] for key in same)]
    RESULTS.write_text(json.dumps([*others, row], indent=1) + "\n")
    return row


def peer(source: str, weights: str, images: float, n: int) -> float:
    """The peer's distance after at least so many images; NaN where none is kept."""
    wanted = {"peer": "diffusers", "sampler": "ddim", "source": source, "weights": weights, "n": n}
    rows = [r for r in kept() if wanted.items() <= r.items() and r["images_seen"] >= images]
    return min(rows, key=lambda r: r["images_seen"])["above"] if rows else float("nan")


def compare(arguments: argparse.Namespace) -> None:
    """Train for each of the minutes, draw, measure."""
    metric = Metric.of(arguments.source, arguments.n)
    labels = torch.arange(arguments.n) % len(metric.data.classes)
    print(f"{arguments.source}, n = {arguments.n}, floor {metric.floor:.3f}\n")
    columns = ["minutes", "images", "ours", "accuracy"] + ["CAS"] * arguments.cas
    for variant in VARIANTS if arguments.peer_speed else ():
        columns += [variant, "x"]
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for minutes in arguments.minutes:
        run = mezzotint.train(
            arguments.source,
            out=arguments.out / f"{minutes:g}m",
            preset=arguments.preset,
            budget=f"{minutes:g}m",
        )
        model = mezzotint.load(run)
        found = metric.measure(model.sample_batch(SampleBatch.of(labels)), labels)
        cells = [f"{minutes:g}", f"{run.images_seen():,}", f"{found.above:.3f}"]
        cells.append(f"{found.accuracy:.1%}")
        if arguments.cas:
            asked = torch.arange(len(metric.data.splits["train"])) % len(metric.data.classes)
            plain = model.changed(guidance=1.0).sample_batch(SampleBatch.of(asked))
            scored = cas(plain, asked, metric.data, seeds=(0,), device=model.compute.device)
            cells.append(f"{scored.mean:.2%}")
        for weights, speed in zip(VARIANTS.values(), arguments.peer_speed or (), strict=False):
            theirs = peer(arguments.source, weights, 60 * minutes * speed, arguments.n)
            cells += [f"{theirs:.3f}", f"{theirs / found.above:.1f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("evaluate")
    verb.add_argument("files", type=Path, nargs="+")
    verb = verbs.add_parser("compare")
    verb.add_argument("source")
    verb.add_argument("--minutes", type=float, nargs="+", default=[2, 5, 10])
    verb.add_argument("--preset", help="else the source's own")
    verb.add_argument("--peer-speed", type=float, nargs=2, help="as it comes, at its best")
    verb.add_argument("--cas", action="store_true", help="too; it takes as many samples as images")
    verb.add_argument("--n", type=int, default=2000)
    verb.add_argument("--out", type=Path, default=Path("runs/time-to-quality"))
    arguments = parser.parse_args()
    if arguments.verb == "evaluate":
        for file in arguments.files:
            print(check(file))
    else:
        compare(arguments)


if __name__ == "__main__":
    with log_to_stderr():
        main()
