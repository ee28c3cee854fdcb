"""Styles of a data set: quantiles against numpy, the cache, somebody's own columns, mistakes."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from mezzotint.data import cache as cache_module
from mezzotint.data import load
from mezzotint.data.styles.measures import measured
from mezzotint.data.styles.resolve import is_measure
from mezzotint.data.styles.style import number_style
from mezzotint.errors import DataError, InputError


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(1)
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(10):
            array = random.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "set" / name / f"{i}.png")
    return tmp_path / "set"


@pytest.fixture
def measurings(monkeypatch):
    """The names of each measuring."""
    seen = []

    def counted(images, names, measured=cache_module.measures.measured):
        seen.extend(names)
        return measured(images, names)

    monkeypatch.setattr(cache_module.measures, "measured", counted)
    return seen


def table(folder, *lines):
    (folder / "styles.csv").write_text("\n".join(lines), "utf-8")
    return str(folder)


FILES = [f"{name}/{i}.png" for name in "ab" for i in range(10)]


def test_levels_are_cut_at_the_quantiles_of_the_train_images_alone():
    data = load("digits", styles=("thickness", "slant"))
    train = data.splits["train"].numpy()
    expected = measured(data.images, ["thickness", "slant"])
    assert torch.equal(data.style_values, expected)
    for style, column in zip(data.styles, expected.numpy().T, strict=True):
        own = column[train]
        assert style.cuts == pytest.approx(np.quantile(own, [1 / 3, 2 / 3]))
        assert style.middles == pytest.approx(np.quantile(own, [1 / 6, 1 / 2, 5 / 6]))
        assert style.range == pytest.approx(np.quantile(own, [0.02, 0.98]))
        assert (style.mean, style.deviation) == pytest.approx((own.mean(), own.std()))
        counts = torch.bincount(style.level(torch.from_numpy(own))).tolist()
        assert counts == pytest.approx([len(train) / 3] * 3, abs=2)
    assert data.styles[0].levels == ("thin", "medium", "thick")
    assert load("digits").fingerprint == data.fingerprint


def test_what_is_not_known_counts_nowhere():
    values = torch.tensor([math.nan, 1, 2, 3, 4, math.nan, 5, 6], dtype=torch.float64)
    style = number_style("s", values, ("low", "high"))
    assert (style.mean, style.cuts) == (3.5, (3.5,))
    assert style.level(values).tolist() == [-1, 0, 0, 0, 1, -1, 1, 1]
    with pytest.raises(DataError, match="the same"):
        number_style("s", torch.ones(9, dtype=torch.float64), ("low", "high"))


def test_a_measure_is_taken_once(cache, measurings):
    first = load("digits", styles=("thickness",))
    second = load("digits", styles=("slant", "thickness"))
    assert measurings == ["thickness", "slant"]
    assert torch.equal(first.style_values[:, 0], second.style_values[:, 1])
    assert not [path for path in cache.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:100], lambda b: b"", lambda b: b[:-900] + bytes(900)]
)
def test_damaged_values_are_measured_anew(cache, measurings, damage):
    first = load("digits", styles=("slant",))
    (file,) = cache.glob("*slant*")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert torch.equal(load("digits", styles=("slant",)).style_values, first.style_values)
    assert measurings == ["slant", "slant"]
    assert file.read_bytes() == whole


def test_a_cache_that_keeps_nothing_is_said(cache, monkeypatch, logged):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    data = load("digits", styles=("slant",))
    assert len(data.styles_of(data.splits["test"])) == len(data.splits["test"])
    assert any("keeps no slant" in line for line in logged)


def test_a_disk_that_fills_while_it_is_written_is_said_of_images_and_measures(
    cache, monkeypatch, logged
):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    for name in ("save", "savez"):
        monkeypatch.setattr(np, name, full)
    data = load("digits", styles=("slant",))
    assert len(data.styles_of(data.splits["test"])) == len(data.splits["test"])
    assert [line for line in logged if "keeps" in line] == [
        f"{cache} keeps no images (No space left on device): they are decoded at every start",
        f"{cache} keeps no slant (No space left on device): it is measured at every start",
    ]
    assert list(cache.iterdir()) == []


def test_a_column_of_texts_is_a_choice(folder):
    lines = [f"{file},{'cursive' if i % 2 else ' print '}" for i, file in enumerate(FILES[:-1])]
    data = load(table(folder, "file,hand", *lines), styles=("hand",))
    (style,) = data.styles
    assert style.choice
    assert style.levels == ("cursive", "print")
    assert data.style_values[:-1, 0].tolist() == [(i + 1) % 2 for i in range(19)]
    assert data.style_values[-1].isnan()
    assert style.level(data.style_values[:, 0])[-1] == -1


def test_a_column_of_numbers_is_a_number_few_whole_ones_a_choice(folder):
    lines = [f"{file},{i / 7},{i % 3}" for i, file in enumerate(FILES)]
    data = load(table(folder, "file,age,grade", *reversed(lines)), styles=("grade", "age"))
    grade, age = data.styles
    assert grade.levels == ("0", "1", "2")
    assert not age.choice
    assert age.levels == ("low", "middle", "high")
    assert data.style_values[:, 1].tolist() == pytest.approx([i / 7 for i in range(20)])
    assert data.fingerprint == load(str(folder)).fingerprint


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (("name,age", "a/0.png,1"), "needs a column 'file'"),
        (("file,age,age", "a/0.png,1,2"), "named apart"),
        (("file,age", "../../etc/passwd,1"), "no picture"),
        (("file,age", "a/0.png,1", "a/0.png,2"), "named twice"),
        (("file,age", "a/0.png"), "has 1 cells"),
        (("file,age", "a/0.png,inf", "a/1.png,2.5"), "finite"),
        (("file,age", "a/0.png,1e999", "a/1.png,2.5"), "finite"),
        (("file,age", *(f"{f}," for f in FILES)), "0 different"),
        (("file,age", 'a/0.png,"1'), "no readable CSV"),
        ((), "no readable CSV"),
    ],
)
def test_a_bad_table_is_one_line(folder, lines, why):
    with pytest.raises(DataError, match=why) as error:
        load(table(folder, *lines), styles=("age",))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    load(str(folder))  # nobody asked for it


def test_a_table_without_the_style_is_the_callers_mistake(folder):
    with pytest.raises(InputError, match="'age' is no style"):
        load(table(folder, "file,size", "a/0.png,1"), styles=("age",))


def test_a_column_of_too_many_texts_is_refused(folder, monkeypatch):
    monkeypatch.setattr("mezzotint.data.styles.resolve.MOST", 10)
    lines = [f"{file},text {i}" for i, file in enumerate(FILES)]
    with pytest.raises(DataError, match="20 different values"):
        load(table(folder, "file,age", *lines), styles=("age",))


@pytest.mark.parametrize("cell", ["{}.5", "{}", "narrow"])  # a number, a choice, its own level
def test_a_column_called_like_a_measure_is_none(folder, cell):
    texts = [cell.format(i % 5) for i in range(19)] + ["wide" if cell == "narrow" else "3"]
    lines = [f"{file},{text}" for file, text in zip(FILES, texts, strict=True)]
    (own,) = load(table(folder, "file,width", *lines), styles=("width",)).styles
    assert own.name == "width"
    assert not is_measure(own)


def test_a_measure_is_one():
    assert all(map(is_measure, load("digits", styles=("width", "tone")).styles))


def test_a_parquet_column_is_a_style(folder, tmp_path):
    images = [{"bytes": (folder / file).read_bytes(), "path": None} for file in FILES]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = {
        "image": pa.array(images, kind),
        "label": pa.array([i // 10 for i in range(20)]),
        "age": pa.array([None if i == 3 else i / 4 for i in range(20)]),
        "bold": pa.array([i % 2 == 0 for i in range(20)]),
    }
    meta = (
        b'{"info": {"features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", '
        b'"names": ["a", "b"]}, "age": {"_type": "Value", "dtype": "float64"}, "bold": '
        b'{"_type": "Value", "dtype": "bool"}}}}'
    )
    (tmp_path / "parquet").mkdir()
    table = pa.table(rows).replace_schema_metadata({b"huggingface": meta})
    pq.write_table(table, tmp_path / "parquet" / "train.parquet")
    data = load(str(tmp_path / "parquet"), styles=("bold", "age"))
    assert data.styles[0].levels == ("False", "True")
    assert data.style_values[:3].tolist() == [[1.0, 0.0], [0.0, 0.25], [1.0, 0.5]]
    assert data.style_values[3, 1].isnan()


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (("thicknes",), "did you mean 'thickness'"),
        (("colourfulness",), "these are grey: leave it out"),
        (("outline",), "figures on flat ground: leave it out"),
        (("slant", "slant"), "twice"),
    ],
)
def test_what_is_no_style_here_is_one_line(names, why):
    with pytest.raises(InputError, match=why):
        load("digits", styles=names)


def test_strokes_are_not_measured_on_photographs(folder):
    with pytest.raises(InputError, match="these are photographs: leave it out"):
        load(str(folder), styles=("thickness",))


def test_all_that_fit_are_found_and_the_others_are_not_there(folder, logged):
    names = [style.name for style in load("digits", styles=None).styles]
    assert {"thickness", "slant", "width"} < set(names)
    assert not {"colourfulness", "outline"} & set(names)
    lines = [f"{file},{'x' if i else 'y'}" for i, file in enumerate(FILES)]
    names = [s.name for s in load(table(folder, "file,hand", *lines), styles=None).styles]
    assert "hand" in names
    assert "slant" not in names


def test_the_same_in_every_image_is_no_style(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            array = np.zeros((8, 8, 3), np.uint8) + 10 * i
            Image.fromarray(array).save(tmp_path / name / f"{i}.png")
    with pytest.raises(DataError, match="the same in too many"):
        load(str(tmp_path), styles=("colourfulness",))
