"""CLIP in the loop: plain guidance, CLIP guidance, selection and tuning, in one table.

    python benchmarks/clip_loop.py RUN --n 200 --prompt "a clear {}" [--tuned RUN] [--out F.json]

Every row draws n images, classes in equal shares; "best 1 of 3" are by the wish. Columns:

    wish      mean chance that the prompt is true, by the CLIP that guides (so it is biased)
    quality   mean of the score that `select` uses, by the same CLIP
    accuracy  share that the set's own classifier reads as asked for; it guides nothing
    coverage, spread   against as many real test images, by the classifier's features
    cost      network evaluations for each image kept; a gradient through it counts as 2 more
    seconds   of processor time for each image kept, drawing and scoring
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mezzotint.curation import best_of, effect
from mezzotint.evaluation.captions import Styles
from mezzotint.evaluation.clip import quality_scores
from mezzotint.evaluation.features import classifier_for
from mezzotint.evaluation.measures import Reference
from mezzotint.evaluation.prompts import steering, wish
from mezzotint.evaluation.scorers import clip_for
from mezzotint.imaging import labelled_grid, save_png, to_float
from mezzotint.model import Drawing, Model
from mezzotint.randomness import generator
from mezzotint.subjects import run_subject

GUIDANCE = (1.0, 1.5, 2.0, 3.0)
SCALES = (1.0, 3.0, 10.0)
POOLS = (2, 3, 6)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--tuned", type=Path, nargs="*", default=[])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--prompt", default="a clear {}")
    parser.add_argument("--interval", type=float, nargs=2)
    parser.add_argument("--style", help="a measured style to print the mean of: thickness, ...")
    parser.add_argument("--guidance", type=float, nargs="*", default=GUIDANCE)
    parser.add_argument("--scales", type=float, nargs="*", default=SCALES)
    parser.add_argument("--pools", type=int, nargs="*", default=POOLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="FILE.json; a sheet of pictures lies beside it")
    asked = parser.parse_args()

    subject = run_subject(asked.run, say=print)
    data, model = subject.data, subject.model
    clip = clip_for(data, "clip", print)
    wished = wish(clip, asked.prompt, data.classes)
    classifier = classifier_for(data, print)
    reference = Reference.of(data, classifier, classifier, n=asked.n, anchors=())
    styles = Styles.found(data.images[data.splits["train"]])
    rows: list[dict[str, object]] = []
    sheet: list[tuple[str, Tensor]] = []

    def judged(name: str, images: Tensor, labels: Tensor, cost: float, seconds: float) -> None:
        quality = quality_scores(clip, images, labels, data.classes)
        draws = generator("clip loop", asked.seed)
        (found,) = effect(reference.read(images, labels), quality, reference.real, [1], 1, draws)
        with torch.no_grad():
            true = float(wished(to_float(images), labels).exp().mean())
        row: dict[str, object] = {"how": name, "n": len(images), "wish": true}
        row |= {"quality": found.score, "accuracy": found.accuracy}
        row |= {"coverage": found.coverage, "spread": found.spread}
        if asked.style:
            row[asked.style] = float(styles.measured(images)[asked.style].mean())
        rows.append(row | {"cost": cost, "seconds": seconds})
        sheet.append((name, images[:: max(1, len(images) // 20)][:20]))
        print(line(rows[-1]), flush=True)

    def drawn(name: str, model: Model, weight: float) -> None:
        labels = model.labels(None, asked.n)
        started = time.process_time()
        images = model.draw(Drawing.of(labels, asked.seed))
        seconds = (time.process_time() - started) / asked.n
        judged(name, images, labels, weight * model.sampling.evaluations, seconds)

    def steered(gradient: str, scale: float) -> Callable:
        interval = tuple(asked.interval) if asked.interval else None
        return steering(wished, scale, model.deviation, gradient=gradient, interval=interval)

    real, labels = data.split("test")
    judged("real test images", real[: asked.n], labels[: asked.n], 0, 0)
    for scale in asked.guidance:
        doubled = 2 if scale > model.learned and scale != 1 else 1
        drawn(f"guidance {scale:g}", model.changed(guidance=scale), doubled)
    doubled = 2 if model.sampling.guidance > model.learned else 1
    for gradient, weight in (("network", 3), ("x0", 1)):
        for scale in asked.scales:
            wrapped = dataclasses.replace(model, steer=steered(gradient, scale))
            drawn(f"CLIP {scale:g} through {gradient}", wrapped, doubled * weight)
    for path in asked.tuned:
        drawn(f"tuned {path.name}", run_subject(path, data, say=print).model, doubled)
    if asked.pools:
        most = max(asked.pools)
        labels = model.labels(None, asked.n).repeat_interleave(most)
        started = time.process_time()
        images = model.draw(Drawing.of(labels, asked.seed))
        with torch.no_grad():
            scores = wished(to_float(images), labels)
        each = (time.process_time() - started) / len(images)
        for pool in asked.pools:
            few = torch.arange(len(labels)) % most < pool
            chosen = best_of(scores[few], labels[few], pool, 1)
            cost = pool * doubled * model.sampling.evaluations
            judged(
                f"best 1 of {pool}", images[few][chosen], labels[few][chosen], cost, pool * each
            )

    print("\n" + table(rows))
    if asked.out:
        facts = {"run": str(asked.run), "images_seen": subject.facts["images_seen"]}
        facts |= {"clip": clip.name, "prompt": asked.prompt, "interval": asked.interval}
        facts |= {"seed": asked.seed, "torch": torch.__version__, "rows": rows}
        asked.out.write_text(json.dumps(facts, indent=1))
        save_png(labelled_grid(sheet), asked.out.with_suffix(".png"))


def line(row: dict[str, object]) -> str:
    """One row for a person who waits."""
    return "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items())


def table(rows: list[dict[str, object]]) -> str:
    """All rows as Markdown."""
    names = list(rows[0])
    cells = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in r.values()] for r in rows]
    return "\n".join("| " + " | ".join(c) + " |" for c in [names, ["---"] * len(names), *cells])


if __name__ == "__main__":
    main()
