"""Evaluate samples: every requested metric and analysis, in one JSON object."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mezzotint.errors import DataError, InputError
from mezzotint.evaluation.analyses import ANALYSES
from mezzotint.evaluation.context import Clock, EvaluationContext, gather
from mezzotint.evaluation.request import EvaluateRequest
from mezzotint.evaluation.results import check_folder, differing, evaluation_of, keep
from mezzotint.evaluation.summary import summary_sentences
from mezzotint.metrics.measured import compare as compare_metric
from mezzotint.metrics.measured import measure
from mezzotint.metrics.registry import GROUPS
from mezzotint.runs.find import path_of
from mezzotint.runs.run import CheckpointName, CheckpointRef, Run, Weights, needs_guide_model
from mezzotint.runtime.hardware import hardware
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import optional_path
from mezzotint.sampling.request import SamplingOptions

__all__ = ["EvaluateRequest", "EvaluateResult", "evaluate", "execute"]

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """Numbers with their protocol, and the analyses."""

    metrics: Mapping[str, Mapping[str, Any]] = field(repr=False)
    """Name -> value, error, floor, anchors and protocol."""

    summary: Sequence[str]
    """What the numbers mean, in sentences."""

    sections: Mapping[str, Any] = field(repr=False)
    """The whole of evaluation.json: samples, against, metrics, analyses, pictures, seconds."""

    written: Path | None
    """evaluation.json; None where there was no place for it."""

    differences: Mapping[str, Any] | None = None
    """Differences to another evaluation, and which metrics could not be compared."""

    def to_json(self) -> Json:
        """Return plain JSON."""
        facts = dict(self.sections)
        if self.written is not None:
            facts["written"] = str(self.written)
        if self.differences is not None:
            facts["compared"] = dict(self.differences)
        return facts


def evaluate(
    images: Run | str | Path,
    *,
    against: str | Path | None = None,
    metrics: Iterable[str] = (),
    n: int | None = None,
    split: str = "test",
    extractor: str = "classifier",
    clip: str = "clip",
    seed: int = 0,
    sampler: str | Mapping[str, object] | None = None,
    evaluations: int | None = None,
    guidance: float | None = None,
    autoguidance: float | None = None,
    interval: tuple[float, float] | None = None,
    weights: Weights = "ema",
    checkpoint: CheckpointName = "last",
    out: str | Path | None = None,
    compare: Run | str | Path | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | None = None,
) -> EvaluateResult:
    """Evaluate images: numbers with their protocol, floor and anchors.

        result = mezzotint.evaluate("runs/digits", metrics=["kd", "accuracy"], n=500)
        result.metrics["kd500"]["value"]

    Args:
        images: A run, a folder of images, or an .npz.
        against: The real images, a SOURCE. None: the run's own.
        metrics: Names as `mezzotint evaluate --help` lists them, or "all". Empty: all but "cas".
        n: Number of samples, 2 or more. None: as many as real ones, up to 10,000.
        split: Real images to compare with: "test", "validation" or "train".
        extractor: "classifier" (the data set's own), "inception", "dinov2", "clip"; NAME:WHERE.
        clip: The CLIP of the analysis clip: "clip" (the data set's own), "clip:ID".
        seed: Seed of samples and of random subsets.
        sampler: Name of a sampler, or a table as in {"kind": "ddim", "eta": 0.5}.
        evaluations: Evaluations of the network per image (NFE), 1 or more.
        guidance: Guidance scale, 0 or more: 1 is none, 0 unconditional.
        autoguidance: Scale of guidance by the run's early snapshot: 1 is none.
        interval: (low, high): both guidances act at levels low < sigma <= high alone.
        weights: "ema" (averaged) or "raw" (the last step's).
        checkpoint: "last", "best" or "snapshot".
        out: Folder for evaluation.json and pictures. None: the run; for others nothing is written.
        compare: Another run or evaluation.json, to compute the differences of the metrics to.
        device: "auto" (the run's own), "cpu", "cuda" or "mps".
        data_dir: Folder of named data sets, looked at before MEZZOTINT_DATA.
        progress: Show a bar: None where there is a terminal or notebook, True always.

    Returns:
        The metrics and analyses.

    Raises:
        InputError: Something cannot be evaluated as requested.

    """
    return execute(
        EvaluateRequest(
            path_of(images),
            against=str(against) if against is not None else None,
            metrics=tuple(metrics),
            n=n,
            split=split,
            extractor=extractor,
            clip=clip,
            seed=seed,
            options=SamplingOptions(
                sampler=sampler,
                evaluations=evaluations,
                guidance=guidance,
                autoguidance=autoguidance,
                interval=interval,
            ),
            checkpoint=CheckpointRef(weights, checkpoint, device, needs_guide_model(autoguidance)),
            out=optional_path(out),
            compare=path_of(compare) if compare is not None else None,
            data_dir=optional_path(data_dir),
            progress=progress,
        )
    )


def execute(request: EvaluateRequest) -> EvaluateResult:
    """Evaluate what a request names; write the result and its pictures where there is a place."""
    theirs = _metrics_of(request.compare) if request.compare is not None else {}
    check_folder(request.out, request.target)
    clock = Clock()
    context = gather(request, clock)
    result = _metrics(context, clock)
    out = context.pictures.out
    if out is not None and (names := differing(out, result)):
        log.info(
            f"{out} holds an evaluation of other {', '.join(names)}, which this one will replace: "
            "--out keeps both"
        )
    _add_analyses(result, context, clock)
    result |= {
        "summary": summary_sentences(result),
        "pictures": context.pictures.written,
        "seconds": clock.seconds,
        "hardware": hardware(),
        "command": request.command,
    }
    whole = result if out is None else keep(out, result)
    differences = None
    if request.compare is not None:
        differences = {"with": str(request.compare), **_compared(whole["metrics"], theirs)}
    return EvaluateResult(
        metrics=whole["metrics"],
        summary=whole["summary"],
        sections=whole,
        written=out / "evaluation.json" if out is not None else None,
        differences=differences,
    )


def _metrics(context: EvaluationContext, clock: Clock) -> Json:
    """Return the requested metrics, and what they were measured on."""
    requested = context.request.requested()
    groups = {name: GROUPS[name] for name in GROUPS if name in requested}
    with clock("metrics"):
        numbers = measure(context.reading, context.reference, groups)
    return {
        "samples": dict(context.samples.facts),
        "against": {
            "source": context.data.name,
            "fingerprint": context.data.fingerprint,
            "split": context.request.split,
            "n": context.reference.facts["n_reference"],
            "classes": list(context.data.classes),
        },
        "extractor": {
            "name": context.reference.extractor.name,
            "hash": context.reference.extractor.digest,
        },
        "metrics": {name: number.to_json() for name, number in numbers.items()},
    }


def _add_analyses(result: Json, context: EvaluationContext, clock: Clock) -> None:
    """Add the requested analyses, and those that belong to every evaluation."""
    requested = context.request.requested()
    for name, analysis in ANALYSES.entries.items():
        if name not in requested and not analysis.always:
            continue
        if analysis.needs_labels and context.samples.labels is None:
            continue
        started = time.monotonic()
        found = ANALYSES[name](context)
        if found is None:
            continue
        analysis.put(name, found, result)
        if not analysis.always:
            clock.add(name, started)


def _metrics_of(path: Path) -> Json:
    """Return the metrics of an evaluation that lies there; DataError where there are none."""
    found = evaluation_of(path).get("metrics")
    if not isinstance(found, dict) or not found:
        raise DataError(
            f"{path} holds no metrics to compare with: make them with mezzotint evaluate"
        )
    return found


def _compared(own: Json, other: Json) -> dict[str, dict[str, Any]]:
    """Return how far each metric is from the other evaluation's, or why that cannot be said."""
    differences: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for name in own:
        try:
            differences[name] = compare_metric(own, other, name)
        except InputError as error:  # no reason to lose what was evaluated
            reasons[name] = str(error)
    return {"differences": differences, "not_compared": reasons}
