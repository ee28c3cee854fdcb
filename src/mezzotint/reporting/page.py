"""The page: everything known of a run, or of several side by side, in one HTML file.

It is made of what lies in a run directory: config.toml, metrics.jsonl, samples/*.png, and, once
`mezzotint evaluate` and `sweep` have been there, evaluation.json, sweep.json and their pictures.
Nothing is computed here but places on the page. Every key of theirs may be missing; a section
without data is left out, and the page ends with the commands that would make it.

A reading (`reading`) becomes sections (`sections.training`, `evaluation`, `recognition`,
`guidance`; `comparison` for several runs), a section blocks (`blocks`), and page.html knows how
each block looks. Pictures are data URIs and the page forbids itself all requests, so it can be
mailed, printed and opened in ten years.
"""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mezzotint.errors import InputError
from mezzotint.reporting.blocks import Block
from mezzotint.reporting.reading import Reading, Translate, at, read
from mezzotint.reporting.sections import comparison, evaluation, guidance, recognition, training
from mezzotint.runtime.atomic import write_bytes

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["write_report"]

ONE: Mapping[str, Callable[[Reading], tuple[Block, ...]]] = {
    "Summary": training.summary,
    "Samples": training.samples,
    "Training": training.training,
    "The process": training.process,
    "Metrics": evaluation.metrics,
    "Classes": evaluation.classes,
    "Recognition": recognition.recognition,
    "Difficulty": evaluation.difficulty,
    "Styles": evaluation.styles,
    "CLIP": evaluation.clip,
    "Memorisation": evaluation.memorisation,
    "Other analyses": evaluation.others,
    "Guidance": guidance.guidance,
    "Selection": evaluation.selection,
    "Protocol": training.protocol,
}
"""The sections of a page about one run, in order."""

SEVERAL: Mapping[str, Callable[[Sequence[Reading]], tuple[Block, ...]]] = {
    "Summary": comparison.summary,
    "Metrics": comparison.metrics,
    "Samples": comparison.samples,
    "Training": comparison.training,
    "Settings": comparison.settings,
    "Hardware": comparison.hardware,
}
"""The sections of a page about several."""

COMMANDS = {
    "Training": "mezzotint train SOURCE --out {run}",
    "Metrics in training": "mezzotint train SOURCE --out RUN --set training.metrics_every=20000",
    "Metrics": "mezzotint evaluate {run} --metrics fd,kd,coverage,accuracy,score",
    "Classification accuracy score": "mezzotint evaluate {run} --metrics cas",
    "Recognition": "mezzotint evaluate {run} --metrics recognition",
    "Difficulty": "mezzotint evaluate {run} --metrics difficulty",
    "Styles": "mezzotint evaluate {run} --metrics styles",
    "CLIP": "mezzotint evaluate {run} --metrics clip",
    "Memorisation": "mezzotint evaluate {run} --metrics memorisation",
    "Guidance": "mezzotint sweep {run}",
    "Selection": "mezzotint select {run} --pools 4 --out FOLDER",
}
EVALUATE = "mezzotint evaluate {run}"
"""What makes the sections that have no command of their own."""


def write_report(
    runs: Sequence[Path],
    out: Path,
    translate: Translate = dict,
    translate_evaluation: Translate = dict,
) -> Path:
    """Write one self-contained HTML file about a run, or about several side by side.

    Args:
        runs: Run directories, at least one; of two or more, the page compares.
        out: Ends in .html; replaced if it is there.
        translate: Gives the settings of earlier versions the keys of today.
        translate_evaluation: Gives their evaluation.json and sweep.json the keys of today.

    Returns:
        `out`.
    """
    if not runs:
        raise InputError("a report needs at least one run; given none")
    if out.suffix.lower() != ".html":
        raise InputError(f"{out} does not end in .html; rename it")
    readings = [read(Path(run), translate, translate_evaluation) for run in runs]
    page = _page(_named(readings))
    write_bytes(out, page.encode(errors="replace"))  # JSON and paths may hold half characters
    return out


def _named(readings: Sequence[Reading]) -> list[Reading]:
    """The readings with names of their own: numbered where two directories are called the same."""
    names = [reading.name for reading in readings]
    return [
        replace(reading, name=f"{reading.name} ({i})")
        if names.count(reading.name) > 1
        else reading
        for i, reading in enumerate(readings, 1)
    ]


def _page(readings: Sequence[Reading]) -> str:
    """The whole page."""
    if len(readings) == 1:
        (one,) = readings
        title, subtitle = one.name, one.subtitle
        made = [(name, _full(make(one))) for name, make in ONE.items()]
        missing = [(name, one) for name, blocks in made if not blocks and _able(name, one.config)]
        if not one.online_metrics:
            missing.append(("Metrics in training", one))
        if "cas" not in one.metrics:
            missing.append(("Classification accuracy score", one))
    else:
        title, subtitle = f"{len(readings)} runs", ", ".join(r.name for r in readings)
        made = [(name, _full(make(readings))) for name, make in SEVERAL.items()]
        missing = [("Metrics", r) for r in readings if not r.metrics]
        missing += [("Training", r) for r in readings if not training.loss_lines(r)]
    return _template().render(
        title=title,
        subtitle=subtitle,
        sections=[(name, blocks) for name, blocks in made if blocks],
        missing=[
            (name, COMMANDS.get(name, EVALUATE).format(run=shlex.quote(str(reading.path))))
            for name, reading in missing
        ],
        notes=[f"{r.name}: {note}" for r in readings for note in r.notes],
    )


def _able(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a run so configured can have a section."""
    if name == "Other analyses":  # there are none
        return False
    if name == "Styles":
        return bool(at(config, "origin", "styles"))
    if name == "Guidance":  # else nothing guides it
        return at(config, "training", "label_dropout") != 0 or bool(
            at(config, "training", "snapshot")
        )
    return True


def _full(blocks: Iterable[Block]) -> list[Block]:
    """Those that have something to show."""
    return [block for block in blocks if block]


@cache
def _template() -> "Template":
    """page.html, compiled."""
    from jinja2 import Environment, StrictUndefined

    text = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        text
    )
