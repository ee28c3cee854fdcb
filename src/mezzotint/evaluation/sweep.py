"""A run drawn at several guidance scales: what each costs in quality and variety.

Every setting draws the same n images, of the same noise (seed, i) and the same labels, so that two
settings are compared pair by pair. They are held against the *validation* split: a scale that is
chosen is fitted, and the test split is for what was chosen.

How far a number would move with other images is estimated by a jackknife over G = 10 groups of
the samples (Tukey 1958; Efron & Tibshirani 1993, equation 11.5, with groups in place of single
images): with v_g the value without group g,

    error^2 = (G - 1) / G * sum_g (v_g - mean v)^2.

The same over differences v_g - w_g of two settings, in which what both share falls out. Two
settings differ where that is more than twice its error. It knows nothing of another training.
"""

import dataclasses
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint.errors import CheckpointError, DataError, InputError
from mezzotint.evaluation.results import check_folder
from mezzotint.evaluation.samples import RunSamples, run_samples
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.metrics.metric import Read
from mezzotint.metrics.reference import Reference, chosen
from mezzotint.metrics.registry import GROUPS, sign
from mezzotint.reporting import figures
from mezzotint.runs.find import find, path_of
from mezzotint.runs.run import CheckpointName, CheckpointRef, Run, Weights
from mezzotint.runtime import checksum
from mezzotint.runtime.atomic import write_bytes
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.hardware import hardware
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import optional_path
from mezzotint.runtime.rng import generator
from mezzotint.sampling.request import SamplingOptions

__all__ = [
    "FAMILIES",
    "SweepRequest",
    "SweepResult",
    "execute",
    "Point",
    "Setting",
    "advice",
    "jackknife",
    "measured",
    "settings",
    "sweep",
]

Json = dict[str, Any]

SPLIT = "validation"
FILE, PICTURE = "sweep.json", "sweep.png"
GROUP_COUNT = 10
SIGNIFICANT = 2.0
"""Two settings differ where their difference is more than so many of its standard errors."""

FAMILIES = {
    "guidance": "guidance",
    "interval": "guidance in the interval",
    "autoguidance": "autoguidance",
}
"""What a scale may be one of, and its name."""


@dataclass(frozen=True)
class SweepRequest:
    """Which guidance scales of which run to compare, and how."""

    run: Path
    _: KW_ONLY
    scales: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    n: int = 1000
    interval: tuple[float, float] | None = None
    """Levels for a curve of its own, guided only there; None: no such curve."""

    options: SamplingOptions = SamplingOptions()
    """Other sampling settings than the run's, the same for all."""

    seed: int = 0
    checkpoint: CheckpointRef = CheckpointRef()
    out: Path | None = None
    """Folder for sweep.json and sweep.png; None: the run."""

    data_dir: Path | None = None
    command: str = ""
    """The command that made the request, for the report."""

    progress: bool | None = None


@dataclass(frozen=True)
class Setting:
    """How to draw: one of `FAMILIES` at a scale, 1 being plain in all of them."""

    family: str
    scale: float
    interval: tuple[float, float] | None = None

    def options(self) -> SamplingOptions:
        """Return every setting that guides; the run's own do not count."""
        auto = self.family == "autoguidance"
        return SamplingOptions(
            guidance=1.0 if auto else self.scale,
            style_guidance={},
            autoguidance=self.scale if auto else 1.0,
            interval=self.interval or (0.0, math.inf),
        )

    @property
    def title(self) -> str:
        """In words.

        >>> Setting("autoguidance", 1.5).title
        'autoguidance 1.5'
        """
        return f"{FAMILIES[self.family]} {self.scale:g}"


@dataclass(frozen=True)
class Point:
    """A setting and what its samples are worth."""

    setting: Setting
    values: Mapping[str, float]
    """By the names of the metrics that are `swept`."""

    without: Mapping[str, tuple[float, ...]]
    """The same without each group of samples in turn."""

    def error(self, name: str) -> float:
        """The standard error of a value."""
        return jackknife(self.without[name])

    def beyond(self, other: "Point", name: str) -> tuple[float, float]:
        """By how much this value is better than another's, and the standard error of that."""
        turn = sign(name)
        apart = [
            turn * (a - b) for a, b in zip(self.without[name], other.without[name], strict=True)
        ]
        return turn * (self.values[name] - other.values[name]), jackknife(apart)

    def to_json(self) -> Json:
        """Plain JSON."""
        return {
            **asdict(self.setting),
            "curve": FAMILIES[self.setting.family],
            "values": dict(self.values),
            "errors": {name: self.error(name) for name in self.values},
        }


def jackknife(without: Sequence[float]) -> float:
    """The standard error of a value, given what it is without each of G groups."""
    values = torch.tensor(without, dtype=torch.float64)
    return float(((len(values) - 1) * values.var(correction=0)).sqrt())


def settings(request: SweepRequest, *, guidable: bool, snapshot: bool) -> list[Setting]:
    """Every family that can be drawn at every scale; scale 1, the same in all, once.

    guidable: whether the run knows what to draw without a label.
    snapshot: whether it kept an early snapshot.
    """
    scales = request.scales
    if len(set(scales)) < max(2, len(scales)) or not all(0 <= s < math.inf for s in scales):
        tried = ",".join(f"{scale:g}" for scale in scales)
        raise InputError(
            f"a sweep compares two or more different scales, 0 or above, as in 1,1.5,2,3; got "
            f"'{tried}'"
        )
    if not guidable and not snapshot:
        raise CheckpointError(
            f"nothing guides {request.run}: it was never trained without a label "
            "(training.label_dropout = 0) and kept no early snapshot (training.snapshot = 0)"
        )
    if not guidable and request.interval is not None:
        raise InputError(
            f"{request.run} was never trained without a label (training.label_dropout = 0): leave "
            "--interval out"
        )
    found: list[Setting] = []
    for family, there, interval in (
        ("guidance", guidable, None),
        ("interval", request.interval is not None, request.interval),
        ("autoguidance", snapshot, None),
    ):
        plain = any(setting.scale == 1 for setting in found)
        own = [scale for scale in scales if not (plain and scale == 1)]
        found += [Setting(family, scale, interval) for scale in own if there]
    return found


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """What each guidance scale costs in quality and variety."""

    points: Sequence[Point] = field(repr=False)
    """A setting and its numbers, in the order of the settings."""

    floor: Mapping[str, float] = field(repr=False)
    """The same numbers of as many real images."""

    sentences: Sequence[str]
    """Which setting to take, and why."""

    sections: Mapping[str, Any] = field(repr=False)
    """The whole of sweep.json."""

    written: Path

    def to_json(self) -> Json:
        """Return plain JSON."""
        return {**self.sections, "written": str(self.written)}


def sweep(
    run: Run | str | Path,
    *,
    scales: Iterable[float] = (1.0, 1.5, 2.0, 3.0),
    n: int = 1000,
    interval: tuple[float, float] | None = None,
    sampler: str | Mapping[str, object] | None = None,
    evaluations: int | None = None,
    seed: int = 0,
    weights: Weights = "ema",
    checkpoint: CheckpointName = "last",
    out: str | Path | None = None,
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | None = None,
) -> SweepResult:
    """Compare guidance scales: what each costs in quality and variety, and which to take.

        print(*mezzotint.sweep("runs/mnist", scales=[1, 1.5, 2]).sentences)

    Every setting draws the same images, evaluated on the validation split; with autoguidance too
    where the run kept an early snapshot.

    Args:
        run: A run's directory, or the `Run`.
        scales: Two or more guidance scales: 1 is none, 0 unconditional.
        n: Number of samples at each scale.
        interval: (low, high): one more curve, guided at levels low < sigma <= high alone.
        sampler: Name of a sampler, or a table as in {"kind": "ddim", "eta": 0.5}.
        evaluations: Evaluations of the network per image (NFE), 1 or more.
        seed: Seed of the samples: the same noise at all scales.
        weights: "ema" (averaged) or "raw" (the last step's).
        checkpoint: "last", "best" or "snapshot".
        out: Folder for sweep.json and sweep.png. None: the run.
        device: "auto" (the run's own), "cpu", "cuda" or "mps".
        data_dir: Folder of named data sets, looked at before MEZZOTINT_DATA.
        progress: Show a bar: None where there is a terminal or notebook, True always.

    Returns:
        The numbers at each scale, with the advice.

    Raises:
        InputError: Nothing guides the run, or there are too few images.

    """
    return execute(
        SweepRequest(
            path_of(run),
            scales=tuple(map(float, scales)),
            n=n,
            interval=interval,
            options=SamplingOptions(sampler=sampler, evaluations=evaluations),
            seed=seed,
            checkpoint=CheckpointRef(weights, checkpoint, device),
            out=optional_path(out),
            data_dir=optional_path(data_dir),
            progress=progress,
        )
    )


def execute(request: SweepRequest) -> SweepResult:
    """Draw and measure every setting of a request; write the numbers and their picture.

    What was drawn before is found again, setting by setting. Several processes share the drawing,
    then each computes the same numbers and the first writes them.
    """
    check_folder(request.out, request.run)
    started, folder = time.monotonic(), request.out or request.run
    if (folder / FILE).exists():
        log.info(f"{folder / FILE} is there already and will be replaced: --out keeps both")
    run = find(request.run)
    snapshot = run.has("snapshot")
    stream = run_samples(
        run,
        checkpoint=dataclasses.replace(request.checkpoint, guide_model=snapshot),
        options=request.options,
        seed=request.seed,
        data_dir=request.data_dir,
        progress=request.progress,
    )
    wanted = settings(request, guidable="label" in stream.model.droppable, snapshot=snapshot)
    # Refused now, or never.
    streams = [stream.with_options(setting.options()) for setting in wanted]
    reference = _reference(request, stream)
    points = []
    for number, (setting, own) in enumerate(zip(wanted, streams, strict=True), 1):
        log.info(f"{setting.title} ({number} of {len(wanted)})")
        samples = own.samples(request.n)
        points.append(measured(setting, reference.read(samples.images, samples.labels), reference))
    rows = chosen(stream.data, "train", request.n, request.seed)
    real = reference.read(stream.data.images[rows], stream.data.labels[rows])
    floor = _values(real, reference, torch.ones(len(rows), dtype=torch.bool))
    advised, sentences = advice(points, request.n)
    sections: Json = {
        "samples": {**_sample_facts(stream, wanted[0]), "n": request.n},
        "protocol": {
            **reference.facts,
            "extractor": reference.extractor.name,
            "hash": reference.extractor.digest,
            "groups": GROUP_COUNT,
        },
        "points": [point.to_json() for point in points],
        "floor": floor,
        "advice": advised,
        "sentences": sentences,
        "picture": PICTURE,
        "seconds": round(time.monotonic() - started, 2),
        "hardware": hardware(),
        "command": request.command,
    }
    _write(folder, sections)
    return SweepResult(
        points=points,
        floor=floor,
        sentences=sentences,
        sections=sections,
        written=folder / FILE,
    )


def _reference(request: SweepRequest, stream: RunSamples) -> Reference:
    """Return the real images of the validation split, as the set's own classifier reads them."""
    with current_ranks().rank0_first():  # what the first makes and keeps, the others find
        classifier = classifier_for(stream.data)
    _refuse_few(request, stream, int(classifier.features(stream.data.images[:1]).shape[1]))
    return Reference.of(
        stream.data,
        classifier,
        classifier,
        n=len(stream.data.splits[SPLIT]),
        split=SPLIT,
        seed=request.seed,
        anchors=(),
    )


def _sample_facts(stream: RunSamples, setting: Setting) -> Json:
    """Return what all points share: the facts of the samples without the settings that guide."""
    left_out = {*setting.options().changes(), "guide_model"}
    facts = {name: fact for name, fact in stream.facts.items() if name not in left_out}
    if (guide_model := stream.model.guide_model) is not None:
        facts["snapshot_images_seen"] = guide_model.images_seen
    return facts


def _write(folder: Path, sections: Json) -> None:
    """Write sweep.json and its picture; of several processes the first does."""
    if current_ranks().first:
        folder.mkdir(parents=True, exist_ok=True)
        figures.trade_off(sections["points"], sections["floor"], folder / PICTURE)
        text = json.dumps(checksum.with_checksum(sections), indent=1)
        write_bytes(folder / FILE, text.encode())


def _refuse_few(request: SweepRequest, stream: RunSamples, features: int) -> None:
    """InputError where a Frechet distance would lack images, also without a group of them."""
    held = len(stream.data.splits[SPLIT])
    if held <= features:
        raise DataError(
            f"{stream.data.name} has {held} {SPLIT} images, and a Frechet distance of {features} "
            "features needs more: a larger data set, or compare with evaluate --metrics kd"
        )
    least = next(n for n in range(features, 3 * features) if n - -(-n // GROUP_COUNT) > features)
    if request.n < least:
        raise InputError(
            f"--n {request.n} is too few for Frechet distances of {features} features: {least} or "
            "more"
        )


def measured(setting: Setting, samples: Read, reference: Reference) -> Point:
    """The numbers of some samples, and those without each group of them."""
    group = torch.arange(len(samples.features)) % GROUP_COUNT
    values = _values(samples, reference, group >= 0)
    rest = [_values(samples, reference, group != left_out) for left_out in range(GROUP_COUNT)]
    return Point(setting, values, {name: tuple(v[name] for v in rest) for name in values})


def _values(samples: Read, reference: Reference, rows: Tensor) -> dict[str, float]:
    """The metrics that are `swept` for the samples that rows, bool (N,), names."""
    real, seed = reference.real, int(reference.facts["seed"])
    # Coverage compares as many samples as real images. Which ones must not depend on the group
    # that is left out: drawn anew, they would add noise that the jackknife makes larger.
    first = torch.arange(len(rows)) < len(real.features)
    found: dict[str, float] = {}
    for name, group in GROUPS.items():
        swept = [key for key, metric in group.metrics.items() if metric.swept]
        own = _some(samples, rows & first if group.even_sizes else rows)
        if swept and group.able(own):
            numbers = group.measure(own, real, generator("sweep", seed, name))
            found |= {key: numbers[key].value for key in swept}
    return found


def _some(samples: Read, rows: Tensor) -> Read:
    """Some of the images."""
    assert samples.probabilities is not None
    assert samples.labels is not None
    return Read(samples.features[rows], samples.probabilities[rows], samples.labels[rows])


def advice(points: Sequence[Point], n: int) -> tuple[Json, list[str]]:
    """The setting with the least Frechet distance and the one that covers most, and sentences."""
    found: Json = {}
    lines = []
    for name, words in (("fd", "Least Frechet distance"), ("coverage", "Largest coverage")):
        best = _best(points, name)
        alike = [p for p in points if p is not best and not _differ(best, p, name)]
        found[name] = {
            "setting": asdict(best.setting),
            "alike": [asdict(point.setting) for point in alike],
        }
        lines.append(
            f"{words}: {best.setting.title}, {best.values[name]:.3g} ± {best.error(name):.2g} "
            f"(n = {n:,}); {_alike(alike, len(points))}."
        )
    by_distance, by_coverage = (_best(points, name) for name in ("fd", "coverage"))
    plain = next((point for point in points if point.setting.scale == 1), None)
    if plain is not None and not (
        _differ(by_distance, plain, "fd") or _differ(by_coverage, plain, "coverage")
    ):
        lines.append(
            f"Take {plain.setting.title}: nothing is nearer to the real images, or covers more of "
            "them, by more than the noise; a larger --n tells more apart."
        )
    elif by_distance is by_coverage:
        lines.append(f"Take {by_distance.setting.title}: both numbers point to it.")
    elif not _differ(by_coverage, by_distance, "coverage"):
        lines.append(
            f"Take {by_distance.setting.title}: it covers no less within the noise, and its "
            "Frechet distance is the least."
        )
    elif not _differ(by_distance, by_coverage, "fd"):
        lines.append(
            f"Take {by_coverage.setting.title}: its Frechet distance is no larger within the "
            "noise, and it covers most."
        )
    else:
        lines.append(
            f"Take {by_distance.setting.title} for clear images, {by_coverage.setting.title} for "
            "varied ones such as training data."
        )
    return found, lines


def _best(points: Sequence[Point], name: str) -> Point:
    return max(points, key=lambda point: sign(name) * point.values[name])


def _differ(best: Point, other: Point, name: str) -> bool:
    """Whether the best is better than another by more than the noise."""
    apart, error = best.beyond(other, name)
    return apart > SIGNIFICANT * error


def _alike(alike: Sequence[Point], total: int) -> str:
    if len(alike) == total - 1:
        return "no difference between any of them within the noise"
    if not alike:
        return "all others differ by more than the noise"
    return "no difference within the noise to " + ", ".join(p.setting.title for p in alike)
