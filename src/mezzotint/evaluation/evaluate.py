"""A question answered: every part that was asked for, in one JSON object."""

import time
from collections.abc import Callable
from typing import Any

from mezzotint.evaluation.analyses import ANALYSES
from mezzotint.evaluation.context import Clock, gather
from mezzotint.evaluation.request import Question
from mezzotint.evaluation.results import differing, keep
from mezzotint.evaluation.summary import verdict
from mezzotint.metrics import registry
from mezzotint.runtime.hardware import hardware

__all__ = ["judge"]

Json = dict[str, Any]


def judge(question: Question, say: Callable[[str], None]) -> Json:
    """Answer it: a JSON object, written beside its pictures where there is a place."""
    clock, asked = Clock(), question.parts()
    case = gather(question, clock, say)
    groups = {name: group for name, group in registry.GROUPS.items() if name in asked}
    with clock("metrics"):
        numbers = registry.measure(case.samples, case.reference, groups)
    result: Json = {
        "subject": dict(case.subject.facts),
        "against": {
            "source": case.data.name,
            "fingerprint": case.data.fingerprint,
            "split": question.split,
            "n": case.reference.facts["n_reference"],
            "classes": list(case.data.classes),
        },
        "extractor": {
            "name": case.reference.extractor.name,
            "hash": case.reference.extractor.digest,
        },
        "metrics": {name: number.to_json() for name, number in numbers.items()},
    }
    out = case.pictures.out
    if out is not None and (names := differing(out, result)):
        say(
            f"{out} holds an evaluation of other {', '.join(names)}, which this one will replace: "
            "--out keeps both"
        )
    for analysis in ANALYSES:
        if analysis.name not in asked and not analysis.always:
            continue
        if analysis.needs_labels and case.subject.labels is None:
            continue
        started = time.monotonic()
        found = analysis.run(case)
        if found is None:
            continue
        analysis.put(found, result)
        if not analysis.always:
            clock.add(analysis.name, started)
    result |= {
        "verdict": verdict(result),
        "pictures": case.pictures.written,
        "seconds": clock.seconds,
        "hardware": hardware(),
        "command": question.command,
    }
    if out is None:
        return result
    return {**keep(out, result), "written": str(out / "evaluation.json")}
