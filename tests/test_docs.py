"""What the documents say is run: Python blocks as they stand, commands at least parsed.

Comments on the lines before a block steer this: `<!-- slow -->` runs it (and its whole file) only
among the slow tests, `<!-- run -->` runs the mezzotint commands of a `sh` block for real.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.main

import mezzotint
from mezzotint.cli.main import VERBS, build_app
from mezzotint.config.presets import load_preset, preset_names
from mezzotint.config.registry import sampler_table
from mezzotint.config.schema import Config
from mezzotint.config.tables import parse_config, with_deviation

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"\s*```(\w*)")


class Block(NamedTuple):
    """A fenced block of a document."""

    line: int
    """Of its first line, counted from 0."""

    language: str
    marks: frozenset[str]
    text: str


def blocks(text):
    """The fenced blocks of a document, in order."""
    found, start, language, marks = [], 0, None, set()
    lines = text.splitlines()
    for number, line in enumerate(lines):
        fence = FENCE.match(line)
        if language is None and fence:
            start, language = number + 1, fence[1]
        elif language is None:
            mark = re.fullmatch(r"\s*((<!-- *\w+ *--> *)+)", line)
            marks = marks | set(re.findall(r"<!-- *(\w+)", mark[1])) if mark else set()
        elif fence:
            body = "\n".join(lines[start:number]) + "\n"
            found.append(Block(start, language, frozenset(marks), body))
            language, marks = None, set()
    assert language is None, "a block is not closed"
    return found


def documents(language):
    """Every document with blocks of a language, and those blocks."""
    found = [(f, [b for b in blocks(f.read_text()) if b.language == language]) for f in FILES]
    return {str(file.relative_to(ROOT)): own for file, own in found if own}


def commands(block):
    """The lines of a shell block that call mezzotint or make, as words."""
    joined = block.text.replace("\\\n", " ")
    return [
        shlex.split(line, comments=True)
        for line in map(str.strip, joined.splitlines())
        if line.startswith(("mezzotint ", "make "))
    ]


PYTHON = documents("python")
SHELL = documents("sh")
SLOW = [name for name, own in PYTHON.items() if any("slow" in b.marks for b in own)]
QUICK = [name for name, own in PYTHON.items() if any("slow" not in b.marks for b in own)]
RUN = {
    f"{name}:{block.line}": block
    for name, own in SHELL.items()
    for block in own
    if "run" in block.marks
}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty working directory with a cache of its own."""
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def execute(name, chosen):
    """Blocks of one document, one after the other, in one namespace."""
    namespace = {"__name__": "__main__"}
    for block in chosen:
        # As many empty lines as come before it, so that a traceback names the document's line.
        source = "\n" * block.line + block.text
        exec(compile(source, str(ROOT / name), "exec"), namespace)


@pytest.mark.parametrize("name", QUICK)
def test_python_in_the_documents_runs(name, empty):
    execute(name, [block for block in PYTHON[name] if "slow" not in block.marks])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_all_python_in_the_documents_runs(name, empty):
    execute(name, PYTHON[name])


def test_the_table_of_presets_is_what_they_say():
    lines = (ROOT / "docs" / "presets.md").read_text().splitlines()
    rows = [[c.strip(" `") for c in line.strip("|").split("|")] for line in lines if "`" in line]
    messages = {row[0]: row[2:] for row in rows if len(row) == 5}
    found = {}
    for name in preset_names():
        table = load_preset(name)
        own = parse_config(with_deviation(table, 0.5), Config)
        how = f"{sampler_table(own.sampling.sampler)}, {own.sampling.evaluations}"
        found[name] = [own.training.budget, how, f"{own.sampling.guidance:g}"]
    assert messages == found


def check_make(words):
    """Every target of a make command is in the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+)\s*:(?!=)", makefile, re.MULTILINE))
    wanted = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
    assert wanted, f"{words} names no target"
    assert set(wanted) <= targets, f"{words}: the Makefile has {sorted(targets)}"


def check_mezzotint(words):
    """A command parses: the verb, its options and their values exist. Nothing is run."""
    group = typer.main.get_command(build_app())
    if words[1].startswith("-"):
        known = {option for p in group.params for option in p.opts} | {"--help", "-h"}
        assert words[1] in known, words
        return
    check_verb(group, words[1:])


def check_verb(group, words, parent=None):
    """The first word is a verb of the group, and the others are what it takes; or a verb of it."""
    name, *others = words
    context = group.make_context(group.name, [name], parent=parent, resilient_parsing=True)
    verb = group.get_command(context, name)
    assert verb is not None, f"{name} is no verb"
    if hasattr(verb, "commands") and others and not others[0].startswith("-"):
        check_verb(verb, others, context)
    elif not {"--help", "-h"} & set(words):
        verb.make_context(name, others, parent=context)


@pytest.mark.parametrize("name", SHELL)
def test_commands_in_the_documents_exist(name):
    for words in (words for block in SHELL[name] for words in commands(block)):
        (check_make if words[0] == "make" else check_mezzotint)(words)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_commands_that_are_to_be_run_work(name, empty):
    for words in commands(RUN[name]):
        if words[0] == "mezzotint":
            called = [sys.executable, "-m", *words]
            answer = subprocess.run(called, capture_output=True, text=True, check=False)
            assert answer.returncode == 0, f"{words}: {answer.stderr}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_links_to_files_lead_somewhere(file):
    text = re.sub(r"^\s*```.*?^\s*```", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [t.split("#")[0] for t in targets if not re.match(r"[a-z]+:|#", t)]
    assert [t for t in local if not (file.parent / t).exists()] == []


def long_lines(text):
    """Numbers, from 1, of the lines above 100 characters that are no code and no table."""
    code = {
        number
        for block in blocks(text)
        for number in range(block.line, block.line + block.text.count("\n"))
    }
    return [
        number + 1
        for number, line in enumerate(text.splitlines())
        if len(line) > 100 and number not in code and not line.lstrip().startswith("|")
    ]


@pytest.mark.parametrize("name", ["CHANGELOG.md", "CONTRIBUTING.md", *map(str, FILES)])
def test_lines_of_prose_have_at_most_100_characters(name):
    assert long_lines((ROOT / name).read_text()) == []


def test_the_page_of_the_library_lists_every_function():
    rows = re.findall(r"^\| (`.*) \|$", (ROOT / "docs/library.md").read_text(), re.MULTILINE)
    table = [[cell.strip("` ") for cell in row.split("|")] for row in rows if row.count("|") == 4]
    listed = {name for row in table for cell in row[:4] for name in re.findall(r"^\w+", cell)}
    functions = {name for name in mezzotint.__all__ if name.islower() and name.isalpha()}
    objects = {name for name in mezzotint.__all__ if name.endswith(("Request", "Result"))}
    assert functions | objects <= listed
    assert {row[1] for row in table} - {"–"} == VERBS.keys() - {"demo"}


def test_the_readme_is_among_what_is_run():
    assert "README.md" in PYTHON
    assert "README.md" in SHELL


# --- the checks themselves --------------------------------------------------------------------


def test_blocks_are_found_with_their_marks():
    text = (
        "<!-- slow -->\n```python\na\n```\n"
        "x\n<!-- run -->\n<!-- slow -->\n```sh\nb\n\nc\n```\n"
        "<!-- slow -->\nnot directly before\n```python\nd\n```\n  ```\n  e\n  ```\n"
    )
    found = blocks(text)
    assert [(b.language, b.marks, b.text) for b in found] == [
        ("python", {"slow"}, "a\n"),
        ("sh", {"run", "slow"}, "b\n\nc\n"),
        ("python", set(), "d\n"),
        ("", set(), "  e\n"),
    ]
    assert text.splitlines()[found[1].line] == "b"


def test_commands_are_found_over_several_lines():
    block = Block(0, "sh", frozenset(), "ls\nmezzotint data \\\n  'a b'  # why\n  make test\n")
    assert commands(block) == [["mezzotint", "data", "a b"], ["make", "test"]]


@pytest.mark.parametrize(
    "line",
    ["mezzotint tran digits", "mezzotint train digits", "mezzotint data digits --sheet a.png",
     "mezzotint data digits --limit many", "mezzotint --verson", "make everything", "make",
     "mezzotint edit compos runs/x 12 --out a.png",
     "mezzotint edit compose runs/x 12 --outs a.png",
     "mezzotint edit compose runs/x 12 --out a.png --n many"],
)  # fmt: skip
def test_a_wrong_command_would_be_seen(line):
    words = line.split()
    with pytest.raises(Exception) as error:  # noqa: PT011 - whose class is typer's own affair
        (check_make if words[0] == "make" else check_mezzotint)(words)
    assert isinstance(error.value, AssertionError) or hasattr(error.value, "format_message")


def test_a_right_command_is_not_run(empty):
    check_mezzotint("mezzotint train digits --out runs/x --budget 10m".split())
    check_mezzotint("mezzotint sample runs/x --n 3 --out a.png".split())
    check_mezzotint("mezzotint edit compose runs/x 12 --out a.png".split())
    check_mezzotint("mezzotint train --help".split())
    check_mezzotint("mezzotint edit --help".split())
    check_mezzotint("mezzotint edit compose --help".split())
    check_mezzotint("mezzotint --install-completion".split())
    check_make("make demo PYTHON=python3".split())
    assert os.listdir(empty) == []


def test_a_long_line_would_be_seen():
    long = "a " * 51
    assert long_lines(f"{long}\nb\n| {long} |\n```sh\n{long}\n```\n- {long}\n") == [1, 7]


def test_wrong_python_is_seen_with_its_line():
    (block,) = blocks("one\ntwo\n\n```python\na = 1\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as error:
        execute("README.md", [block])
    assert error.traceback[-1].lineno + 1 == 6
