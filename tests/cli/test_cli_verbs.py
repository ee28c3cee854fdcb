"""One file a verb: options, a request, a call, the result in words; and a help that is whole."""

import ast
import importlib
import os
import re
import subprocess
import sys
import typing
from collections import Counter
from enum import Enum
from pathlib import Path

import pytest
import typer.main

import mezzotint.cli
from mezzotint.cli.main import VERBS, build_app
from mezzotint.config.registry import SAMPLERS

FILES = sorted(Path(mezzotint.cli.__file__).parent.glob("*.py"))

MAX_LINES = 200

HEAVY = {"torch", "numpy", "PIL", "matplotlib", "datasets", "scipy", "transformers"}

FIXED = {"device", "weights", "checkpoint", "split"}
"""Options whose choices no registry holds."""


def module_of(words):
    return importlib.import_module(VERBS[words].partition(":")[0])


def function_of(words):
    return getattr(module_of(words), VERBS[words].partition(":")[2])


def command(words):
    """The command of a verb, as typer builds it."""
    found = typer.main.get_command(build_app())
    for word in words.split():
        found = found.commands[word]
    return found


# --- one file a verb --------------------------------------------------------------------------


def test_a_file_has_one_verb():
    modules = Counter(module_of(words).__name__ for words in VERBS)
    assert set(modules.values()) == {1}
    for words in VERBS:
        tree = ast.parse(Path(module_of(words).__file__).read_text())
        functions = [each for each in tree.body if isinstance(each, ast.FunctionDef)]
        verbs = [each.name for each in functions if "as_json" in {a.arg for a in each.args.args}]
        assert verbs == [function_of(words).__name__]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_is_short(file):
    assert len(file.read_text().splitlines()) <= MAX_LINES


def imported(tree):
    """What a module imports when it is imported itself."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_heavy_is_imported_with_a_file(file):
    names = {name.partition(".")[0] for name in imported(ast.parse(file.read_text()))}
    assert not names & HEAVY


def called(function):
    """The names of what a function calls."""
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return [name.id for name in calls if isinstance(name, ast.Name)]


@pytest.mark.parametrize("words", VERBS)
def test_a_verb_makes_a_request_and_executes_it(words):
    tree = ast.parse(Path(module_of(words).__file__).read_text())
    (verb,) = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == function_of(words).__name__
    ]
    names = called(verb)
    assert names.count("execute") == 1
    assert [name for name in names if re.fullmatch(r"[A-Z]\w+Request", name)]
    assert "show" in names


HELLO = '''
"""`mezzotint hello`."""

from typing import Annotated

import typer

from mezzotint.cli import options
from mezzotint.cli.show import show

EXAMPLES = ("mezzotint hello world",)


def hello(
    whom: Annotated[str, typer.Argument(help="Who is greeted.")],
    as_json: options.Json = False,
) -> None:
    """Greet somebody."""
    show({"greeting": f"hello {whom}"}, lambda facts: facts["greeting"], as_json)
'''


@pytest.mark.parametrize("words", ["hello", "edit hello"])
def test_a_verb_is_one_file_and_one_line(cli, tmp_path, monkeypatch, words):
    assert cli(f"{words} world").code == 2
    (tmp_path / "new_verb.py").write_text(HELLO)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "new_verb", raising=False)
    monkeypatch.setitem(VERBS, words, "new_verb:hello")
    assert cli(f"{words} world") == (0, "hello world\n", "")
    assert cli(f"{words} world --json").out == '{"greeting": "hello world"}\n'
    assert "Greet somebody." in cli([*words.split()[:-1], "--help"]).out
    whole = cli(f"{words} --help").out
    assert all(text in whole for text in ("Who is greeted.", "mezzotint hello world", "--json"))


# --- help -------------------------------------------------------------------------------------


@pytest.fixture
def help_of(cli, monkeypatch):
    """The help of a verb on a wide terminal, without boxes and with single spaces."""
    monkeypatch.setenv("COLUMNS", "200")

    def shown(words):
        answer = cli(f"{words} --help")
        assert (answer.code, answer.err) == (0, "")
        return answer.out

    return shown


def flat(text):
    """A text without boxes and line breaks.

    >>> flat("│ one   two │")
    'one two'
    """
    return " ".join(re.sub("[─│╭╮╰╯]", " ", text).split())


@pytest.mark.parametrize("words", VERBS)
def test_help_shows_every_text_whole(help_of, words):
    shown, whole = help_of(words), command(words)
    assert "╭─ Options ─" in shown
    text = flat(shown)
    assert flat(whole.help) in text
    for each in whole.params:
        assert each.help, f"{each.name} has no help"
        assert flat(each.help) in text, each.name
        if each.opts[0].startswith("-"):
            assert all(f" {option} " in text for option in each.opts)


@pytest.mark.parametrize("words", VERBS)
def test_help_shows_an_example_a_line(help_of, words):
    lines = [line.strip() for line in help_of(words).splitlines()]
    examples = module_of(words).EXAMPLES
    assert examples
    assert [line for line in lines if line in examples] == list(examples)
    assert all(example.startswith("mezzotint ") for example in examples)
    assert any(example.startswith(f"mezzotint {words}") for example in examples)


@pytest.mark.parametrize("words", VERBS)
def test_fixed_choices_are_enums_that_help_lists(help_of, words):
    hints, text = typing.get_type_hints(function_of(words)), flat(help_of(words))
    for name in FIXED & hints.keys():
        assert issubclass(hints[name], Enum)
        assert f"<{'|'.join(hints[name])}>" in text
    if "sampler" in hints:
        assert f"<{'|'.join(SAMPLERS)}>" in text


def test_defaults_are_shown(help_of):
    text = flat(help_of("evaluate"))
    shown = ("[default: auto]", "[default: ema]", "[default: last]", "[default: test]")
    assert all(each in text for each in shown)
    assert "[required]" in flat(help_of("train"))


# --- completion -------------------------------------------------------------------------------

COMPLETE = "import sys; sys.argv[0] = 'mezzotint'; from mezzotint.cli.main import main; main()"


def completed(line):
    """What bash offers for the last word of a line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    answer = subprocess.run(
        [sys.executable, "-c", COMPLETE],
        env={**os.environ, "_MEZZOTINT_COMPLETE": "complete_bash", **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.split()


def test_the_shell_completes_choices():
    assert completed("mezzotint sample run --device ") == ["auto", "cpu", "cuda", "mps"]
    assert completed("mezzotint sample run --sampler ") == list(SAMPLERS)
    assert completed("mezzotint sample run --sampler dpm++2m-") == ["dpm++2m-sde"]
    assert completed("mezzotint evaluate run --split t") == ["test", "train"]


@pytest.mark.parametrize(
    ("line", "choice"),
    [
        ("--weights network", "raw"),
        ("--weights=network", "raw"),
        ("--weights raw", "raw"),
        ("--checkpoint best", "best"),
    ],
)
def test_choices_of_before_keep_their_meaning(cli, digits_run, line, choice):
    drawn = cli(f"sample run --n 2 --out a.png --dry-run --json {line}")
    assert (drawn.code, drawn.err) == (0, "")
    assert f'"{choice}"' in drawn.out


def test_a_snapshot_of_before_is_a_snapshot(refused, digits_run):
    for name in ("early", "snapshot"):
        line = refused(f"sample run --n 2 --out a.png --checkpoint {name}")
        assert "no early snapshot" in line
