"""Selection: draw a pool, keep the best, and say what that did.

Keeping the best k of a pool of m by a score raises whatever the score sees and lowers variety:
the images that are left are typical ones. `effect` measures both, by metrics other than the
score itself, at equal numbers of images.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.config.tables import to_table
from mezzotint.data.splits import spread
from mezzotint.errors import InputError
from mezzotint.evaluation.results import add_section
from mezzotint.evaluation.samples import RunSamples, run_samples
from mezzotint.metrics.accuracy import accuracy
from mezzotint.metrics.clip.scorers import scorer
from mezzotint.metrics.coverage import even_coverage
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.metrics.kernel import kernel_distance
from mezzotint.metrics.metric import Read
from mezzotint.metrics.reference import Reference
from mezzotint.runs.find import path_of
from mezzotint.runs.run import CheckpointName, CheckpointRef, Run, Weights
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import check_output, optional_path
from mezzotint.runtime.progress_bar import progress as progress_of
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.noise import image_keys
from mezzotint.sampling.request import SamplingOptions

__all__ = [
    "Effect",
    "Kept",
    "SelectRequest",
    "SelectResult",
    "best_of",
    "effect",
    "execute",
    "refilled",
    "select",
]

Score = Callable[[Tensor, Tensor], Tensor]
"""From images uint8 (N, C, H, W) and labels (N,) to scores (N,): larger is better."""

ROUNDS = 50
"""Rounds after which `refilled` gives up."""

HOPELESS = 500
"""Draws of a class of which not one passed, after which it gives up at once."""


@dataclass(frozen=True)
class Kept:
    """Images that passed, and how many it took."""

    images: Tensor = field(repr=False)
    """uint8 (N, C, H, W)."""

    labels: Tensor = field(repr=False)
    """int64 (N,)."""

    scores: Tensor = field(repr=False)
    """float32 (N,)."""

    draws: Tensor = field(repr=False)
    """int64 (N,): position in the stream of draws."""

    drawn: int
    """Images drawn in all."""

    passed: int
    """Of them those that were good enough, also where no more were wanted."""


@dataclass(frozen=True)
class Effect:
    """What keeping `keep` of `pool` does, measured on `n` images each time."""

    pool: int
    keep: int
    n: int
    score: float
    """Mean of the kept images' scores."""

    accuracy: float
    kd: float
    coverage: float
    density: float
    spread: float
    """Variance of the features within a class, as a share of the real images': variety alone,
    while coverage also rises as bad images go."""


def best_of(scores: Tensor, labels: Tensor, pool: int, keep: int) -> Tensor:
    """Rows of the best `keep` in every pool of `pool` images of one label, ascending.

    Pools are taken in the order of the images; a last one that is not full is left out.
    """
    if not 1 <= keep <= pool:
        raise InputError(f"keep {keep} of a pool of {pool}: keep at least 1 and at most all")
    rows = []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0]
        pools = own[: len(own) // pool * pool].view(-1, pool)  # (pools, pool)
        best = scores[pools].topk(keep, dim=1).indices
        rows.append(pools.gather(1, best).flatten())
    return torch.cat(rows).sort().values


def effect(
    samples: Read,
    scores: Tensor,
    real: Read,
    pools: Sequence[int],
    keep: int,
    draws: torch.Generator,
) -> list[Effect]:
    """Quality and variety as the pool grows; the first pool equal to `keep` selects nothing.

    samples: read with labels and probabilities; scores (N,) of the same images.
    """
    assert samples.labels is not None
    assert samples.probabilities is not None
    chosen = {pool: best_of(scores, samples.labels, pool, keep) for pool in pools}
    n = min(len(rows) for rows in chosen.values())
    assert real.labels is not None
    usual = _spread(real.features, real.labels)
    found = []
    for pool, rows in chosen.items():
        # The same number each time: coverage grows with n.
        rows = rows[torch.randperm(len(rows), generator=draws)[:n]]
        features = samples.features[rows]
        shares = even_coverage(real.features, features, draws)
        found.append(
            Effect(
                pool=pool,
                keep=keep,
                n=n,
                score=float(scores[rows].mean()),
                accuracy=accuracy(samples.probabilities[rows], samples.labels[rows]),
                kd=kernel_distance(features, real.features, draws).value,
                coverage=shares.coverage,
                density=shares.density,
                spread=_spread(features, samples.labels[rows]) / usual,
            )
        )
    return found


def _spread(features: Tensor, labels: Tensor) -> float:
    """Total variance of the features (N, D) within a class, mean over classes of 2 or more."""
    groups = [features[labels == label] for label in labels.unique()]
    return statistics.fmean(float(g.double().var(0).sum()) for g in groups if len(g) > 1)


def refilled(
    draw: Callable[[Tensor, int], Tensor],
    score: Score,
    labels: Sequence[int],
    wanted: int,
    threshold: float,
) -> Iterator[Kept]:
    """Draw until `wanted` images of each label score at least `threshold`; one `Kept` a round.

    draw: from labels (n,) and the position of the first in the stream to images (n, C, H, W).
    The last `Kept` is whole. InputError where too few pass in `ROUNDS` rounds, or none at all.
    """
    missing = dict.fromkeys(labels, wanted)
    batches: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    drawn, passed, tried = 0, dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    for _ in range(ROUNDS):
        asked = torch.cat(
            [torch.full((_ask(count, passed[label], tried[label]),), label)
             for label, count in missing.items() if count > 0]
        )  # fmt: skip
        images = draw(asked, drawn)
        scores = score(images, asked)
        good = scores >= threshold
        for label in missing:
            own = asked == label
            tried[label] += int(own.sum())
            passed[label] += int((own & good).sum())
            extra = (own & good).nonzero()[:, 0][max(0, missing[label]) :]
            good[extra] = False  # more passed than were missing
            missing[label] -= int((own & good).sum())
        rows = good.nonzero()[:, 0]
        batches.append((images[rows], asked[rows], scores[rows], rows + drawn))
        drawn += len(asked)
        whole = [torch.cat(part) for part in zip(*batches, strict=True)]
        yield Kept(whole[0], whole[1], whole[2], whole[3], drawn, sum(passed.values()))
        if not any(missing.values()):
            return
        if any(tried[label] >= HOPELESS and not passed[label] for label in missing):
            break
    short = {label: count for label, count in missing.items() if count > 0}
    raise InputError(
        f"after {drawn:,} draws {sum(short.values())} images that score {threshold:g} are still "
        f"missing, of labels {', '.join(map(str, short))}: lower --threshold"
    )


def _ask(missing: int, passed: int, tried: int) -> int:
    """Draws for the next round: as many as should do, by the share that passed so far."""
    if not tried:
        return missing
    share = (passed + 1) / (tried + 2)
    return min(4 * missing + 16, int(missing / share) + 1)


GROWTH = (1, 2, 3, 5, 10)
"""Pools, in multiples of the images kept, whose effect is measured."""


FEWEST, FEWEST_KEPT = 500, 20
"""Samples, and of the largest pools those kept, from which the effect on quality and variety is
worth a number; two of each class are kept at least."""


DRAWN = ("sampler", "evaluations", "guidance")
"""Sampling settings that a request can change; they are written down."""


SHOWN = 15
"""Of each class in the ranked sheet."""


HIGH = 0.5
"""The threshold of high quality where the request has none."""


@dataclass(frozen=True)
class SelectRequest:
    """What to draw, and which of it to keep."""

    run: Path
    _: KW_ONLY
    out: Path
    """A new folder for the kept images and the sheet."""

    label: str | int | None = None
    """A class; None: every class."""

    pool: int = 15
    """Images drawn for each pool."""

    top: int = 3
    """Images kept of each pool."""

    pools: int = 1
    """Pools of each class."""

    score: str = "clip"
    """clip (the data set's own), clip:ID, classifier."""

    refill: int | None = None
    """Instead of pools: draw until this many of each class pass the threshold."""

    threshold: float | None = None
    """Least score, 0 to 1: what `refill` keeps; else what counts as high quality (0.5)."""

    seed: int = 0
    options: SamplingOptions = SamplingOptions()
    checkpoint: CheckpointRef = CheckpointRef()
    data_dir: Path | None = None
    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class SelectResult:
    """The kept images, and what keeping them did to quality and variety."""

    kept: Kept
    facts: Mapping[str, Any] = field(repr=False)
    """Run, score, seed, sampling settings and threshold."""

    classes: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    """Share of high quality and mean score of each class; () with `refill`."""

    effect: Sequence[Effect] = field(default=(), repr=False)
    """What selection does as the pool grows; () where too few images were drawn."""

    written: Mapping[str, Path]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the images as plain JSON."""
        facts = dict(self.facts)
        if self.classes:
            facts["classes"] = list(self.classes)
            facts["effect"] = [asdict(each) for each in self.effect]
        else:
            facts["share_passed"] = self.kept.passed / self.kept.drawn
        facts["written"] = {kind: str(path) for kind, path in self.written.items()}
        return facts


def select(
    run: Run | str | Path,
    *,
    out: str | Path,
    label: str | int | None = None,
    pool: int = 15,
    top: int = 3,
    pools: int = 1,
    score: str = "clip",
    refill: int | None = None,
    threshold: float | None = None,
    seed: int = 0,
    sampler: str | Mapping[str, object] | None = None,
    evaluations: int | None = None,
    guidance: float | None = None,
    weights: Weights = "ema",
    checkpoint: CheckpointName = "last",
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | None = None,
) -> SelectResult:
    """Draw pools of images, keep the best of each by a score, and measure what that did.

        kept = mezzotint.select("runs/mnist", label=5, out="best").kept.images

    Args:
        run: A run's directory, or the `Run`.
        out: A new folder for the kept images and the sheet.
        label: Class, by name or number. None: every class.
        pool: Number of images drawn for each pool.
        top: Number of images kept of each pool.
        pools: Number of pools of each class; the more, the surer the numbers.
        score: "clip" (the data set's own), "clip:ID" (a hub id or a folder), "classifier".
        refill: Instead of pools: draw until this many of each class pass `threshold`.
        threshold: Least score, 0 to 1: what `refill` keeps, else what counts as high quality.
        seed: Image i depends on (seed, i) alone.
        sampler: Name of a sampler, or a table as in {"kind": "ddim", "eta": 0.5}.
        evaluations: Evaluations of the network per image (NFE), 1 or more.
        guidance: Guidance scale, 0 or more: 1 is none, 0 unconditional.
        weights: "ema" (averaged) or "raw" (the last step's).
        checkpoint: "last", "best" or "snapshot".
        device: "auto" (the run's own), "cpu", "cuda" or "mps".
        data_dir: Folder of named data sets, looked at before MEZZOTINT_DATA.
        progress: Show a bar: None where there is a terminal or notebook, True always.

    Returns:
        The kept images, uint8, with their scores and the files that were written.

    Raises:
        InputError: `out` holds something, or too few images pass the threshold.

    """
    return execute(
        SelectRequest(
            path_of(run),
            out=Path(out),
            label=label,
            pool=pool,
            top=top,
            pools=pools,
            score=score,
            refill=refill,
            threshold=threshold,
            seed=seed,
            options=SamplingOptions(sampler=sampler, evaluations=evaluations, guidance=guidance),
            checkpoint=CheckpointRef(weights, checkpoint, device),
            data_dir=optional_path(data_dir),
            progress=progress,
        )
    )


def execute(request: SelectRequest) -> SelectResult:
    """Draw, score, keep; write the kept images, a ranked sheet, and what selection did."""
    check_output("--out", request.out, ("",), overwrite=False)
    if request.top > request.pool:
        raise InputError(f"--top {request.top} of a pool of {request.pool}: keep at most the pool")
    if request.refill is not None and request.threshold is None:
        raise InputError("--refill draws until enough images pass: say from which --threshold on")
    stream = run_samples(
        request.run,
        checkpoint=request.checkpoint,
        options=request.options,
        seed=request.seed,
        data_dir=request.data_dir,
        progress=request.progress,
    )
    model = stream.model
    labels = (
        list(range(len(model.classes)))
        if request.label is None
        else [model.label_index(request.label)]
    )
    score = scorer(stream.data, request.score)
    if request.refill is not None:
        return _refill(request, stream, score, labels)
    return _keep_best(request, stream, score, labels)


def _keep_best(
    request: SelectRequest, stream: RunSamples, score: Score, labels: list[int]
) -> SelectResult:
    """Keep the best of every pool."""
    model = stream.model
    asked = torch.tensor(labels).repeat_interleave(request.pool * request.pools)
    with progress_of("drawing", len(asked), request.progress) as update:
        images = model.sample_batch(SampleBatch.of(asked, request.seed), update)
    scores = score(images, asked)
    rows = best_of(scores, asked, request.pool, request.top)
    kept = Kept(images[rows], asked[rows], scores[rows], rows, len(asked), len(rows))
    written = _write(request, kept, model)
    sheet = _ranked(images, asked, scores, model.classes)
    written["sheet"] = imaging.save_png(sheet, request.out / "ranked.png")
    threshold = HIGH if request.threshold is None else request.threshold
    result = SelectResult(
        kept=kept,
        facts={**_facts(request, model, kept), "threshold": threshold},
        classes=[_class_row(model.classes[i], i, asked, scores, rows, threshold) for i in labels],
        effect=_effects(request, stream, images, asked, scores),
        written=written,
    )
    if result.effect:  # measured: worth a place in the report
        _add_to_evaluation(request, stream, result, sheet)
    return result


def _add_to_evaluation(
    request: SelectRequest, stream: RunSamples, result: SelectResult, sheet: Tensor
) -> None:
    """Put what selection did into the run's evaluation.json, with the ranked sheet."""
    picture = imaging.save_png(sheet, request.run / "evaluation" / "selection.png")
    facts = result.to_json()
    section = {name: facts[name] for name in ("score", "threshold", "seed", "classes", *DRAWN)}
    section |= {
        "rows": facts["effect"],
        "picture": str(picture.relative_to(request.run)),
        "hash": stream.facts["hash"],
    }
    add_section(request.run, "selection", section)


def _refill(
    request: SelectRequest, stream: RunSamples, score: Score, labels: list[int]
) -> SelectResult:
    """Filter and draw again until the wanted number is there."""
    assert request.refill is not None
    assert request.threshold is not None

    def draw(asked: Tensor, start: int) -> Tensor:
        keys = image_keys(request.seed, torch.arange(start, start + len(asked)))
        with progress_of("drawing", len(asked), request.progress) as update:
            return stream.model.sample_batch(SampleBatch(asked, keys), update)

    wanted = request.refill * len(labels)
    for kept in refilled(draw, score, labels, request.refill, request.threshold):
        log.info(f"{len(kept.labels):,} of {wanted:,} images, {kept.drawn:,} drawn")
    order = kept.labels.argsort(stable=True)
    kept = dataclasses.replace(
        kept,
        images=kept.images[order],
        labels=kept.labels[order],
        scores=kept.scores[order],
        draws=kept.draws[order],
    )
    return SelectResult(
        kept=kept,
        facts={**_facts(request, stream.model, kept), "threshold": request.threshold},
        written=_write(request, kept, stream.model),
    )


def _facts(request: SelectRequest, model: Model, kept: Kept) -> dict[str, Any]:
    return {
        "run": str(request.run),
        "score": request.score,
        "seed": request.seed,
        **{name: to_table(getattr(model.sampling, name)) for name in DRAWN},
        "drawn": kept.drawn,
        "kept": len(kept.labels),
    }


def _write(request: SelectRequest, kept: Kept, model: Model) -> dict[str, Path]:
    """The kept images as a folder with scores in its manifest."""
    extra = [
        {"seed": request.seed, "draw": draw, "score": round(score, 6)}
        for draw, score in zip(kept.draws.tolist(), kept.scores.tolist(), strict=True)
    ]
    manifest = imaging.save_folder(kept.images, kept.labels, model.classes, request.out, extra)
    return {"folder": request.out, "manifest": manifest}


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
    request: SelectRequest,
    stream: RunSamples,
    images: Tensor,
    labels: Tensor,
    scores: Tensor,
) -> list[Effect]:
    """Accuracy, distance and variety as the pool grows; [] for too few samples."""
    classes = len(stream.data.classes)
    kept = int(torch.bincount(labels, minlength=classes).min()) // request.pool * request.top
    if len(images) < FEWEST or kept < max(2, FEWEST_KEPT / classes):
        log.info(
            f"too few to measure what selection does ({len(images)} samples, {kept} of each class "
            f"kept): it is from {FEWEST} samples of all classes and "
            f"{max(FEWEST_KEPT, 2 * classes)} kept on (more --pools)"
        )
        return []
    classifier = classifier_for(stream.data)
    reference = Reference.of(stream.data, classifier, classifier, n=len(images), anchors=())
    grown = {request.top * times for times in GROWTH}
    pools = sorted({pool for pool in grown if pool <= request.pool} | {request.pool})
    found = effect(
        reference.read(images, labels), scores, reference.real, pools, request.top,
        generator("effect", request.seed),
    )  # fmt: skip
    return found
