"""Evaluate samples: every requested metric and analysis, in one JSON object."""

import time
from typing import Any

from mezzotint.evaluation.analyses import ANALYSES
from mezzotint.evaluation.context import Clock, gather
from mezzotint.evaluation.request import EvaluateRequest
from mezzotint.evaluation.results import differing, keep
from mezzotint.evaluation.summary import summary_sentences
from mezzotint.metrics.measured import measure
from mezzotint.metrics.registry import GROUPS
from mezzotint.runtime.hardware import hardware
from mezzotint.runtime.log import log

__all__ = ["evaluate"]

Json = dict[str, Any]


def evaluate(request: EvaluateRequest) -> Json:
    """Evaluate a request: a JSON object, written with its pictures where there is a place."""
    clock, requested = Clock(), request.requested()
    context = gather(request, clock)
    groups = {name: GROUPS[name] for name in GROUPS if name in requested}
    with clock("metrics"):
        numbers = measure(context.reading, context.reference, groups)
    result: Json = {
        "samples": dict(context.samples.facts),
        "against": {
            "source": context.data.name,
            "fingerprint": context.data.fingerprint,
            "split": request.split,
            "n": context.reference.facts["n_reference"],
            "classes": list(context.data.classes),
        },
        "extractor": {
            "name": context.reference.extractor.name,
            "hash": context.reference.extractor.digest,
        },
        "metrics": {name: number.to_json() for name, number in numbers.items()},
    }
    out = context.pictures.out
    if out is not None and (names := differing(out, result)):
        log.info(
            f"{out} holds an evaluation of other {', '.join(names)}, which this one will replace: "
            "--out keeps both"
        )
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
    result |= {
        "summary": summary_sentences(result),
        "pictures": context.pictures.written,
        "seconds": clock.seconds,
        "hardware": hardware(),
        "command": request.command,
    }
    if out is None:
        return result
    return {**keep(out, result), "written": str(out / "evaluation.json")}
