"""Memorisation: distances of samples to training images and to held-out ones."""

import torch

from mezzotint import imaging
from mezzotint.evaluation.context import Case, Json
from mezzotint.metrics.extractors.kept import kept_features
from mezzotint.metrics.memorisation import memorisation
from mezzotint.runtime.distributed import current
from mezzotint.runtime.rng import generator

__all__ = ["judge_memorisation"]

HELD_OUT = 1000
"""Least number of validation images that serve as held-out ones alone; below it test images join
them."""

SHOWN = 10
"""Samples on the sheet."""


def judge_memorisation(case: Case) -> Json:
    """Samples against training and held-out images, in pixels and in features."""
    subject, extractor = case.subject, case.extractor
    images, train = case.data.images, case.data.splits["train"]
    # Cut from what train was cut from: a test split may have other writers.
    held = case.data.splits["validation"]
    if len(held) < HELD_OUT:
        held = torch.cat([held, case.data.splits["test"]])
    draws = generator("memorisation", case.question.seed)
    pixels = memorisation(subject.images, images[train], images[held], draws)
    with current().in_turn():  # what the first computes and keeps, the others find
        train_features, held_features = (
            kept_features(extractor, case.data, rows, case.say) for rows in (train, held)
        )
    draws = generator("memorisation", case.question.seed)
    features = memorisation(case.samples.features, train_features, held_features, draws)
    worst = pixels.worst[:SHOWN]
    rows = torch.tensor([offender.sample for offender in worst])
    near = torch.tensor([offender.train for offender in worst])
    other = pixels.held_out.index[rows]
    case.pictures.keep(
        "memorisation",
        imaging.labelled_grid(
            [
                ("sample", subject.images[rows]),
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
            "verdict": each.verdict,
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
        "verdict": f"{first.verdict} (by {where})",
        "protocol": {
            "n": len(subject.images),
            "n_train": len(train),
            "n_held_out": len(held),
            "extractor": extractor.name,
            "hash": extractor.digest,
        },
    }
