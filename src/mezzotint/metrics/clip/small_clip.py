"""A small CLIP of our own, trained in minutes on one data set: pictures and words in one space.

An image encoder (the classifier's residual network) and a text encoder map to unit vectors of 64
numbers, whose cosine says how well a text fits an image (Radford et al. 2021, arXiv 2103.00020).

The loss is the sigmoid loss of Zhai et al. 2023 (arXiv 2303.15343), equation 1, over all pairs
of B images f and M captions g of a step, with z_ij = +1 where caption j is true of image i and -1
where not:

    - sum_ij log sigmoid(z_ij (scale f_i . g_j + bias)) / M

Radford's softmax wants one right caption per image, but in a set of ten classes most captions are
true of many images of the batch. The sigmoid asks of each pair by itself, and since captions are
made from known facts (`captions`), the truth of each pair is known exactly. So one caption's
cosines also rank images of all batches, as retrieval needs.

The text encoder reads words: each is the vector of the whole word plus the mean of those of its
character 3- to 5-grams, all hashed into one table (Bojanowski et al. 2017, arXiv 1607.04606), so
that no word is unknown. A convolution lets each word see its neighbours ("slanted left"), a gate
says how much it matters, and the gated sum goes through two linear layers. (Attention in place of
convolution and gate took half of the training time.)
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.data import Augment
from mezzotint.errors import InputError
from mezzotint.imaging import check_batch, to_float
from mezzotint.kernels.precision import bf16_pays
from mezzotint.metrics.clip.captions import Captioner, tokens
from mezzotint.metrics.corruption import blur, noise
from mezzotint.metrics.extractors.classifier import build, triangle
from mezzotint.metrics.extractors.weights_io import read, weights_digest, write
from mezzotint.runtime.rng import generator, seeded_globally

__all__ = ["Recipe", "SmallClip", "TextEncoder", "file_name", "fit", "sigmoid_loss"]

VERSION = 1  # of networks, captions and training: another number, another cached file
WIDTH = 64
BUCKETS = 4096
LONGEST = 32  # words read; the rest of a text is left out
CHUNK = 500


@dataclass(frozen=True)
class Recipe:
    """How a small CLIP is trained; the defaults serve any small data set.

    images    shown in all, counted with repetitions
    batch     images a step
    captions  per image of a step
    rate      largest learning rate, reached after a tenth of the training, 0 at its end
    decay     weight decay
    damaged   share of images shown blurred, and the same share noisy
    blurs     weakest and strongest radius, in 28ths of the width
    noises    weakest and strongest noise, as a share of the range
    """

    images: int = 250_000
    batch: int = 128
    captions: int = 2
    rate: float = 3e-3
    decay: float = 1e-2
    damaged: float = 0.25
    blurs: tuple[float, float] = (0.5, 2.5)
    noises: tuple[float, float] = (0.05, 0.5)


@dataclass(frozen=True, eq=False)
class SmallClip:
    """Both encoders, trained; see `Clip` for what they are used for.

    scale  of the cosines before softmax or sigmoid, as trained
    bias   of the sigmoid: sigmoid(scale cos + bias) is the chance that the text is true
    shape  (C, H, W) of the images it reads
    data   name of the data set it was trained on
    """

    images: nn.Module
    texts: nn.Module
    scale: float
    bias: float
    shape: tuple[int, int, int]
    data: str

    @property
    def name(self) -> str:
        """Model id, with the digest of its weights."""
        return f"mezzotint-clip-{self.data}-{self.digest}"

    @property
    def protocol(self) -> dict[str, object]:
        """What its numbers were computed with."""
        return {"model": self.name, "scale": self.scale, "shape": list(self.shape), "resize": None}

    @property
    def digest(self) -> str:
        """Hex digest of weights and facts."""
        return weights_digest(self._tensors(), self._facts())

    def embed_images(self, images: Tensor) -> Tensor:
        """uint8 (N, C, H, W) -> float32 (N, 64) of unit length."""
        check_batch(images)
        if tuple(images.shape[1:]) != self.shape:
            raise InputError(
                f"the images are {tuple(images.shape[1:])}, but the small CLIP of {self.data} "
                f"reads (C, H, W) = {self.shape}: evaluate them against their own data"
            )
        with torch.no_grad():
            return torch.cat([self.embed_x0(to_float(part)) for part in images.split(CHUNK)])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """M texts -> float32 (M, 64) of unit length."""
        with torch.no_grad():
            parts = [texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK)]
            return torch.cat([F.normalize(self.texts(part)) for part in parts])

    def embed_x0(self, x0: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [-1, 1], unclamped -> (N, 64), differentiable."""
        return F.normalize(self.images(x0.float().contiguous(memory_format=torch.channels_last)))

    def log_truth(self, cosine: Tensor) -> Tensor:
        """log sigmoid(scale cos + bias), which it was trained by: near 0 where a text fits."""
        return F.logsigmoid(self.scale * cosine + self.bias)

    def save(self, path: Path) -> None:
        """Write weights and facts as one safetensors file."""
        write(path, "clip", self._tensors(), self._facts())

    @staticmethod
    def load(path: Path) -> "SmallClip":
        """Read what `save` wrote; DataError for a damaged file."""
        return read(path, "clip", SmallClip._of)

    @staticmethod
    def _of(facts: dict[str, Any], tensors: dict[str, Tensor]) -> "SmallClip":
        shape = tuple(facts["shape"])
        both = _encoders(shape[0], 0)
        both.load_state_dict(tensors)
        return _finished(both, facts["scale"], facts["bias"], shape, facts["data"])

    def _tensors(self) -> dict[str, Tensor]:
        both = nn.ModuleDict({"images": self.images, "texts": self.texts})
        return {name: value.contiguous() for name, value in both.state_dict().items()}

    def _facts(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "scale": self.scale,
            "bias": self.bias,
            "shape": list(self.shape),
            "data": self.data,
        }


class TextEncoder(nn.Module):
    """Texts -> vectors (M, WIDTH), of any length."""

    def __init__(self) -> None:
        super().__init__()
        # Small beginnings, so that n-grams never trained stay quiet.
        self.table = nn.Parameter(0.1 * torch.randn(BUCKETS, WIDTH))
        self.neighbours = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.gate = nn.Linear(WIDTH, 1)
        self.norm = nn.LayerNorm(WIDTH)
        self.mix = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.ReLU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, texts: Sequence[str]) -> Tensor:
        """M texts -> (M, WIDTH)."""
        split = [(tokens(text) or [""])[:LONGEST] for text in texts]
        words = sorted({word for row in split for word in row})
        number = {word: i for i, word in enumerate(words, start=1)}
        longest = max(len(row) for row in split)
        rows = torch.tensor(
            [[number[w] for w in row] + [0] * (longest - len(row)) for row in split]
        )
        vectors = F.pad(self._words(words), (0, 0, 1, 0))  # row 0: no word
        x = F.embedding(rows, vectors)  # (M, L, WIDTH)
        x = x + self.neighbours(x.transpose(1, 2)).transpose(1, 2).relu()
        weights = self.gate(x).sigmoid() * (rows > 0)[:, :, None]
        pooled = self.norm((weights * x).sum(1))
        result: Tensor = pooled + self.mix(pooled)
        return result

    def _words(self, words: Sequence[str]) -> Tensor:
        """(words, WIDTH): the whole word, plus the mean of its pieces."""
        found = [_pieces(word) for word in words]
        whole = torch.tensor([pieces[0] for pieces in found])
        parts = torch.tensor([p for pieces in found for p in pieces])
        lengths = torch.tensor([0] + [len(pieces) for pieces in found[:-1]])
        means = F.embedding_bag(parts, self.table, lengths.cumsum(0), mode="mean")
        return F.embedding(whole, self.table) + means


@lru_cache(maxsize=10_000)
def _pieces(word: str) -> tuple[int, ...]:
    """Buckets of the whole word, first, and of its n-grams."""
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
    return tuple(zlib.crc32(gram.encode()) % BUCKETS for gram in (marked, *grams))


def file_name(fingerprint: str) -> str:
    """Under which a trained small CLIP is kept: of the data's fingerprint and this version."""
    return f"clip-{fingerprint}-v{VERSION}.safetensors"


def fit(
    images: Tensor,
    labels: Tensor,
    captioner: Captioner,
    *,
    name: str,
    augment: Augment,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    seed: int = 0,
    watch: Callable[[int], None] = lambda seen: None,
) -> SmallClip:
    """Train on uint8 images (N, C, H, W) with int64 labels (N,); the same bits for the same call.

    (On one machine, with one number of threads.) AdamW with a triangular learning rate; images
    are mirrored where `augment` and the styles allow it and shifted by up to a fourteenth of their
    size, then some are blurred or made noisy, and captions say which. Styles are measured
    beforehand, on the images as they are. bf16 where the processor has units for it. `watch` is
    called with the number of images seen, now and then.
    """
    check_batch(images)
    levels = captioner.styles.levels(images)
    # A mirrored image leans the other way, and captions would not know.
    mirrors = augment.flip and "slant" not in captioner.styles.cuts
    changed = Augment(mirrors, images.shape[-1] // 14)
    both = _encoders(images.shape[1], seed).train()
    scale, bias = nn.Parameter(torch.tensor(2.3)), nn.Parameter(torch.tensor(-3.0))
    parameters = [*both.parameters(), scale, bias]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=recipe.decay, fused=True)
    bf16 = bf16_pays("cpu")
    steps = max(1, recipe.images // recipe.batch)
    for step in range(steps):
        draws = generator("small clip", seed, step)
        rows = _rows(len(images), step, recipe.batch, seed)
        damaged, quality = _damaged(changed(images[rows], draws), recipe, draws)
        values = captioner.values(labels[rows], quality, levels[rows])
        said = [captioner.sample(values, draws) for _ in range(recipe.captions)]
        texts, denied = [t for part, _ in said for t in part], torch.cat([d for _, d in said])
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * triangle(step / steps, peak=0.1)
        x = to_float(damaged).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            pictured = both["images"](x)
        cosine = F.normalize(pictured.float()) @ F.normalize(both["texts"](texts)).T  # (B, M)
        loss = sigmoid_loss(cosine, values @ denied.T == 0, scale.exp(), bias)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            watch((step + 1) * recipe.batch)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    return _finished(both, scale.exp().item(), bias.item(), shape, name)


def sigmoid_loss(cosine: Tensor, truth: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The loss above, of cosines (B, M) and whether caption j is true of image i, bool (B, M)."""
    signs = 2.0 * truth - 1
    return -F.logsigmoid(signs * (scale * cosine + bias)).sum() / cosine.shape[1]


def _rows(count: int, step: int, batch: int, seed: int) -> Tensor:
    """The images of a step: each once before any a second time (but for a rest below `batch`)."""
    per_round = max(1, count // batch)
    order = torch.randperm(
        count, generator=generator("small clip", "order", seed, step // per_round)
    )
    return order[(step % per_round) * batch :][:batch]


def _damaged(images: Tensor, recipe: Recipe, draws: torch.Generator) -> tuple[Tensor, Tensor]:
    """The images, some blurred, some noisy, and their quality (N,): 0 clear, 1 blurry, 2 noisy."""
    chance, strengths = torch.rand(len(images), generator=draws), torch.rand(2, generator=draws)
    quality = (chance < 2 * recipe.damaged).long() + (chance < recipe.damaged).long()
    radius, share = (
        low + (high - low) * float(strength)
        for (low, high), strength in zip((recipe.blurs, recipe.noises), strengths, strict=True)
    )
    images = images.clone()
    if (quality == 1).any():
        images[quality == 1] = blur(images[quality == 1], radius)
    if (quality == 2).any():
        images[quality == 2] = noise(images[quality == 2], share, draws)
    return images, quality


def _encoders(channels: int, seed: int) -> nn.ModuleDict:
    with seeded_globally(seed):
        return nn.ModuleDict({"images": build(channels, WIDTH), "texts": TextEncoder()})


def _finished(
    both: nn.ModuleDict, scale: float, bias: float, shape: tuple[int, int, int], data: str
) -> SmallClip:
    both.eval().requires_grad_(False)
    return SmallClip(both["images"], both["texts"], scale, bias, shape, data)
