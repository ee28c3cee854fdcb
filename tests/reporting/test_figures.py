"""Figures against the numbers put in, read back from the Figure and from the PNG."""

import json
import math
import sys

import numpy as np
import pytest
from PIL import Image

from mezzotint.errors import CheckpointError, DivergenceError, InputError
from mezzotint.reporting import figures
from mezzotint.reporting.figures import Curve


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def step(images_seen, loss, kind="step"):
    return {"kind": kind, "images_seen": images_seen, "loss": loss, "rate": 1e-3}


def lines(axes):
    """The plotted data by legend label."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_reads_its_kinds_and_passes_over_the_rest(tmp_path):
    rows = [
        step(64, 0.9),
        {"kind": "start", "loss": 5, "images_seen": 1},
        step(64, 0.8, "validation"),
        {"kind": "sample", "file": "a.png"},
        step(128, 0.7),
    ]
    metrics = write(tmp_path / "metrics.jsonl", rows, tail='{"kind": "step", "images_s')
    training, validation = figures.read_losses(metrics)
    assert training == Curve((64, 128), (0.9, 0.7), broken=0)
    assert validation == Curve((64,), (0.8,), broken=0)


def test_a_resumed_run_repeats_images_and_the_later_row_counts(tmp_path):
    rows = [step(1, 0.9), step(2, 0.8), step(3, 0.7)]
    again = [step(2, 0.4), step(3, 0.3), step(4, 0.2)]
    metrics = write(tmp_path / "m.jsonl", rows, tail='{"kind": "st\n')
    with metrics.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in again)
    training, _ = figures.read_losses(metrics)
    assert training == Curve((1, 2, 3, 4), (0.9, 0.4, 0.3, 0.2), broken=0)


def test_values_that_cannot_be_drawn_are_counted_and_said(tmp_path):
    strange = [math.nan, math.inf, None, "0.3", [0.3], {}, True, 10**400]
    rows = [step(1, 0.5), *(step(2 + i, loss) for i, loss in enumerate(strange)), step(20, 0.4)]
    rows += [step("x", 0.3), step(None, 0.3), step([1], 0.3)]
    training, validation = figures.read_losses(write(tmp_path / "m.jsonl", rows))
    assert training == Curve((1, 20), (0.5, 0.4), broken=8)
    figure = figures.loss_figure(training, validation)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts[0] == "training (8 not finite)"


def test_no_rows_is_an_error_of_one_line(tmp_path):
    empty = write(tmp_path / "m.jsonl", [{"kind": "other"}], tail='{"kind": "step"')
    for path, message in ((empty, "no rows of kind"), (tmp_path / "none", "does not exist")):
        with pytest.raises(CheckpointError, match=message) as error:
            figures.loss_curves(path, tmp_path / "a.png")
        assert "\n" not in str(error.value)
    broken = write(tmp_path / "b.jsonl", [step(1, math.nan)])
    with pytest.raises(DivergenceError, match="every loss is NaN"):
        figures.loss_curves(broken, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_running_mean_against_the_definition():
    generator = np.random.default_rng(0)
    seen = np.cumsum(generator.integers(1, 200, 300))
    loss = generator.random(300)
    loss[3] = 1e15  # a spike must not spoil what comes after it
    for width in (0, 150, 5000):
        means = figures.smooth(Curve(tuple(seen.tolist()), tuple(loss.tolist()), 0), width)
        expected = [loss[np.abs(seen - s) <= width / 2].mean() for s in seen]
        np.testing.assert_allclose(means, expected, rtol=1e-12)


def test_the_running_mean_does_not_lag():
    seen = tuple(range(0, 1000, 10))
    line = tuple(2.0 - s / 1000 for s in seen)
    smoothed = figures.smooth(Curve(seen, line, 0), 100)
    np.testing.assert_allclose(smoothed[5:-5], line[5:-5], rtol=1e-12)


def test_the_figure_holds_the_data():
    training = Curve(tuple(range(0, 6400, 64)), tuple(1 - i / 200 for i in range(100)), 0)
    validation = Curve((0, 6400), (0.9, 0.6), 0)
    axes = figures.loss_figure(training, validation).axes[0]
    drawn = lines(axes)
    assert drawn["training"] == [
        [s, v] for s, v in zip(training.images_seen, training.loss, strict=True)
    ]
    assert drawn["validation"] == [[0, 0.9], [6400, 0.6]]
    mean = dict(drawn["its mean over 8% of the run"])
    # 8 % of 6336 images is 506.88: rows up to 3 away on both sides, so the mean of a line is it
    assert mean[64 * 50] == pytest.approx(training.loss[50])
    assert mean[0] == pytest.approx(sum(training.loss[:4]) / 4)
    assert axes.get_xlabel() == "images seen"


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ((1.0, 0.5), "linear"),
        ((1.0, 0.11), "linear"),
        ((1.0, 0.09), "log"),
        ((1.0, 0.0), "linear"),
        ((5.0, -1.0), "linear"),
    ],
)
def test_the_axis_is_logarithmic_beyond_a_factor_of_ten(losses, scale):
    figure = figures.loss_figure(Curve((1, 2), losses, 0), Curve((), (), 0))
    assert figure.axes[0].get_yscale() == scale


def test_either_curve_may_be_missing():
    curve = Curve((10, 20), (1.0, 0.5), 0)
    none = Curve((), (), 0)
    assert list(lines(figures.loss_figure(none, curve).axes[0])) == ["validation"]
    assert "validation" not in lines(figures.loss_figure(curve, none).axes[0])
    figures.loss_figure(Curve((10,), (1.0,), 0), none)  # a run of a single row


def linear_beta_100():
    """The unscaled linear betas at T = 100, whose last alpha_bar is 0.364."""
    bars = np.cumprod(1 - np.linspace(1e-4, 0.02, 100))
    return np.linspace(0, 1, 100).tolist(), np.sqrt(1 / bars - 1).tolist(), bars


def test_schedule_draws_sigma_and_snr_in_decibels():
    u, sigma, bars = linear_beta_100()
    upper, lower = figures.schedule_figure(u, sigma, title="T = 100").axes
    assert upper.get_yscale() == "log"
    np.testing.assert_array_equal(upper.get_lines()[0].get_xydata(), np.stack([u, sigma], 1))
    curve = next(line for line in lower.get_lines() if len(line.get_xdata()) == 100)
    np.testing.assert_allclose(curve.get_ydata(), 10 * np.log10(bars / (1 - bars)), rtol=1e-9)
    # alpha_bar = 0.364: 10 log10(0.364 / 0.636) = -2.4 dB at sigma 1.32
    assert [text.get_text() for text in lower.texts] == ["terminal SNR −2.4 dB (sigma 1.32)"]


def test_the_terminal_level_is_the_noisiest_one_whichever_way_u_runs():
    u = [0.0, 0.5, 1.0]
    for sigma, end, side in (([0.1, 1.0, 20000.0], 1.0, "right"), ([80.0, 1.0, 0.1], 0.0, "left")):
        lower = figures.schedule_figure(u, sigma, title="").axes[1]
        dot = next(line for line in lower.get_lines() if line.get_marker() == "o")
        assert dot.get_xydata().tolist() == [[end, -20 * math.log10(max(sigma))]]
        assert lower.texts[0].get_ha() == side
    figure = figures.schedule_figure(u, [0.1, 1.0, 20000.0], title="")
    assert figure.axes[1].texts[0].get_text() == "terminal SNR −86.0 dB (sigma 20,000)"


def test_marks_stand_at_their_u_and_their_texts_do_not_overlap():
    u, sigma, _ = linear_beta_100()
    marks = [(0.5, "half way"), (0.52, "median of training"), (0.54, "mean"), (0.95, "start")]
    figure = figures.schedule_figure(u, sigma, title="marks", marks=marks)
    for axes in figure.axes:
        drawn = [line.get_xdata() for line in axes.get_lines() if line.get_linestyle() == "--"]
        assert [x[0] for x in drawn if x[0] == x[1]] == [m[0] for m in marks]
    figure.draw_without_rendering()
    texts = [*figure.axes[0].texts, figure._suptitle]
    boxes = [text.get_window_extent() for text in texts]
    assert sorted(t.get_text() for t in texts[:-1]) == sorted(text for _, text in marks)
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert figure.bbox.containsx(box.x0)
        assert figure.bbox.containsx(box.x1)
        assert figure.bbox.containsy(box.y1)


def test_schedule_refuses_what_has_no_snr(tmp_path):
    for u, sigma, message in (
        ([0, 1], [1.0, 0.0], "positive and finite"),
        ([0, 1], [1.0, math.inf], "positive and finite"),
        ([0, 1], [1.0], "must pair up; given 2 and 1"),
        ([], [], "must pair up"),
    ):
        with pytest.raises(InputError, match=message):
            figures.schedule(u, sigma, tmp_path / "a.png", title="")
    with pytest.raises(InputError, match="end in .png"):
        figures.schedule([0, 1], [1, 2], tmp_path / "a.jpg", title="")
    assert not list(tmp_path.iterdir())


def test_png_files_are_pictures_with_the_curve_in_them(tmp_path):
    rows = [step(64 * i, 1 / (i + 1)) for i in range(50)] + [step(640, 0.2, "validation")]
    metrics = write(tmp_path / "metrics.jsonl", rows)
    u, sigma, _ = linear_beta_100()
    losses = figures.loss_curves(metrics, tmp_path / "figures" / "loss.png")
    schedule = figures.schedule(u, sigma, tmp_path / "figures" / "schedule.png", title="linear")
    for path, height in ((losses, 750), (schedule, 975)):
        with Image.open(path) as picture:
            assert (picture.format, picture.size) == ("PNG", (1350, height))
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert (pixels == 255).all(1).mean() > 0.8  # a light page
        assert (pixels == (0x1F, 0x5A, 0x96)).all(1).sum() > 1000  # the main curve's blue
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["loss.png", "schedule.png"]


def test_pyplot_is_left_alone(tmp_path):
    already = "matplotlib.pyplot" in sys.modules
    u, sigma, _ = linear_beta_100()
    figures.schedule(u, sigma, tmp_path / "a.png", title="")
    assert ("matplotlib.pyplot" in sys.modules) == already


def test_smoothing_grows_where_a_run_has_few_rows():
    labels = []
    for n in (4, 40, 4000):
        curve = Curve(tuple(range(n)), (1.0,) * n, 0)
        axes = figures.loss_figure(curve, Curve((), (), 0)).axes[0]
        labels.append(axes.get_lines()[1].get_label())
    assert [label.split()[-4] for label in labels] == ["25%", "20%", "2%"]


def test_the_legend_is_inside_the_picture_and_outside_the_panel():
    full = Curve((1, 2, 3), (1.0, 0.9, 0.95), broken=12345)
    figure = figures.loss_figure(full, Curve((1, 2, 3), (0.8, 0.9, 0.7), broken=345))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    box = axes.get_legend().get_window_extent()
    assert figure.bbox.containsx(box.x0)
    assert figure.bbox.containsx(box.x1)
    assert box.y0 >= axes.get_window_extent().y1
    assert figure.bbox.containsy(box.y1)


def test_a_tuning_is_drawn_as_it_was_logged(tmp_path):
    rows = [
        {"kind": "check", "images_seen": 0, "values": {"accuracy": 0.9, "coverage": 0.8},
         "in_bounds": True},
        {"kind": "step", "images_seen": 8, "reward": -2.0},
        {"kind": "step", "images_seen": 16, "reward": -1.0},
        {"kind": "check", "images_seen": 16, "values": {"accuracy": 0.7, "coverage": 0.9},
         "in_bounds": False},
    ]  # fmt: skip
    above, below = figures.tuning_figure(rows).axes
    assert above.lines[0].get_xydata().tolist() == [[8, -2], [16, -1]]
    drawn = {line.get_label(): line.get_xydata().tolist() for line in below.lines}
    assert drawn["accuracy"] == [[0, 0.9], [16, 0.7]]
    assert drawn["coverage"] == [[0, 0.8], [16, 0.9]]
    assert drawn["out of bounds"] == [[16, 0], [16, 1]]
    assert figures.tuning(rows, tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
