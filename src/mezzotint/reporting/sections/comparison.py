"""Several runs side by side; numbers of different protocols are never set against each other.

Each function makes the blocks of one section from all readings, none where there is nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mezzotint.reporting.blocks import Block, Cell, Charts, Plate, Plates, Table, Text, curves
from mezzotint.reporting.charts import Line, finite, measured
from mezzotint.reporting.reading import Reading, at, keyed, picture
from mezzotint.reporting.sections.evaluation import title_of
from mezzotint.reporting.sections.training import points_of
from mezzotint.reporting.words import duration, exact, facts, or_dash, plain, spaced

__all__ = ["hardware", "metrics", "samples", "settings", "summary", "training"]


def summary(readings: Sequence[Reading]) -> tuple[Block, ...]:
    """What was trained, how long, and the summaries."""
    columns = [
        {
            "trained on": r.subtitle,
            "images seen": "" if r.images_seen is None else f"{r.images_seen:,}",
            "training time": "" if r.seconds is None else duration(r.seconds),
            "summary": " ".join(r.summary) or "not evaluated",
        }
        for r in readings
    ]
    return (_across(readings, columns),)


def _across(
    readings: Sequence[Reading],
    columns: Sequence[Mapping[str, str]],
    title: str = "",
    look: str = "",
) -> Table:
    """A column for each run and a row for each key that any of them has."""
    headings = (Cell(""), *(Cell(reading.name) for reading in readings))
    rows = tuple(
        (Cell(key, look=look), *(Cell(each.get(key, "–")) for each in columns))
        for key in dict.fromkeys(key for each in columns for key in each)
    )
    return Table(rows, headings, title, look="across")


def metrics(readings: Sequence[Reading]) -> tuple[Block, ...]:
    """A row for each metric, the best in bold where it is beyond the noise."""
    keys = dict.fromkeys(key for reading in readings for key in reading.metrics)
    headings = (
        Cell("Metric"),
        *(Cell(reading.name, look="number") for reading in readings),
        Cell("floor", look="number"),
    )
    caption = (
        "The best of each row is set in bold; where standard errors are known, only "
        "if it is ahead by more than twice the combined one. Numbers measured by "
        "different protocols are not compared: the row says in what they differ."
    )
    rows = tuple(_metric_row(readings, key) for key in keys)
    return (Table(rows, headings, caption=caption, look="metrics"),)


def _metric_row(readings: Sequence[Reading], key: str) -> tuple[Cell, ...]:
    found = [reading.metrics.get(key, {}) for reading in readings]
    heading = Cell(title_of(key, next(item for item in found if item)), note=key)
    if difference := _difference(readings, key):
        return heading, Cell(difference, look="quiet", span=len(readings) + 1)
    best = _best(found)
    floors = (item["floor"] for item in found if finite(item.get("floor")))
    return (
        heading,
        *(
            Cell(
                measured(item.get("value"), item.get("error")),
                look="number best" if i == best else "number",
            )
            for i, item in enumerate(found)
        ),
        Cell(or_dash(next(floors, None)), look="number quiet"),
    )


def _difference(readings: Sequence[Reading], key: str) -> str:
    """In what the protocols of a metric differ; "" where its numbers may be compared."""
    protocols = {r.name: _protocol(r, key) for r in readings if key in r.metrics}
    if len(protocols) < 2:
        return ""
    if unknown := [name for name, protocol in protocols.items() if not protocol]:
        return f"not compared: no protocol is given by {', '.join(unknown)}"
    differing = []
    for fact in dict.fromkeys(fact for protocol in protocols.values() for fact in protocol):
        runs: dict[str, list[str]] = {}
        for run, protocol in protocols.items():
            runs.setdefault(exact(protocol.get(fact)), []).append(run)
        if len(runs) > 1:
            values = " / ".join(f"{value} ({', '.join(names)})" for value, names in runs.items())
            differing.append(f"{spaced(fact)}: {values}")
    return f"protocol differs in {'; '.join(differing)}" if differing else ""


def _protocol(reading: Reading, key: str) -> dict[str, Any]:
    """A metric's protocol, with the data it was measured against; empty where it has none."""
    protocol = keyed(reading.metrics[key].get("protocol"))
    fingerprint = at(reading.evaluation, "against", "fingerprint")
    return {"fingerprint": fingerprint, **protocol} if protocol else {}


def _best(found: Sequence[Mapping[str, Any]]) -> int | None:
    """Which run is ahead, if one is beyond the noise."""
    sign = 1 if any(item.get("better") == "lower" for item in found) else -1
    order = sorted(
        (sign * item["value"], i) for i, item in enumerate(found) if finite(item.get("value"))
    )
    if len(order) < 2 or order[0][0] == order[1][0]:
        return None
    errors = [found[i].get("error") for _, i in order[:2]]
    noise = sum(error**2 for error in errors if finite(error)) ** 0.5
    return order[0][1] if order[1][0] - order[0][0] > 2 * noise else None


def samples(readings: Sequence[Reading]) -> tuple[Block, ...]:
    """The samples of each; without an evaluation, the last grid of its training."""
    found = []
    for r in readings:
        path = at(r.evaluation, "pictures", "samples")
        found += [
            picture(r.path, r.name, p) for p in ([path] if path is not None else r.grids()[-1:])
        ]
    plates = tuple(item for item in found if isinstance(item, Plate))
    lines = tuple(item for item in found if isinstance(item, str))
    caption = "What each run draws, nothing picked out."
    return Plates(plates, "Samples side by side", caption), Text(lines)


def training(readings: Sequence[Reading]) -> tuple[Block, ...]:
    """The curves of all runs on the same axes."""
    lines = []
    for i, reading in enumerate(readings):
        # validation is the calmer curve; training stands in where there is none
        calm = len(reading.validation.loss) > 1
        if points := points_of(reading.validation if calm else reading.training):
            lines.append(Line(reading.name, points, _look(i)))
    caption = (
        "The loss of each run on images it never trains on (on the training images where that "
        "was not measured)."
    )
    scales = [[r.config.get("objective"), at(r.config, "data", "fingerprint")] for r in readings]
    if len(set(map(plain, scales))) > 1:
        caption += (
            " These runs differ in their data or in their objective, so their losses are "
            "not on one scale: compare the shapes, not the heights."
        )
    panels = []
    for key in dict.fromkeys(key for reading in readings for key in reading.online_metrics):
        protocols = ((i, r) for i, r in enumerate(readings) if key in r.online_metrics)
        drawn = [Line(r.name, r.online_metrics[key].points, _look(i)) for i, r in protocols]
        panels.append(curves(spaced(key), drawn))
    return (
        Charts((curves("loss", lines),) if lines else (), "Loss", caption),
        Charts(tuple(panels), "Metrics in training", "Quick measurements at checkpoints."),
    )


def _look(i: int) -> str:
    """The look of run i: six colours, dashed from the seventh on."""
    return f"s{i % 6 + 1}" + (" dashed" if i >= 6 else "")


def settings(readings: Sequence[Reading]) -> tuple[Block, ...]:
    """The settings in which the runs differ; the facts of their data stand above."""
    flat = [
        dict(_leaves({key: item for key, item in reading.config.items() if key != "data"}))
        for reading in readings
    ]
    keys = {key for each in flat for key in each if len({e.get(key) for e in flat}) > 1}
    differing = [{key: item for key, item in each.items() if key in keys} for each in flat]
    same = ("All settings are the same.",) if any(flat) and not keys else ()
    return Text(same), _across(readings, differing, "Settings that differ", "code")


def _leaves(table: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, str]]:
    """The settings at the ends of a tree, named a.b.c."""
    for key, item in table.items():
        if isinstance(item, dict):
            yield from _leaves(item, f"{path}{key}.")
        else:
            yield f"{path}{key}", exact(item)


def hardware(readings: Sequence[Reading]) -> tuple[Block, ...]:
    """Machines, versions and commands."""
    columns = [
        facts(r.hardware) | facts({"command": r.evaluation.get("command")}) for r in readings
    ]
    return (_across(readings, columns, "Hardware and versions"),)
