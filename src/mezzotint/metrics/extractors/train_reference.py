"""Train the reference classifiers that come with the library.

    python -m mezzotint.metrics.extractors.train_reference NAME …

Done once per named source, and written over what is there; users need it only to check what was
done. The same bytes come of the same machine and number of threads. Trained on the train and
validation splits; the test split is read once, at the end.
"""

import argparse
import logging

import torch

from mezzotint.data import SOURCES, load
from mezzotint.metrics.extractors.classifier import Domain, Recipe, fit
from mezzotint.metrics.extractors.extractor import WEIGHTS
from mezzotint.runtime.log import log

__all__ = ["RECIPES", "train_reference"]

RECIPES = {
    "digits": Recipe(images=100_000),
    "mnist": Recipe(images=600_000),
    "fashion-mnist": Recipe(images=1_200_000),
    "cifar10": Recipe(images=2_500_000),
}
"""12, 10, 20 and 50 epochs."""


def train_reference(name: str) -> None:
    """Train the classifier of a named source and write it into the package; says its accuracy."""
    data = load(name)
    rows = torch.cat([data.splits["train"], data.splits["validation"]])
    classifier = fit(
        data.images[rows],
        data.labels[rows],
        Domain.of(data),
        recipe=RECIPES[name],
    )
    path = WEIGHTS / f"{name}.safetensors"
    classifier.save(path)
    images, labels = data.split("test")
    right = (classifier.read(images).probabilities.argmax(1) == labels).double().mean()
    print(f"{path}: {right:.2%} of {len(labels):,} test images, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=SOURCES)
    for source in parser.parse_args().names:
        train_reference(source)
