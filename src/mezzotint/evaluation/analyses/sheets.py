"""Sheets: pictures of samples, of real images and of both processes."""

import torch

from mezzotint import imaging
from mezzotint.evaluation.context import EvaluationContext
from mezzotint.sampling import trajectories
from mezzotint.sampling.model import SampleBatch

__all__ = ["analyse"]

SHOWN = 10
"""Images of each class on a sheet."""

STRIP = 5
"""Images in a figure of trajectories."""


def analyse(context: EvaluationContext) -> None:
    """Keep pictures of samples and real images, and of both processes."""
    samples, held = context.samples, context.held
    real = (context.data.images, context.data.labels, held)
    for name, (images, labels, rows) in {
        "samples": (samples.images, samples.labels, torch.arange(len(samples.images))),
        "real": real,
    }.items():
        if labels is None:
            page = imaging.grid(images[:100], SHOWN, scale=imaging.scale_for(images.shape[3]))
        else:
            page = imaging.labelled_grid(
                [
                    (title, images[rows[labels[rows] == label][:SHOWN]])
                    for label, title in enumerate(context.data.classes)
                    if (labels[rows] == label).any()
                ]
            )
        context.pictures.keep(name, page)
    if context.stream is not None:
        model = context.stream.model
        labels = model.labels(None, min(STRIP, len(context.data.classes)))
        steps = trajectories.trajectory(model, SampleBatch.of(labels, context.request.seed))
        context.pictures.keep("reverse", trajectories.reverse_strip(steps))
        few = context.data.images[held[:STRIP]]
        context.pictures.keep("forward", trajectories.forward_strip(few, model.schedule))
