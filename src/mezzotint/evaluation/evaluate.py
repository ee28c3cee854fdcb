"""A question answered: every part that was asked for, in one JSON object."""

from collections.abc import Callable
from typing import Any

from mezzotint.evaluation import analyses
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
        found = registry.measure(case.samples, case.reference, groups)
    metrics: Json = {name: number.to_json() for name, number in found.items()}
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
        "metrics": metrics,
    }
    out = case.pictures.out
    if out is not None and (names := differing(out, result)):
        say(
            f"{out} holds an evaluation of other {', '.join(names)}, which this one will replace: "
            "--out keeps both"
        )
    if case.samples.probabilities is not None and case.samples.labels is not None:
        result |= analyses.judge_classes(case)
    if "memorisation" in asked:
        with clock("memorisation"):
            result["memorisation"] = analyses.judge_memorisation(case)
    if "recognition" in asked and case.stream is not None and case.classifier is not None:
        with clock("recognition"):
            result["recognition"] = analyses.judge_recognition(case, case.stream, case.classifier)
    if "difficulty" in asked and "per_class" in result:
        with clock("difficulty"):
            result["difficulty"] = analyses.judge_difficulty(case, result["per_class"])
    if "styles" in asked and case.subject.styles:
        with clock("styles"):
            result["styles"] = analyses.judge_styles(case)
    if case.clip is not None:
        with clock("clip"):
            result["clip"] = analyses.judge_clip(case, case.clip)
    if "cas" in asked and case.subject.labels is not None:
        with clock("cas"):
            metrics["cas"] = analyses.judge_cas(case)
    analyses.add_sheets(case)
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
