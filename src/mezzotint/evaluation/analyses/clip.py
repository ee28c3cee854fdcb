"""CLIP: how well samples fit their prompts, compared with real and damaged images."""

from typing import cast

import torch

from mezzotint import imaging
from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.evaluation.samples import limited
from mezzotint.metrics.clip.clip import clip_report
from mezzotint.runtime.rng import generator

__all__ = ["analyse"]

CLIPPED = 2000
"""Most images that CLIP reads: a large one is slow."""


def analyse(context: EvaluationContext) -> Json | None:
    """Score samples, real and damaged images by a CLIP; show its highest and lowest images."""
    clip = context.clip
    if clip is None:
        return None
    draws = generator("clip", context.request.seed)
    rows = context.held[torch.randperm(len(context.held), generator=draws)[:CLIPPED]]
    chosen = limited(context.samples, CLIPPED, context.request.seed)
    assert chosen.labels is not None
    found = dict(
        clip_report(
            clip, chosen.images, chosen.labels, context.data.classes,
            context.data.images[rows], context.data.labels[rows], generator=draws,
        )
    )  # fmt: skip
    rated = [row for row in cast(list[Json], found["classes"]) if row["highest"]]
    for end in ("highest", "lowest"):
        page = imaging.labelled_grid([(r["name"], chosen.images[r[end]]) for r in rated])
        context.pictures.keep(f"clip-{end}", page)
    return found
