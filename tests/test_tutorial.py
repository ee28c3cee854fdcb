"""The tutorial runs from top to bottom, calls each of its verbs, and shows bars and pictures."""

import ast
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import mezzotint
from mezzotint.metrics.clip.captions import Captioner, Styles
from mezzotint.metrics.clip.small_clip import Recipe, file_name, fit

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorials" / "library.ipynb"
VERBS = {"train", "sample", "evaluate", "sweep", "select", "tune", "compose", "report"}
RESULTS = ("run", "drawn", "evaluation", "swept", "selected", "tuned", "composed")
"""Variables of the notebook that hold what the verbs return."""

LONGEST = 1000
"""Characters of a result that a cell may show."""


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A Jupyter kernel of this interpreter and of these sources."""
    own = tmp_path / "jupyter" / "kernels" / "tutorial"
    own.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {"argv": argv, "display_name": "tutorial", "language": "python"}
    (own / "kernel.json").write_text(json.dumps(specification))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    sources = [str(Path(mezzotint.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sources)))
    return own.name


@pytest.fixture
def small_clip(cache, digits):
    """The digits' CLIP in the cache, trained for a twentieth of the time."""
    rows = digits.splits["train"]
    images = digits.images[rows]
    captioner = Captioner(digits.classes, Styles.found(images))
    clip = fit(
        images,
        digits.labels[rows],
        captioner,
        name=digits.name,
        augment=digits.augment,
        recipe=Recipe(images=12_800),
    )
    cache.mkdir(exist_ok=True)
    clip.save(cache / file_name(digits.fingerprint))


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_tutorial_is_kept_without_outputs(notebook):
    assert not any(cell.outputs or cell.execution_count for cell in code_of(notebook))


def test_links_of_the_tutorial_lead_somewhere(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert links
    assert not [link for link in links if not (NOTEBOOK.parent / link).exists()]


def test_tutorial_calls_every_verb(notebook):
    trees = [ast.parse(cell.source) for cell in code_of(notebook)]
    called = {
        node.func.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "mezzotint"
    }
    assert called >= VERBS


def test_tutorial_runs_with_bars_and_pictures(notebook, kernel, small_clip, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    lengths = f"[len(repr(each)) for each in ({', '.join(RESULTS)})]"
    notebook.cells.append(nbformat.v4.new_code_cell(lengths))
    client = NotebookClient(
        notebook, timeout=300, kernel_name=kernel, resources={"metadata": {"path": str(work)}}
    )
    client.execute()  # CellExecutionError where a cell fails
    *cells, last = code_of(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 5
    assert max(ast.literal_eval(last.outputs[0]["data"]["text/plain"])) < LONGEST
    if importlib.util.find_spec("ipywidgets") is None:  # else bars are widgets
        for verb in VERBS - {"report"}:  # which is done at once
            assert "%|" in bars_of(cells, verb), f"{verb} shows no bar"


def bars_of(cells, verb):
    """What the cells that call a verb write on standard error."""
    outputs = [o for cell in cells if f"mezzotint.{verb}(" in cell.source for o in cell.outputs]
    return "".join(o.text for o in outputs if o.get("name") == "stderr")
