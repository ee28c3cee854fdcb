"""Imports go downwards only: every import statement against the order in docs/architecture.md."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mezzotint

HOME = Path(mezzotint.__file__).parent
ARCHITECTURE = Path(__file__).parents[1] / "docs" / "architecture.md"


def module_of(file, home=HOME):
    """The name of a file below `mezzotint`, without that; the root itself is __init__."""
    names = [*file.relative_to(home).parent.parts, file.stem]
    if len(names) > 1 and names[-1] == "__init__":
        names.pop()
    return ".".join(names)


def modules(home=HOME):
    return {module_of(file, home): file for file in sorted(home.rglob("*.py"))}


def imports(file, home=HOME):
    """(line, name) of whatever a file imports, anywhere in it; our own names below mezzotint."""
    known = modules(home)
    inside = list(file.relative_to(home).parent.parts)
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, own(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = ["mezzotint", *inside[: len(inside) - node.level + 1], *base]
            for alias in node.names:
                deeper = own([*base, alias.name])
                name = deeper if deeper.removeprefix("mezzotint.") in known else own(base)
                yield node.lineno, name


def own(names):
    """`mezzotint.a.b`; the package itself counts as `mezzotint.__init__`."""
    return "mezzotint.__init__" if list(names) == ["mezzotint"] else ".".join(names)


def order(text):
    """The line of each name in the fenced block `layers`, bottom first."""
    (block,) = re.findall(r"^```layers\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return {name: i for i, line in enumerate(block.splitlines()) for name in line.split()}


def room(module, heights):
    """The listed name that a module belongs to, the longest if there are several."""
    found = [n for n in heights if module == n or module.startswith(n + ".")]
    return max(found, key=len, default=None)


def upward(heights, home=HOME):
    """Every import that does not go down, in words."""
    wrong = []
    for module, file in modules(home).items():
        here = room(module, heights)
        for line, name in imports(file, home):
            if not name.startswith("mezzotint."):
                continue
            there = room(name.removeprefix("mezzotint."), heights)
            if here is None or there is None:
                wrong.append(f"{file}:{line}: {module} or {name} is in no layer")
            elif here != there and heights[there] >= heights[here]:
                wrong.append(f"{file}:{line}: {module} imports {name}, which is not below it")
    return wrong


def test_every_module_has_its_place():
    heights = order(ARCHITECTURE.read_text())
    homeless = [m for m in modules() if room(m, heights) is None]
    assert homeless == []
    unused = [name for name in heights if not any(room(m, heights) == name for m in modules())]
    assert unused == []


def test_imports_go_downwards_only():
    assert upward(order(ARCHITECTURE.read_text())) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import mezzotint.top",
        "from mezzotint import top",
        "from mezzotint.top import thing",
        "from ..top import thing",
        "from .. import top",
        "def f():\n    from mezzotint import top",
        "import mezzotint.beside",
        "import mezzotint.nowhere",
        "import mezzotint",
    ],
)
def test_an_upward_import_would_be_seen(tmp_path, statement):
    (tmp_path / "low").mkdir()
    for file in ("__init__.py", "top.py", "beside.py", "low/__init__.py", "low/friend.py"):
        (tmp_path / file).write_text("from __future__ import annotations\n")
    heights = {"low": 0, "beside": 0, "top": 1, "__init__": 2}
    (tmp_path / "low/me.py").write_text("from mezzotint.low import friend\nimport torch\n")
    (tmp_path / "top.py").write_text("from mezzotint import low\nimport mezzotint.low.me\n")
    assert upward(heights, tmp_path) == []
    (tmp_path / "low/me.py").write_text(statement)
    assert len(upward(heights, tmp_path)) == 1


def test_diffusion_knows_torch_and_the_standard_library_alone():
    for file in (HOME / "diffusion").glob("*.py"):
        for line, name in imports(file):
            top = name.split(".")[0]
            ours = name.startswith("mezzotint.diffusion")
            assert ours or top == "torch" or top in sys.stdlib_module_names, f"{file}:{line}"


def test_networks_know_conditions_and_kernels_and_nothing_else_of_ours():
    for file in (HOME / "networks").glob("*.py"):
        ours = {name for _, name in imports(file) if name.startswith("mezzotint.")}
        known = ("mezzotint.networks", "mezzotint.diffusion.condition", "mezzotint.kernels")
        assert all(name.startswith(known) for name in ours), file


HEAVY = "matplotlib datasets pyarrow scipy diffusers transformers gradio huggingface_hub"


def loaded_by(statement, names):
    code = f"import sys\n{statement}\nprint(*[n for n in {names!r} if n in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return answer.stdout.split()


def test_the_front_door_is_light():
    assert loaded_by("import mezzotint", [*HEAVY.split(), "torch", "numpy", "PIL"]) == []


def test_the_command_line_lists_every_choice_without_torch():
    assert loaded_by("import mezzotint.cli.main", ["torch", "numpy", "pydantic", "PIL"]) == []


@pytest.mark.parametrize(
    "name", ["runs.find", "runs.setup", "runs.run", "runs.sample", "cli.show"]
)
def test_what_is_heavy_is_imported_where_it_is_needed(name):
    assert loaded_by(f"import mezzotint.{name}", HEAVY.split()) == []


def test_what_is_loaded_is_seen():
    assert loaded_by("import scipy, json", [*HEAVY.split(), "json"]) == ["scipy", "json"]


def test_no_module_imports_scikit_learn():
    found = [f"{file}:{line}" for file in modules().values() for line, name in imports(file)
             if name.split(".")[0] == "sklearn"]  # fmt: skip
    assert found == []


def test_the_embedded_digits_are_read_without_scikit_learn():
    read = "from mezzotint.data import load; assert len(load('digits').images) == 1797"
    assert loaded_by(read, ["sklearn", "numpy"]) == ["numpy"]
