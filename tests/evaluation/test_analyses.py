"""The registry of analyses: names, order and places in the JSON, and what an import brings."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from mezzotint.errors import InputError
from mezzotint.evaluation import analyses
from mezzotint.evaluation.analyses import ANALYSES, Analysis
from mezzotint.evaluation.context import LABELLED
from mezzotint.evaluation.evaluate import evaluate
from mezzotint.evaluation.request import EXTRAS, METRICS, USUAL, EvaluateRequest
from mezzotint.metrics.registry import GROUPS


def test_names_are_those_that_evaluate_has_always_taken():
    assert EXTRAS == ("memorisation", "recognition", "difficulty", "styles", "clip", "cas")
    assert ("fd", "kd", "coverage", "accuracy", "score", "distinct", *EXTRAS) == METRICS
    assert METRICS[:-1] == USUAL
    assert set(LABELLED) - {"classes"} == {"accuracy", "difficulty", "styles", "clip", "cas"}
    assert not {each.name for each in ANALYSES} & set(GROUPS)


def test_each_analysis_is_a_module_of_its_name():
    files = {file.stem for file in Path(analyses.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == {each.name for each in ANALYSES}
    for each in ANALYSES:
        (function,) = import_module(f"{analyses.__name__}.{each.name}").__all__
        assert function == "analyse"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, {"metrics": {"fd": 1}, "own": {"a": 2}}),
        ((), {"metrics": {"fd": 1}, "a": 2}),
        (("metrics", "own"), {"metrics": {"fd": 1, "own": {"a": 2}}}),
    ],
)
def test_an_analysis_puts_its_keys_below_its_path(path, expected):
    result = {"metrics": {"fd": 1}}
    Analysis("own", lambda case: None, path=path).put({"a": 2}, result)
    assert result == expected
    assert list(result) == list(expected)


def test_an_empty_answer_keeps_its_key():
    result = {}
    Analysis("own", lambda case: None).put({}, result)
    assert result == {"own": {}}


def test_the_request_brings_no_analysis():
    names = [f"{analyses.__name__}.{each.name}" for each in ANALYSES]
    names += ["scipy", "transformers", "mezzotint.evaluation.context"]
    code = (
        "import sys, mezzotint.evaluation.request\n"
        f"print([name for name in {names} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_styles_of_a_file_without_labels_are_left_out_or_refused(tmp_path, digits):
    path, (images, _) = tmp_path / "unlabelled.npz", digits.split("test")
    np.savez(
        path,
        images=images.numpy(),
        styles=np.ones((len(images), 1), np.float32),
        style_names=np.array(["thickness"]),
    )
    found = evaluate(EvaluateRequest(path, against="digits"))
    assert "styles" not in found
    with pytest.raises(InputError, match="styles needs labels"):
        evaluate(EvaluateRequest(path, against="digits", metrics=("styles",)))
