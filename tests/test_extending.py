"""One new file and one registry line: each file of CONTRIBUTING.md, through the command line.

A file is written into a temporary folder that its package is also looked for in; its line is added
to the table that the page names. Nothing else of the library changes.
"""

import importlib
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mezzotint import imaging
from mezzotint.cli.main import VERBS
from mezzotint.cli.main import run as command
from mezzotint.config.registry import (
    LR_SCHEDULES,
    NETWORKS,
    PARAMETERIZATIONS,
    SAMPLERS,
    SCHEDULES,
    WEIGHTS,
)
from mezzotint.data.readers import READERS
from mezzotint.data.styles.registry import MEASURES
from mezzotint.evaluation.analyses import ANALYSES, Analysis, metric_names
from mezzotint.metrics.reference import ANCHORS
from mezzotint.metrics.registry import GROUPS
from mezzotint.runs.online_metrics import OnlineMetrics
from mezzotint.runtime.registry import entry

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
TABLES = {
    "SAMPLERS": SAMPLERS, "SCHEDULES": SCHEDULES, "PARAMETERIZATIONS": PARAMETERIZATIONS,
    "WEIGHTS": WEIGHTS, "LR_SCHEDULES": LR_SCHEDULES, "NETWORKS": NETWORKS, "READERS": READERS,
    "MEASURES": MEASURES, "GROUPS": GROUPS, "ANALYSES": ANALYSES, "VERBS": VERBS,
}  # fmt: skip
SECTION = re.compile(
    r"^### (?P<kind>.+?)\n\n`src/(?P<file>\S+?)\.py`,\s+and\s+in\s+`(?P<table>[A-Z_]+)`\s+"
    r"`(?P<line>\"[^`]+)`.*?```python\n(?P<code>.*?)```",
    re.MULTILINE | re.DOTALL,
)
TINY = [
    "--device", "cpu",
    "--set", "network={levels=[{width=8}],embedding={width=16,features=8}}",
    "--set", "training.batch=16", "--set", "training.learning_rate=0.01",
    "--set", "training.lr_schedule={kind='constant'}", "--set", "training.preview_every=0",
    "--set", "training.validation_images=16", "--set", "training.log_every=16",
    "--set", "training.model_guidance.max_scale=1", "--set", "sampling.guidance=1",
    "--set", "sampling.evaluations=3", "--json",
]  # fmt: skip


class Snippet(NamedTuple):
    """A file of the page and its line."""

    file: str
    table: str
    line: str
    code: str


SNIPPETS = {
    found["kind"]: Snippet(found["file"], found["table"], found["line"], found["code"])
    for found in SECTION.finditer(PAGE)
}


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Write the file of a kind and add its line."""

    def added(kind):
        snippet = SNIPPETS[kind]
        *package, name = snippet.file.split("/")
        folder = tmp_path.joinpath("new", *package)
        folder.mkdir(parents=True)
        (folder / f"{name}.py").write_text(snippet.code)
        parent = importlib.import_module(".".join(package))
        assert not hasattr(parent, name)
        monkeypatch.setattr(parent, "__path__", [*parent.__path__, str(folder)])
        monkeypatch.setattr(parent, name, None, raising=False)  # so that the import is undone
        module = ".".join([*package, name])
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, module)
        ((key, where),) = eval(
            f"{{{snippet.line}}}", {"entry": entry, "Analysis": Analysis}
        ).items()
        table = TABLES[snippet.table]
        monkeypatch.setitem(getattr(table, "entries", table), key, where)

    return added


@pytest.fixture
def cli(capsys):
    """Run a command and return the JSON that it prints."""

    def call(*words):
        capsys.readouterr()
        code = command([str(word) for word in words])
        answer = capsys.readouterr()
        assert code == 0, answer.err
        return json.loads(answer.out) if "--json" in words else answer.out

    return call


@pytest.fixture
def train(cli):
    """Train the smallest network for some images; its result."""

    def trained(out, *settings, source="digits", images=32, more=()):
        options = [word for setting in settings for word in ("--set", setting)]
        budget = f"{images}images"
        return cli("train", source, "--out", out, "--budget", budget, *TINY, *options, *more)

    return trained


def steps(run):
    """The rows of a training's log that are steps."""
    rows = map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == "step"]


def drawn(cli, run, *options, n=20):
    cli("sample", run, "--n", n, "--out", "drawn.npz", "--overwrite", *options)
    return imaging.load_npz(Path("drawn.npz")).images


# --- the page ---------------------------------------------------------------------------------


def test_the_page_has_every_table():
    assert sorted(each.table for each in SNIPPETS.values()) == sorted(TABLES)


@pytest.mark.parametrize("kind", SNIPPETS)
def test_a_file_is_ten_lines_or_a_few_more(kind):
    lines = [line for line in SNIPPETS[kind].code.splitlines() if line.strip()]
    code = [line for line in lines if not line.startswith(("import ", "from "))]
    assert len(code) <= (12 if kind == "Network" else 10), code


# --- diffusion and training -------------------------------------------------------------------


def test_a_sampler(add, cli, train):
    train("run")
    add("Sampler")
    whole = drawn(cli, "run", "--sampler", "euler")
    assert torch.equal(whole, drawn(cli, "run", "--sampler", "ddim"))  # DDIM is Euler's method
    shorter = drawn(cli, "run", "--sampler", '{kind = "euler", length = 0.5}')
    assert not torch.equal(whole, shorter)
    table = "{kind='euler',length=0.5}"
    train("own", f"sampling.sampler={table}")
    assert "length = 0.5" in Path("own/config.toml").read_text()
    assert torch.equal(drawn(cli, "own"), drawn(cli, "own", "--sampler", table))


def test_a_schedule(add, cli, train):
    add("Schedule")
    train("run", "objective.schedule={kind='straight',sigma_max=20.0}")
    facts = cli("inspect", "run", "--json")
    assert facts["objective"]["schedule"] == {"kind": "straight", "sigma_max": 20.0}
    assert (facts["sigma_min"], facts["sigma_max"]) == pytest.approx((0.01, 20.0))
    assert len(drawn(cli, "run")) == 20


def test_a_parameterization(add, cli, train):
    add("Parameterization")
    train("run", "objective.parameterization={kind='flow'}")
    train("other", "objective.parameterization={kind='v'}")
    facts = cli("inspect", "run", "--json")
    assert facts["objective"]["parameterization"] == {"kind": "flow"}
    assert steps("run")[0]["loss"] != steps("other")[0]["loss"]
    assert not torch.equal(drawn(cli, "run"), drawn(cli, "other"))


def test_a_weight(add, train):
    add("Weight")
    train("whole", images=16)
    train("half", "objective.weight={kind='scaled',factor=0.5}", images=16)
    (whole,), (half,) = steps("whole"), steps("half")
    assert half["loss"] == pytest.approx(whole["loss"] / 2, rel=1e-5)


def test_a_learning_rate_schedule(add, train):
    add("Learning-rate schedule")
    train("run", "training.lr_schedule={kind='linear',end=0.5}", images=64)
    rates = [row["learning_rate"] for row in steps("run")]
    assert rates == pytest.approx([0.01, 0.00875, 0.0075, 0.00625])


def test_a_network(add, cli, train):
    add("Network")
    kind = "network={kind='plain',width=6}"
    facts = cli("inspect", "digits", "--set", kind, "--json")
    layers = {layer["name"]: layer["parameters"] for layer in facts["layers"]}
    assert layers == {"0": 6 * 9 + 6, "1": 0, "2": 6 * 9 + 1}
    assert facts["flops"] == 2 * 64 * 2 * 6 * 9
    train("run", kind)
    assert 'kind = "plain"' in Path("run/config.toml").read_text()
    assert cli("inspect", "run", "--json")["parameters"] == 115
    assert len(drawn(cli, "run").unique(dim=0)) == 20
    train("run", kind, images=64)  # goes on
    assert steps("run")[-1]["images_seen"] == 64


# --- data -------------------------------------------------------------------------------------


def test_a_reader(add, cli, train, cache):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 6), np.uint8)
    np.savez("mine.npz", images=images, labels=np.arange(60) % 3)
    assert command(["data", "mine.npz"]) == 2
    add("Reader")
    facts = cli("data", "mine.npz", "--json")
    assert list(facts["classes"]) == ["0", "1", "2"]
    assert facts["size"] == [8, 6]
    train("run", source="mine.npz")
    assert drawn(cli, "run").shape == (20, 1, 8, 6)


def test_a_style_measure(add, cli, train, digits, cache):
    add("Style measure")
    facts = cli("data", "digits", "--style", "shade", "--json")
    train_images = digits.split("train")[0].double()
    assert facts["styles"]["shade"]["mean"] == pytest.approx(255 - float(train_images.mean()))
    assert list(facts["styles"]["shade"]["levels"]) == ["bright", "medium", "dark"]
    train("run", more=("--style", "shade"))
    assert len(drawn(cli, "run", "--style", "shade=dark")) == 20


# --- evaluation -------------------------------------------------------------------------------


def test_a_metric(add, cli, train, monkeypatch):
    monkeypatch.setattr(OnlineMetrics, "cost", lambda self, model: 0.0)  # never put off
    add("Metric")
    assert metric_names()[-7] == "gap"
    settings = ("training.metrics_every=16", "training.metrics_images=100", "training.best=gap")
    train("run", *settings)
    rows = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    assert any("gap" in row["values"] for row in rows if row["kind"] == "metrics")
    result = cli("evaluate", "run", "--metrics", "gap", "--n", 100, "--json")
    found = result["metrics"]["gap"]
    assert found["floor"] < found["value"]
    assert set(found["anchors"]) == set(ANCHORS)
    assert (found["better"], found["protocol"]["metric"]) == ("lower", "gap")
    cli("report", "run")
    assert "Distance of the mean features" in Path("run/report.html").read_text()
    swept = cli("sweep", "run", "--scales", "1,2", "--n", 150, "--json")
    assert all("gap" in point["values"] for point in swept["points"])


def test_an_analysis(add, cli, train):
    add("Analysis")
    train("run")
    result = cli("evaluate", "run", "--metrics", "tones", "--n", 100, "--json")
    overall = result["tones"]["overall"]
    rows = result["tones"]["classes"]
    assert [row["class"] for row in rows] == list("0123456789")
    assert min(row["mean"] for row in rows) <= overall <= max(row["mean"] for row in rows)
    assert "tones" in result["seconds"]
    cli("report", "run")
    page = Path("run/report.html").read_text()
    assert all(words in page for words in ("Other analyses", "Mean grey", f"{overall:.3g}"))


# --- the command line -------------------------------------------------------------------------


def test_a_verb(add, cli, train, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert command(["count", "run"]) == 2
    add("Verb")
    parameters = cli("inspect", "digits", "--json")["parameters"]
    assert cli("count", "digits", "--json") == {"run": "digits", "parameters": parameters}
    assert cli("count", "digits") == f"digits: {parameters:,} parameters\n"
    train("run", images=16)
    assert cli("count", "run", "--json")["parameters"] < parameters
    assert "Count the parameters of a run." in cli("--help")
    text = cli("count", "--help")
    assert all(
        example in text for example in importlib.import_module("mezzotint.cli.count").EXAMPLES
    )


def test_help_lists_every_name(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    helps = {"evaluate": metric_names(), "sample": SAMPLERS}
    for verb, names in helps.items():
        text = " ".join(cli(verb, "--help").replace("│", " ").split())
        separator = ", " if verb == "evaluate" else "|"
        assert separator.join(names) in text
