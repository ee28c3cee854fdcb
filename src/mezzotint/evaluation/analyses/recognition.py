"""Recognition: the noise level at which a picture appears, and at which it is lost."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mezzotint.evaluation.context import EvaluationContext, Json
from mezzotint.metrics.clip.captions import phrase
from mezzotint.metrics.clip.clip import Clip, Prompts
from mezzotint.metrics.recognition import (
    Reader,
    Readings,
    Recognition,
    merged,
    recognise_forward,
    recognise_reverse,
    summarise,
)
from mezzotint.runtime.rng import generator
from mezzotint.sampling import trajectories
from mezzotint.sampling.denoise import build_unconditional_denoise
from mezzotint.sampling.model import Model, SampleBatch

__all__ = ["analyse"]

WALKED = 20
"""Images of each class whose processes are read."""

STRIP = 5
"""Images in a figure of trajectories."""

CLIP_READER = "CLIP"


def evaluations_spent(model: Model) -> list[int]:
    """Return the evaluations of the network spent by each step of a sampler, from 0 on."""
    steps = len(model.sigmas()) - 1
    total = model.sampling.sampler.evaluations(steps)
    each = -(-total // steps)  # Heun's two, but one in its last step
    return [min(each * i, total) for i in range(steps + 1)]


def analyse(context: EvaluationContext) -> Json | None:
    """Find when noise becomes a picture, and a picture noise; None for what is no run."""
    stream, classifier = context.stream, context.classifier
    if stream is None or classifier is None:
        return None
    model, classes = stream.model, context.data.classes
    readers: dict[str, Reader] = {
        "the classifier": lambda images: classifier.read(images).probabilities
    }
    if context.clip is not None:
        readers[CLIP_READER] = _zero_shot(context.clip, classes)
    drawing = SampleBatch.of(torch.arange(len(classes)).repeat_interleave(WALKED), stream.seed)
    unconditional = build_unconditional_denoise(model) if "label" in model.droppable else None
    spent = evaluations_spent(model)

    def chunks() -> Iterator[list[Readings]]:
        for start in range(0, len(drawing), model.chunk()):
            part = drawing[start : start + model.chunk()]
            yield recognise_reverse(
                model.iterate(part), readers, part.labels, denoise=unconditional, evaluations=spent
            )

    reverse = [summarise(readings, classes) for readings in merged(chunks())]
    draws = generator("lost", context.request.seed)
    rows = context.held[torch.randperm(len(context.held), generator=draws)]
    rows = rows[: WALKED * len(classes)]
    forward = [
        summarise(readings, classes)
        for readings in recognise_forward(
            context.data.images[rows], context.data.labels[rows], model.schedule, readers,
            generator("forward", context.request.seed), denoise=unconditional,
        )
    ]  # fmt: skip
    for which, rank in (("earliest", 0), ("latest", -1)):
        label = classes.index(_headline(reverse).ranking[rank])
        few = SampleBatch.of(torch.full((STRIP,), label), stream.seed)
        context.pictures.keep(
            which, trajectories.reverse_strip(trajectories.trajectory(model, few))
        )
    return {
        "sentences": [*_headline(reverse).sentences, *_headline(forward).sentences],
        "reverse": [each.to_json() for each in reverse],
        "forward": [each.to_json() for each in forward],
    }


def _zero_shot(clip: Clip, classes: Sequence[str]) -> Reader:
    """CLIP as a reader: the softmax over its class prompts."""
    texts = clip.embed_texts([phrase(Prompts().template, name) for name in classes])

    def read(images: Tensor) -> Tensor:
        return (clip.scale * clip.embed_images(images) @ texts.T).softmax(1)

    return read


def _headline(found: Sequence[Recognition]) -> Recognition:
    """Return the reading that says most: that of the unconditional estimate, where there is one.

    A conditional model's first x0 is already the mean of its class, and a classifier trained on
    clean images fails on x long before a person does.
    """
    views = {each.view: each for each in found if each.reader != CLIP_READER}
    return views.get("unconditional") or views["x"]
