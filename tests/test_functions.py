"""Functions stay short, and take few parameters."""

import ast
from pathlib import Path

import pytest

import mezzotint

HOME = Path(mezzotint.__file__).parent

MAX_LINES = 60
MAX_PARAMETERS = 8

PUBLIC = {
    "train", "load", "sample", "evaluate", "sweep", "select", "tune", "compose", "report",
    "inspect", "describe", "benchmark", "Model.sample", "Model.changed",
}  # fmt: skip
"""The public interface: each option is a parameter, so that an editor completes it."""

FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def functions(text):
    """(dotted name, node) of each function of a module, methods and inner functions included."""

    def inside(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, FUNCTIONS):
                yield prefix + child.name, child
            deeper = isinstance(child, FUNCTIONS | ast.ClassDef)
            yield from inside(child, f"{prefix}{child.name}." if deeper else prefix)

    return inside(ast.parse(text), "")


def lines(function):
    """The number of lines of a function, its docstring included and its decorators not."""
    return function.end_lineno - function.lineno + 1


def parameters(function):
    """The number of parameters of a function, without `self` and `cls`."""
    listed = function.args
    names = [each.arg for each in (*listed.posonlyargs, *listed.args, *listed.kwonlyargs)]
    names += [each.arg for each in (listed.vararg, listed.kwarg) if each]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def is_triton_kernel(function):
    """Whether a GPU runs it: kernels get pointers and sizes one by one.

    Tuples as arguments need Triton 3.3, and the oldest supported torch comes with 3.2.
    """
    return any(ast.unparse(each) == "triton.jit" for each in function.decorator_list)


def names_options(path, name, function):
    """Whether a function of the public interface or of the command line lists many options."""
    interface = name in PUBLIC or path.startswith("cli/")
    return interface and parameters(function) > MAX_PARAMETERS


def too_long(path, text):
    """Names of a file's functions with too many lines; listed options may take more."""
    return {
        name
        for name, function in functions(text)
        if lines(function) > MAX_LINES and not names_options(path, name, function)
    }


def too_many_parameters(path, text):
    return {
        name
        for name, function in functions(text)
        if parameters(function) > MAX_PARAMETERS
        and not names_options(path, name, function)
        and not is_triton_kernel(function)
    }


def files():
    return [(file.relative_to(HOME).as_posix(), file.read_text()) for file in HOME.rglob("*.py")]


def test_no_function_has_more_than_60_lines():
    found = {path: names for path, text in files() if (names := too_long(path, text))}
    assert found == {}


def test_no_function_has_more_than_8_parameters():
    found = {path: names for path, text in files() if (names := too_many_parameters(path, text))}
    assert found == {}


def nine(name, decorator=""):
    return f"{decorator}def {name}(a, b, c, /, d, e, *f, g, h, **i): ...\n"


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("data/load.py", nine("load_all"), {"load_all"}),
        ("data/load.py", nine("load"), set()),
        ("cli/main.py", nine("anything"), set()),
        ("kernels/norm.py", nine("_sum", "@triton.jit\n"), set()),
        ("kernels/norm.py", "def f(a, b, c, d, e, f, g, h): ...", set()),
        ("a.py", "class A:\n def f(self, a, b, c, d, e, f, g, h): ...", set()),
        ("a.py", "class A:\n def f(self, a, b, c, d, e, f, g, h, i): ...", {"A.f"}),
        ("a.py", "def f():\n async def g(a, b, c, d, e, f, g, h, i): ...", {"f.g"}),
        ("a.py", "if True:\n def f(a, b, c, d, e, f, g, h, i): ...", {"f"}),
    ],
)
def test_parameters_are_counted(path, text, expected):
    assert too_many_parameters(path, text) == expected


def test_lines_are_counted():
    def function(name, count):
        return f"@decorated\ndef {name}(a):\n" + "    a\n" * (count - 1)

    assert too_long("a.py", function("f", 60) + function("g", 61)) == {"g"}
    options = nine("load").replace(" ...", "\n" + "    a\n" * 70)
    assert too_long("a.py", options) == set()
    assert too_long("a.py", options.replace("load", "read")) == {"read"}
    assert too_long("a.py", function("load", 70)) == {"load"}
