"""Recognition: the noise level at which a picture appears, and at which it is lost."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mezzotint.config.registry import sampler_named
from mezzotint.evaluation.context import Case, Json
from mezzotint.metrics.clip.captions import phrase
from mezzotint.metrics.clip.clip import Clip, Prompts
from mezzotint.metrics.recognition import (
    Reader,
    Readings,
    Recognition,
    merged,
    recognise_forward,
    recognise_walk,
    summarise,
)
from mezzotint.runtime.rng import generator
from mezzotint.sampling import trajectories
from mezzotint.sampling.model import Drawing, Model

__all__ = ["judge_recognition"]

WALKED = 20
"""Images of each class whose processes are read."""

STRIP = 5
"""Images on a film strip."""

CLIP_READER = "CLIP"


def evaluations_spent(model: Model) -> list[int]:
    """Return the evaluations of the network spent by each step of a walk, from 0 on."""
    steps = len(model.ladder()) - 1
    total = sampler_named(model.sampling.sampler).evaluations(steps)
    each = -(-total // steps)  # Heun's two, but one in its last step
    return [min(each * i, total) for i in range(steps + 1)]


def judge_recognition(case: Case) -> Json | None:
    """Find when noise becomes a picture, and a picture noise; None for what is no run."""
    stream, classifier = case.stream, case.classifier
    if stream is None or classifier is None:
        return None
    model, classes = stream.model, case.data.classes
    readers: dict[str, Reader] = {
        "the classifier": lambda images: classifier.read(images).probabilities
    }
    if case.clip is not None:
        readers[CLIP_READER] = _zero_shot(case.clip, classes)
    drawing = Drawing.of(torch.arange(len(classes)).repeat_interleave(WALKED), stream.seed)
    free = model.free() if "label" in model.freed else None
    spent = evaluations_spent(model)

    def chunks() -> Iterator[list[Readings]]:
        for start in range(0, len(drawing), model.chunk()):
            part = drawing[start : start + model.chunk()]
            yield recognise_walk(
                model.walk(part), readers, part.labels, denoise=free, evaluations=spent
            )

    reverse = [summarise(readings, classes) for readings in merged(chunks())]
    draws = generator("lost", case.question.seed)
    rows = case.held[torch.randperm(len(case.held), generator=draws)]
    rows = rows[: WALKED * len(classes)]
    forward = [
        summarise(readings, classes)
        for readings in recognise_forward(
            case.data.images[rows], case.data.labels[rows], model.schedule, readers,
            generator("forward", case.question.seed), denoise=free,
        )
    ]  # fmt: skip
    for which, rank in (("earliest", 0), ("latest", -1)):
        label = classes.index(_headline(reverse).ranking[rank])
        few = Drawing.of(torch.full((STRIP,), label), stream.seed)
        case.pictures.keep(which, trajectories.reverse_strip(trajectories.walk_frames(model, few)))
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
    """The reading that says most: what the noisy image alone tells, where the model can say it.

    A conditional model's first x0 is already the mean of its class, and a classifier trained on
    clean images fails on x long before a person does.
    """
    views = {each.view: each for each in found if each.reader != CLIP_READER}
    return views.get("free") or views["x"]
