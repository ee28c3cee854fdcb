"""The public interface: every verb is a typed function with a frozen request and a JSON result."""

import dataclasses
import inspect
import json
import re
import shutil
import subprocess
import sys
import typing
import warnings
from collections.abc import Mapping

import pytest
import typer.main

import mezzotint
from mezzotint.cli.main import VERBS, build_app
from mezzotint.runs.train import execute as train_execute
from mezzotint.sampling.request import SampleRequest
from tiny_runs import TINY

FUNCTIONS = {
    "train": mezzotint.train,
    "sample": mezzotint.sample,
    "evaluate": mezzotint.evaluate,
    "sweep": mezzotint.sweep,
    "select": mezzotint.select,
    "tune": mezzotint.tune,
    "compose": mezzotint.compose,
    "report": mezzotint.report,
    "inspect": mezzotint.inspect,
    "describe": mezzotint.describe,
    "benchmark": mezzotint.benchmark,
    "Model.sample": mezzotint.Model.sample,
}

REQUESTS = {
    "train": mezzotint.TrainRequest,
    "sample": mezzotint.SampleFilesRequest,
    "evaluate": mezzotint.EvaluateRequest,
    "sweep": mezzotint.SweepRequest,
    "select": mezzotint.SelectRequest,
    "tune": mezzotint.TuneRequest,
    "compose": mezzotint.ComposeRequest,
    "report": mezzotint.ReportRequest,
    "inspect": mezzotint.InspectRequest,
    "describe": mezzotint.DescribeRequest,
    "benchmark": mezzotint.BenchmarkRequest,
    "Model.sample": SampleRequest,
}

RESULTS = {
    "train": mezzotint.TrainResult,
    "sample": mezzotint.SampleResult,
    "evaluate": mezzotint.EvaluateResult,
    "sweep": mezzotint.SweepResult,
    "select": mezzotint.SelectResult,
    "tune": mezzotint.TuneResult,
    "compose": mezzotint.ComposeResult,
    "report": mezzotint.ReportResult,
    "inspect": mezzotint.InspectResult,
    "describe": mezzotint.DescribeResult,
    "benchmark": mezzotint.BenchmarkResult,
}

BY_POSITION = {
    "compose": ["run", "text"],
    "report": ["runs"],
    "Model.sample": ["self", "label", "n"],
}
"""Parameters that are given by position; one for every other function."""

OUT_FIRST = {"train": ["source", "out"]}
"""Fields of a request that are given by position, where there are more than one."""

# --- names ------------------------------------------------------------------------------------

NAMES = """
import importlib, mezzotint, pkgutil
first = {name: getattr(mezzotint, name) for name in mezzotint.__all__}
assert all(getattr(mezzotint, name) is value for name, value in first.items())
for module in pkgutil.walk_packages(mezzotint.__path__, "mezzotint."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert error.name.split(".")[0] in ("triton", "torch_fidelity"), error
for name, value in first.items():
    assert getattr(mezzotint, name) is value, name
print(len(first))
"""


def test_a_name_stays_what_it_is_whatever_is_imported():
    answer = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) == len(mezzotint.__all__) == len(set(mezzotint.__all__))


def test_every_public_name_is_listed():
    assert set(mezzotint.__all__) <= set(dir(mezzotint))
    assert {*FUNCTIONS, "load"} - {"Model.sample"} <= set(mezzotint.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'paint'"):
        _ = mezzotint.paint


LIGHT = """
import sys
import mezzotint
heavy = {"torch", "numpy", "PIL", "matplotlib", "datasets", "scipy", "transformers"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
from mezzotint.cli.main import run
assert run(["--help"]) == 0
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""


def test_neither_the_import_nor_the_command_line_loads_torch():
    answer = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


# --- parameters -------------------------------------------------------------------------------


def parameters(function):
    return inspect.signature(function).parameters


def types_in(annotation):
    """Every type that an annotation is made of; a sampler's or schedule's table is one type."""
    if annotation == Mapping[str, object]:
        return {Mapping}
    if isinstance(annotation, list):  # of the arguments of a Callable
        return set().union(*map(types_in, annotation))
    inside = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return {typing.Literal}
    return {annotation} if not inside else set().union(*map(types_in, inside))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_follows_the_subject_is_named(name):
    kinds = {each.name: each.kind for each in parameters(FUNCTIONS[name]).values()}
    by_position = [each for each, kind in kinds.items() if kind is not inspect._ParameterKind(3)]
    assert by_position == BY_POSITION.get(name, by_position[:1])
    assert inspect.Parameter.VAR_KEYWORD not in kinds.values()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_has_a_type_that_says_something(name):
    hints = typing.get_type_hints(FUNCTIONS[name])
    assert set(hints) == {*parameters(FUNCTIONS[name]), "return"} - {"self"}
    for parameter, annotation in hints.items():
        assert not {object, typing.Any} & types_in(annotation), parameter


def test_a_type_that_says_nothing_would_be_seen():
    assert types_in(str | list[object]) == {str, object}
    assert types_in(Mapping[str, typing.Any] | None) == {str, typing.Any, type(None)}
    assert types_in(str | Mapping[str, object]) == {str, Mapping}


def sections(function):
    """The sections of a docstring: "" is what comes first."""
    text = inspect.cleandoc(function.__doc__)
    found = re.split(r"^(Args|Returns|Raises):$", text, flags=re.MULTILINE)
    return {"": found[0], **dict(zip(found[1::2], found[2::2], strict=True))}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_has_an_example_and_names_every_parameter(name):
    found = sections(FUNCTIONS[name])
    assert list(found) == ["", "Args", "Returns", "Raises"]
    assert re.search(r"^    .*\b(mezzotint|model)\.\w+\(", found[""], re.MULTILINE), "an example"
    listed = re.findall(r"^    \*?(\w+): \S", found["Args"], re.MULTILINE)
    assert listed == [each for each in parameters(FUNCTIONS[name]) if each != "self"]
    assert re.search(r"^    \w+Error: \S", found["Raises"], re.MULTILINE)
    for kind in re.findall(r"^    (\w+): \S", found["Raises"], re.MULTILINE):
        assert issubclass(getattr(mezzotint, kind), mezzotint.MezzotintError)


def test_drawing_has_the_same_options_whether_it_writes_or_not():
    drawing = set(parameters(mezzotint.Model.sample)) - {"self", "watch"}
    assert drawing <= set(parameters(mezzotint.sample))


# --- requests and results ---------------------------------------------------------------------


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_frozen_and_typed_and_its_options_are_named(name):
    request = REQUESTS[name]
    assert request.__dataclass_params__.frozen
    assert re.fullmatch(r"[A-Z][a-z]+(Files)?Request", request.__name__)
    fields = dataclasses.fields(request)
    by_position = [each.name for each in fields if not each.kw_only]
    assert by_position == OUT_FIRST.get(name, by_position[:1])
    assert "Any" not in " ".join(str(each.type) for each in fields)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_a_dataclass_that_becomes_json(name):
    result = RESULTS[name]
    assert result.__dataclass_params__.frozen
    assert list(inspect.signature(result.to_json).parameters) == ["self"]
    returned = typing.get_type_hints(FUNCTIONS[name])["return"]
    assert returned is (mezzotint.Run if name == "train" else result)


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of a tiny run, in which these tests may write."""
    folder = tmp_path_factory.mktemp("interface") / "run"
    return mezzotint.Run.at(shutil.copytree(tiny_run.path, folder))


def is_json(result):
    """Whether JSON holds all that `to_json` gives, under the same keys."""
    facts = result.to_json()
    return json.loads(json.dumps(facts)).keys() == facts.keys()


def test_training_returns_its_run_and_knows_how_it_went(tmp_path):
    request = mezzotint.TrainRequest(
        "digits", tmp_path / "run", budget="16images", settings=TINY, device="cpu"
    )
    done = train_execute(request)
    assert is_json(done)
    assert done.to_json()["images_seen"] == done.run.images_seen() == 16
    dry = train_execute(dataclasses.replace(request, out=tmp_path / "dry", dry_run=True))
    assert is_json(dry)
    assert not (tmp_path / "dry").exists()


def test_results_of_a_run_become_json(run, tmp_path):
    drawn = mezzotint.sample(run, out=tmp_path / "grid.png", n=4, device="cpu")
    assert is_json(drawn)
    assert drawn.images.shape == (4, 1, 8, 8)
    whole = mezzotint.evaluate(run, metrics=["accuracy", "kd"], n=100, device="cpu")
    assert is_json(whole)
    swept = mezzotint.sweep(run, scales=[1, 2], n=150, evaluations=2, device="cpu")
    assert is_json(swept)
    assert is_json(mezzotint.report(run))
    assert is_json(mezzotint.inspect(run.path))
    kept = mezzotint.select(
        run, out=tmp_path / "kept", label=3, pool=4, top=1, score="classifier", device="cpu"
    )
    assert is_json(kept)
    assert len(kept.kept.images) == 1
    composed = mezzotint.compose(run, "31", out=tmp_path / "31.png", evaluations=2, device="cpu")
    assert is_json(composed)


def test_results_without_a_run_become_json(tmp_path):
    assert is_json(mezzotint.describe("digits", styles=None, out=tmp_path / "sheet.png"))
    assert is_json(mezzotint.inspect("digits", settings=["training.batch=8"]))


@pytest.mark.parametrize("weights", ["ema", "raw"])
@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_every_choice_of_weights_can_be_loaded(run, weights, checkpoint):
    model = mezzotint.load(run, weights=weights, checkpoint=checkpoint, device="cpu")
    assert model.sample(n=1).shape == (1, 1, 8, 8)


def test_the_snapshot_is_a_checkpoint(run):
    with pytest.raises(mezzotint.CheckpointError, match=r"training\.snapshot = 0"):
        mezzotint.load(run, checkpoint="snapshot", device="cpu")


# --- the command line has no option that the library lacks --------------------------------------

COMMANDS = {
    "data": "describe",
    "bench": "benchmark",
    "edit compose": "compose",
    **{verb: verb for verb in ("inspect train sample evaluate sweep report select tune".split())},
}
"""Verb -> its function. The demo joins several."""

NO_PARAMETER = {"json", "dry_run", "help"}
"""Options that say what the command prints or does not do."""

CALLED = {
    "style": "styles",
    "set": "settings",
    "from": "init_from",
    "rate": "learning_rate",
    "prompt_scale": "prompt",
    "prompt_interval": "prompt",
    "prompt_gradient": "prompt",
}
"""Option -> the parameter of the same meaning, where their names differ."""

CALLED_BY = {"sample": {"score": "prompt"}}
"""The same for one verb."""

NO_OPTION = {
    "progress": set(COMMANDS.values()),
    "clip": {"sample", "evaluate"},
    "start": {"sample"},
    "noise": {"sample"},
    "schedule": {"sample"},
}
"""Parameter -> the functions in which no option sets it."""


def command(verb):
    """The command of a verb, as typer builds it."""
    found = typer.main.get_command(build_app())
    for word in verb.split():
        found = found.commands[word]
    return found


def set_by(verb):
    """Option or argument -> the parameter of the verb's function that it sets."""
    names = {}
    for each in command(verb).params:
        option = max(each.opts, key=len)  # --n rather than -n
        name = option.removeprefix("--").replace("-", "_")
        if name not in NO_PARAMETER:
            names[option] = CALLED_BY.get(verb, {}).get(name, CALLED.get(name, name))
    return names


def test_every_verb_is_a_function():
    assert {*COMMANDS, "demo"} == set(VERBS)
    assert set(COMMANDS.values()) == set(FUNCTIONS) - {"Model.sample"}


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_option_is_a_parameter(verb):
    function = COMMANDS[verb]
    names, known = set_by(verb), set(parameters(FUNCTIONS[function]))
    assert {option: name for option, name in names.items() if name not in known} == {}
    unset = {name for name in known if function not in NO_OPTION.get(name, ())}
    assert unset <= set(names.values())


@pytest.mark.parametrize("verb", COMMANDS)
def test_an_option_has_the_default_of_its_parameter(verb):
    known = parameters(FUNCTIONS[COMMANDS[verb]])
    for each in command(verb).params:
        option = max(each.opts, key=len)
        parameter = known.get(set_by(verb).get(option))
        if each.required or each.default is None or parameter is None:
            continue  # as the function says
        if option in ("--scales", "--checkpoint-every", "--styles"):
            continue  # words of the command line for a tuple, an interval and None
        assert each.default == parameter.default, option


# --- names of before ----------------------------------------------------------------------------


def warned(call):
    """What a call returns, and the one deprecation that it is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    (warning,) = [each for each in caught if each.category is DeprecationWarning]
    assert warning.filename == __file__  # of the caller
    return result, str(warning.message)


def test_keywords_of_before_keep_their_meaning(run, tmp_path):
    model, said = warned(lambda: mezzotint.load(run, weak=False, device="cpu"))
    assert "guide_model=" in said
    assert model.guide_model is None
    cosine = {"kind": "karras", "sigma_min": 0.01, "sigma_max": 20.0, "rho": 3.0}
    images, said = warned(lambda: model.sample(n=2, ladder=cosine))
    assert "schedule=" in said
    assert images.equal(model.sample(n=2, schedule=cosine))
    assert not images.equal(model.sample(n=2))
    seen = []
    images, said = warned(lambda: model.sample(n=3, watch=seen.append))
    assert "progress=" in said
    assert seen[-1] == 3
    assert images.equal(model.sample(n=3))
    arguments = {"budget": "16images", "settings": TINY, "device": "cpu"}
    other, said = warned(
        lambda: mezzotint.train("digits", out=tmp_path / "run", begin_from=run.path, **arguments)
    )
    assert "init_from=" in said
    assert other.config.origin.init_from


@pytest.mark.parametrize(
    ("old", "new"),
    [(("weights", "network"), {"weights": "raw"}), (("checkpoint", "early"), None)],
)
def test_values_of_before_keep_their_meaning(run, old, new):
    old = dict([old])
    if new is None:
        with (
            pytest.warns(DeprecationWarning, match="snapshot"),
            pytest.raises(mezzotint.CheckpointError, match="no early snapshot"),
        ):
            mezzotint.load(run, device="cpu", **old)
        return
    model, said = warned(lambda: mezzotint.load(run, device="cpu", **old))
    assert "raw" in said
    assert model.sample(n=2).equal(mezzotint.load(run, device="cpu", **new).sample(n=2))
