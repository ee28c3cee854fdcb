"""Sheets: pictures of samples, of real images and of both processes."""

import torch

from mezzotint import imaging
from mezzotint.evaluation.context import Case
from mezzotint.sampling import trajectories
from mezzotint.sampling.model import Drawing

__all__ = ["add_sheets"]

SHOWN = 10
"""Images of each class on a sheet."""

STRIP = 5
"""Images on a film strip."""


def add_sheets(case: Case) -> None:
    """Keep pictures of samples and real images, and of both processes."""
    subject, held = case.subject, case.held
    real = (case.data.images, case.data.labels, held)
    for name, (images, labels, rows) in {
        "samples": (subject.images, subject.labels, torch.arange(len(subject.images))),
        "real": real,
    }.items():
        if labels is None:
            page = imaging.grid(images[:100], SHOWN, scale=imaging.scale_for(images.shape[3]))
        else:
            page = imaging.labelled_grid(
                [
                    (title, images[rows[labels[rows] == label][:SHOWN]])
                    for label, title in enumerate(case.data.classes)
                    if (labels[rows] == label).any()
                ]
            )
        case.pictures.keep(name, page)
    if case.stream is not None:
        model = case.stream.model
        labels = model.labels(None, min(STRIP, len(case.data.classes)))
        steps = trajectories.walk_frames(model, Drawing.of(labels, case.question.seed))
        case.pictures.keep("reverse", trajectories.reverse_strip(steps))
        few = case.data.images[held[:STRIP]]
        case.pictures.keep("forward", trajectories.forward_strip(few, model.schedule))
