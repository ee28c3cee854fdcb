"""Charts as inline SVG: curves, scale bars and intervals, and numbers as words.

Convention: a place is a share of the plot, 0 at the left or bottom and 1 at the right or top.
SVG gets it in per cent, so a chart fills any width while its letters keep their size. Colours are
CSS classes that the page defines, once for light and once for dark. ElementTree escapes all text.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard
from xml.etree import ElementTree as ET

__all__ = [
    "Axis",
    "Line",
    "column",
    "finite",
    "interval",
    "line_chart",
    "measured",
    "number",
    "scale_bar",
    "short",
]

Scale = Literal["linear", "log", "root"]

SPREAD = 20.0  # largest over smallest number from which a scale bar is not linear
LARGEST = 1e300  # and beyond, differences are no longer numbers
SCALE_BAR = 300.0  # pixels: the width at which a scale bar's labels must not meet
LETTER = 6.4  # pixels: mean width of a letter on a scale bar
LINE = 14  # pixels between two lines of labels
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: object) -> str:
    """A value as a reader wants it: three significant digits, whole numbers whole.

    >>> [number(v) for v in (0.123456, 12345.6, 10000, -2.5e-7, 0.99649, None)]
    ['0.123', '12,346', '10,000', '−2.50 × 10⁻⁷', '0.9965', 'not measured']
    """
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {number(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(number(item) for item in value)
    if not isinstance(value, (int, float)):
        return str(value)
    if not finite(value):
        return "not finite"
    size = abs(value)
    if size >= 1000 or value == int(value):
        text = f"{value:,.0f}" if size < 1e12 else f"{value:.2e}"
    elif 0.9 <= size < 1:
        text = f"{value:.4f}"  # near 1 it is the distance from 1 that counts
    else:
        text = f"{value:#.3g}".rstrip(".")
    mantissa, _, power = text.partition("e")
    text = f"{mantissa} × 10{str(int(power)).translate(SUPERSCRIPTS)}" if power else text
    return text.replace("-", "\N{MINUS SIGN}")


def measured(value: object, error: object) -> str:
    """A value with its standard error: the error's two digits say how many the value has.

    >>> measured(3.14159, 0.0512), measured(97.0, None)
    ('3.142 ± 0.051', '97')
    """
    if not (finite(value) and finite(error) and error > 0):
        return number(value)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    if decimals > 6:
        return f"{number(value)} ± {number(error)}"
    text = f"{value:,.{decimals}f} ± {error:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def column(values: Sequence[object]) -> list[str]:
    """The cells of one column: the decimals that give its middle number three digits.

    Empty where a value is missing; where the numbers are of very different sizes, or not all are
    numbers, each is written for itself.

    >>> column([0.5, 0.123456, None])
    ['0.500', '0.123', '']
    """
    known = [value for value in values if value is not None]
    sizes = [abs(value) for value in known if finite(value) and value]
    whole = all(isinstance(value, int) for value in known)
    if whole or len(sizes) < len(known) - known.count(0) or not sizes:
        return ["" if value is None else number(value) for value in values]
    decimals = max(0, 2 - math.floor(math.log10(sorted(sizes)[len(sizes) // 2])))
    if decimals > 5 or min(sizes) < 10.0**-decimals:
        return ["" if value is None else number(value) for value in values]
    cells = ["" if value is None else f"{value:,.{decimals}f}" for value in values]
    return [cell.replace("-", "\N{MINUS SIGN}") for cell in cells]


def short(value: float) -> str:
    """A number on an axis.

    >>> [short(v) for v in (0, 0.25, 50000, 1200000)]
    ['0', '0.25', '50k', '1.2M']
    """
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:g}{letter}"
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Axis:
    """A range of numbers on a scale; `place` is 0 at its low end and 1 at its high end.

    "root" is the cube root, for what spans orders of magnitude on both sides of zero.
    """

    low: float
    high: float
    scale: Scale = "linear"

    @staticmethod
    def over(values: Sequence[float], scale: Scale = "linear", margin: float = 0.0) -> "Axis":
        """The range of the values and `margin`, a share of it, on both sides."""
        low, high = _warp(min(values), scale), _warp(max(values), scale)
        if high == low:  # one value alone lies in the middle
            low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
        room = margin * (high - low)
        return Axis(_unwarp(low - room, scale), _unwarp(high + room, scale), scale)

    def place(self, value: float) -> float:
        """Where a number lies, cut off at the ends."""
        low, high = _warp(self.low, self.scale), _warp(self.high, self.scale)
        if self.scale == "log" and value <= 0:
            return 0.0
        return min(1.0, max(0.0, (_warp(value, self.scale) - low) / (high - low)))

    def ticks(self, most: int = 6) -> list[float]:
        """At most `most` round numbers in the range."""
        if self.scale == "log":
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
                found = [digit * 10.0**power for power in powers for digit in digits]
                found = [tick for tick in found if self.low <= tick <= self.high]
                if len(found) <= most:
                    return found
            return found[:: math.ceil(len(found) / most)]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        step *= next(m for m in (1, 2, 5, 10, 20) if (self.high - self.low) / (m * step) < most)
        first = math.ceil(self.low / step - 1e-9)
        end = math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, end + 1)]


def _warp(value: float, scale: Scale) -> float:
    """A number on a scale where equal lengths are equal steps."""
    if scale == "log":
        return math.log10(value)
    return math.cbrt(value) if scale == "root" else value


def _unwarp(value: float, scale: Scale) -> float:
    """The inverse of `_warp`."""
    if scale == "log":
        return float(10.0 ** min(max(value, -300.0), 300.0))  # what a float can hold
    return value**3 if scale == "root" else value


@dataclass(frozen=True)
class Line:
    """A curve: its name in the legend, its points, and its look, a CSS class of the page."""

    name: str  # "" for none in the legend
    points: tuple[tuple[float, float], ...]  # (x, y), all finite, x ascending
    look: str


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_title: str,
    x_axis: Axis,
    y_axis: Axis,
    x_label: Callable[[float], str] = short,
    y_label: Callable[[float], str] = short,
) -> str:
    """Curves over round numbers; the last line lies on top.

    title: what is drawn, for those who hear the page.
    x_label, y_label: a tick's text; what follows a line break stands in a second line.
    """
    chart = ET.Element("svg", {"class": "chart", "role": "img", "aria-label": title})
    for tick in y_axis.ticks(6):
        height = _percent(1 - y_axis.place(tick))
        ET.SubElement(chart, "line", {"class": "grid", "x2": "100%", "y1": height, "y2": height})
        _text(chart, y_label(tick), x="0", y=height, dx="-0.6em", dy="0.32em", class_="y")
    second = False
    for tick in x_axis.ticks(7):
        place = _percent(x_axis.place(tick))
        for i, text in enumerate(x_label(tick).split("\n")):
            _text(chart, text, x=place, y="100%", dy=f"{1.5 + 1.25 * i:g}em", class_="x")
            second = second or i > 0
    dy = "4.1em" if second else "2.9em"
    _text(chart, x_title, x="100%", y="100%", dy=dy, class_="name")
    plot = {"width": "100%", "height": "100%", "viewBox": "0 0 1000 1000"}
    plot |= {"preserveAspectRatio": "none", "overflow": "visible"}
    inside = ET.SubElement(chart, "svg", plot)
    for line in lines:
        points = [
            f"{1000 * x_axis.place(x):.5g} {1000 * (1 - y_axis.place(y)):.5g}"
            for x, y in line.points
        ]
        if points:
            # a point alone is a line to itself, which round ends make visible
            path = f"M{'L'.join(points)}" if len(points) > 1 else f"M{points[0]}h0"
            ET.SubElement(inside, "path", {"class": f"line {line.look}", "d": path})
    return _written(chart)


def scale_bar(
    value: float,
    error: float | None,
    floor: float | None,
    anchors: Mapping[str, float],
    better: str,
) -> str:
    """A value between the floor and the anchors, the good end always on the left.

    Distances are logarithmic where they span more than a factor of 20 (the cube root where some
    are not positive), scores are linear.

    error: its standard error, drawn as a bar to both sides; None for none.
    better: "lower" or "higher".
    """
    marks = ({} if floor is None else {"floor": floor}) | dict(anchors)
    values = [value, *marks.values()]
    axis = Axis.over(values, _scale_of(values, better), margin=0.03)

    def place(number: float) -> float:
        return 1 - axis.place(number) if better == "higher" else axis.place(number)

    chart = ET.Element("svg", {"class": "ruler", "role": "img"})
    ET.SubElement(chart, "line", {"class": "base", "x2": "100%", "y1": "9", "y2": "9"})
    lines = 0
    ends: list[float] = []  # right end of the last label in every line, pixels
    for name, mark in sorted(marks.items(), key=lambda item: place(item[1])):
        at = place(mark)
        left, anchor = _label(at, len(name) * LETTER)
        line = next((i for i, end in enumerate(ends) if end + LETTER <= left), len(ends))
        ends[line : line + 1] = [left + len(name) * LETTER]
        lines = max(lines, line + 1)
        x, look = _percent(at), "floor" if name == "floor" else "anchor"
        tick = ET.SubElement(
            chart,
            "line",
            {"class": look, "x1": x, "x2": x, "y1": "3", "y2": f"{17 + LINE * line}"},
        )
        ET.SubElement(tick, "title").text = f"{name}: {number(mark)}"
        _text(chart, name, x=x, y=f"{27 + LINE * line}", class_=look, anchor=anchor)
    if error:
        ends_of_bar = {"x1": _percent(place(value - error)), "x2": _percent(place(value + error))}
        ET.SubElement(chart, "line", {"class": "error", "y1": "9", "y2": "9", **ends_of_bar})
    dot = ET.SubElement(
        chart, "circle", {"class": "value", "cx": _percent(place(value)), "cy": "9", "r": "5"}
    )
    ET.SubElement(dot, "title").text = measured(value, error)
    said = [f"{name} {number(mark)}" for name, mark in marks.items()]
    chart.set("aria-label", ", ".join([f"value {number(value)}", *said]))
    chart.set("height", str(20 + LINE * lines))
    return _written(chart)


def _scale_of(values: Sequence[float], better: str) -> Scale:
    """Return the scale on which the numbers of one metric can be distinguished."""
    sizes = [abs(value) for value in values if value]
    if better == "higher" or not sizes or max(sizes) <= SPREAD * min(sizes):
        return "linear"
    return "log" if min(values) > 0 else "root"


def _label(at: float, width: float) -> tuple[float, str]:
    """The left end of a label (pixels) at a place, and its anchor; none leaves the scale bar."""
    middle = at * SCALE_BAR
    if middle < width / 2:
        return middle, "start"
    if middle > SCALE_BAR - width / 2:
        return middle - width, "end"
    return middle - width / 2, "middle"


def interval(low: float | None, middle: float, high: float | None, axis: Axis) -> str:
    """A dot at the middle and a bar from low to high (None: no bar), small enough for a table."""
    said = f"{number(middle)}" + (f", {number(low)} to {number(high)}" if low is not None else "")
    chart = ET.Element("svg", {"class": "interval", "role": "img", "aria-label": said})
    ET.SubElement(chart, "line", {"class": "base", "x2": "100%", "y1": "50%", "y2": "50%"})
    if low is not None and high is not None:
        ends = {"x1": _percent(axis.place(low)), "x2": _percent(axis.place(high))}
        ET.SubElement(chart, "line", {"class": "error", "y1": "50%", "y2": "50%", **ends})
    at = _percent(axis.place(middle))
    ET.SubElement(chart, "circle", {"class": "value", "cx": at, "cy": "50%", "r": "4"})
    return _written(chart)


def _text(
    parent: ET.Element,
    text: str,
    *,
    x: str,
    y: str,
    class_: str,
    dx: str = "0",
    dy: str = "0",
    anchor: str = "",
) -> None:
    """A label; its anchor is the class's, unless given."""
    place = {"x": x, "y": y, "dx": dx, "dy": dy, "class": class_}
    ET.SubElement(parent, "text", place | ({"text-anchor": anchor} if anchor else {})).text = text


def _percent(share: float) -> str:
    return f"{100 * share:.5g}%"


def _written(chart: ET.Element) -> str:
    return ET.tostring(chart, encoding="unicode")


def finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < LARGEST
