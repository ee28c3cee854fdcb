"""CLIP: how well images fit words, with the anchors that give such numbers a scale.

A `Clip` embeds images and texts as unit vectors; their cosine says how well they fit (Radford et
al. 2021, arXiv 2103.00020). Two back ends: `TransformersClip`, any CLIP that transformers loads,
and our own `small_clip.SmallClip`, trained on the data set in question.

Of an image with an intended class, scale being the model's (100 for published CLIPs):

    cosine      100 cos(image, prompt of its class); without a scale of its own: pure noise scores
                24 with a published CLIP
    zero-shot   softmax over the prompts of all classes of scale cos: the share of the intended
                class, and whether it is the largest (Radford et al. 2021, section 3.1)
    pairs       softmax over two opposite prompts, "a sharp photo of a 7" against "a blurry photo
                of a 7": the share of the first (CLIP-IQA, Wang et al. 2022, arXiv 2207.12396)
    good clear  softmax over a good, a clear and a blurry prompt; of high quality is an image
    blurry      with good + clear > blurry
    quality     zero-shot share times the share of every pair: the image is the right thing, and
                sharp, and clean

No such number means anything by itself. So each comes with the same number for real images,
the same blurred, the same made noisy, and pure noise, and with the chance (AUC) that a real
image scores higher than a corrupted one: 0.5 means that the number does not see the damage.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from mezzotint.errors import DataError, InputError, first_line
from mezzotint.imaging import check_batch, to_pillow
from mezzotint.metrics.clip.captions import phrase
from mezzotint.metrics.corruption import blur, noise
from mezzotint.runtime.rng import seeded_globally

__all__ = [
    "Clip",
    "Prompts",
    "Scores",
    "TransformersClip",
    "auc",
    "clip_report",
    "quality_scores",
    "score",
]

DEFAULT = "openai/clip-vit-base-patch32"
CHUNK = 64

BLUR_RADIUS = 1.0
"""Radius of the blurred anchor, in 28ths of the width."""

NOISE_SHARE = 0.1
"""Standard deviation of the noisy anchor's noise, as a share of the range."""

EXTREMES = 3
"""Number of images named per class, and of classes, highest and lowest each."""


class Clip(Protocol):
    """What images and texts are compared with."""

    @property
    def name(self) -> str:
        """Model id."""

    @property
    def scale(self) -> float:
        """What cosines are multiplied with before a softmax."""

    @property
    def protocol(self) -> Mapping[str, object]:
        """What its numbers depend on, for JSON: model, scale, resize, ..."""

    def embed_images(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32 (N, E) of unit length, on the CPU."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """M texts -> float32 (M, E) of unit length, on the CPU."""

    def embed_x0(self, x0: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [-1, 1], unclamped -> (N, E), differentiable."""

    def log_truth(self, cosine: Tensor) -> Tensor:
        """Log of the chance that a text is true of an image, up to a constant, from cosines."""


@dataclass(frozen=True, eq=False)
class TransformersClip:
    """A CLIP from the hub or a folder, by way of transformers.

    Grey is repeated to RGB; the largest square in the middle is brought to the model's size by
    Pillow's bicubic filter (antialiased, rounded to 256 levels, as transformers does it) and
    normalised by the model's own mean and deviation. `embed_x0` uses torch's bicubic filter,
    which has gradients and no rounding.
    """

    model: Any
    tokenizer: Any
    name: str
    size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    scale: float = 100.0

    @staticmethod
    def load(name: str = DEFAULT, *, device: str = "cpu") -> "TransformersClip":
        """From a hub id or a local folder; a one-line error says what is missing."""
        try:
            from transformers import AutoModel, AutoTokenizer, ImageProcessingMixin
        except ImportError as error:
            raise InputError(
                "CLIP needs the package transformers, which is not installed: "
                'pip install "mezzotint[clip]", or use the small CLIP'
            ) from error
        try:
            with seeded_globally(0):  # while it loads, no other thread may build a network
                model = AutoModel.from_pretrained(name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(name)
            images, _ = ImageProcessingMixin.get_image_processor_dict(name)
            mean, deviation = tuple(images["image_mean"]), tuple(images["image_std"])
            size = model.config.vision_config.image_size
        # transformers raises all of these for a folder or hub id that holds something else.
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise DataError(
                f"no CLIP could be loaded from {name!r} ({first_line(error)}): give a hub id, "
                "with network, or a local folder with config, weights, tokenizer and "
                "preprocessor_config.json"
            ) from error
        model.eval().requires_grad_(False).to(device)
        return TransformersClip(model, tokenizer, name, size, mean, deviation)

    @property
    def protocol(self) -> dict[str, object]:
        """Model, scale, and how images come to the model's size."""
        resize = f"centre square, Pillow bicubic to {self.size}x{self.size}"
        return {"model": self.name, "scale": self.scale, "resize": resize}

    def embed_images(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32 (N, E) of unit length."""
        check_batch(images)
        with torch.no_grad():
            parts = [self._embed(self._resized(part)).cpu() for part in images.split(CHUNK)]
            return torch.cat(parts)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """M texts -> float32 (M, E) of unit length."""
        parts = []
        for start in range(0, len(texts), CHUNK):
            # Full length, since SigLIP was trained with it; to CLIP it makes no difference.
            inputs = self.tokenizer(
                list(texts[start : start + CHUNK]),
                padding="max_length",
                truncation=True,
                max_length=self.model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.no_grad():
                pooled = self.model.get_text_features(**inputs).pooler_output
            parts.append(F.normalize(pooled).cpu())
        return torch.cat(parts)

    def embed_x0(self, x0: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [-1, 1], unclamped -> (N, E), differentiable."""
        height, width = x0.shape[2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        x = (x0[:, :, top : top + side, left : left + side].float() + 1) / 2
        size = (self.size, self.size)
        x = F.interpolate(x, size, mode="bicubic", antialias=True)  # (N, C, size, size)
        return self._embed(x.expand(-1, 3, -1, -1)).to(x0.device)

    def log_truth(self, cosine: Tensor) -> Tensor:
        """scale cos: the log of the numerator in the softmax over texts that it was trained by."""
        return self.scale * cosine

    def _resized(self, images: Tensor) -> Tensor:
        """uint8 (n, C, H, W) -> float (n, 3, size, size) in [0, 1]."""
        size = (self.size, self.size)
        pictures = [to_pillow(image).convert("RGB") for image in images]
        fitted = [ImageOps.fit(picture, size, Image.Resampling.BICUBIC) for picture in pictures]
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in fitted]))
        return pixels.permute(0, 3, 1, 2).float() / 255

    def _embed(self, x: Tensor) -> Tensor:
        """(n, 3, size, size) in [0, 1] -> (n, E) on the model's device."""
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.deviation))
        normal = ((x - mean.to(x)) / deviation.to(x)).to(self.model.device)
        return F.normalize(self.model.get_image_features(pixel_values=normal).pooler_output)


@dataclass(frozen=True)
class Prompts:
    """What images are compared with; {} stands for the class name.

    template           of the intended class
    pairs              opposites, the better one first
    good_clear_blurry  one each
    """

    template: str = "a photo of a {}"
    pairs: tuple[tuple[str, str], ...] = (
        ("a sharp photo of a {}", "a blurry photo of a {}"),
        ("a clean photo of a {}", "a noisy photo of a {}"),
    )
    good_clear_blurry: tuple[str, str, str] = (
        "a good photo of a {}",
        "a clear photo of a {}",
        "a blurry photo of a {}",
    )

    def __post_init__(self) -> None:
        templates = (
            self.template,
            *(text for pair in self.pairs for text in pair),
            *self.good_clear_blurry,
        )
        for text in templates:
            if "{}" not in text:
                raise InputError(f"the prompt {text!r} names no class: put {{}} where it belongs")


@dataclass(frozen=True, eq=False)
class Scores:
    """What a CLIP says of N images, each with its intended class; see the module's head."""

    cosine: Tensor
    """float64 (N,), -100 ... 100."""

    intended: Tensor
    """float64 (N,), 0 ... 1: share of the intended class among all classes."""

    right: Tensor
    """bool (N,): the intended class has the largest share."""

    pairs: Tensor
    """float64 (N, pairs), 0 ... 1: share of the better prompt."""

    good_clear_blurry: Tensor
    """float64 (N, 3): shares of good, clear, blurry."""

    @property
    def quality(self) -> Tensor:
        """float64 (N,), 0 ... 1."""
        return self.intended * self.pairs.prod(1)

    @property
    def clearness(self) -> Tensor:
        """float64 (N,): good + clear; above 1/2 is of high quality."""
        return self.good_clear_blurry[:, 0] + self.good_clear_blurry[:, 1]


def score(
    clip: Clip,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    prompts: Prompts = Prompts(),  # noqa: B008 - frozen
) -> Scores:
    """All scores of uint8 images (N, C, H, W) with intended classes int64 (N,)."""
    check_batch(images)
    if len(labels) != len(images) or not 0 <= int(labels.min()) <= int(labels.max()) < len(
        classes
    ):
        raise InputError(
            f"{len(images)} images need as many labels from 0 to {len(classes) - 1}; given "
            f"{len(labels)} labels from {int(labels.min())} to {int(labels.max())}"
        )
    seen = clip.embed_images(images).double()  # (N, E)

    def against(template: str) -> Tensor:
        return clip.embed_texts([phrase(template, name) for name in classes]).double()

    def shares(templates: Sequence[str]) -> Tensor:
        """Softmax over templates, each filled with the image's own class: (N, templates)."""
        cosines = torch.stack([(seen * against(t)[labels]).sum(1) for t in templates], 1)
        return (clip.scale * cosines).softmax(1)

    cosines = seen @ against(prompts.template).T  # (N, classes)
    rows = torch.arange(len(labels))
    return Scores(
        cosine=100 * cosines[rows, labels],
        intended=(clip.scale * cosines).softmax(1)[rows, labels],
        right=cosines.argmax(1) == labels,
        pairs=torch.stack([shares(pair)[:, 0] for pair in prompts.pairs], 1),
        good_clear_blurry=shares(prompts.good_clear_blurry),
    )


def quality_scores(
    clip: Clip,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    prompts: Prompts = Prompts(),  # noqa: B008 - frozen
) -> Tensor:
    """The score to select images by: float32 (N,), 0 ... 1, `Scores.quality`."""
    return score(clip, images, labels, classes, prompts).quality.float()


def auc(higher: Tensor, lower: Tensor) -> float:
    """The chance that one of `higher` (N,) exceeds one of `lower` (M,), ties counting half.

    The area under the ROC curve, as Mann and Whitney's U / (N M).
    """
    ordered, higher = lower.sort().values, higher.contiguous()
    below = torch.searchsorted(ordered, higher) + torch.searchsorted(ordered, higher, right=True)
    return float(below.double().mean()) / 2 / len(lower)


def clip_report(
    clip: Clip,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    real_images: Tensor,
    real_labels: Tensor,
    *,
    generator: torch.Generator,
) -> dict[str, object]:
    """Return a CLIP's numbers for images, and for real images as they are and damaged.

    Keys, for JSON:

        protocol           model, scale, resize, n, n_real, blur_radius, noise_share
        cosine             100 cos with the prompt of the intended class, mean
        zero_shot          share of images whose intended class has the largest share; "chance" is
                           that of guessing; its AUC is that of the intended class's share
        pairs              a list: share of the better prompt, mean
        good_clear_blurry  share of images of high quality; "shares", the means of the three; its
                           AUC is that of good + clear
        quality            zero-shot share times the shares of all pairs, mean

    each of these (but protocol) with "value"; "prompts"; "anchors", the same value for "real",
    "blurred", "noisy" and "noise" images; "auc" of real against "blurred", "noisy" and "noise",
    about 0.5 where the number cannot tell. Then the keys of `_by_class`.

    Args:
        clip: The CLIP.
        images: uint8 (N, C, H, W).
        labels: Intended classes (N,).
        classes: Class names.
        real_images: uint8 (M, C, H, W).
        real_labels: Classes (M,) of the real images.
        generator: Of the noise in the anchors.

    """
    own = score(clip, images, labels, classes)
    damaged = _damaged(real_images, generator)
    anchors = {name: score(clip, x, real_labels, classes) for name, x in damaged.items()}
    entries = {key: _entry(metric, own, anchors) for key, metric in _SINGLE.items()}
    entries["zero_shot"]["chance"] = 1 / len(classes)
    entries["good_clear_blurry"]["shares"] = own.good_clear_blurry.mean(0).tolist()
    return {
        "protocol": {
            **clip.protocol,
            "n": len(images),
            "n_real": len(real_images),
            "blur_radius": BLUR_RADIUS,
            "noise_share": NOISE_SHARE,
        },
        **entries,
        "pairs": [_entry(metric, own, anchors) for metric in _PAIRS],
        **_by_class(labels, classes, own),
    }


def _damaged(images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Return real images, the same blurred and made noisy, and as many of noise alone."""
    return {
        "real": images,
        "blurred": blur(images, BLUR_RADIUS),
        "noisy": noise(images, NOISE_SHARE, generator),
        "noise": torch.randint(256, images.shape, generator=generator, dtype=torch.uint8),
    }


@dataclass(frozen=True)
class _Metric:
    """One number of the report: the mean of `value` over images; `rank` is what its AUC orders."""

    prompts: tuple[str, ...]
    value: Callable[[Scores], Tensor]
    rank: Callable[[Scores], Tensor]


def _single(prompts: Prompts) -> dict[str, _Metric]:
    one, pairs = (prompts.template,), tuple(text for pair in prompts.pairs for text in pair)
    return {
        "cosine": _Metric(one, lambda s: s.cosine, lambda s: s.cosine),
        "zero_shot": _Metric(one, lambda s: s.right.double(), lambda s: s.intended),
        "good_clear_blurry": _Metric(
            prompts.good_clear_blurry,
            lambda s: (s.clearness > 0.5).double(),
            lambda s: s.clearness,
        ),
        "quality": _Metric(one + pairs, lambda s: s.quality, lambda s: s.quality),
    }


def _pair(k: int, pair: tuple[str, str]) -> _Metric:
    return _Metric(pair, lambda s: s.pairs[:, k], lambda s: s.pairs[:, k])


_SINGLE = _single(Prompts())
_PAIRS = [_pair(k, pair) for k, pair in enumerate(Prompts().pairs)]


def _entry(metric: _Metric, own: Scores, anchors: Mapping[str, Scores]) -> dict[str, object]:
    """Return one number of the report, its anchors and their AUC against the real images."""
    real = metric.rank(anchors["real"])
    return {
        "value": float(metric.value(own).mean()),
        "prompts": list(metric.prompts),
        "anchors": {name: float(metric.value(of).mean()) for name, of in anchors.items()},
        "auc": {
            name: auc(real, metric.rank(of)) for name, of in anchors.items() if name != "real"
        },
    }


def _by_class(labels: Tensor, classes: Sequence[str], own: Scores) -> dict[str, object]:
    """Return the numbers of each class, and which are easiest.

    Keys, for JSON:

        classes    a list, in order: "name", "n", the means "cosine", "zero_shot", "pairs" (a
                   list), "good_clear_blurry", "quality" (None without images), and "highest"
                   and "lowest": indices into `images` by quality, best first, worst first
        easiest    names of classes by mean quality, best first
        hardest    the same, worst first
    """
    images = [(name, (labels == k).nonzero()[:, 0]) for k, name in enumerate(classes)]
    means = {name: float(own.quality[rows].mean()) for name, rows in images if len(rows)}
    easiest_first = sorted(means, key=lambda name: -means[name])
    return {
        "classes": [_of_class(name, rows, own) for name, rows in images],
        "easiest": easiest_first[:EXTREMES],
        "hardest": easiest_first[::-1][:EXTREMES],
    }


def _of_class(name: str, rows: Tensor, own: Scores) -> dict[str, object]:
    """Return the numbers of one class, whose images are the given rows of all."""

    def mean(metric: _Metric) -> float | None:
        return float(metric.value(own)[rows].mean()) if len(rows) else None

    best_first = rows[own.quality[rows].argsort(descending=True, stable=True)].tolist()
    return {
        "name": name,
        "n": len(rows),
        **{key: mean(metric) for key, metric in _SINGLE.items()},
        "pairs": [mean(metric) for metric in _PAIRS],
        "highest": best_first[:EXTREMES],
        "lowest": best_first[::-1][:EXTREMES],
    }
