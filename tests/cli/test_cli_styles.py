"""Styles on the command line: learned, asked for, measured on what was drawn."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

import mezzotint
from mezzotint import imaging
from mezzotint.data import load
from mezzotint.data.styles.measures import measured
from mezzotint.data.styles.style import choice_style
from mezzotint.diffusion import is_null
from mezzotint.runs.run import Run
from mezzotint.sampling.denoise import build_denoise
from mezzotint.sampling.model import Model, SampleBatch

STYLES = ("thickness", "slant")
REQUESTED = ["--style", "thickness", "--style", "slant"]  # as conftest's styled_run


@pytest.fixture
def model(styled_run):
    """With weights that matter: a fresh network ignores its condition."""
    model = mezzotint.load(styled_run)
    torch.manual_seed(0)
    for parameter in model.denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_a_run_knows_its_styles_from_the_data(styled_run):
    data = load("digits", styles=STYLES)
    assert Run.at(styled_run).config.data.styles == data.styles
    assert mezzotint.load(styled_run).style_names == STYLES


def test_the_same_command_goes_on_and_other_styles_are_another_run(cli, refused, styled_run, tiny):
    words = ["train", "digits", "--out", str(styled_run), *tiny, "--budget"]
    assert cli([*words, "96images", *REQUESTED]).code == 0
    assert Run.at(styled_run).images_seen() == 96
    line = refused([*words, "128images", *REQUESTED[:2]], quiet=False)
    assert "origin.styles" in line
    assert "['thickness']" in line


def test_requested_styles_are_kept_with_the_images(cli, styled_run, tmp_path):
    words = ["sample", str(styled_run), "--n", "4", "--evaluations", "2", "--style", "slant=5deg"]
    assert cli([*words, "--out", "a.npz"]).code == 0
    kept = imaging.load_npz(tmp_path / "a.npz")
    assert kept.style_names == STYLES
    assert bool(kept.styles[:, 0].isnan().all())
    assert kept.styles[:, 1].tolist() == [5.0] * 4
    assert cli([*words, "--out", "folder"]).code == 0
    rows = map(json.loads, (tmp_path / "folder" / "manifest.jsonl").read_text().splitlines())
    assert [row["styles"] for row in rows] == [{"slant": 5.0}] * 4


def test_a_level_means_its_middle(model):
    middle = load("digits", styles=STYLES).styles[0].middles[2]
    for level in ("thick", middle):
        values = model.style_values({"thickness": level}, 2)
        assert values[:, 0].tolist() == [middle] * 2
        assert bool(values[:, 1].isnan().all())


def test_what_is_not_requested_is_null_and_what_is_requested_has_an_effect(model):
    table = torch.tensor([[3.0, float("nan")]], dtype=torch.float64)
    factors = model.condition(SampleBatch.of(torch.tensor([4]), 0, table)).factors
    assert list(factors) == ["label", *STYLES]
    style = model.styles[0]
    expected = (3.0 - style.mean) / style.deviation
    assert factors["thickness"].tolist() == pytest.approx([expected], rel=1e-6)
    assert bool(is_null(factors["slant"]))
    plain, thick = (model.sample(label=3, n=2, styles=s) for s in ({}, {"thickness": "thick"}))
    assert not torch.equal(plain, thick)
    assert torch.equal(plain, model.sample_batch(SampleBatch.of(model.labels(3, 2))))


def test_what_lies_beyond_the_data_is_reported(cli, styled_run, model, tmp_path):
    low, high = model.styles[1].range
    words = ["sample", str(styled_run), "--n", "1", "--evaluations", "1", "--out"]
    for i, (value, messages) in enumerate([(high + 1, True), (low - 1, True), (high, False)]):
        name = model.styles[1].name
        answer = cli([*words, f"{i}.png", "--style", f"{name}={value}"])
        assert answer.code == 0, answer.err
        assert (f"{name} {value:.3g}" in answer.err) == messages
        assert (f"beyond the data's {low:.3g} to {high:.3g}" in answer.err) == messages


def test_guidance_by_a_style_follows_that_by_the_label(model):
    """Scale 0 of a style is the label alone, 1 both; 2 is as far beyond as 1 is from 0."""
    drawing = SampleBatch.of(torch.tensor([4]), 0, model.style_values({"slant": "left"}))
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sigma = torch.tensor(2.0, dtype=torch.float64)

    def estimate(scale):
        guided = model.changed(style_guidance={"slant": scale})
        return build_denoise(guided, guided.condition(drawing))(x, sigma)

    single = build_denoise(model, model.condition(SampleBatch.of(torch.tensor([4]))))(x, sigma)
    zero, one, two = (estimate(scale) for scale in (0.0, 1.0, 2.0))
    torch.testing.assert_close(zero, single, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(two - one, one - zero, rtol=1e-4, atol=1e-5)
    assert not torch.equal(one, zero)


def test_along_a_style_each_row_has_one_noise(cli, styled_run, tmp_path):
    words = ["sample", str(styled_run), "--along", "slant", "--evaluations", "2"]
    assert cli([*words, "--out", "a.npz"]).code == 0
    kept = imaging.load_npz(tmp_path / "a.npz")
    slant = load("digits", styles=STYLES).styles[1]
    rows = kept.styles[:, 1].reshape(10, 10)
    np.testing.assert_allclose(rows[3], np.linspace(*slant.range, 10), rtol=1e-5)
    assert kept.labels.reshape(10, 10)[:, 0].tolist() == list(range(10))
    answer = cli([*words, "--label", "3", "--seeds", "4", "--out", "b.npz"])
    assert answer.code == 0
    kept = imaging.load_npz(tmp_path / "b.npz")
    assert kept.labels.tolist() == [3] * 40
    assert cli([*words, "--out", "sheet.png"]).code == 0
    assert Image.open(tmp_path / "sheet.png").width > 80


def test_along_a_choice_a_row_has_every_level_once(cli, styled_run, tmp_path, monkeypatch):
    shape = choice_style("shape", ("round", "square", "flat"))
    model = dataclasses.replace(mezzotint.load(styled_run), styles=(shape,))

    def shades(model, drawing, watch):
        grey = 80 * drawing.styles[:, 0] + 10 * drawing.keys[:, 0]
        return grey.to(torch.uint8)[:, None, None, None].expand(-1, *model.shape).contiguous()

    monkeypatch.setattr("mezzotint.runs.sample.load_model", lambda *run: model)
    monkeypatch.setattr(Model, "sample_batch", shades)
    words = ["sample", str(styled_run), "--along", "shape", "--label", "3", "--seeds", "5"]
    assert cli([*words, "--out", "sheet.png"]).code == 0
    rows = torch.arange(3) * 80 + torch.arange(5)[:, None] * 10
    pictures = rows.to(torch.uint8)[:, :, None, None, None].expand(5, 3, 1, 8, 8)
    expected = imaging.labelled_grid(list(zip(["3", "", "", "", ""], pictures, strict=True)))
    assert np.array_equal(Image.open(tmp_path / "sheet.png"), expected[0])


def test_evaluate_measures_what_was_asked_for(cli, styled_run):
    words = ["evaluate", str(styled_run), "--metrics", "styles,accuracy", "--n", "100"]
    answer = cli([*words, "--evaluations", "2", "--json"])
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert list(found["styles"]) == list(STYLES)
    (block,) = (styled_run / "evaluation" / "drawn").rglob("*.npz")
    kept = imaging.load_npz(block)
    assert kept.style_names == STYLES
    for k, name in enumerate(STYLES):
        result, got = found["styles"][name], measured(kept.images, (name,))[:, 0].numpy()
        asked = kept.styles[:, k].double().numpy()
        known = ~np.isnan(got)
        assert result["n"] == known.sum()
        assert result["error"] == pytest.approx(np.abs(got - asked)[known].mean(), rel=1e-5)
        wanted = np.corrcoef(asked[known], got[known])[0, 1]
        assert result["correlation"] == pytest.approx(wanted, abs=1e-5)
        assert sum(map(sum, result["confusion"])) == result["n"]
        assert result["named"]["n"] == 10 * common(name, 0.05)
        assert [row["level"] for row in result["per_level"]] == result["levels"]
        assert (styled_run / "evaluation" / f"style-{name}.png").exists()
    assert "Thickness is drawn as it was asked for" in " ".join(found["summary"])
    assert cli("report", styled_run).code == 0
    page = (styled_run / "report.html").read_text()
    assert "Asked for, and measured" in page
    assert "Thickness: thin, medium, thick" in page


def test_samples_in_a_file_are_measured_by_what_it_says_was_asked(cli, styled_run, tmp_path):
    words = ["sample", str(styled_run), "--n", "60", "--evaluations", "2", "--style", "slant=5deg"]
    assert cli([*words, "--out", "a.npz"]).code == 0
    evaluated = cli("evaluate a.npz --against digits --metrics styles,accuracy --json")
    assert evaluated.code == 0, evaluated.err
    found = json.loads(evaluated.out)["styles"]
    got = measured(imaging.load_npz(tmp_path / "a.npz").images, ("slant",))[:, 0]
    got = got[~got.isnan()]
    assert found["slant"]["n"] == len(got)
    assert found["slant"]["error"] == pytest.approx(float((got - 5).abs().mean()), rel=1e-9)
    assert found["slant"]["correlation"] is None  # all were asked for the same
    assert "thickness" not in found


def common(name, least):
    """How many pairs of class and level at least that share of a class's images has."""
    data = load("digits", styles=(name,))
    train = data.splits["train"]
    found = list(
        zip(
            data.labels[train].tolist(),
            data.styles[0].level(data.styles_of(train)[:, 0]).tolist(),
            strict=True,
        )
    )
    classes = [label for label, _ in found]
    return sum(found.count(pair) >= least * classes.count(pair[0]) for pair in set(found))


def test_samples_are_asked_for_the_joint_styles_of_real_images(styled_run):
    from mezzotint.evaluation.samples import run_samples

    stream = run_samples(styled_run)
    drawing = stream.batch(50)
    data = load("digits", styles=STYLES)
    train = data.splits["train"]
    real = {
        (int(label), *values)
        for label, values in zip(
            data.labels[train], map(tuple, data.styles_of(train).tolist()), strict=True
        )
    }
    rows = zip(drawing.labels.tolist(), map(tuple, drawing.styles.tolist()), strict=True)
    assert {(label, *values) for label, values in rows} <= real


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--style thickness", ["--style", "NAME=VALUE", "'thickness'"]),
        ("--style thicknes=thin", ["'thicknes'", "did you mean 'thickness'"]),
        ("--style thickness=thik", ["'thik'", "did you mean 'thick'", "px"]),
        ("--style slant=1 --style slant=2", ["--style slant is given twice"]),
        ("--style-guidance slant=x", ["--style-guidance", "NAME=SCALE"]),
        ("--style-guidance slant=-1", ["style_guidance", "-1"]),
        ("--style-guidance width=2", ["'width'", "slant, thickness"]),
        ("--along length", ["'length'", "slant, thickness"]),
        ("--along slant --n 3", ["--along slant", "leave --n 3 away"]),
        ("--along slant --style slant=1", ["--along slant", "leave --style slant away"]),
        ("--along slant --seeds 4", ["--along slant", "--label", "--seeds 4", "leave --seeds"]),
    ],
)
def test_what_a_user_can_ask_wrongly(refused, styled_run, unchanged, words, expected):
    with unchanged():
        line = refused(["sample", str(styled_run), *words.split(), "--out", "x.png"])
    assert all(part in line for part in expected), line


def test_a_run_without_styles_says_how_to_get_them(refused, digits_run):
    line = refused(["sample", str(digits_run), "--style", "slant=1", "--n", "2", "--out", "x.png"])
    assert "trained without styles" in line
    assert "--style slant" in line
    line = refused(["evaluate", str(digits_run), "--metrics", "styles", "--n", "20"], quiet=False)
    assert "knows no styles" in line


def test_a_style_that_is_none_is_refused_before_anything_is_made(refused, tiny, unchanged):
    with unchanged():
        words = ["train", "digits", "--out", "r", *tiny, "--style", "thicknes"]
        line = refused(words, quiet=False)
    assert "did you mean 'thickness'" in line
