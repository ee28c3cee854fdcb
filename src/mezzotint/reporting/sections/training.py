"""One run, as it was made: summary, samples, training, the process, and the protocol behind all.

Each function makes the blocks of one section from a reading, none where there is nothing to show.
"""

from collections.abc import Iterable
from pathlib import Path

from mezzotint.reporting.blocks import Block, Cards, Cell, Charts, Code, Facts, Table, Text, curves
from mezzotint.reporting.charts import Line, finite, number
from mezzotint.reporting.figures import Curve, smooth
from mezzotint.reporting.reading import Reading, keyed, plates
from mezzotint.reporting.sections.evaluation import title_of
from mezzotint.reporting.words import duration, exact, facts, plain, spaced

__all__ = ["loss_lines", "points_of", "process", "protocol", "samples", "summary", "training"]

MOST_GRIDS = 8  # pictures of samples over time
SMOOTHING = 0.05  # width of the running mean of the training loss, as a share of the run
CARDS = ("fd", "accuracy", "coverage", "cas")  # how the keys of the key figures begin


def summary(reading: Reading) -> tuple[Block, ...]:
    """The summary and the key figures."""
    not_evaluated = ("Not evaluated yet: no number says how good these images are.",)
    return Text(reading.summary or not_evaluated, lead=True), Cards(tuple(_cards(reading)))


def _cards(reading: Reading) -> Iterable[tuple[str, str, str]]:
    if reading.images_seen is not None:
        note = "" if reading.seconds is None else f"in {duration(reading.seconds)}"
        if reading.trained is not None and reading.trained != reading.images_seen:
            note = f"when it was evaluated; trained on to {reading.trained:,}"
        yield "Images seen", f"{reading.images_seen:,}", note
    found = reading.metrics
    keys = (next((key for key in found if key.startswith(start)), None) for start in CARDS)
    figures = [(title_of(key, found[key]), found[key], "value") for key in keys if key is not None]
    figures.append(
        ("Memorisation AUC", keyed(reading.section("memorisation").get("pixels")), "auc")
    )
    for label, item, key in figures:
        if finite(value := item.get(key)):
            floor = item.get("floor")
            note = f"floor {number(floor)}" if finite(floor) else "no floor measured"
            yield label, number(value), note
    if reading.validation.loss:
        yield "Best validation loss", number(min(reading.validation.loss)), ""


def samples(reading: Reading) -> tuple[Block, ...]:
    """Samples next to real images."""
    pictures = reading.section("pictures")
    return plates(
        reading.path,
        [("drawn by the model", pictures.get("samples")), ("real", pictures.get("real"))],
        "Samples next to real images",
        "Nothing picked out: the first samples of every class, and real images of the same "
        "classes. Look for what never occurs among the real ones: broken strokes, speckles, "
        "shapes between two classes, or one image again and again.",
    )


def training(reading: Reading) -> tuple[Block, ...]:
    """Curves of loss and metrics, and the samples drawn on the way."""
    lines, measured = loss_lines(reading), reading.online_metrics.items()
    names = reading.grids()
    count = min(MOST_GRIDS, len(names))
    chosen = [names[round(i * (len(names) - 1) / max(1, count - 1))] for i in range(count)]
    return (
        Charts(
            (curves("loss", lines),) if lines else (),
            "Loss",
            "What training makes small: the error of the network's prediction, averaged over "
            "noise levels. The faint line is each logged step, the strong one its "
            "running mean; the dotted one is measured on images it never trains on. Where "
            "that one rises while training still falls, the model begins to learn by heart.",
        ),
        Charts(
            tuple(curves(spaced(key), [line]) for key, line in measured),
            "Metrics in training",
            "Quick measurements at checkpoints, of few images, so they are good for "
            "the direction and not for the value: those are under Metrics.",
        ),
        *plates(
            reading.path,
            [(f"{int(Path(name).stem):,} images seen", name) for name in chosen],
            "The same noise, later and later",
            "Samples drawn while the model trained, always from the same noise, so that each "
            "place shows one image getting better. Shapes come first, then clean edges, then "
            "details.",
        ),
    )


def loss_lines(reading: Reading) -> list[Line]:
    """Training loss raw and smoothed, validation loss."""
    lines = []
    if seen := reading.training.images_seen:
        mean = smooth(reading.training, SMOOTHING * (seen[-1] - seen[0]))
        lines.append(Line("training", points_of(reading.training), "faint"))
        lines.append(Line("its running mean", tuple(zip(seen, mean, strict=True)), "s1"))
    if reading.validation.loss:
        lines.append(Line("validation", points_of(reading.validation), "s2 dotted"))
    return lines


def points_of(curve: Curve) -> tuple[tuple[float, float], ...]:
    """A loss as the points of a line."""
    return tuple(zip(curve.images_seen, curve.loss, strict=True))


def process(reading: Reading) -> tuple[Block, ...]:
    """Film strips of the reverse and the forward process."""
    reverse = plates(
        reading.path,
        [("", reading.section("pictures").get("reverse"))],
        "From noise to image",
        "The reverse process, from left to right. x is the image on its way, noise and all; "
        "the x0 estimate is what the model takes for the clean image at that moment. Early "
        "estimates are blurred: they are the mean of all images that could still come of it. "
        "sigma is the strength of the noise.",
        strip=True,
    )
    forward = plates(
        reading.path,
        [("", reading.section("pictures").get("forward"))],
        "From image to noise",
        "The forward process, which needs no model: real images under more and more noise. "
        "SNR is the signal-to-noise ratio. On the right nothing of the image should be left, "
        "because that is where drawing begins.",
        strip=True,
    )
    return reverse + forward


def protocol(reading: Reading) -> tuple[Block, ...]:
    """All that one must know to measure the same again."""
    protocols = {key: keyed(item.get("protocol")) for key, item in reading.metrics.items()}
    protocols = {key: item for key, item in protocols.items() if item}
    keys = list(dict.fromkeys(key for item in protocols.values() for key in item))
    common = {
        key: values[0]
        for key in keys
        for values in [[item.get(key) for item in protocols.values()]]
        if len(set(map(plain, values))) == 1
    }
    seconds = reading.section("seconds").items()
    groups = {
        "What was evaluated": facts(reading.section("samples")),
        "Against": facts(reading.section("against")),
        "Protocol of every metric": {spaced(key): exact(item) for key, item in common.items()},
        "Hardware and versions": facts(reading.hardware),
        "Time": {key: duration(value) for key, value in seconds if finite(value)},
    }
    own = [key for key in keys if key not in common and key != "metric"]
    rows = tuple(
        (Cell(name), *(Cell(exact(item[key]) if key in item else "–") for key in own))
        for name, item in protocols.items()
    )
    command = reading.evaluation.get("command")
    return (
        Facts(tuple((title, group) for title, group in groups.items() if group)),
        Table(
            rows if own else (),
            (Cell("metric"), *(Cell(spaced(key)) for key in own)),
            "Protocol of each metric",
            "Two numbers may be compared only where all of this is the same.",
        ),
        Code(command if isinstance(command, str) else "", "The command that measured it"),
        Code(reading.settings, "All settings of the training", folded=True),
    )
