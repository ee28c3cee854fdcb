"""What `select` does, in the library's words."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.cli.outputs import check_output
from mezzotint.curation import Kept, best_of, effect, refilled
from mezzotint.data import spread
from mezzotint.errors import InputError
from mezzotint.evaluation.features import classifier_for
from mezzotint.evaluation.measures import Reference
from mezzotint.evaluation.scorers import Score, scorer
from mezzotint.evaluation.waits import counted
from mezzotint.evaluation_file import add_part
from mezzotint.model import Drawing, Model
from mezzotint.randomness import generator
from mezzotint.run import Pick
from mezzotint.subjects import RunSubject, run_subject

__all__ = ["Selection", "select", "select_text"]

Say = Callable[[str], None]

GROWTH = (1, 2, 3, 5, 10)
"""Pools, in multiples of the images kept, whose effect is measured."""

FEWEST, FEWEST_KEPT = 500, 20
"""Samples, and of the largest pools those kept, from which the effect on quality and variety is
worth a number; two of each class are kept at least."""

DRAWN = ("sampler", "evaluations", "guidance")
"""Of the sampling settings those that can be asked for, and are written down."""

SHOWN = 15
"""Of each class in the ranked sheet."""

HIGH = 0.5
"""The threshold of high quality where none is given."""


@dataclass(frozen=True)
class Selection:
    """What the user asked for."""

    run: Path
    out: Path
    label: str | None
    pool: int
    top: int
    pools: int
    score: str
    refill: int | None
    threshold: float | None
    seed: int
    changes: Mapping[str, object]
    pick: Pick
    data_dir: Path | None


def select(wish: Selection, say: Say) -> dict[str, Any]:
    """Draw, score, keep; a folder of the kept images, a ranked sheet, and what it did."""
    check_output("--out", wish.out, ("",), overwrite=False)
    if wish.top > wish.pool:
        raise InputError(f"--top {wish.top} of a pool of {wish.pool}: keep at most the pool")
    if wish.refill is not None and wish.threshold is None:
        raise InputError("--refill draws until enough images pass: say from which --threshold on")
    stream = run_subject(
        wish.run,
        pick=wish.pick,
        changes=wish.changes,
        seed=wish.seed,
        data_dir=wish.data_dir,
        say=say,
    )
    model = stream.model
    labels = (
        list(range(len(model.classes))) if wish.label is None else [model.label_index(wish.label)]
    )
    score = scorer(stream.data, wish.score, say)
    if wish.refill is not None:
        return _refill(wish, stream, score, labels, say)
    asked = torch.tensor(labels).repeat_interleave(wish.pool * wish.pools)
    images = model.draw(Drawing.of(asked, wish.seed), counted("drawing", len(asked), say))
    scores = score(images, asked)
    rows = best_of(scores, asked, wish.pool, wish.top)
    kept = Kept(images[rows], asked[rows], scores[rows], rows, len(asked), len(rows))
    written = _write(wish, kept, model)
    sheet = _ranked(images, asked, scores, model.classes)
    written["sheet"] = str(imaging.save_png(sheet, wish.out / "ranked.png"))
    threshold = HIGH if wish.threshold is None else wish.threshold
    result = {
        **_facts(wish, stream.model, kept),
        "threshold": threshold,
        "classes": [
            _class_row(model.classes[i], i, asked, scores, rows, threshold) for i in labels
        ],
        "effect": _effects(wish, stream, images, asked, scores, say),
        "written": written,
    }
    if result["effect"]:  # measured: worth a place in the report
        picture = imaging.save_png(sheet, wish.run / "evaluation" / "selection.png")
        part = {name: result[name] for name in ("score", "threshold", "seed", "classes", *DRAWN)}
        where = str(picture.relative_to(wish.run))
        more = {"rows": result["effect"], "picture": where, "hash": stream.facts["hash"]}
        add_part(wish.run, "selection", {**part, **more})
    return result


def _refill(
    wish: Selection, stream: RunSubject, score: Score, labels: list[int], say: Say
) -> dict[str, Any]:
    """Filter and draw again until the wanted number is there."""
    assert wish.refill is not None
    assert wish.threshold is not None

    def draw(asked: Tensor, start: int) -> Tensor:
        keys = [(wish.seed, start + i) for i in range(len(asked))]
        return stream.model.draw(Drawing(asked, keys), counted("drawing", len(asked), say))

    wanted = wish.refill * len(labels)
    for kept in refilled(draw, score, labels, wish.refill, wish.threshold):
        say(f"{len(kept.labels):,} of {wanted:,} images, {kept.drawn:,} drawn")
    order = kept.labels.argsort(stable=True)
    kept = replace(
        kept,
        images=kept.images[order],
        labels=kept.labels[order],
        scores=kept.scores[order],
        draws=kept.draws[order],
    )
    return {
        **_facts(wish, stream.model, kept),
        "threshold": wish.threshold,
        "share_passed": kept.passed / kept.drawn,
        "written": _write(wish, kept, stream.model),
    }


def _facts(wish: Selection, model: Model, kept: Kept) -> dict[str, Any]:
    return {
        "run": str(wish.run),
        "score": wish.score,
        "seed": wish.seed,
        **{name: getattr(model.sampling, name) for name in DRAWN},
        "drawn": kept.drawn,
        "kept": len(kept.labels),
    }


def _write(wish: Selection, kept: Kept, model: Model) -> dict[str, str]:
    """The kept images as a folder with scores in its manifest."""
    extra = [
        {"seed": wish.seed, "draw": draw, "score": round(score, 6)}
        for draw, score in zip(kept.draws.tolist(), kept.scores.tolist(), strict=True)
    ]
    manifest = imaging.save_folder(kept.images, kept.labels, model.classes, wish.out, extra)
    return {"folder": str(wish.out), "manifest": str(manifest)}


def _ranked(images: Tensor, labels: Tensor, scores: Tensor, classes: tuple[str, ...]) -> Tensor:
    """A row for each class, the best image left, the worst right."""
    rows = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        order = own[scores[own].argsort(descending=True)]
        rows.append((classes[label], images[spread(order, SHOWN)]))
    return imaging.labelled_grid(rows)


def _class_row(
    name: str, label: int, labels: Tensor, scores: Tensor, kept: Tensor, threshold: float
) -> dict[str, Any]:
    own = scores[labels == label]
    return {
        "class": name,
        "drawn": len(own),
        "high_quality": float((own >= threshold).double().mean()),
        "mean_score": float(own.mean()),
        "kept_score": float(scores[kept][labels[kept] == label].mean()),
    }


def _effects(
    wish: Selection, stream: RunSubject, images: Tensor, labels: Tensor, scores: Tensor, say: Say
) -> list[dict[str, Any]]:
    """Accuracy, distance and variety as the pool grows; [] for too few samples."""
    classes = len(stream.data.classes)
    kept = int(torch.bincount(labels, minlength=classes).min()) // wish.pool * wish.top
    if len(images) < FEWEST or kept < max(2, FEWEST_KEPT / classes):
        say(
            f"too few to measure what selection does ({len(images)} samples, {kept} of each class "
            f"kept): it is from {FEWEST} samples of all classes and "
            f"{max(FEWEST_KEPT, 2 * classes)} kept on (more --pools)"
        )
        return []
    classifier = classifier_for(stream.data, say)
    reference = Reference.of(stream.data, classifier, classifier, n=len(images), anchors=())
    grown = {wish.top * times for times in GROWTH}
    pools = sorted({pool for pool in grown if pool <= wish.pool} | {wish.pool})
    found = effect(
        reference.read(images, labels), scores, reference.real, pools, wish.top,
        generator("effect", wish.seed),
    )  # fmt: skip
    return [asdict(each) for each in found]


def select_text(result: Mapping[str, Any]) -> str:
    """The result of `select` for a person."""
    lines = [f"kept {result['kept']:,} of {result['drawn']:,} images by {result['score']}"]
    if "share_passed" in result:
        lines[0] += (
            f", threshold {result['threshold']:g}: {result['share_passed']:.1%} of the draws"
        )
    for row in result.get("classes", []):
        lines.append(
            f"{row['class']}: {row['high_quality']:.0%} score {result['threshold']:g} or more; "
            f"mean {row['mean_score']:.3f}, of the kept {row['kept_score']:.3f}"
        )
    if effects := result.get("effect"):
        lines.append(f"as the pool grows, {effects[0]['keep']} kept ({effects[0]['n']} measured):")
        lines += [
            f"  pool {row['pool']}: accuracy {row['accuracy']:.3f}  kd {row['kd']:.4g}  "
            f"coverage {row['coverage']:.3f}  density {row['density']:.3f}  "
            f"spread {row['spread']:.3f}"
            for row in effects
        ]
    return "\n".join([*lines, *(f"{name}: {path}" for name, path in result["written"].items())])
