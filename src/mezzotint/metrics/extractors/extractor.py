"""Extractors: uint8 images (N, C, H, W) -> float32 features (N, D), the ground of every distance.

The default is a small classifier of the very data set (`classifier.py`): for 28x28 digits
Inception's features say little, and 128 features have a full-rank covariance from 129 images on.
Its weights come with the library for the named sources (`weights/`, made by
`python -m mezzotint.metrics.extractors.train_reference`), so that numbers of different people
compare; for any other set it is trained once on the train split, the same way everywhere, and
kept in the cache.
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor

from mezzotint.data import SOURCES, ImageSet
from mezzotint.errors import InputError
from mezzotint.metrics.extractors.classifier import VERSION, Classifier, Domain, Recipe, fit
from mezzotint.runtime.cache import cache_directory
from mezzotint.runtime.log import log
from mezzotint.runtime.progress_bar import progress

__all__ = ["WEIGHTS", "Extractor", "classifier_for", "shipped"]

WEIGHTS = Path(__file__).parent / "weights"


class Extractor(Protocol):
    """Anything that turns images into features."""

    @property
    def name(self) -> str:
        """What it is, for a protocol."""

    @property
    def digest(self) -> str:
        """Hex digest of its weights, for a protocol."""

    @property
    def resize(self) -> str:
        """How images reach the network's size: "none", "bicubic to 224"."""

    def features(self, images: Tensor) -> Tensor:
        """Features float32 (N, D), on the CPU, of uint8 images (N, C, H, W), in chunks."""


def shipped(data: ImageSet) -> Classifier | None:
    """The classifier that comes with the library for this set; None where there is none."""
    path = WEIGHTS / f"{data.name}.safetensors"
    if data.name not in SOURCES or not path.exists():
        return None
    found = Classifier.load(path)
    same = found.shape == tuple(data.images.shape[1:]) and found.classes == data.classes
    return found if same else None


def classifier_for(data: ImageSet, recipe: Recipe | None = None) -> Classifier:
    """The set's own classifier: shipped, cached, or trained now (a minute or two on two cores).

    recipe: None for the usual one. InputError for a set with a single class.
    """
    if (found := shipped(data)) is not None:
        return found
    if len(data.classes) < 2:
        raise InputError(
            f"{data.name} has a single class, so no classifier can be its extractor: choose "
            "--extractor inception, dinov2 or clip"
        )
    rows = data.splits["train"]
    recipe = recipe or Recipe.usual(len(rows))
    path = (
        cache_directory() / f"classifier-{data.fingerprint}-{recipe.digest}-v{VERSION}.safetensors"
    )
    if path.exists():
        return Classifier.load(path)
    log.info(f"training the classifier that evaluates {data.name}, once: {recipe.images:,} images")
    with progress(f"classifier of {data.name}", recipe.images) as update:
        classifier = fit(
            data.images[rows], data.labels[rows], Domain.of(data), recipe=recipe, watch=update
        )
    held, labels = data.split("test" if len(data.splits["test"]) else "validation")
    if len(held):
        right = (classifier.read(held).probabilities.argmax(1) == labels).double().mean()
        log.info(f"it reads {right:.1%} of {len(held):,} held-out images right")
        if right < (1 + 1 / len(data.classes)) / 2:  # nearer to chance than to all
            log.info("that is few: distances in its features say little; see --extractor")
    try:
        classifier.save(path)
    except OSError as error:
        log.info(
            f"{path.parent} keeps no classifier ({error.strerror}): it is trained at every start"
        )
    return classifier
