"""CLIP: how well samples fit their prompts, compared with real and damaged images."""

from typing import cast

import torch

from mezzotint import imaging
from mezzotint.evaluation.context import Case, Json
from mezzotint.evaluation.samples import limited
from mezzotint.metrics.clip.clip import clip_report
from mezzotint.runtime.rng import generator

__all__ = ["judge_clip"]

CLIPPED = 2000
"""Most images that CLIP reads: a large one is slow."""


def judge_clip(case: Case) -> Json | None:
    """Score samples, real and damaged images by a CLIP; show its highest and lowest images."""
    clip = case.clip
    if clip is None:
        return None
    draws = generator("clip", case.question.seed)
    rows = case.held[torch.randperm(len(case.held), generator=draws)[:CLIPPED]]
    chosen = limited(case.subject, CLIPPED, case.question.seed)
    assert chosen.labels is not None
    found = dict(
        clip_report(
            clip, chosen.images, chosen.labels, case.data.classes,
            case.data.images[rows], case.data.labels[rows], generator=draws,
        )
    )  # fmt: skip
    rated = [row for row in cast(list[Json], found["classes"]) if row["highest"]]
    for end in ("highest", "lowest"):
        page = imaging.labelled_grid([(r["name"], chosen.images[r[end]]) for r in rated])
        case.pictures.keep(f"clip-{end}", page)
    return found
