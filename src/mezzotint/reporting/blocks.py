"""What a page is made of: typed blocks, each of a kind that page.html knows how to draw.

A section of a page is a title and its blocks. Blocks hold text as it is (the template escapes it),
pictures as data URIs, charts as finished SVG. Looks are CSS classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mezzotint.reporting.charts import Axis, Line, column, finite, line_chart
from mezzotint.reporting.words import spaced

__all__ = [
    "Block",
    "Cards",
    "Cell",
    "Charts",
    "Code",
    "Facts",
    "Panel",
    "Plate",
    "Plates",
    "Table",
    "Text",
    "curves",
    "listing",
]

LONG = 60  # letters: cells with more are given room
WIDE = 4.0  # largest over smallest value from which a curve's axis is logarithmic


@dataclass(frozen=True)
class Block:
    """What a section is made of; false, and left out, where its first field is empty."""

    @property
    def kind(self) -> str:
        """The name of its macro in page.html."""
        return type(self).__name__.lower()

    def __bool__(self) -> bool:
        return bool(getattr(self, fields(self)[0].name))


@dataclass(frozen=True)
class Text(Block):
    """Sentences, each a paragraph."""

    sentences: tuple[str, ...]
    lead: bool = False  # set larger: the summary


@dataclass(frozen=True)
class Cards(Block):
    """Key figures in a row: what, how much, and a note."""

    cards: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Cell:
    """A cell of a table: text, or a chart in its place."""

    text: str = ""
    note: str = ""  # below the text, small
    svg: str = ""
    look: str = ""  # number, strong, best, quiet, code, wide, chart
    share: float | None = None  # tint, 0 to 1; None for none
    span: int = 1


@dataclass(frozen=True)
class Table(Block):
    """Rows below headings; the first cell of a row is its heading."""

    rows: tuple[tuple[Cell, ...], ...]
    headings: tuple[Cell, ...]
    title: str = ""
    caption: str = ""
    look: str = ""
    folded: bool = False  # only its title is seen until one asks


@dataclass(frozen=True)
class Plate:
    """A PNG, whole in itself, under its title."""

    title: str
    uri: str
    width: int
    height: int
    factor: int  # how much it is enlarged, at least 1


@dataclass(frozen=True)
class Plates(Block):
    """Pictures with one caption that says what one sees."""

    plates: tuple[Plate, ...]
    title: str
    caption: str
    strip: bool = False  # too wide for a telephone: it scrolls


@dataclass(frozen=True)
class Panel:
    """A chart under its title, and its lines for the legend."""

    title: str
    svg: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Charts(Block):
    """Charts with one caption that says what one sees."""

    panels: tuple[Panel, ...]
    title: str
    caption: str


@dataclass(frozen=True)
class Code(Block):
    """A command, or a file."""

    text: str
    title: str
    folded: bool = False  # only its title is seen until one asks


@dataclass(frozen=True)
class Facts(Block):
    """Names and values, in groups under their titles."""

    groups: tuple[tuple[str, Mapping[str, str]], ...]
    caption: str = ""


def curves(title: str, lines: Sequence[Line], x_title: str = "images seen") -> Panel:
    """Lines on axes that fit them, logarithmic where they span much."""
    values = [y for line in lines for _, y in line.points]
    wide = min(values) > 0 and max(values) > WIDE * min(values)
    svg = line_chart(
        lines,
        title=title,
        x_title=x_title,
        x_axis=Axis.over([x for line in lines for x, _ in line.points]),
        y_axis=Axis.over(values, "log" if wide else "linear", margin=0.05),
    )
    return Panel(title, svg, tuple(lines))


def listing(
    rows: Sequence[Mapping[str, Any]], title: str, caption: str = "", *, folded: bool = False
) -> Table:
    """Rows of plain values as a table whose columns are their keys in order."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    columns, looks = [], []
    for key in keys:
        values = [row.get(key) for row in rows]
        columns.append(column(values))
        numbers = all(value is None or finite(value) for value in values)
        long = max(map(len, columns[-1])) > LONG
        looks.append("" if key == keys[0] else "number" if numbers else "wide" if long else "")
    headings = tuple(Cell(spaced(key), look=look) for key, look in zip(keys, looks, strict=True))
    cells = tuple(
        tuple(Cell(text, look=look) for text, look in zip(texts, looks, strict=True))
        for texts in zip(*columns, strict=True)
    )
    return Table(cells, headings, title, caption, folded=folded)
