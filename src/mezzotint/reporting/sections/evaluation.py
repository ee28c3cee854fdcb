"""One run, as it was evaluated: metrics, classes, difficulty, CLIP, memorisation, selection.

Each function makes the blocks of one section from a reading, none where there is nothing to show.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mezzotint.reporting.blocks import (
    Block,
    Cell,
    Charts,
    Facts,
    Panel,
    Table,
    Text,
    curves,
    listing,
)
from mezzotint.reporting.charts import Line, finite, measured, number, scale_bar
from mezzotint.reporting.reading import Reading, at, keyed, listed, plates, records, texts
from mezzotint.reporting.words import facts, or_dash, spaced, upper

__all__ = [
    "classes",
    "clip",
    "difficulty",
    "memorisation",
    "metrics",
    "others",
    "selection",
    "styles",
    "title_of",
]

SHOWN_ELSEWHERE = frozenset(
    "samples against extractor metrics summary pictures seconds hardware command per_class "
    "confusion memorisation recognition difficulty styles clip selection compared".split()
)
"""Keys of an evaluation that have a section, or are no analysis."""

MOST_CLASSES = 32  # in a confusion matrix with numbers


def title_of(key: str, metric: Mapping[str, Any]) -> str:
    """What a metric is called."""
    title = metric.get("title")
    return upper(title if isinstance(title, str) and title else spaced(key))


def metrics(reading: Reading) -> tuple[Block, ...]:
    """Each metric between its floor and its anchors."""
    scale = _scale(
        [(title_of(key, item), key, item) for key, item in reading.metrics.items()],
        Cell("Metric"),
        "The floor is what as many real images reach that were not used for the "
        "comparison: better than that cannot be distinguished from perfect. The anchors are real "
        "images damaged on purpose; they give the scale its meaning. In the bars the good end "
        "is always on the left, the dot is the value, the band its standard error; distances "
        "are logarithmic where anchors are far apart.",
    )
    return (scale,)


def _scale(
    named: Sequence[tuple[str, str, Mapping[str, Any]]], of: Cell, caption: str, title: str = ""
) -> Table:
    """Values (name, note, item) between what their items have of floor, anchors and AUC."""
    items = [item for *_, item in named]
    names = list(dict.fromkeys(name for item in items for name in _anchors(item)))
    floor, auc = ([key] if any(key in item for item in items) else [] for key in ("floor", "auc"))
    headings = (
        *(of, Cell("value", look="number")),
        *(Cell(name, look="number") for name in (*floor, *names)),
        *(Cell("AUC: real against") for _ in auc),
        Cell("good ← → bad", look="chart"),
    )
    rows = tuple(
        (
            Cell(name, note=note),
            Cell(measured(item.get("value"), item.get("error")), look="number strong"),
            *(Cell(or_dash(item.get(key)), look="number") for key in floor),
            *(Cell(or_dash(_anchors(item).get(key)), look="number quiet") for key in names),
            *(Cell(number(item.get(key, "–"))) for key in auc),
            _scale_bar(item),
        )
        for name, note, item in named
    )
    return Table(rows, headings, title, caption, look="metrics")


def _anchors(item: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in keyed(item.get("anchors")).items() if finite(value)}


def _scale_bar(item: Mapping[str, Any]) -> Cell:
    """The value between floor and anchors; empty where there is nothing to compare with."""
    numbers = (item.get(key) for key in ("value", "error", "floor"))
    value, error, floor = (each if finite(each) else None for each in numbers)
    anchors = _anchors(item)
    if value is None or not (anchors or floor is not None):
        return Cell()
    better = "lower" if item.get("better") == "lower" else "higher"
    return Cell(svg=scale_bar(value, error, floor, anchors, better), look="chart")


def classes(reading: Reading) -> tuple[Block, ...]:
    """Numbers for each class, and which are taken for which."""
    return (
        listing(
            records(reading.evaluation.get("per_class")),
            "Class by class",
            "Each class evaluated alone. A class with low accuracy is taken for another one; one "
            "with low coverage repeats itself.",
        ),
        _confusion(
            listed(reading.section("confusion").get("classes")),
            listed(reading.section("confusion").get("rows")),
            "What was asked for, and what a classifier reads",
            "A row for each class that was asked for, a column for each class that was "
            "read, and in it the number of samples. The diagonal is right; every other tinted "
            "field is a pair of classes that the model confuses. Tints are the cube root of the "
            "share of the row, so that rare mistakes can be seen.",
        ),
    )


def _confusion(
    classes: Sequence[Any], counts: Sequence[Any], title: str, caption: str, read: str = "read"
) -> Table:
    """Counts as a heat map: each row's shares are its tints."""
    names = [str(name) for name in classes]
    rows = [
        [count if finite(count) and count > 0 else 0 for count in listed(row)] for row in counts
    ]
    if [len(row) for row in rows] != [len(names)] * len(names):
        rows = []
    written = len(names) <= MOST_CLASSES

    def cell(i: int, j: int) -> Cell:
        count, total = rows[i][j], sum(rows[i]) or 1
        return Cell(
            number(count) if written and count else "",
            # the cube root, or one mistake in a hundred would be too pale to see
            share=(count / total) ** (1 / 3),
            look="right" if j == i else "wrong",
        )

    return Table(
        tuple(
            (Cell(name), *(cell(i, j) for j in range(len(names))))
            for i, name in enumerate(names[: len(rows)])
        ),
        (Cell(f"asked ↓ / {read} →"), *(Cell(name) for name in names)),
        title=title,
        caption=caption,
        look="heat long" if max(map(len, names), default=0) > 3 else "heat",
    )


def difficulty(reading: Reading) -> tuple[Block, ...]:
    """What was supposed of the hard classes, and what the numbers say."""
    found = reading.section("difficulty")
    answers = records(found.get("answers"))
    return (
        listing(
            [{**row, "evidence": "; ".join(texts(row.get("evidence")))} for row in answers],
            "What was supposed, and what the numbers say",
            " ".join(texts(found.get("caution"))),
        ),
        listing(
            records(found.get("classes")),
            "What the real images of each class are like",
            "Measured on real images alone. If a property made a class hard, it would be strong "
            "where the quality (under Classes) is low.",
        ),
        listing(
            records(found.get("correlations")),
            "How the properties go with the quality",
            "rho is the rank correlation over the classes: above 0, more of the property goes "
            "with better samples. p is how often chance alone would give as much.",
            folded=True,
        ),
    )


def styles(reading: Reading) -> tuple[Block, ...]:
    """Whether images have their requested styles."""
    found = {name: keyed(style) for name, style in reading.section("styles").items()}
    overall = [
        {
            "style": f"{name}, {style['unit']}" if style.get("unit") else name,
            **{key: style.get(key) for key in ("n", "correlation", "error", "bias")},
            "error of real images in random order": style.get("deaf"),
            "level as asked": style.get("accuracy"),
            "at most, by the correlation": style.get("bound"),
            "level as named": at(style, "named", "accuracy"),
        }
        for name, style in found.items()
    ]
    blocks: list[Block] = [
        listing(
            overall,
            "Asked for, and measured",
            "Each sample was asked for the styles of a real image, and the same measure was then "
            "taken of the sample. The error is the mean distance of the two, in the style's own "
            "unit; in random order real images of the same class would be as far off as a model "
            "that does not listen. Near the border of two levels a small error changes the level: "
            "a correlation allows for so many in the right one, and no more. Level as named: of "
            "samples asked for by a level's name, for its middle.",
        )
    ]
    for name, style in found.items():
        levels = listed(style.get("levels"))
        blocks += [
            _confusion(
                levels,
                listed(at(style, "named", "confusion")) or listed(style.get("confusion")),
                f"{upper(name)}: the level asked for, and the one measured",
                "Samples asked for by the name of a level.",
                "measured",
            ),
            listing(
                records(style.get("per_level")),
                f"{upper(name)}: quality, level by level",
                "Label accuracy (also of real images), kernel distance and coverage, against "
                "real images of that level.",
            ),
            listing(
                [
                    {key: item for key, item in row.items() if not isinstance(item, list)}
                    for row in records(style.get("per_class"))
                ],
                f"{upper(name)}, class by class",
                folded=True,
            ),
            *plates(
                reading.path,
                [("", reading.section("pictures").get(f"style-{name}"))],
                f"{upper(name)}: {', '.join(map(str, levels))}",
                "A row for each class; from left to right, a few samples of every level, lowest "
                "first.",
                strip=True,
            ),
        ]
    return tuple(blocks)


def clip(reading: Reading) -> tuple[Block, ...]:
    """CLIP's numbers, with those of real and of damaged images."""
    found = reading.section("clip")
    sentences = tuple(
        f"{upper(key)} classes: {', '.join(names)}."
        for key in ("easiest", "hardest")
        if (names := texts(found.get(key)))
    )
    rows = [
        {key: item for key, item in row.items() if not isinstance(item, list)}
        for row in records(found.get("classes"))
    ]
    pictures = reading.section("pictures")
    return (
        Text(sentences),
        _scores(found),
        listing(rows, "Scores, class by class", "Means over the samples of a class."),
        *plates(
            reading.path,
            [(end, pictures.get(f"clip-{end}")) for end in ("highest", "lowest")],
            "Highest and lowest scores",
            "The samples of every class that CLIP finds most and least like their prompt. If the "
            "low ones look as good as the high ones, the score does not see what you see.",
        ),
    )


def _scores(found: Mapping[str, Any]) -> Table:
    """Each score between its anchors; those of two opposite prompts are named by them."""
    scores = [(spaced(key), item) for key, item in found.items() if "value" in keyed(item)]
    pairs = [(" / ".join(texts(x.get("prompts"))), x) for x in records(found.get("pairs"))]
    model = at(found, "protocol", "model")
    return _scale(
        [(upper(name), _prompts(item), item) for name, item in scores + pairs],
        Cell("Score"),
        "CLIP compares images with sentences. A score alone has no scale, so real "
        "images, noise and blur are shown with it. AUC says how well the score tells real "
        "images from damaged ones: 1 always, 0.5 not at all, and then it is not to be "
        "believed.",
        f"Scores by {model}" if isinstance(model, str) else "Scores",
    )


def _prompts(score: Mapping[str, Any]) -> str:
    """The sentence that the images were compared with, or how many there were."""
    prompts = texts(score.get("prompts"))
    return prompts[0] if len(prompts) == 1 else f"{len(prompts)} prompts" if prompts else ""


def memorisation(reading: Reading) -> tuple[Block, ...]:
    """Whether samples are copies of training images."""
    found = reading.section("memorisation")
    groups: dict[str, Mapping[str, str]] = {}
    for name in ("pixels", "features"):
        each = keyed(found.get(name))
        if finite(each.get("auc")):
            plain = {k: v for k, v in each.items() if finite(v) or isinstance(v, bool)}
            auc = {"AUC": measured(plain.pop("auc"), plain.pop("error", None))}
            groups[f"By {name}"] = auc | facts(plain)
    if protocol := facts(keyed(found.get("protocol"))):
        groups["Protocol"] = protocol
    caption = (
        "AUC: the share of samples that lie nearer to a training image than to a "
        "held-out one, among equally many of both; 0.5 for a model that knows no training "
        "image in particular. The floor is the same of real images. Tail: the share of "
        "samples suspiciously near to a training image; expected: what chance gives."
    )
    sentences = tuple(upper(sentence) for sentence in texts(found.get("summary")))
    return (
        Text(sentences),
        Facts(tuple(groups.items()), caption),
        *plates(
            reading.path,
            [("", reading.section("pictures").get("memorisation"))],
            "The nearest training images",
            "The samples that come closest to a training image, with that image and with the "
            "nearest one held out from training. A copy is like its training image stroke for "
            "stroke, and clearly less like the other.",
            strip=True,
        ),
    )


def others(reading: Reading) -> tuple[Block, ...]:
    """Analyses that have no section of their own: their values as tables, and their pictures."""
    blocks: list[Block] = []
    for name, found in reading.evaluation.items():
        if name in SHOWN_ELSEWHERE or not isinstance(found, dict):
            continue
        title = title_of(name, found)
        rest = {key: value for key, value in found.items() if key not in ("title", "sentences")}
        plain = {key: v for key, v in rest.items() if not isinstance(v, dict | list)}
        blocks += [Text(texts(found.get("sentences"))), listing([plain] if plain else [], title)]
        for key, value in rest.items():
            rows = [value] if isinstance(value, dict) else records(value)
            blocks.append(listing(rows, f"{title}: {spaced(key)}"))
        pictures = reading.section("pictures").items()
        own = [(key, path) for key, path in pictures if key.split("-")[0] == name]
        blocks += plates(reading.path, own, f"{title}: pictures", "", strip=True)
    return tuple(blocks)


def selection(reading: Reading) -> tuple[Block, ...]:
    """What choosing the best of a pool does."""
    found = reading.section("selection")
    rows = records(found.get("rows"))
    score, threshold = found.get("score"), found.get("threshold")
    by = f" by {score}" if isinstance(score, str) else ""
    high = f" of {number(threshold)} or more" if finite(threshold) else ""
    caption = (
        "From a pool of samples the best are kept. The larger the pool, the better they "
        "should be, and the more alike: diversity is the price."
    )
    if finite(guidance := found.get("guidance")):
        caption += f" Drawn with guidance {number(guidance)}."
    return (
        Charts(_effects(rows), "What choosing does", caption),
        listing(rows, "Selection in numbers"),
        listing(
            records(found.get("classes")),
            f"Scores{by}, class by class",
            f"Of high quality is the share of the drawn samples with a score{high}. Then the mean "
            "score of all that were drawn, and of those that were kept.",
        ),
        *plates(
            reading.path,
            [("", found.get("picture"))],
            "The pool, best first",
            "A row for each class, ranked by the score; those on the left are kept.",
            strip=True,
        ),
    )


def _effects(rows: Sequence[Mapping[str, Any]]) -> tuple[Panel, ...]:
    """How each number changes with the size of the pool."""
    panels = []
    for key in dict.fromkeys(key for row in rows for key in row):
        points = sorted(
            (row["pool"], row[key])
            for row in rows
            if finite(row.get("pool")) and finite(row.get(key))
        )
        if key not in ("pool", "keep", "n") and len({pool for pool, _ in points}) > 1:
            panels.append(curves(spaced(key), [Line("", tuple(points), "s1")], "pool"))
    return tuple(panels)
