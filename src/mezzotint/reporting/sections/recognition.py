"""When noise becomes a picture, and a picture noise: what each reader says of both processes.

Each finding is a `Recognition.to_json`: sentences, levels of the process, and, for all images and
for each class, the share recognised at every level and the quartiles of when.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mezzotint.reporting.blocks import Block, Cell, Charts, Panel, Table, Text
from mezzotint.reporting.charts import Axis, Line, finite, interval, line_chart
from mezzotint.reporting.reading import Reading, at, keyed, listed, plates, records, texts
from mezzotint.reporting.words import or_dash, upper

__all__ = ["recognition"]

VIEWS = {
    "x0": "in the estimate of the clean image",
    "x": "in the noisy image itself",
    "unconditional": "in the estimate made without the label",
}


@dataclass(frozen=True)
class Way:
    """The words for one of the two processes."""

    title: str
    caption: str
    ends: tuple[str, str]  # what the first and the last class of the ranking are
    moments: tuple[str, str]
    table: str


REVERSE = Way(
    "When an image is recognised",
    "The share of samples in which the class asked for is read, from pure noise (0%) to the "
    "finished image (100%); below the shares, the noise at that moment. Each line is a class; the "
    "first and the last to be recognised are in colour. A line that is high in pure noise shows "
    "what the reader takes noise for: the table does not count that.",
    ends=("first", "last"),
    moments=("first", "for good"),
    table="The moment by which half of a class's images are recognised for the first time, and "
    "for good (the dot); the spread is from a quarter to three quarters of the images (the bar). "
    "Then the noise and the evaluations of the network spent at the dot, and the share of images "
    "that never get there.",
)
FORWARD = Way(
    "When an image is lost",
    "The same on the way to noise: the share of real images in which their class can be read, "
    "from the image (0%) to pure noise (100%).",
    ends=("kept longest", "lost first"),
    moments=("last seen", "lost"),
    table="The moment up to which half of a class's images are recognised without a break (the "
    "dot), and the last at which half of them are recognised at all; the spread is from three "
    "quarters to a quarter of the images (the bar). Then the noise at the dot, and the share of "
    "images that are not even recognised in the least noise.",
)


def recognition(reading: Reading) -> tuple[Block, ...]:
    """Both processes, and film strips of the first and the last class."""
    found, pictures = reading.section("recognition"), reading.section("pictures")
    return (
        *_process(records(found.get("reverse")), REVERSE),
        *_process(records(found.get("forward")), FORWARD),
        *plates(
            reading.path,
            [(f"the {which} class", pictures.get(which)) for which in ("earliest", "latest")],
            "The earliest and the latest class",
            "Film strips of the class that is recognised first and of the one recognised last. "
            "Compare at one sigma how much of each can be seen.",
            strip=True,
        ),
    )


def _process(findings: Sequence[Mapping[str, Any]], way: Way) -> Iterable[Block]:
    """What all readers say of one process; but for the first, their tables are folded."""
    for found in findings:
        yield Text(tuple(filter(None, [" ".join(texts(found.get("sentences")))])))
    panels = tuple(panel for found in findings for panel in _panel(found, way.ends))
    yield Charts(panels, way.title, way.caption)
    for i, found in enumerate(findings):
        yield _table(found, way, folded=i > 0)


def _reader(found: Mapping[str, Any]) -> str:
    """Who read, and in what."""
    view = str(found.get("view", ""))
    return f"{found.get('reader', 'the reader')}, {VIEWS.get(view, view)}".rstrip(", ")


def _panel(found: Mapping[str, Any], ends: tuple[str, str]) -> Iterable[Panel]:
    """All classes thin, the two extreme ones and the mean strong; none without curves."""
    levels = records(found.get("levels"))

    def points(y: Sequence[object]) -> tuple[tuple[float, float], ...]:
        """Where both the share of the process and y are numbers."""
        pairs = zip((level.get("share") for level in levels), y, strict=False)
        return tuple((a, b) for a, b in pairs if finite(a) and finite(b))

    others = {
        str(row.get("name")): points(listed(row.get("recognised")))
        for row in records(found.get("classes"))
    }
    order = [name for name in texts(found.get("ranking")) if others.get(name)]
    lines = [
        Line("other classes" if i == 0 else "", others[name], "faint")
        for i, name in enumerate(order[1:-1])
    ]
    if len(order) > 1:
        lines.append(Line(f"{order[0]} ({ends[0]})", others[order[0]], "s1"))
        lines.append(Line(f"{order[-1]} ({ends[1]})", others[order[-1]], "s2"))
    if every := points(listed(at(found, "overall", "recognised"))):
        lines.append(Line("all classes", every, "ink"))
    if not lines:
        return
    sigmas = dict(points([level.get("sigma") for level in levels]))

    def label(tick: float) -> str:
        """The tick, and under it the noise at the nearest level."""
        if not sigmas:
            return f"{tick:.0%}"
        sigma = sigmas[min(sigmas, key=lambda share: abs(share - tick))]
        return f"{tick:.0%}\nσ {float(f'{sigma:.2g}'):g}"

    title = upper(_reader(found))
    svg = line_chart(
        lines,
        title=title,
        x_title="share of the process",
        x_axis=Axis(0, 1),
        y_axis=Axis(0, 1),
        x_label=label,
        y_label=lambda tick: f"{tick:.0%}",
    )
    yield Panel(title, svg, tuple(lines))


def _table(found: Mapping[str, Any], way: Way, *, folded: bool) -> Table:
    """Per class: the median share and its spread as a bar, then the numbers."""
    rows = records(found.get("classes"))
    halves = [keyed(at(row, "final", "half")) for row in rows]
    extra = [
        key for key in ("sigma", "evaluations") if any(finite(half.get(key)) for half in halves)
    ]
    names = [*way.moments, "spread", *extra, "never"]
    return Table(
        tuple(_row(row, half, extra) for row, half in zip(rows, halves, strict=True)),
        (
            *(Cell("class"), Cell("0 … 100% of the process", look="chart")),
            *(Cell(name, look="number") for name in names),
        ),
        title=f"{way.title}, by {_reader(found)}",
        caption=way.table,
        folded=folded,
    )


def _row(
    row: Mapping[str, Any], half: Mapping[str, Any], extra: Sequence[str]
) -> tuple[Cell, ...]:
    """One class."""
    middle = half.get("share")
    quarters = [at(row, "final", key, "share") for key in ("quarter", "three_quarters")]
    # in the forward process most images are there at the low share, so the ends change places
    ends = sorted(share for share in quarters if finite(share))
    low, high = ends if len(ends) == 2 else (None, None)
    return (
        Cell(str(row.get("name"))),
        Cell(svg=interval(low, middle, high, Axis(0, 1)) if finite(middle) else "", look="chart"),
        Cell(_percent(at(row, "first", "half", "share")), look="number quiet"),
        Cell(_percent(middle), look="number strong"),
        Cell("–" if low is None else f"{low:.0%} – {high:.0%}", look="number"),
        *(Cell(or_dash(half.get(key)), look="number") for key in extra),
        Cell(_percent(at(row, "final", "never")), look="number"),
    )


def _percent(share: object) -> str:
    return f"{share:.0%}" if finite(share) else "–"
