"""The U-Net (Ronneberger et al. 2015, arXiv 1505.04597) of all our models.

F(x, noise, condition) -> the same shape as x. It knows no schedule and no data. Levels are listed
from the image's own resolution down, each at half the size of the one before; the image is padded
inside to a size that halves evenly and cropped back, so any size works. A fresh network outputs
exactly 0.

    28x28 ── blocks ──────────────── skip ─────────────── blocks ── out
       └ 14x14 ── blocks ─────────── skip ──────── blocks ┘
            └ 7x7 ── blocks, attention ─ middle ─ blocks ┘
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.diffusion.condition import Condition
from mezzotint.networks.blocks import ACTIVATIONS, NORMS, Attention, Block, ConvBlock, zeroed
from mezzotint.networks.embeddings import ConditionEmbedding, Embedding, Factor

__all__ = ["Level", "UNet", "UNetSpec"]


@dataclass(frozen=True)
class Level:
    """One resolution of a U-Net."""

    width: int
    """Channels."""

    blocks: int = 1
    """Convolution blocks on the way down, and as many on the way up."""

    attention: bool = False
    """Self-attention after every block of this level and in the middle, if it is the last."""


@dataclass(frozen=True)
class UNetSpec:
    """Everything that decides a U-Net but the data's channels and factors."""

    levels: tuple[Level, ...]
    block: Block = Block()
    embedding: Embedding = Embedding()
    skips: bool = True
    """Hand the feature maps of the way down to the way up."""

    conditioned_blocks: Literal["everywhere", "bottleneck"] = "everywhere"
    """Which blocks hear the embedding: all, or only those in the middle."""

    patch: int = 1
    """Side of the squares of pixels that become one pixel of the first level, their values its
    channels (Shi et al. 2016, arXiv 1609.05158); 1: none. Convolutions of many channels on small
    maps use a CPU's matrix units far better than those of few channels on large ones."""

    def __post_init__(self) -> None:
        if not self.levels or any(level.width < 1 or level.blocks < 1 for level in self.levels):
            raise ValueError("a U-Net needs at least one level, each with width and blocks >= 1")
        if self.patch < 1:
            raise ValueError(f"a U-Net's patch is at least 1, got {self.patch}")

    def build(self, channels: int, factors: Sequence[Factor]) -> "UNet":
        """Return a fresh U-Net; see `NetworkSpec`."""
        return UNet(channels, factors, self)


class UNet(nn.Module):
    """See the module's text."""

    def __init__(self, channels: int, factors: Sequence[Factor], spec: UNetSpec) -> None:
        """`channels` of the images; `factors` it can be conditioned on, in order."""
        super().__init__()
        self.spec = spec
        levels, block = spec.levels, spec.block
        everywhere = spec.embedding.width if spec.conditioned_blocks == "everywhere" else 0
        self.mapping = ConditionEmbedding(spec.embedding, factors, block.activation)
        self.first = nn.Conv2d(channels * spec.patch**2, levels[0].width, 3, padding=1)
        self.down = nn.ModuleList()
        self.downsample = nn.ModuleList()
        channels_in = levels[0].width
        for level in levels:
            self.down.append(_stage(channels_in, level, block, everywhere))
            channels_in = level.width
        for above in levels[:-1]:
            self.downsample.append(nn.Conv2d(above.width, above.width, 3, stride=2, padding=1))
        self.middle = nn.ModuleList(
            [
                ConvBlock(channels_in, channels_in, spec.embedding.width, block),
                Attention(channels_in, block) if levels[-1].attention else nn.Identity(),
                ConvBlock(channels_in, channels_in, spec.embedding.width, block),
            ]
        )
        self.up = nn.ModuleList()
        for level in reversed(levels):
            skip = level.width if spec.skips else 0
            self.up.append(_stage(channels_in + skip, level, block, everywhere))
            channels_in = level.width
        self.last = nn.Sequential(
            NORMS[block.norm](channels_in),
            ACTIVATIONS[block.activation](),
            zeroed(nn.Conv2d(channels_in, channels * spec.patch**2, 3, padding=1)),
        )

    def forward(self, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """x (B, C, H, W), noise (B,), condition of B images or of none -> (B, C, H, W)."""
        height, width = x.shape[2:]
        emb = self.mapping(noise, condition)
        multiple = self.spec.patch * 2 ** (len(self.spec.levels) - 1)
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        x = F.pixel_unshuffle(x, self.spec.patch)  # (B, C patch^2, H / patch, W / patch)
        h = self.first(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for depth, stage in enumerate(self.down):
            if depth > 0:
                h = self.downsample[depth - 1](h)
            h = _run(stage, h, emb)
            skips.append(h)
        h = self.middle[0](h, emb)
        h = self.middle[2](self.middle[1](h), emb)
        for stage, skip in zip(self.up, reversed(skips), strict=True):
            if h.shape[2:] != skip.shape[2:]:
                h = upsample(h)
            h = _run(stage, torch.cat([h, skip], dim=1) if self.spec.skips else h, emb)
        return F.pixel_shuffle(self.last(h), self.spec.patch)[:, :, :height, :width]

    def bytes_per_image(self, height: int, width: int) -> int:
        """Return the memory of the feature maps of one image; see `Network`."""
        # At full size, where most memory goes: some eight float32 maps are alive at once.
        return height * width * self.spec.levels[0].width * 4 * 8


def _stage(in_channels: int, level: Level, spec: Block, embedding: int) -> nn.ModuleList:
    """The blocks of one level: convolution and attention in turn."""
    stage = nn.ModuleList()
    for index in range(level.blocks):
        stage.append(
            ConvBlock(level.width if index else in_channels, level.width, embedding, spec)
        )
        if level.attention:
            stage.append(Attention(level.width, spec))
    return stage


def upsample(h: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2 H, 2 W), each pixel as four of its type."""
    if h.dtype == torch.float32:
        return F.interpolate(h, scale_factor=2.0, mode="nearest")
    with torch.autocast(h.device.type, enabled=False):  # which would make it float32
        return F.interpolate(h, scale_factor=2.0, mode="nearest")


def _run(stage: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    assert isinstance(stage, nn.ModuleList)
    for module in stage:
        h = module(h, emb) if isinstance(module, ConvBlock) else module(h)
    return h
