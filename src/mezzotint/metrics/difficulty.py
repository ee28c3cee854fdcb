"""Which classes are hard to draw, and why: samples' quality against properties of real images.

    frequency            images of the class that the model was trained on
    pixel_variability    distance of two of its images, root mean square a pixel, in grey levels
    feature_variability  variance of its features, as a share of that of all classes together
    edge_density         mean length of the gradient (Sobel's), in grey levels a pixel
    flatness             share of pixels whose gradient is below 8 grey levels a pixel
    contrast             standard deviation of the pixels within an image, in grey levels
    brightness           mean of the pixels in grey levels: the ink, where strokes are white
    confused             share of its images that the classifier reads as another class
    separation           d' to the nearest other class, which is the `lookalike`

Two random images are sqrt(2 var) apart. d' = |m_1 - m_2| / sqrt((v_1 + v_2) / 2) with the
features' means m and their variances v along the line that joins the means (Green & Swets 1966).

Whether a property goes with quality is Spearman's rank correlation rho over the classes (1904),
with mean ranks for ties, and its two-sided permutation p: exact up to 8 classes, else of 20,000
random permutations as (b + 1) / (m + 1) (Phipson & Smyth 2010, arXiv 1603.05766). Quality is
turned so that more is better; rho > 0: the more of the property, the easier the class.

Ten classes are few: |rho| must exceed 0.65 for p < 0.05. Where a hypothesis is tried on several
properties, each needs p < 0.05 over their number (Bonferroni). A correlation is no cause; for
frequency there is the experiment: train a twin with one class `thinned`, see `frequency_effect`.
Label accuracy by the classifier that also says `confused` shares its errors with it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any, get_args

import torch
from torch import Tensor

from mezzotint.data import find_class
from mezzotint.data.styles.measures import gradient
from mezzotint.errors import InputError
from mezzotint.imaging import check_batch
from mezzotint.metrics.metric import Direction

__all__ = [
    "PROPERTIES",
    "Answer",
    "ClassProperties",
    "Correlation",
    "Difficulty",
    "FrequencyEffect",
    "Quality",
    "answers",
    "correlations",
    "difficulty",
    "frequency_effect",
    "properties",
    "thinned",
]

FLAT = 8.0
"""Grey levels per pixel below which a gradient is no edge."""

SIGNIFICANT = 0.05
FEWEST = 5
"""Classes from which p can fall below `SIGNIFICANT` at all (2 / 4! is 0.08)."""

EXACT = 8
"""Most classes of which every permutation is tried."""

RANDOM = 20_000
CHUNK = 1000

PROPERTIES: Mapping[str, str] = {
    "frequency": "frequency",
    "pixel_variability": "variability of pixels",
    "feature_variability": "variability of features",
    "edge_density": "edge density",
    "flatness": "share of flat area",
    "contrast": "contrast",
    "brightness": "brightness",
    "confused": "share misread by the classifier",
    "separation": "distance to the nearest class",
}
"""The numbers in `ClassProperties`, in words."""


@dataclass(frozen=True)
class ClassProperties:
    """One class of the real images; see the table above."""

    name: str
    images: int
    """How many were measured."""

    frequency: int
    pixel_variability: float
    feature_variability: float
    edge_density: float
    flatness: float
    contrast: float
    brightness: float
    confused: float
    separation: float
    lookalike: str


@dataclass(frozen=True)
class Quality:
    """One number for the samples of each class."""

    name: str
    better: Direction

    values: tuple[float, ...]
    """In the order of the classes."""

    errors: tuple[float, ...] | None = None
    """Their standard errors, where known."""

    def __post_init__(self) -> None:
        if self.better not in get_args(Direction):
            raise InputError(f"{self.name} is better '{self.better}': say lower or higher")
        if broken := [value for value in self.values if not math.isfinite(value)]:
            raise InputError(f"{self.name} of a class is {broken[0]}: give numbers, one a class")

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.better == "higher" else -1


@dataclass(frozen=True)
class Correlation:
    """How a property goes with a quality over the classes."""

    name: str
    """Of the property."""

    quality: str
    rho: float | None
    """-1 to 1, above 0: more of it goes with better samples; None where either is constant."""

    p: float | None
    classes: int

    @property
    def words(self) -> str:
        """rho, p and the number of classes."""
        if self.rho is None or self.p is None:
            return f"the same in all {self.classes} classes"
        return f"rho = {self.rho:.2f}, p = {self.p:.2g}, {self.classes} classes"


@dataclass(frozen=True)
class Answer:
    """What the numbers say to a hypothesis, by one quality."""

    experiment: str
    """A to E, who put it forward."""

    claim: str
    quality: str
    outcome: str
    """supported, partly supported, mixed, not supported, contradicted, cannot be tested."""

    evidence: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The whole in words."""
        claim = f"Experiment {self.experiment}, '{self.claim}': {self.outcome} by {self.quality}"
        return f"{claim}; {'; '.join(self.evidence)}."


@dataclass(frozen=True)
class Difficulty:
    """All of it; `to_json` is a contract."""

    classes: tuple[ClassProperties, ...]
    qualities: tuple[Quality, ...]
    correlations: tuple[Correlation, ...]
    answers: tuple[Answer, ...]

    @property
    def caution(self) -> str:
        """How many correlations of nothing at all would look like something."""
        tested = sum(each.p is not None for each in self.correlations)
        return (
            f"{tested} correlations were tested; were there nothing in any of them, about "
            f"{SIGNIFICANT * tested:.1f} would have p below {SIGNIFICANT} by chance."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the fields, `sentences` of the answers, and `caution`."""
        sentences = [answer.sentence for answer in self.answers]
        return {**asdict(self), "sentences": sentences, "caution": self.caution}


@dataclass(frozen=True)
class FrequencyEffect:
    """What became of a class whose images were thinned out, next to the others."""

    name: str
    quality: str
    before: float
    after: float
    change: float
    """Turned so that below 0 is worse, as are the next two."""

    others: float
    """Mean change of the other classes."""

    deviation: float
    """Their standard deviation: what changes from one training to the next anyway."""

    p: float | None
    """Of a change that differs as much from theirs; None where theirs do not vary at all."""

    @property
    def sentence(self) -> str:
        """The same in words."""
        worse = self.p is not None and self.p < SIGNIFICANT and self.change < self.others
        p = "" if self.p is None else f", p = {self.p:.2g}"
        return (
            f"{self.name} thinned out: its {self.quality} went from {self.before:.4g} to "
            f"{self.after:.4g}, the other classes' got {_change(self.others)} with a deviation of "
            f"{self.deviation:.2g} (its own {_change(self.change)}{p}): frequency "
            f"{'matters' if worse else 'is not shown to matter'}."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: the fields, and `sentence`."""
        return {**asdict(self), "sentence": self.sentence}


def properties(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    *,
    features: Tensor,
    probabilities: Tensor,
    train_labels: Tensor,
) -> tuple[ClassProperties, ...]:
    """Measure the real images of every class; at least two of each.

    images         uint8 (N, C, H, W), at least 3x3 pixels, held out from the classifier's training
    labels         int64 (N,), indices into `classes`
    features       float (N, D) of the same images
    probabilities  float (N, K) of the same images, by the classifier
    train_labels   int64 (M,) of the images that the model was trained on
    """
    check_batch(images)
    if min(images.shape[2:]) < 3:
        raise InputError(f"edges need images of 3x3 pixels or more; given {tuple(images.shape)}")
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    if few := [f"{n} of '{name}'" for n, name in zip(counts, classes, strict=True) if n < 2]:
        raise InputError(f"there are {', '.join(few)}: give two real images of a class or more")
    features = features.double()
    nearest, separation = _separation(features, labels, len(classes))
    spread = features.var(0).sum()
    rows = []
    for label, name in enumerate(classes):
        own = labels == label
        x = images[own]
        gradients = torch.cat([gradient(part) for part in x.split(CHUNK)])
        rows.append(
            ClassProperties(
                name=name,
                images=counts[label],
                frequency=int((train_labels == label).sum()),
                pixel_variability=float((2 * x.float().var(0).mean()).sqrt()),
                feature_variability=float(features[own].var(0).sum() / spread),
                edge_density=float(gradients.mean()),
                flatness=float((gradients < FLAT).double().mean()),
                contrast=float(x.float().std((2, 3), correction=0).mean()),
                brightness=float(x.float().mean()),
                confused=float((probabilities[own].argmax(1) != label).double().mean()),
                separation=separation[label],
                lookalike=classes[nearest[label]],
            )
        )
    return tuple(rows)


def difficulty(
    table: Sequence[ClassProperties], qualities: Sequence[Quality], draws: torch.Generator
) -> Difficulty:
    """Properties, quality, how they go together, and what that says to the hypotheses."""
    found = correlations(table, qualities, draws)
    said = [answer for quality in qualities for answer in answers(table, quality, found)]
    return Difficulty(tuple(table), tuple(qualities), found, tuple(said))


def correlations(
    table: Sequence[ClassProperties], qualities: Sequence[Quality], draws: torch.Generator
) -> tuple[Correlation, ...]:
    """Every property with every quality; draws: for the random permutations.

    All pairs share the permutations: a seventeenth of the time of scipy's `permutation_test`,
    which takes one pair.
    """
    count = len(table)
    for quality in qualities:
        if len(quality.values) != count:
            what = f"{quality.name} has {len(quality.values)} values"
            raise InputError(f"{what} for {count} classes: give each class one")
    p_ranks = _ranks([[getattr(row, name) for row in table] for name in PROPERTIES])
    q_ranks = _ranks([[quality.sign * v for v in quality.values] for quality in qualities])
    rho = p_ranks @ q_ranks.T  # (properties, qualities)
    if count <= EXACT:
        orders = torch.tensor(list(permutations(range(count))))
    else:
        orders = torch.rand(RANDOM, count, generator=draws).argsort(1)
    by_chance = torch.einsum("pk,qmk->pqm", p_ranks, q_ranks[:, orders])
    as_far = (by_chance.abs() >= rho.abs()[..., None] - 1e-9).sum(2)
    extra = 0 if count <= EXACT else 1  # the order that was found is one of the possible ones
    p = (as_far + extra).double() / (len(orders) + extra)
    return tuple(
        Correlation(
            name,
            quality.name,
            None if constant else float(rho[i, j]),
            None if constant else float(p[i, j]),
            count,
        )
        for i, name in enumerate(PROPERTIES)
        for j, quality in enumerate(qualities)
        for constant in [not (p_ranks[i].any() and q_ranks[j].any())]
    )


def answers(
    table: Sequence[ClassProperties], quality: Quality, found: Sequence[Correlation]
) -> tuple[Answer, ...]:
    """What one quality, and its correlations, say to the hypotheses of the five experiments."""
    mine = {each.name: each for each in found if each.quality == quality.name}
    said = []
    for hypothesis in HYPOTHESES:
        limit = SIGNIFICANT / max(1, len(hypothesis.goes_with))
        findings = [_correlated(mine[name], sign, limit) for name, sign in hypothesis.goes_with]
        findings += _contrast(table, quality, hypothesis.easy, hypothesis.hard)
        findings += _alike(table, hypothesis.alike)
        outcomes = [outcome for outcome, _ in findings if outcome != UNTESTED]
        outcome = (
            UNTESTED if not outcomes
            else SUPPORTED if set(outcomes) == {SUPPORTED}
            else "mixed" if {SUPPORTED, CONTRADICTED} <= set(outcomes)
            else "partly supported" if SUPPORTED in outcomes
            else CONTRADICTED if CONTRADICTED in outcomes
            else UNSUPPORTED
        )  # fmt: skip
        evidence = tuple(f"{text}: {outcome}" for outcome, text in findings) or (
            "the classes it names are not here",
        )
        said.append(
            Answer(hypothesis.experiment, hypothesis.claim, quality.name, outcome, evidence)
        )
    return tuple(said)


def thinned(
    labels: Tensor, rows: Tensor, label: int, share: float, draws: torch.Generator
) -> Tensor:
    """The rows of a split with one class thinned out: its twin for `frequency_effect`.

    labels: int64 (N,) of all images.
    rows: int64 (n,), those of the split, such as `data.splits["train"]`.
    share: of the class's images to keep, above 0 and at most 1; at least one is kept.

    Returns int64 rows, ascending; the other classes keep all of theirs.
    """
    if not 0 < share <= 1:
        raise InputError(f"the share to keep is {share:g}: give more than 0, at most 1")
    own = labels[rows] == label
    count = int(own.sum())
    if count == 0:
        raise InputError(f"the split has no image of class {label}: nothing to thin out")
    kept = torch.randperm(count, generator=draws)[: max(1, round(share * count))]
    return torch.cat([rows[~own], rows[own][kept]]).sort().values


def frequency_effect(
    before: Quality, after: Quality, classes: Sequence[str], label: str | int
) -> FrequencyEffect:
    """Compare a class's quality with all its training images and `thinned`.

    The other classes are the reference.

    p is that of one more value from the normal distribution that the others' changes come from:
    (change - mean) / (deviation sqrt(1 + 1 / m)) is Student's t with m - 1 degrees of freedom for
    m other classes (the prediction interval of any textbook). It takes 3 classes.
    """
    from scipy.stats import t

    if (before.name, before.better) != (after.name, after.better):
        raise InputError(f"{before.name} and {after.name} are not compared: give one of the two")
    if not len(before.values) == len(after.values) == len(classes) >= 3:
        what = f"{len(before.values)} and {len(after.values)} values of {len(classes)} classes"
        raise InputError(f"given {what}: give each class one, of 3 classes or more")
    index = find_class(classes, label)
    pairs = torch.tensor([before.values, after.values], dtype=torch.float64)
    change = before.sign * (pairs[1] - pairs[0])
    rest = torch.cat([change[:index], change[index + 1 :]])
    deviation = float(rest.std())
    own, others, m = float(change[index]), float(rest.mean()), len(rest)
    p = None
    if deviation > 0:
        p = float(2 * t.sf(abs(own - others) / (deviation * math.sqrt(1 + 1 / m)), m - 1))
    return FrequencyEffect(
        name=classes[index],
        quality=before.name,
        before=before.values[index],
        after=after.values[index],
        change=own,
        others=others,
        deviation=deviation,
        p=p,
    )


def _separation(features: Tensor, labels: Tensor, count: int) -> tuple[list[int], list[float]]:
    """The nearest other class of each class, and d' to it."""
    groups = [features[labels == label] for label in range(count)]
    means = torch.stack([group.mean(0) for group in groups])
    apart = means[:, None] - means[None]  # K, K, D
    length = apart.norm(dim=2)
    lines = apart / length.clamp(min=1e-12)[..., None]
    along = torch.stack([(lines[k] @ group.T).var(1) for k, group in enumerate(groups)])  # K, K
    d = length / ((along + along.T) / 2).sqrt().clamp(min=1e-12)
    d.fill_diagonal_(math.inf)
    nearest = d.min(1)
    return nearest.indices.tolist(), nearest.values.tolist()


def _ranks(rows: Sequence[Sequence[float]]) -> Tensor:
    """Mean ranks (n, K) of each row, centred and of length 1; all 0 where its values are equal."""
    values = torch.tensor(rows, dtype=torch.float64)
    one, other = values[:, :, None], values[:, None, :]
    ranks = (one > other).double().sum(2) + (one == other).double().sum(2) / 2
    ranks = ranks - ranks.mean(1, keepdim=True)
    unit: Tensor = ranks / ranks.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return unit


SUPPORTED, UNSUPPORTED = "supported", "not supported"
CONTRADICTED, UNTESTED = "contradicted", "cannot be tested"


@dataclass(frozen=True)
class _Hypothesis:
    """A claim of an experiment, and where it would show."""

    experiment: str
    claim: str
    goes_with: tuple[tuple[str, int], ...] = ()
    """Properties, and the sign of rho if it is true."""

    easy: tuple[str, ...] = ()
    hard: tuple[str, ...] = ()
    """Classes it names; no hard ones: all but the easy."""

    alike: tuple[str, ...] = ()


HYPOTHESES = (
    _Hypothesis(
        "A",
        "Simple, distinct shapes are easier",
        (("edge_density", -1), ("separation", 1)),
        easy=("T-shirt/top", "Trouser"),
    ),
    _Hypothesis(
        "B",
        "Classes of low variability and frequent ones are easier",
        (("pixel_variability", -1), ("feature_variability", -1), ("frequency", 1)),
    ),
    _Hypothesis(
        "C",
        "Classes that look alike are harder",
        (("separation", 1), ("confused", -1)),
        alike=("5", "6"),
    ),
    _Hypothesis(
        "D",
        "Uniform colour is easier than texture",
        (("flatness", 1), ("contrast", -1)),
        easy=("airplane",),
        hard=("dog",),
    ),
    _Hypothesis("E", "8 and 9 are harder than 1 and 7", easy=("1", "7"), hard=("8", "9")),
)


def _correlated(found: Correlation, sign: int, limit: float) -> tuple[str, str]:
    """Outcome and words of a correlation that ought to have this sign, and p below the limit."""
    text = f"{PROPERTIES[found.name]} ({found.words})"
    if found.rho is None or found.p is None or found.classes < FEWEST:
        return UNTESTED, text
    if found.p >= limit:
        return UNSUPPORTED, text
    return (SUPPORTED if sign * found.rho > 0 else CONTRADICTED), text


def _contrast(
    table: Sequence[ClassProperties], quality: Quality, easy: Sequence[str], hard: Sequence[str]
) -> list[tuple[str, str]]:
    """Outcome and words of easy classes against hard ones; nothing where one is not there."""
    names = [row.name for row in table]
    if not easy or not {*easy, *hard} <= set(names):
        return []
    against = hard or [name for name in names if name not in easy]

    def mean(group: Sequence[str]) -> tuple[float, float]:
        rows = [names.index(name) for name in group]
        errors = quality.errors or [math.nan] * len(names)
        value = sum(quality.values[row] for row in rows) / len(rows)
        return value, math.hypot(*(errors[row] for row in rows)) / len(rows)

    (ours, error), (theirs, other_error) = mean(easy), mean(against)
    first, second = " and ".join(easy), " and ".join(hard) or "the others"
    text = f"{first} {ours:.4g} against {theirs:.4g} of {second}"
    gain, noise = quality.sign * (ours - theirs), 2 * math.hypot(error, other_error)
    if math.isnan(noise):
        return [(UNTESTED, f"{text}, no standard errors")]
    outcome = SUPPORTED if gain > noise else CONTRADICTED if gain < -noise else UNSUPPORTED
    return [(outcome, f"{text}, two standard errors {noise:.2g}")]


def _alike(table: Sequence[ClassProperties], pair: Sequence[str]) -> list[tuple[str, str]]:
    """Whether two classes are each other's nearest; nothing where one is not there."""
    nearest = {row.name: row.lookalike for row in table}
    if not pair or not set(pair) <= set(nearest):
        return []
    one, other = pair
    text = f"nearest to {one} is {nearest[one]}, to {other} {nearest[other]}"
    mutual = nearest[one] == other and nearest[other] == one
    return [(SUPPORTED if mutual else UNSUPPORTED, text)]


def _change(change: float) -> str:
    return f"{abs(change):.2g} {'worse' if change < 0 else 'better'}"
