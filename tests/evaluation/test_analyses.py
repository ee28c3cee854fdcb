"""The registry of analyses: names, order and places in the JSON, and what an import brings."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from mezzotint.errors import DataError
from mezzotint.evaluation import analyses
from mezzotint.evaluation.analyses import ANALYSES, Analysis, metric_names, usual_names
from mezzotint.evaluation.context import _needs_labels
from mezzotint.evaluation.evaluate import execute
from mezzotint.evaluation.request import EvaluateRequest
from mezzotint.metrics.registry import GROUPS


def test_names_are_those_that_evaluate_has_always_taken():
    extras = ("memorisation", "recognition", "difficulty", "styles", "clip", "cas")
    assert metric_names() == ("fd", "kd", "coverage", "accuracy", "score", "distinct", *extras)
    assert usual_names() == metric_names()[:-1]
    labelled = {"accuracy", "difficulty", "styles", "clip", "cas"}
    assert {name for name in metric_names() if _needs_labels(name)} == labelled
    assert not set(ANALYSES) & set(GROUPS)


def test_each_analysis_is_a_module_of_its_name():
    files = {file.stem for file in Path(analyses.__file__).parent.glob("*.py")} - {"__init__"}
    assert files == set(ANALYSES)
    for name, analyse in ANALYSES.items():
        module = import_module(f"{analyses.__name__}.{name}")
        assert module.__all__ == ["analyse"]
        assert module.analyse is analyse


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
    Analysis("own:analyse", path=path).put("own", {"a": 2}, result)
    assert result == expected
    assert list(result) == list(expected)


def test_an_empty_answer_keeps_its_key():
    result = {}
    Analysis("own:analyse").put("own", {}, result)
    assert result == {"own": {}}


def test_the_request_brings_no_analysis():
    names = [f"{analyses.__name__}.{name}" for name in ANALYSES]
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
    found = execute(EvaluateRequest(path, against="digits")).to_json()
    assert "styles" not in found
    with pytest.raises(DataError, match="styles needs labels"):
        execute(EvaluateRequest(path, against="digits", metrics=("styles",)))
