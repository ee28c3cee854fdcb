"""Figures: loss curves and noise schedules, drawn from JSON lines and lists of floats.

Convention: x = x0 + sigma * eps, so the signal-to-noise ratio of x0 at unit power is
SNR = 1 / sigma^2, in decibels 10 log10 SNR = -20 log10 sigma. Training time is counted in
images seen, not steps. Every figure is made twice over: a function that returns the matplotlib
`Figure` (for a notebook, or a test) and one that writes it as PNG, 1350 pixels wide, meant to be
shown at 900. No pyplot and no global state: two threads may draw at once.
"""

import bisect
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mezzotint.errors import CheckpointError, DivergenceError, InputError
from mezzotint.reporting.charts import finite
from mezzotint.runtime import checksum
from mezzotint.runtime.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Curve",
    "loss_curves",
    "loss_figure",
    "losses",
    "read_losses",
    "schedule",
    "schedule_figure",
    "smooth",
    "trade_off",
    "trade_off_figure",
    "tuning",
    "tuning_figure",
]

WIDTH = 9.0  # inches, at 150 dots per inch
DPI = 150
RAW, MAIN, SECOND, FAINT, GREY = "#a9bfd6", "#1f5a96", "#d4581a", "#dddddd", "#777777"
SMOOTHING = 0.02  # width of the running mean, as a share of the run ...
FEW_ROWS = 8  # ... but at least so many rows, where a run has few of them
MOST_MARKERS = 60  # validations drawn as points; more would hide their line
LOG_RANGE = 10.0  # largest over smallest loss from which the axis is logarithmic


@dataclass(frozen=True)
class Curve:
    """A loss against the training clock."""

    images_seen: tuple[int, ...]  # ascending
    loss: tuple[float, ...]  # as many, all finite
    broken: int  # rows left out because their loss was NaN or infinite


def read_losses(metrics: Path) -> tuple[Curve, Curve]:
    """Training and validation loss in a metrics.jsonl (`losses`); either may be empty, not both.

    Lines that are torn or damaged are passed over.
    """
    if not metrics.is_file():
        raise CheckpointError(
            f"{metrics} does not exist; train first, or name a run's metrics.jsonl"
        )
    found = losses(checksum.read_rows(metrics)[0])
    if not any(curve.loss or curve.broken for curve in found):
        raise CheckpointError(f'{metrics} has no rows of kind "step" or "validation"; train first')
    return found


def losses(rows: Iterable[Mapping[str, Any]]) -> tuple[Curve, Curve]:
    """Training and validation loss in the rows of a log.

    Rows of the kinds "step" and "validation" count, others are passed over. A run that resumed
    repeats images it had logged already: the later row counts.
    """
    found: dict[str, dict[int, object]] = {"step": {}, "validation": {}}
    for row in rows:
        seen = row.get("images_seen")
        if row.get("kind") in ("step", "validation") and "loss" in row and finite(seen):
            found[row["kind"]][int(seen)] = row["loss"]
    return _curve(found["step"]), _curve(found["validation"])


def _curve(losses: Mapping[int, object]) -> Curve:
    """Sorted by images seen, without what cannot be drawn."""
    drawn = sorted((seen, float(loss)) for seen, loss in losses.items() if finite(loss))
    images_seen, values = tuple(s for s, _ in drawn), tuple(v for _, v in drawn)
    return Curve(images_seen, values, broken=len(losses) - len(drawn))


def smooth(curve: Curve, width: float) -> tuple[float, ...]:
    """The running mean: at each point, over all points at most width / 2 images away.

    Symmetric, so it does not lag behind a falling loss as an exponential average does.
    """
    loss, means = np.array(curve.loss), []
    for seen in curve.images_seen:
        first = bisect.bisect_left(curve.images_seen, seen - width / 2)
        end = bisect.bisect_right(curve.images_seen, seen + width / 2)
        # not a difference of running sums: one early spike would drown all that follows
        means.append(float(loss[first:end].mean()))
    return tuple(means)


def loss_figure(training: Curve, validation: Curve) -> "Figure":
    """Training loss, raw and smoothed, and validation loss over images seen.

    The loss axis is logarithmic where the losses are positive and span more than a factor of 10.
    """
    from matplotlib.ticker import EngFormatter

    values = training.loss + validation.loss
    if not values:
        raise DivergenceError(
            "every loss is NaN or infinite, so there is no curve to draw: train with a lower "
            "training.learning_rate"
        )
    figure = _figure(height=5.0)
    axes = figure.subplots()
    if seen := training.images_seen:
        label = f"training{_left_out(training)}"
        axes.plot(seen, training.loss, color=RAW, linewidth=0.7, label=label)
        share = max(SMOOTHING, min(FEW_ROWS / len(seen), 0.25))
        label = f"its mean over {share:.0%} of the run"
        smoothed = smooth(training, share * (seen[-1] - seen[0]))
        axes.plot(seen, smoothed, color=MAIN, linewidth=2, label=label)
    if seen := validation.images_seen:
        marker = "o" if len(seen) <= MOST_MARKERS else ""
        look: dict[str, Any] = {"color": SECOND, "linewidth": 1.8, "marker": marker}
        label = f"validation{_left_out(validation)}"
        axes.plot(seen, validation.loss, markersize=4.5, label=label, **look)
    if min(values) > 0 and max(values) > LOG_RANGE * min(values):
        _log_scale(axes, values)
    axes.set_xlabel("images seen")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    # above the panel, where no curve can run through it
    axes.legend(
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=3,
        fontsize=11,
        columnspacing=1.4,
    )
    _clean(axes)
    return figure


def loss_curves(metrics: Path, out: Path) -> Path:
    """Draw the losses of a metrics.jsonl (`read_losses`) as PNG; returns `out`."""
    return _save(loss_figure(*read_losses(metrics)), out)


def tuning_figure(rows: Iterable[Mapping[str, Any]]) -> "Figure":
    """Tuning to a reward: the reward above, below what it does not see, over images drawn.

    Rows of kind "step" have `reward`, those of kind "check" `values`, all with `images_seen`.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {"step": [], "check": []}
    for row in rows:
        kinds[row["kind"]].append(row)
    figure = _figure(height=6.0)
    above, below = figure.subplots(2, sharex=True)
    steps, checks = kinds["step"], kinds["check"]
    above.plot([row["images_seen"] for row in steps], [row["reward"] for row in steps], color=MAIN)
    above.set_ylabel("reward")
    for name, color in zip(checks[0]["values"], (SECOND, MAIN, GREY), strict=False):
        seen, values = zip(*((r["images_seen"], r["values"][name]) for r in checks), strict=True)
        below.plot(seen, values, color=color, marker="o", markersize=4.5, label=name)
    if not checks[-1]["in_bounds"]:
        below.axvline(checks[-1]["images_seen"], color=GREY, linestyle=":", label="out of bounds")
    below.set_ylabel("not seen by the reward")
    below.set_xlabel("images drawn")
    below.legend(frameon=False, fontsize=11)
    for axes in (above, below):
        _clean(axes)
    return figure


def tuning(rows: Iterable[Mapping[str, Any]], out: Path) -> Path:
    """Write `tuning_figure` as PNG."""
    return _save(tuning_figure(rows), out)


def schedule_figure(
    u: Sequence[float],
    sigma: Sequence[float],
    *,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
) -> "Figure":
    """A noise schedule in two panels over u: sigma (logarithmic) and SNR in decibels.

    The level with the largest sigma is annotated: its SNR is what of the image is left where
    sampling starts, and it should be next to nothing.

    u: positions in [0, 1], ascending.
    sigma: noise levels, as many, all positive and finite (leave out a last 0).
    title: written above; "" for none.
    marks: (u, short text) for vertical lines through both panels.
    """
    if len(u) != len(sigma) or not u:
        raise InputError(f"u and sigma must pair up; given {len(u)} and {len(sigma)} values")
    if not all(0 < level < math.inf for level in sigma):
        raise InputError("every sigma must be positive and finite to have an SNR; leave 0 out")
    figure = _figure(height=6.5)
    upper, lower = figure.subplots(2, 1, sharex=True)
    snr = [-20 * math.log10(level) for level in sigma]
    upper.plot(u, sigma, color=MAIN, linewidth=2)
    upper.set_ylabel("noise level sigma")
    _log_scale(upper, sigma)
    lower.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    lower.plot(u, snr, color=MAIN, linewidth=2)
    lower.set_ylabel("SNR = 1 / sigma² (dB)")
    lower.set_xlabel("position u in the schedule")
    _annotate_terminal(lower, u, sigma)
    for axes in (upper, lower):
        _clean(axes)
        for position, _ in marks:
            axes.axvline(position, color=GREY, linewidth=1, linestyle=(0, (2, 2)))
    _write_marks(upper, u, marks)
    figure.suptitle(title, fontsize=14)
    return figure


def schedule(
    u: Sequence[float],
    sigma: Sequence[float],
    out: Path,
    *,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
) -> Path:
    """Draw a noise schedule (`schedule_figure`) as PNG; returns `out`."""
    return _save(schedule_figure(u, sigma, title=title, marks=marks), out)


def trade_off_figure(points: Sequence[Mapping[str, Any]], floor: Mapping[str, float]) -> "Figure":
    """Guidance in two panels: Frechet distance over its scale; density against coverage.

    points: {curve, scale, values, errors} as in sweep.json; a curve is drawn by rising scale, and
    begins with the plain point of scale 1 where another curve has it. Bars are one standard error.
    floor: the same values of real images, as dashed lines.
    """
    if not points:
        raise InputError("there is no point to draw; sweep first")
    figure = _figure(height=4.6)
    left, right = figure.subplots(1, 2)
    curves = list(dict.fromkeys(point["curve"] for point in points))
    plain = [point for point in points if point["scale"] == 1]
    looks = zip(curves, (MAIN, SECOND, "#3a8a4d"), "osD", (7, -14, 7), strict=False)
    for curve, color, marker, offset in looks:
        own = [point for point in points if point["curve"] == curve]
        shared = [] if any(point["scale"] == 1 for point in own) else plain[:1]
        own = sorted([*own, *shared], key=lambda point: float(point["scale"]))
        look: dict[str, Any] = {
            "color": color, "marker": marker, "markersize": 5, "linewidth": 1.6, "capsize": 2,
            "elinewidth": 0.8, "label": curve,
        }  # fmt: skip
        left.errorbar([point["scale"] for point in own], *_pair(own, "fd"), **look)
        x, y = _pair(own, "coverage"), _pair(own, "density")
        right.errorbar(x[0], y[0], yerr=y[1], xerr=x[1], **look)
        for point, across, up in zip(own, x[0], y[0], strict=True):
            if point not in shared:
                right.annotate(
                    f"{point['scale']:g}",
                    (across, up),
                    xytext=(6, offset),
                    textcoords="offset points",
                    fontsize=10,
                    color=color,
                )
    dashed: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": (0, (4, 3))}
    left.axhline(floor["fd"], label="real images", **dashed)
    right.axhline(floor["density"], **dashed)
    right.axvline(floor["coverage"], **dashed)
    left.set_xlabel("guidance scale (1 = none)")
    left.set_ylabel("Frechet distance (less is better)")
    left.set_ylim(bottom=0)
    right.set_xlabel("coverage: variety")
    right.set_ylabel("density: quality")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False,
        fontsize=11,
    )  # fmt: skip
    for axes in (left, right):
        _clean(axes)
    return figure


def trade_off(points: Sequence[Mapping[str, Any]], floor: Mapping[str, float], out: Path) -> Path:
    """Draw a sweep over guidance (`trade_off_figure`) as PNG; returns `out`."""
    return _save(trade_off_figure(points, floor), out)


def _pair(points: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Values and standard errors of points."""
    return [p["values"][name] for p in points], [p["errors"][name] for p in points]


def _annotate_terminal(axes: "Axes", u: Sequence[float], sigma: Sequence[float]) -> None:
    """Mark the noisiest level of the SNR panel with its numbers."""
    level = max(sigma)
    position, decibels = u[sigma.index(level)], -20 * math.log10(level)
    axes.plot([position], [decibels], color=SECOND, marker="o", markersize=6)
    right = position > (min(u) + max(u)) / 2
    size = f"{level:.3g}" if level < 1000 else f"{level:,.0f}"
    axes.text(
        0.985 if right else 0.015,  # SNR falls towards that end, so the corner above it is free
        0.95,
        f"terminal SNR {decibels:.1f} dB (sigma {size})".replace("-", "\N{MINUS SIGN}"),
        transform=axes.transAxes,
        ha="right" if right else "left",
        va="top",
        color=SECOND,
        fontsize=11,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )


def _write_marks(axes: "Axes", u: Sequence[float], marks: Sequence[tuple[float, str]]) -> None:
    """Write the marks above the panel, each in the lowest line where it meets no other."""
    letter = 0.0105 * (max(u) - min(u))  # width of a letter at this size, in u
    ends: list[float] = []  # right end of the last text in every line
    for position, text in sorted(marks):
        half = (len(text) + 2) * letter / 2
        free = (i for i, end in enumerate(ends) if end <= position - half)
        line = next(free, len(ends))
        ends[line : line + 1] = [position + half]
        axes.annotate(
            text,
            xy=(position, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3 + 13 * line),  # points
            textcoords="offset points",
            ha="center",
            va="bottom",
            color="#444444",
            fontsize=10,
        )


def _left_out(curve: Curve) -> str:
    """What the legend says of values that cannot be drawn."""
    return f" ({curve.broken} not finite)" if curve.broken else ""


def _figure(height: float) -> "Figure":
    """An empty figure; `height` in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained", facecolor="white")


def _clean(axes: "Axes") -> None:
    """Horizontal grid lines alone, no box, letters that can be read at 900 pixels."""
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(which="both", color=GREY, labelsize=11)
    axes.xaxis.label.set_fontsize(12)
    axes.yaxis.label.set_fontsize(12)


def _log_scale(axes: "Axes", values: Sequence[float]) -> None:
    """A logarithmic y axis with plain numbers, also between the powers of ten if they are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    decades = math.log10(max(values) / min(values))
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _save(figure: "Figure", out: Path) -> Path:
    """Write the figure as PNG."""
    if out.suffix.lower() != ".png":
        raise InputError(f"{out} does not end in .png; rename it")
    with replacing(out) as file:
        figure.savefig(file, format="png")
    return out
