"""One run at several guidance scales, as `mezzotint sweep` found it: a picture, a table, advice.

All is in sweep.json; which setting to take was decided there, with the noise in view.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mezzotint.reporting.blocks import Block, Cell, Code, Facts, Table, Text
from mezzotint.reporting.charts import finite, measured
from mezzotint.reporting.reading import Reading, at, keyed, listed, plates, records, texts
from mezzotint.reporting.words import duration, exact, facts, or_dash, spaced

__all__ = ["guidance"]


def guidance(reading: Reading) -> tuple[Block, ...]:
    """Which scale to take, and what each costs."""
    found = reading.sweep
    seconds, command = found.get("seconds"), found.get("command")
    groups = {
        "What was drawn": facts(keyed(found.get("samples"))),
        "Against": facts(keyed(found.get("protocol"))),
        "Hardware and versions": facts(keyed(found.get("hardware"))),
        "Time": {"in all": duration(seconds)} if finite(seconds) else {},
    }
    return (
        Text(texts(found.get("sentences"))),
        *plates(
            reading.path,
            [("", found.get("picture"))],
            "What guidance buys, and what it costs",
            "On the left the Frechet distance at each scale, less is better. On the right quality "
            "against variety, each point with its scale: guidance makes images clearer and more "
            "alike. Bars are one standard error, dashed lines are real images.",
        ),
        _settings(records(found.get("points")), keyed(found.get("floor")), found.get("advice")),
        Facts(tuple((title, group) for title, group in groups.items() if group)),
        Code(command if isinstance(command, str) else "", "The command that measured it"),
    )


def _settings(
    points: Sequence[Mapping[str, Any]], floor: Mapping[str, Any], advice: object
) -> Table:
    """A row for each setting, and one for real images; in bold what is advised by a number."""
    names = list(dict.fromkeys(name for point in points for name in keyed(point.get("values"))))

    def cell(point: Mapping[str, Any], name: str) -> Cell:
        value, error = at(point, "values", name), at(point, "errors", name)
        best = keyed(at(advice, name, "setting"))
        bold = bool(best) and all(point.get(key) == item for key, item in best.items())
        text = measured(value, error) if finite(value) else "–"
        return Cell(text, look="number best" if bold else "number")

    rows = [(_name(point), *(cell(point, name) for name in names)) for point in points]
    real = tuple(Cell(or_dash(floor.get(name)), look="number quiet") for name in names)
    return Table(
        (*rows, (Cell("real images"), *real)) if points else (),
        (Cell("setting"), *(Cell(spaced(name), look="number") for name in names)),
        "Every setting, with its errors",
        "Each setting drew the same images, of the same noise and labels. The errors are of these "
        "samples: another training may differ by more. In bold the least Frechet distance and the "
        "largest coverage; what differs from them by no more than the noise is said above. These "
        "are few samples against the images that settings are chosen by: compare them with each "
        "other, and not with those under Metrics.",
    )


def _name(point: Mapping[str, Any]) -> Cell:
    """What a setting is called, and at which levels it guides."""
    words = (exact(point[key]) for key in ("curve", "scale") if key in point)
    ends = listed(point.get("interval"))
    levels = len(ends) == 2 and all(map(finite, ends))
    return Cell(" ".join(words), note=" < sigma ≤ ".join(map(exact, ends)) if levels else "")
