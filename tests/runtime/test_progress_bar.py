"""How far a loop is: a bar where there is one, lines elsewhere."""

import sys
import time
import types
from contextlib import redirect_stderr

import pytest

from mezzotint.runtime import progress_bar
from mezzotint.runtime.progress_bar import bar, draws_bar, progress


class Terminal:
    """A terminal that keeps what is written on it; a closed one refuses it."""

    encoding = "utf-8"

    def __init__(self):
        self.text, self.closed = "", False

    def isatty(self):
        return True

    def write(self, text):
        if self.closed:
            raise BrokenPipeError
        self.text += text

    def flush(self):
        pass


@pytest.fixture
def kernel(monkeypatch):
    """A Jupyter kernel without ipywidgets."""
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    found = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", found)
    monkeypatch.setattr(progress_bar.importlib.util, "find_spec", lambda name: None)
    return found


def test_progress_is_logged_now_and_then_with_the_time_that_is_left(logged):
    seconds = iter([100.0, 110.0, 120.0, 121.0, 140.0])
    update = progress_bar._lines("CLIP of digits", 1_000, lambda: next(seconds))
    for seen in (100, 150, 200, 205, 300):
        update(seen)
    # 100 images in 20 s leave 800 in 160 s; then 200 in 40 s leave 700 in 140 s.
    assert logged == [
        "CLIP of digits: 200 of 1,000 images, 160 s left",
        "CLIP of digits: 300 of 1,000 images, 140 s left",
    ]


@pytest.mark.parametrize(
    ("show", "drawn", "lines"), [(None, False, 2), (True, True, 0), (False, False, 0)]
)
def test_elsewhere_there_are_lines_unless_a_bar_is_demanded(
    show, drawn, lines, capsys, logged, monkeypatch
):
    monkeypatch.setattr(progress_bar, "EVERY", 0)
    with progress("drawing", 100, show) as update:
        for done in (10, 50, 100):
            update(done)
    assert len(logged) == lines
    assert ("drawing:   0%|" in capsys.readouterr().err) == drawn


def test_in_a_terminal_there_is_a_bar_that_goes_away(quiet):
    with redirect_stderr(Terminal()) as terminal, progress("drawing", 100) as update:
        update(50)
        update(120)  # a last batch may be whole
    assert "drawing:   0%|" in terminal.text
    last = terminal.text.rstrip("\r").rpartition("\r")[2]
    assert last.strip() == ""


def test_a_bar_shows_the_words_that_it_is_given_and_may_go_back():
    form = "{desc}, {n_fmt} of {total_fmt}"
    with redirect_stderr(Terminal()) as terminal, bar("training", 10, form) as update:
        for done, words in ((8, "loss 0.5"), (2, "again"), (4, "loss 0.4")):
            time.sleep(0.11)  # tqdm draws ten times a second
            update(done, words)
    drawn = [text.strip() for text in terminal.text.split("\r") if text.strip()]
    assert drawn[:2] == ["training, 0 of 10", "loss 0.5, 8 of 10"]
    assert drawn[-1] == "loss 0.4, 4 of 10"


def test_a_terminal_that_has_gone_stops_nothing():
    with redirect_stderr(Terminal()) as terminal, progress("drawing", 100) as update:
        time.sleep(0.11)
        terminal.closed = True
        update(50)


def test_in_a_notebook_there_is_a_bar_of_text_where_there_are_no_widgets(kernel, capsys, quiet):
    with progress("drawing", 100):
        pass
    assert "drawing:   0%|" in capsys.readouterr().err


def test_an_ipython_in_a_terminal_is_no_notebook(kernel, monkeypatch):
    assert draws_bar()
    kernel.get_ipython().config.clear()
    assert not draws_bar()
    monkeypatch.setattr(kernel, "get_ipython", lambda: None)
    assert not draws_bar()


@pytest.mark.parametrize("show", [None, True, False])
def test_another_rank_shows_nothing(show, quiet, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(progress_bar, "EVERY", 0)
    with redirect_stderr(Terminal()) as terminal, progress("drawing", 100, show) as update:
        assert not draws_bar(show)
        for done in (10, 50, 100):
            update(done)
    assert terminal.text == ""
