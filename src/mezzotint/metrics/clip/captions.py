"""Captions: what can be said of a small image, in many wordings, and of which images it is true.

An image has one value of every factor: its class, its quality (clear, blurry, noisy) and, for
each style measured on it, low, middle or high: below, between or above the terciles of the train
images. A caption mentions some factors; a word may fit several values ("sharp": clear or noisy).
With one-hot values v of an image and d marking what a caption denies, both over all values of
all factors,

    the caption is true of the image  <=>  v . d = 0,

so the truth of every caption for every image is one product of two matrices.

Styles are measured on the ink |grey - ground|, ground being the median of the image's border,
where the data set shows figures on flat ground; on photographs everything is ink. With ink m, its
mass M and central moments u (as shares of M), x to the right and y down, in pixels:

    brightness   sum m grey / M                                                     0 ... 1
    contrast     standard deviation of grey; photographs only                       0 ... 1/2
    thickness    2 M / sum |grad m|, the width of a long stroke; figures only       28ths of width
    slant        atan2(-u11, u02), right positive (Castro et al. 2019, arXiv 1809.10780, section
                 3: Morpho-MNIST); figures only                                     degrees
    width        sqrt(u20 / u02); figures only                                      1 = as tall
    colour       mean of largest minus smallest channel                             0 ... 1
    warmth       mean of red minus blue                                             -1 ... 1

A style is used where the data set's images differ in it by what a person can see. What is looked
at is `styles.measures`'; thickness and width are rougher than there, on purpose: words need
terciles alone, and a CLIP that was trained on these goes on meaning the same.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.data.styles.measures import grey, ink, moments, shows_figures
from mezzotint.imaging import check_batch

__all__ = [
    "HELD_OUT_TEMPLATES",
    "MEASURES",
    "QUALITIES",
    "TEMPLATES",
    "Captioner",
    "Factor",
    "Measure",
    "Styles",
    "Word",
    "names_of",
    "phrase",
    "tokens",
]

CHUNK = 2000


# Styles: what is measured on an image ------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """What measures look at: colours (N, 3 or 1, H, W), grey and ink (N, H, W), all in 0 ... 1."""

    colours: Tensor
    grey: Tensor
    ink: Tensor

    @property
    def mass(self) -> Tensor:
        return self.ink.sum((1, 2)).clamp(min=1e-6)  # an empty image has no figure to divide by


def _brightness(view: _View) -> Tensor:
    return (view.ink * view.grey).sum((1, 2)) / view.mass


def _contrast(view: _View) -> Tensor:
    return view.grey.std((1, 2), correction=0)


def _thickness(view: _View) -> Tensor:
    m = F.pad(view.ink, (1, 1, 1, 1))
    corner = m[:, :-1, :-1]
    edges = ((m[:, 1:, :-1] - corner) ** 2 + (m[:, :-1, 1:] - corner) ** 2).sqrt().sum((1, 2))
    return 2 * view.mass / edges.clamp(min=1e-6) * 28 / view.ink.shape[2]


def _slant(view: _View) -> Tensor:
    _, u11, u02 = moments(view.ink)
    return torch.atan2(-u11, u02).rad2deg()


def _width(view: _View) -> Tensor:
    u20, _, u02 = moments(view.ink)
    return ((u20 + 1e-6) / (u02 + 1e-6)).sqrt()


def _colour(view: _View) -> Tensor:
    return (view.colours.amax(1) - view.colours.amin(1)).mean((1, 2))


def _warmth(view: _View) -> Tensor:
    return (view.colours[:, 0] - view.colours[:, -1]).mean((1, 2))


@dataclass(frozen=True)
class Measure:
    """One style: how it is measured, and the words for it.

    of       what is measured, (N,)
    words    for the lowest, the middle and the highest third of the train images; () has no word
    least    smallest difference that a person sees, in the measure's unit: where the middle two
             thirds of the train images differ by less, the style is left out
    figures  True: only for figures on flat ground, False: only for photographs, None: for both
    """

    of: Callable[[_View], Tensor]
    words: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    least: float
    figures: bool | None = None


MEASURES: Mapping[str, Measure] = {
    "thickness": Measure(_thickness, (("thin", "fine"), (), ("thick", "bold")), 1.0, True),
    "slant": Measure(
        _slant,
        (
            ("left-slanted", "slanted left", "leaning left"),
            ("upright", "straight"),
            ("right-slanted", "slanted right", "leaning right"),
        ),
        10.0,
        True,
    ),
    "width": Measure(_width, (("narrow", "slim"), (), ("wide", "broad")), 0.15, True),
    "brightness": Measure(_brightness, (("dark",), (), ("bright",)), 0.15),
    "contrast": Measure(_contrast, (("low-contrast",), (), ("high-contrast",)), 0.1, False),
    "colour": Measure(_colour, (("pale", "greyish"), (), ("colourful", "colorful")), 0.1),
    "warmth": Measure(_warmth, (("cold", "bluish"), (), ("warm", "reddish")), 0.1),
}


@dataclass(frozen=True)
class Styles:
    """The styles of one data set, with the two levels that cut each into low, middle and high.

    figures  whether the set shows figures on flat ground
    cuts     style name -> the terciles of the train images
    """

    figures: bool
    cuts: Mapping[str, tuple[float, float]]

    @staticmethod
    def found(images: Tensor) -> "Styles":
        """Return the styles that differ visibly in these train images, uint8 (N, C, H, W)."""
        check_batch(images)
        figures = shows_figures(images)
        names = [n for n, m in MEASURES.items() if m.figures in (None, figures)]
        measured = _measured(images, names, figures)
        cuts = {}
        for name in names:
            ordered = measured[name].sort().values  # torch.quantile refuses large sets
            sixth, low, high, last = (
                float(ordered[int(share * (len(ordered) - 1))])
                for share in (1 / 6, 1 / 3, 2 / 3, 5 / 6)
            )
            if last - sixth >= MEASURES[name].least:
                cuts[name] = (low, high)
        return Styles(figures, cuts)

    def measured(self, images: Tensor) -> dict[str, Tensor]:
        """Each style's measure of uint8 images (N, C, H, W): float64 (N,), in its own unit."""
        check_batch(images)
        return _measured(images, list(self.cuts), self.figures)

    def levels(self, images: Tensor) -> Tensor:
        """0 low, 1 middle, 2 high: int64 (N, styles), in the order of `cuts`."""
        measured = self.measured(images)
        columns = [torch.bucketize(measured[n], _floats(cut)) for n, cut in self.cuts.items()]
        return torch.stack(columns, 1) if columns else torch.empty(len(images), 0).long()


def _floats(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _measured(images: Tensor, names: Sequence[str], figures: bool) -> dict[str, Tensor]:
    columns: dict[str, list[Tensor]] = {name: [] for name in names}
    for part in images.split(CHUNK):
        tones = grey(part)
        view = _View(part.double() / 255, tones, ink(tones) if figures else torch.ones_like(tones))
        for name, column in columns.items():
            column.append(MEASURES[name].of(view))
    return {name: torch.cat(column) for name, column in columns.items()}


# Words: what is said -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """A wording of one factor, and the values that it fits."""

    text: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Factor:
    """One thing that can be said of an image: `size` values 0 ... size - 1, each with words.

    share  how often a caption mentions it, where it has a word for the image's value
    """

    name: str
    size: int
    words: tuple[Word, ...]
    share: float


QUALITIES = ("clear", "blurry", "noisy")
"""The values of the factor "quality", in order."""

_QUALITY_WORDS = (
    *(Word(text, (0,)) for text in ("clear", "good", "crisp", "well-detailed")),
    *(Word(text, (1,)) for text in ("blurry", "blurred", "out-of-focus")),
    *(Word(text, (2,)) for text in ("noisy", "grainy", "speckled")),
    Word("sharp", (0, 2)),
    Word("clean", (0, 1)),
    *(Word(text, (1, 2)) for text in ("bad", "poor")),
)

TEMPLATES = (
    "{}",
    "a {}",
    "the {}",
    "this {}",
    "my {}",
    "a * photo of a {}",
    "a * photo of the {}",
    "a * picture of a {}",
    "a * image of a {}",
    "a * drawing of the {}",
    "a * scan of a {}",
    "a * grayscale photo of a {}",
    "a * black and white picture of a {}",
    "this is a {}",
    "this * photograph shows a {}",
    "here is a * image of a {}",
    "we see a {} here",
    "look at this {}",
    "there is a {} in this * picture",
    "a small * picture showing a {}",
    "example of a {}",
    "a * view of some {}",
    "{} on a plain ground",
    "* image: {}",
)
"""Of training: {} is the thing with its adjectives, * where the picture's own may stand."""

HELD_OUT_TEMPLATES = (
    "a * photograph depicting a {}",
    "what you have in front of you is a {}",
    "somebody made this {}",
    "a * thumbnail with a {} in the middle",
    "a * sample from the class {}",
    "I can make out a {}",
    "a * print of a {} on paper",
    "could that * snapshot be a {}?",
)
"""Never trained on, so that they can test."""

_THINGS = ("thing", "object", "item", "image", "picture", "sign", "example")
_JOINTS = (", ", " that is ", " which looks ")
_NUMBERS = "zero one two three four five six seven eight nine ten".split()


def names_of(label: str) -> tuple[str, ...]:
    """What a class may be called: its name in small letters, its parts, numbers in words too.

    >>> names_of("T-shirt/top")
    ('t-shirt/top', 't-shirt', 'top')
    >>> names_of("7")
    ('7', 'seven', 'number 7', 'number seven', 'digit 7', 'digit seven')
    """
    plain = label.lower().replace("_", " ").strip()
    if plain.isdecimal() and int(plain) < len(_NUMBERS):
        both = (plain, _NUMBERS[int(plain)])
        return (*both, *(f"{kind} {name}" for kind in ("number", "digit") for name in both))
    parts = [part.strip() for part in re.split(r"[/,;]", plain)]
    return (plain, *(part for part in parts if part and part != plain))


def phrase(template: str, thing: str, picture: str = "") -> str:
    """A template filled: {} with the thing, * with adjectives of the picture, or nothing.

    >>> phrase("a * photo of a {}", "thick 7", "blurry")
    'a blurry photo of a thick 7'
    """
    return " ".join(template.replace("*", picture).replace("{}", thing).split())


def tokens(text: str) -> list[str]:
    """The words of a text in small letters; a hyphen joins, other signs part.

    >>> tokens("A T-shirt/top, out-of-focus!")
    ['a', 't-shirt', 'top', 'out-of-focus']
    """
    return re.findall(r"\w+(?:-\w+)*", text.lower())


@dataclass(frozen=True)
class Captioner:
    """Says true things of images.

    classes    class names
    styles     of the data set
    templates  to choose from
    unsaid     combinations (factor, value), ... that no caption ever mentions together, although
               it may mention each: what a test of composition must have held out
    """

    classes: tuple[str, ...]
    styles: Styles
    templates: tuple[str, ...] = TEMPLATES
    unsaid: frozenset[frozenset[tuple[str, int]]] = frozenset()

    @cached_property
    def factors(self) -> tuple[Factor, ...]:
        """Class, quality, then the styles in their order."""
        named = [
            Word(text, (i,)) for i, name in enumerate(self.classes) for text in names_of(name)
        ]
        return (
            Factor("class", len(self.classes), tuple(named), 0.8),
            Factor("quality", len(QUALITIES), _QUALITY_WORDS, 0.5),
            *(
                Factor(style, 3, tuple(Word(text, (i,)) for text, i in _numbered(style)), 0.4)
                for style in self.styles.cuts
            ),
        )

    @cached_property
    def telling(self) -> frozenset[str]:
        """The words that say something of an image, in small letters."""
        said = (word.text for factor in self.factors for word in factor.words)
        return frozenset(token for text in said for token in tokens(text))

    @cached_property
    def filling(self) -> frozenset[str]:
        """The words that stand around them, which say nothing."""
        said = (*self.templates, *_THINGS, *_JOINTS, "and")
        return frozenset(token for text in said for token in tokens(text)) - self.telling

    def values(self, labels: Tensor, quality: Tensor, levels: Tensor) -> Tensor:
        """The images' values as one-hot rows, float32 (N, values of all factors).

        labels and quality int64 (N,), levels int64 (N, styles) of the undamaged images.
        """
        columns = torch.cat([labels[:, None], quality[:, None], levels], 1)  # (N, factors)
        hot = [F.one_hot(columns[:, i], factor.size) for i, factor in enumerate(self.factors)]
        return torch.cat(hot, 1).float()

    def sample(self, values: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
        """One caption true of each image -> N texts, and what they deny, float32 (N, values).

        values as `values` gives them. Caption j is true of image i where
        `values[i] @ denied[j]` is 0.
        """
        chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
        factors = self.factors
        sizes = [factor.size for factor in factors]
        columns = torch.stack([part.argmax(1) for part in values.split(sizes, 1)], 1).tolist()
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        texts, denied = [], []
        for own in columns:
            said, row = self._chosen(factors, own, chance), [0.0] * sum(sizes)
            for i, word in said.items():
                row[starts[i] : starts[i] + sizes[i]] = [
                    float(value not in word.values) for value in range(sizes[i])
                ]
            texts.append(self._worded(said, chance))
            denied.append(row)
        return texts, torch.tensor(denied)

    def _chosen(
        self, factors: Sequence[Factor], own: Sequence[int], chance: random.Random
    ) -> dict[int, Word]:
        """Which factors are mentioned, by which word: at least one, none of `unsaid` whole."""
        fitting = {}
        for i, (factor, value) in enumerate(zip(factors, own, strict=True)):
            if words := [word for word in factor.words if value in word.values]:
                fitting[i] = words
        chosen = [i for i in fitting if chance.random() < factors[i].share]
        chosen = chosen or [chance.choice(list(fitting))]
        said = {i: chance.choice(fitting[i]) for i in chosen}
        for together in self.unsaid:
            hits = [
                i
                for i, word in said.items()
                if any(name == factors[i].name and v in word.values for name, v in together)
            ]
            if len(hits) == len(together):
                del said[chance.choice(hits)]
        return said

    def _worded(self, said: Mapping[int, Word], chance: random.Random) -> str:
        thing = said[0].text if 0 in said else chance.choice(_THINGS)
        template = _with_strangers(chance.choice(self.templates), chance)
        places: dict[str, list[str]] = {"picture": [], "before": [], "after": []}
        allowed = ["before", "before", "after", *(["picture"] * 2 if "*" in template else [])]
        looks = [word.text for i, word in said.items() if i != 0]
        chance.shuffle(looks)
        for text in looks:
            places[chance.choice(allowed)].append(text)
        thing = " ".join([*places["before"], thing])
        if places["after"]:
            thing += chance.choice(_JOINTS) + " and ".join(places["after"])
        return phrase(template, thing, " ".join(places["picture"]))


def _numbered(style: str) -> list[tuple[str, int]]:
    return [(text, i) for i, words in enumerate(MEASURES[style].words) for text in words]


def _with_strangers(template: str, chance: random.Random) -> str:
    """Sometimes with made-up words, so that a reader learns to pass over what it does not know."""
    words = template.split()
    while chance.random() < 0.3:
        made = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9)))
        words.insert(chance.randint(0, len(words)), made)
    return " ".join(words)
