"""Memorisation: distances of samples to training images and to held-out ones."""

import torch

from mezzotint import imaging
from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.metrics.extractors.kept import kept_features
from mezzotint.metrics.memorisation import memorisation
from mezzotint.runtime.distributed import current_ranks
from mezzotint.runtime.rng import generator

__all__ = ["analyse"]

HELD_OUT = 1000
"""Least number of validation images that serve as held-out ones alone; below it test images join
them."""

SHOWN = 10
"""Samples on the sheet."""


def analyse(context: EvaluationContext) -> Json:
    """Samples against training and held-out images, in pixels and in features."""
    samples, extractor = context.samples, context.extractor
    images, train = context.data.images, context.data.splits["train"]
    # Cut from what train was cut from: a test split may have other writers.
    held = context.data.splits["validation"]
    if len(held) < HELD_OUT:
        held = torch.cat([held, context.data.splits["test"]])
    draws = generator("memorisation", context.request.seed)
    pixels = memorisation(samples.images, images[train], images[held], draws)
    with current_ranks().rank0_first():  # what the first computes and keeps, the others find
        train_features, held_features = (
            kept_features(extractor, context.data, rows) for rows in (train, held)
        )
    draws = generator("memorisation", context.request.seed)
    features = memorisation(context.reading.features, train_features, held_features, draws)
    worst = pixels.worst[:SHOWN]
    rows = torch.tensor([offender.sample for offender in worst])
    near = torch.tensor([offender.train for offender in worst])
    other = pixels.held_out.index[rows]
    context.pictures.keep(
        "memorisation",
        imaging.labelled_grid(
            [
                ("sample", samples.images[rows]),
                ("nearest training image", images[train[near]]),
                ("nearest held-out image", images[held[other]]),
            ]
        ),
    )
    found: Json = {
        name: {
            "auc": each.auc,
            "error": each.error,
            "floor": each.floor,
            "tail": each.tail,
            "expected": each.expected,
            "flagged": each.flagged,
            "summary": each.summary,
            "worst": [offender._asdict() for offender in each.worst],
        }
        for name, each in {"pixels": pixels, "features": features}.items()
    }
    flagged = pixels.flagged or features.flagged
    first = features if features.flagged and not pixels.flagged else pixels
    where = "features" if first is features else "pixels"
    return {
        **found,
        "flagged": flagged,
        "summary": f"{first.summary} (by {where})",
        "protocol": {
            "n": len(samples.images),
            "n_train": len(train),
            "n_held_out": len(held),
            "extractor": extractor.name,
            "hash": extractor.digest,
        },
    }
