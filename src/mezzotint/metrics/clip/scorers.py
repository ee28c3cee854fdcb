"""What single images are scored by: from images and labels to numbers in 0 … 1, larger is better.

clip           the data set's own small CLIP (trained once, a few minutes): share of the
               intended class times sharp against blurry times clean against noisy
clip:ID        the same by a CLIP from the hub or a folder
classifier     probability of the intended class by the set's own classifier
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mezzotint.data import ImageSet
from mezzotint.errors import InputError
from mezzotint.metrics.clip.captions import Captioner, Styles
from mezzotint.metrics.clip.clip import Clip, TransformersClip, quality_scores
from mezzotint.metrics.clip.small_clip import Recipe, SmallClip, file_name, fit
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.runtime.cache import cache_directory
from mezzotint.runtime.log import log
from mezzotint.runtime.progress_bar import progress

__all__ = ["Score", "clip_for", "scorer"]

Score = Callable[[Tensor, Tensor], Tensor]
"""From images uint8 (N, C, H, W) and labels (N,) to scores float32 (N,)."""


def clip_for(data: ImageSet, specification: str) -> Clip:
    """`clip`: the set's own, cached or trained now; `clip:ID`: one that transformers loads."""
    name, _, where = specification.partition(":")
    if name != "clip":
        raise InputError(f"'{specification}' is no CLIP: give clip, or clip:ID")
    if where:
        return TransformersClip.load(where)
    path = cache_directory() / file_name(data.fingerprint)
    if path.exists():
        return SmallClip.load(path)
    recipe = Recipe()
    log.info(f"training the small CLIP of {data.name}, once: {recipe.images:,} images")
    rows = data.splits["train"]
    images = data.images[rows]
    with progress(f"CLIP of {data.name}", recipe.images) as update:
        found = fit(
            images,
            data.labels[rows],
            Captioner(data.classes, Styles.found(images)),
            name=data.name,
            augment=data.augment,
            recipe=recipe,
            watch=update,
        )
    try:
        found.save(path)
    except OSError as error:
        log.info(f"{path.parent} keeps no CLIP ({error.strerror}): it is trained at every start")
    return found


def scorer(data: ImageSet, specification: str) -> Score:
    """The function that a specification names."""
    if specification == "classifier":
        classifier = classifier_for(data)
        return lambda images, labels: classifier.read(images).probabilities[
            torch.arange(len(labels)), labels
        ]
    if specification.partition(":")[0] != "clip":
        raise InputError(f"'{specification}' is no score: give clip, clip:ID or classifier")
    clip = clip_for(data, specification)
    return lambda images, labels: quality_scores(clip, images, labels, data.classes)
