"""CAS, the classification accuracy score: what are the samples worth as training data?

A classifier is trained on as many samples as the real train split has images, unfiltered, and
reads the real test split (Ravuri and Vinyals 2019, arXiv 1905.10887). It sees wrong labels and
missing variety, which a distance in feature space forgives. The ceiling is the same classifier,
trained the same way on the real images.
"""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.errors import InputError
from mezzotint.metrics.extractors.classifier import VERSION, Domain, Recipe, fit
from mezzotint.runtime.atomic import write_bytes
from mezzotint.runtime.cache import cache_directory
from mezzotint.runtime.log import log

__all__ = ["RECIPES", "SEEDS", "Cas", "cas", "check", "real_cas", "recipe_for"]

KNOWN = Path(__file__).parent / "cas.json"
"""Accuracies of classifiers trained on the real train splits, by key (`_key`)."""

SEEDS = (0, 1, 2)

RECIPES = {"mnist": Recipe(images=300_000), "fashion-mnist": Recipe(images=600_000)}
"""Long enough that real images reach 99.4 % and 93 %; other sets: `recipe_for`."""


@dataclass(frozen=True)
class Cas:
    """Accuracy on the real test split, one number a seed, each in 0 … 1."""

    accuracies: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def spread(self) -> float:
        """Standard deviation from seed to seed; 0 for one seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def recipe_for(data: ImageSet) -> Recipe:
    """How the classifiers are trained; the same for real and synthetic images."""
    return RECIPES.get(data.name) or Recipe.usual(len(data.splits["train"]))


def check(labels: Tensor, data: ImageSet) -> None:
    """InputError where samples of these labels (N,) cannot be scored."""
    if missing := set(range(len(data.classes))) - set(labels.tolist()):
        names = ", ".join(data.classes[i] for i in sorted(missing))
        raise InputError(f"cas needs samples of every class; there are none of {names}")
    if len(data.splits["test"]) == 0:
        raise InputError(f"cas reads a test split, and {data.name} has none")


def cas(
    images: Tensor,
    labels: Tensor,
    data: ImageSet,
    *,
    recipe: Recipe | None = None,
    seeds: tuple[int, ...] = SEEDS,
    device: str = "cpu",
    watch: Callable[[int, int], None] = lambda seed, seen: None,
) -> Cas:
    """Train on uint8 images (N, C, H, W) and labels (N,), read the real test split of `data`.

    recipe  None: `recipe_for(data)`, which all published numbers share
    device  that the classifiers are trained on, and read
    watch   called with the seed and the images seen

    InputError: see `check`.
    """
    check(labels, data)
    test, truth = data.split("test")
    accuracies = []
    for seed in seeds:
        classifier = fit(
            images,
            labels,
            Domain.of(data),
            recipe=recipe or recipe_for(data),
            seed=seed,
            device=device,
            watch=lambda seen, seed=seed: watch(seed, seen),  # type: ignore[misc]
        )
        read = classifier.read(test).probabilities.argmax(1)
        accuracies.append(float((read == truth).double().mean()))
    return Cas(tuple(accuracies))


def real_cas(
    data: ImageSet,
    device: str = "cpu",
    watch: Callable[[int, int], None] = lambda seed, seen: None,
) -> Cas:
    """The same of the real train split: known for the named sources, else trained and kept."""
    key = _key(data)
    kept = cache_directory() / f"cas-{key}.json"
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    if key in known:
        return Cas(tuple(known[key]))
    try:
        return Cas(tuple(json.loads(kept.read_text())))
    except (OSError, ValueError, TypeError):  # not there, or damaged: made anew
        log.info(f"cas: training on the real images of {data.name}, once")
    found = cas(*data.split("train"), data, device=device, watch=watch)
    try:
        write_bytes(kept, json.dumps(found.accuracies).encode())
    except OSError as error:
        log.info(f"{kept.parent} does not keep it ({error.strerror})")
    return found


def _key(data: ImageSet) -> str:
    return f"{data.fingerprint}-{recipe_for(data).digest}-v{VERSION}"
