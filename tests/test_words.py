"""The library speaks the field's words: names that were ours alone do not come back.

`config/legacy.py` and its test translate the old names; nothing else may define one.
"""

import ast
import re
import tomllib
from pathlib import Path

import click
import pytest
import typer.main

from mezzotint.cli import texts
from mezzotint.cli.main import build_app
from mezzotint.config.legacy import CHOICES, VIEWS
from mezzotint.config.registry import (
    LR_SCHEDULES,
    NETWORKS,
    PARAMETERIZATIONS,
    SAMPLERS,
    SCHEDULES,
    WEIGHTS,
)
from mezzotint.config.schema import Config
from mezzotint.networks import Block, Embedding, Level
from mezzotint.runs.facts import DataFacts, Machine, Origin

ROOT = Path(__file__).parents[1]
ROOMS = ("src/mezzotint", "tests", "benchmarks")

PARTS_OF_NAMES = frozenset(
    "told freed ladder walk begin begun bind steered nudged wish wished goal precondition "
    "preconditions alone nested gauge gauged seal sealed world worlds subject subjects judge "
    "judged judging unjudged judgement judgements verdict verdicts pick picks replay replays "
    "played suited films stored pin rulers ruler given beside turned".split()
)
"""No name may have one of these among its words: neither `told` nor `_told_later`."""

WHOLE_NAMES = frozenset(
    "free is_free weak early within drop rates parts waits open_variance still_open is_loss "
    "say".split()
)
"""Names of functions, classes, parameters, attributes and modules; fine inside of longer ones."""

JSON_KEYS = frozenset({"subject", "verdict", "early_images_seen"})
"""Keys that evaluation.json and sweep.json had; no text may be one or write one as JSON does."""

LEGACY = {"src/mezzotint/config/legacy.py", "tests/config/test_legacy.py", "tests/test_words.py"}

FOREIGN = {("tests/runtime/test_cuda_graphs.py", "replay")}
"""Names that another library demands: torch.cuda.CUDAGraph has a method of this name."""


def words(name):
    """The words of an identifier, in small letters.

    >>> words("_RunSubject")
    ['run', 'subject']
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")


def definitions(tree):
    """(line, name, is local) of all that a module defines, but for the sentences of tests."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if not node.name.startswith("test_"):
                yield line, node.name, False
        elif isinstance(node, ast.arg):
            yield line, node.arg, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield line, node.attr, False
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield line, node.target.id, False
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield line, node.id, True
        elif isinstance(node, ast.alias) and node.asname:
            yield line, node.asname, False


def is_ours_alone(name, local=False):
    return bool(PARTS_OF_NAMES & set(words(name))) or (
        not local and name.strip("_").lower() in WHOLE_NAMES
    )


FILES = {
    str(file.relative_to(ROOT)): file
    for room in ROOMS
    for file in sorted((ROOT / room).rglob("*.py"))
}


@pytest.mark.parametrize("room", ROOMS)
def test_no_definition_parameter_or_attribute_is_a_private_word(room):
    found = []
    for path, file in FILES.items():
        if path in LEGACY or not path.startswith(room):
            continue
        if is_ours_alone(file.stem.removeprefix("test_")):
            found.append(path)
        for line, name, local in definitions(ast.parse(file.read_text())):
            if is_ours_alone(name, local) and (path, name) not in FOREIGN:
                found.append(f"{path}:{line}: {name}")
    assert found == []


def json_keys(tree):
    """(line, key) of the private JSON keys in a module: as a text, in a text, as an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            written = re.findall(r'"(\w+)"\s*:', node.value)
            for key in sorted(JSON_KEYS & {node.value, *written}):
                yield node.lineno, key
        elif isinstance(node, ast.keyword) and node.arg in JSON_KEYS:
            yield node.value.lineno, node.arg


@pytest.mark.parametrize("room", ROOMS)
def test_no_json_key_is_a_private_word(room):
    found = [
        f"{path}:{line}: {key}"
        for path, file in FILES.items()
        if path.startswith(room) and path not in LEGACY
        for line, key in json_keys(ast.parse(file.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'result["verdict"]',
        'result.get("verdict")',
        'found = {"n": 1, "verdict": ""}',
        'found["verdict"] = ""',
        "found = dict(verdict='')",
        "text = '{\"verdict\": []}'",
        "text = f'{{\"verdict\": {n}}}'",
    ],
)
def test_a_private_json_key_would_be_seen(code):
    assert list(json_keys(ast.parse(code))) == [(1, "verdict")]
    assert list(json_keys(ast.parse(code.replace("verdict", "summary")))) == []


OLD_CHOICES = {"weights": "network", "checkpoint": "early", "view": "free"}
"""Argument -> a value that it had."""

CHECKPOINT_METHODS = {"has", "checkpoint", "images_seen"}
"""Methods of a run that take the name of a checkpoint."""


def old_choices(tree):
    """(line, value) of the old choices that a module names: as a keyword, default or key."""
    for node in ast.walk(tree):
        pairs = []
        if isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args][-len(node.defaults) or None :]
            pairs = [(a.arg, value) for a, value in zip(positional, node.defaults, strict=False)]
            pairs += [(a.arg, v) for a, v in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        elif isinstance(node, ast.Dict):
            items = zip(node.keys, node.values, strict=True)
            pairs = [(getattr(key, "value", ""), value) for key, value in items]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            pairs = [(node.target.id, node.value)]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in CHECKPOINT_METHODS:
            pairs = [("checkpoint", value) for value in node.args[:1]]
        for name, value in pairs:
            if isinstance(value, ast.Constant) and value.value == OLD_CHOICES.get(name, ()):
                yield value.lineno, value.value


def test_the_old_choices_are_those_that_are_translated():
    first = {name: next(iter(old)) for name, old in {**CHOICES, "view": VIEWS}.items()}
    assert first == OLD_CHOICES
    assert all(len(old) == 1 for old in (*CHOICES.values(), VIEWS))
    assert not {*texts.Weights, *texts.Checkpoint} & set(OLD_CHOICES.values())


@pytest.mark.parametrize("room", ROOMS)
def test_no_choice_is_a_private_word(room):
    found = [
        f"{path}:{line}: {value}"
        for path, file in FILES.items()
        if path.startswith(room) and path not in LEGACY
        for line, value in old_choices(ast.parse(file.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "load(run, weights='network')",
        "def f(*, weights='network'): ...",
        "def f(a, b, checkpoint='early', c=1): ...",
        "class C:\n    checkpoint: str = 'early'",
        "run.has('early')",
        "{'view': 'free'}",
    ],
)
def test_an_old_choice_would_be_seen(code):
    assert len(list(old_choices(ast.parse(code)))) == 1
    for old, new in (("network", "raw"), ("early", "snapshot"), ("free", "x")):
        code = code.replace(old, new)
    assert list(old_choices(ast.parse(code))) == []


def keys(model):
    """The keys of a settings object and of all below it."""
    for name, field in model.model_fields.items():
        yield name
        if hasattr(field.annotation, "model_fields"):
            yield from keys(field.annotation)


def test_no_setting_is_a_private_word():
    found = {key for model in (Config, Origin, DataFacts, Machine) for key in keys(model)}
    classes = [Level, Block, Embedding]
    for registry in (SCHEDULES, PARAMETERIZATIONS, WEIGHTS, LR_SCHEDULES, SAMPLERS, NETWORKS):
        found |= set(registry)
        classes += registry.values()
    found |= {field for each in classes for field in each.__dataclass_fields__}
    assert [key for key in sorted(found) if is_ours_alone(key.replace("-", "_"))] == []


def paths(table):
    for key, value in table.items():
        yield key
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from paths(inner)


PRESETS = sorted((ROOT / "src/mezzotint/config/presets").glob("*.toml"))


@pytest.mark.parametrize("file", PRESETS, ids=[file.stem for file in PRESETS])
def test_no_key_of_a_preset_is_a_private_word(file):
    table = tomllib.loads(file.read_text())
    settings = [text.partition("=")[0] for when in table.get("when", []) for text in when["set"]]
    found = [*paths(table), *(word for path in settings for word in path.strip().split("."))]
    assert [key for key in found if is_ours_alone(key)] == []


def commands(command, name="mezzotint"):
    yield name, command
    for own, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {own}")


COMMANDS = dict(commands(typer.main.get_command(build_app())))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_and_no_help_text_has_a_private_word(name):
    command = COMMANDS[name]
    options = [option for each in command.params for option in each.opts]
    assert [o for o in options if is_ours_alone(o.strip("-").replace("-", "_"))] == []
    text = command.get_help(click.Context(command)).lower()
    english = {"alone", "given", "begin", "beside", "turned", "told"}  # also words of the language
    assert sorted((PARTS_OF_NAMES - english) & set(re.findall(r"[a-z_]+", text))) == []


def test_a_private_word_would_be_seen():
    tree = ast.parse("def f(told):\n    self.gauge = 1\n    given = 2\nclass RunSubjects: ...\n")
    assert {n for _, n, local in definitions(tree) if is_ours_alone(n, local)} == {
        "told", "gauge", "given", "RunSubjects",
    }  # fmt: skip
    assert not is_ours_alone("drop_styles_jointly")
    assert is_ours_alone("drop")
    assert not is_ours_alone("parts", local=True)
