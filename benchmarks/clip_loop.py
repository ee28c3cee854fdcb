"""CLIP in the loop: plain guidance, CLIP guidance, selection, and runs made from one, in a table.

    python benchmarks/clip_loop.py RUN --n 200 --prompt "a clear {}" [--runs RUN ...]

Every row draws n images, classes in equal shares; "best 1 of 3" are by the prompt. `--runs` were
tuned, or trained on what was filtered. All but plain guidance draw with guidance --base. Columns:

    likelihood   mean chance that the prompt is true, by the CLIP that guides (so it is biased)
    quality   mean of the score that `select` uses, by the same CLIP
    accuracy  share that the set's own classifier reads as asked for; it guides nothing
    coverage, spread   against as many real test images, by the classifier's features
    cas       with --cas IMAGES: share of the real test split that classifiers read which were
              trained on this row's n images alone, shown IMAGES in all (real: on train images)
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

from mezzotint.cli.stderr import log_to_stderr
from mezzotint.evaluation.samples import run_samples
from mezzotint.evaluation.selection import best_of, effect
from mezzotint.imaging import labelled_grid, save_png, to_float
from mezzotint.metrics.cas import cas
from mezzotint.metrics.clip.captions import Styles
from mezzotint.metrics.clip.clip import quality_scores
from mezzotint.metrics.clip.likelihood import prompt_log_likelihood
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.metrics.extractors.classifier import Recipe
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.metrics.reference import Reference
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.prompt import LOOKS, likelihood_guidance
from mezzotint.sampling.request import GRADIENTS

GUIDANCE = (1.0, 1.5, 2.0, 3.0)
SCALES = (1.0, 3.0, 10.0)
POOLS = (2, 3, 6)
CAS_SEEDS = (0, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=Path, nargs="*", default=[])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--prompt", default="a clear {}")
    parser.add_argument("--interval", type=float, nargs=2)
    parser.add_argument("--style", help="a measured style to print the mean of: thickness, ...")
    parser.add_argument("--base", type=float, help="guidance of all other rows (the run's own)")
    parser.add_argument("--guidance", type=float, nargs="*", default=GUIDANCE)
    parser.add_argument("--gradients", nargs="*", choices=GRADIENTS, default=GRADIENTS)
    parser.add_argument("--scales", type=float, nargs="*", default=SCALES)
    parser.add_argument("--pools", type=int, nargs="*", default=POOLS)
    parser.add_argument("--cas", type=int, metavar="IMAGES")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="FILE.json; a sheet of pictures lies beside it")
    asked = parser.parse_args()

    source = run_samples(asked.run)
    base = {} if asked.base is None else {"guidance": asked.base}
    data, model = source.data, source.model.changed(**base)
    clip = clip_for(data, "clip")
    log_likelihood = prompt_log_likelihood(clip, asked.prompt, data.classes)
    classifier = classifier_for(data)
    reference = Reference.of(data, classifier, classifier, n=asked.n, anchors=())
    styles = Styles.found(data.images[data.splits["train"]])
    rows: list[dict[str, object]] = []
    sheet: list[tuple[str, Tensor]] = []

    def worth(images: Tensor, labels: Tensor) -> float:
        recipe = Recipe(images=asked.cas)
        return cas(images, labels, data, recipe=recipe, seeds=CAS_SEEDS).mean

    def evaluated(
        name: str,
        images: Tensor,
        labels: Tensor,
        cost: float,
        seconds: float,
        training: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        quality = quality_scores(clip, images, labels, data.classes)
        draws = generator("clip loop", asked.seed)
        (found,) = effect(reference.read(images, labels), quality, reference.real, [1], 1, draws)
        with torch.no_grad():
            true = float(log_likelihood(to_float(images), labels).exp().mean())
        row: dict[str, object] = {"how": name, "n": len(images), "likelihood": true}
        row |= {"quality": found.score, "accuracy": found.accuracy}
        row |= {"coverage": found.coverage, "spread": found.spread}
        if asked.style:
            row[asked.style] = float(styles.measured(images)[asked.style].mean())
        if asked.cas:
            row["cas"] = worth(*(training or (images, labels)))
        rows.append(row | {"cost": cost, "seconds": seconds})
        sheet.append((name, images[:: max(1, len(images) // 20)][:20]))
        print(line(rows[-1]), flush=True)

    def drawn(name: str, model: Model, weight: float) -> None:
        labels = model.labels(None, asked.n)
        started = time.process_time()
        images = model.sample_batch(SampleBatch.of(labels, asked.seed))
        seconds = (time.process_time() - started) / asked.n
        evaluated(name, images, labels, weight * model.sampling.evaluations, seconds)

    def guided(gradient: str, scale: float) -> Callable:
        interval = tuple(asked.interval) if asked.interval else None
        return likelihood_guidance(
            log_likelihood, scale, variance, gradient=gradient, interval=interval
        )

    real, labels = data.split("test")
    train = tuple(part[: asked.n] for part in data.split("train"))
    evaluated("real test images", real[: asked.n], labels[: asked.n], 0, 0, train)
    for scale in asked.guidance:
        doubled = 2 if scale > model.max_model_guidance and scale != 1 else 1
        drawn(f"guidance {scale:g}", model.changed(guidance=scale), doubled)
    doubled = 2 if model.sampling.guidance > model.max_model_guidance else 1
    looks = data.splits["validation"][:LOOKS]
    variance = model.posterior_variance(data.images[looks], data.labels[looks])
    for gradient in asked.gradients:
        weight = 3 if gradient == "network" else 1
        for scale in asked.scales:
            wrapped = dataclasses.replace(model, denoise_wrapper=guided(gradient, scale))
            drawn(f"CLIP {scale:g} through {gradient}", wrapped, doubled * weight)
    for path in asked.runs:
        other = run_samples(path, data).model
        drawn(path.name, other.changed(**base), doubled)
    if asked.pools:
        most = max(asked.pools)
        labels = model.labels(None, asked.n).repeat_interleave(most)
        started = time.process_time()
        images = model.sample_batch(SampleBatch.of(labels, asked.seed))
        with torch.no_grad():
            scores = log_likelihood(to_float(images), labels)
        each = (time.process_time() - started) / len(images)
        for pool in asked.pools:
            few = torch.arange(len(labels)) % most < pool
            chosen = best_of(scores[few], labels[few], pool, 1)
            cost = pool * doubled * model.sampling.evaluations
            evaluated(
                f"best 1 of {pool}", images[few][chosen], labels[few][chosen], cost, pool * each
            )

    print("\n" + table(rows))
    if asked.out:
        facts = {"run": str(asked.run), "images_seen": source.facts["images_seen"]}
        facts |= {"clip": clip.name, "prompt": asked.prompt, "interval": asked.interval}
        facts |= {"base": model.sampling.guidance, "cas_images": asked.cas}
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
    with log_to_stderr():
        main()
