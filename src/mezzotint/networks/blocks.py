"""The pieces of a U-Net: a convolution block with an embedding, and attention.

Shapes: x (B, C, H, W), embedding `emb` (B, E). A `Block` is a frozen specification that covers the
plain blocks of small DDPM experiments and the residual ones of EDM; `ConvBlock` builds it.
Whatever ends a residual branch starts at zero, so that a fresh residual block is the identity.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from mezzotint.kernels import attention, conv3x3, fits, group_norm, normalises

__all__ = ["ACTIVATIONS", "NORMS", "Attention", "Block", "Conv3x3", "ConvBlock", "zeroed"]

NARROW = 16
"""Heads of up to so many channels are faster through our kernel, wider ones through torch."""


@dataclass(frozen=True)
class Block:
    """How every convolution block of a network is made."""

    norm: Literal["group", "batch", "rms", "none"] = "group"
    """group: GroupNorm of at least 8 channels a group; rms: over the channels of each pixel
    (Zhang & Sennrich 2019, arXiv 1910.07467); batch: sampling uses running averages."""

    activation: Literal["gelu", "silu"] = "silu"

    residual: bool = True
    """Add the block's input to its output (He et al. 2016, arXiv 1512.03385)."""

    condition: Literal["add", "scale-shift"] = "scale-shift"
    """How the embedding enters between the two convolutions: added, or as a scale and a shift
    after the normalisation (FiLM: Perez et al. 2018, arXiv 1709.07871)."""

    projection: Literal["linear", "conv"] = "linear"
    """What brings the embedding to the block's width: Linear, or a 1x1 convolution."""

    head: int = 64
    """Channels of an attention head; a width that it does not divide has fewer, wider heads."""

    def __post_init__(self) -> None:
        if self.head < 1:
            raise ValueError(f"an attention head has at least 1 channel, got {self.head}")


class GroupNorm(nn.GroupNorm):
    """GroupNorm with what follows it in a block, in one pass where `kernels` can do that."""

    def forward(
        self,
        x: Tensor,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        silu: bool = False,
    ) -> Tensor:
        """(B, C, H, W) -> the same; scale and shift (B, C) or None, then SiLU if asked for."""
        if normalises(x):
            gain, bias = self.weight, self.bias
            return group_norm(
                x, self.num_groups, gain, bias, scale, shift, epsilon=self.eps, silu=silu
            )
        y = modulate(super().forward(x), scale, shift)
        return F.silu(y) if silu else y


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with one row of zeros around, by `kernels` where that is faster."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W); `residual`, like it, is added."""
        return conv3x3(x, self.weight, self.bias, residual)


class RmsNorm(nn.Module):
    """x / rms(x) over the channels of each pixel, times a learned gain (C,)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        gain = self.gain.to(x.dtype).reshape(1, -1, 1, 1)
        return x * (x.float().square().mean(1, keepdim=True) + 1e-6).rsqrt().to(x.dtype) * gain


def _group_norm(width: int) -> nn.Module:
    """GroupNorm with the most groups, at most 32, that divide the width and hold 8 channels."""
    groups = max(g for g in range(1, 33) if width % g == 0 and (g == 1 or width // g >= 8))
    return GroupNorm(groups, width)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "group": _group_norm,
    "batch": nn.BatchNorm2d,
    "rms": RmsNorm,
    "none": lambda width: nn.Identity(),
}
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "silu": nn.SiLU}


def zeroed(module: nn.Module) -> nn.Module:
    """The module with all its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ConvBlock(nn.Module):
    """Two 3x3 convolutions, each with norm and activation, the embedding between them.

    Residual: norm, activation, convolution (before the addition, so the sum stays unnormalised);
    plain: convolution, norm, activation, as in the first U-Nets.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int, spec: Block) -> None:
        """`embedding` is its width E; 0 for a block without one."""
        super().__init__()
        self.spec = spec
        self.norm1 = NORMS[spec.norm](in_channels if spec.residual else out_channels)
        self.norm2 = NORMS[spec.norm](out_channels)
        self.activation = ACTIVATIONS[spec.activation]()
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.modulation = _Projection(embedding, out_channels, spec) if embedding else None
        if spec.residual:
            zeroed(self.conv2)
            self.shortcut = (
                nn.Identity()
                if in_channels == out_channels
                else nn.Conv2d(in_channels, out_channels, 1)
            )

    def forward(self, x: Tensor, emb: Tensor | None) -> Tensor:
        """x (B, in_channels, H, W), emb (B, E) -> (B, out_channels, H, W)."""
        scale, shift = (
            (None, None) if self.modulation is None or emb is None else self.modulation(emb)
        )
        if not self.spec.residual:
            h = self._normed(self.norm1, self.conv1(x), scale, shift)
            return self._normed(self.norm2, self.conv2(h))
        h = self.conv1(self._normed(self.norm1, x))
        if self.spec.condition == "add":  # added before the norm, which then sees the sum
            h = self._normed(self.norm2, modulate(h, None, shift))
        else:
            h = self._normed(self.norm2, h, scale, shift)
        result: Tensor = self.conv2(h, self.shortcut(x))
        return result

    def _normed(
        self, norm: nn.Module, h: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Return h normalised, modulated and activated."""
        if isinstance(norm, GroupNorm) and self.spec.activation == "silu":
            h = norm(h, scale, shift, silu=True)
        else:
            h = self.activation(modulate(norm(h), scale, shift))
        return h


class _Projection(nn.Module):
    """The embedding as a scale and a shift of each channel, or as a shift alone."""

    def __init__(self, embedding: int, width: int, spec: Block) -> None:
        super().__init__()
        self.scales = spec.condition == "scale-shift"
        out = 2 * width if self.scales else width
        self.project: nn.Module = (
            nn.Linear(embedding, out)
            if spec.projection == "linear"
            else nn.Conv2d(embedding, out, 1)
        )
        if self.scales:
            zeroed(self.project)

    def forward(self, emb: Tensor) -> tuple[Tensor | None, Tensor]:
        """e (B, E) -> scale (B, C) or None, shift (B, C)."""
        if isinstance(self.project, nn.Linear):
            p = self.project(emb)  # (B, C or 2 C)
        else:
            p = self.project(emb[..., None, None]).flatten(1)
        if not self.scales:
            return None, p
        scale, shift = p.chunk(2, dim=1)
        return scale, shift


def modulate(h: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """h (B, C, H, W) * (1 + scale) + shift, each (B, C) or None."""
    if scale is not None:
        h = torch.addcmul(h, h, scale[..., None, None])  # (B, C, 1, 1)
    return h if shift is None else h + shift[..., None, None]


def _attention(qkv: Tensor) -> Tensor:
    """Queries, keys and values (B, N, 3, heads, D) -> (B, N, heads, D), the fastest way there is.

    On a CPU torch's flash kernel is that only where no gradient is needed; its way back takes
    longer than products do, five times as long where there is AMX. Nor does it count FLOPs there.
    """
    if qkv.shape[4] <= NARROW and fits(qkv):
        return attention(qkv)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, N, D)
    learns = torch.is_grad_enabled() and qkv.requires_grad
    if qkv.device.type == "cpu" and (learns or is_in_torch_dispatch_mode()):
        return _products(q, k, v).transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same as two products, of float32 at least; (B, heads, N, D) -> the same."""
    kind = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        scores = (q.to(kind) * q.shape[-1] ** -0.5) @ k.to(kind).mT
        mixed: Tensor = (scores.softmax(-1) @ v.to(kind)).to(q.dtype)
        return mixed


class Attention(nn.Module):
    """Self-attention over the pixels of a feature map (Vaswani et al. 2017, arXiv 1706.03762)."""

    def __init__(self, width: int, spec: Block) -> None:
        super().__init__()
        most = max(1, width // spec.head)
        self.heads = next(h for h in range(most, 0, -1) if width % h == 0)
        # Attention without any norm diverges, so "none" gets the cheap one here.
        self.norm = NORMS["rms" if spec.norm == "none" else spec.norm](width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        height, width = x.shape[2:]
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (B, H W, 3, heads, C / heads)
        mixed = self.out(_attention(qkv).flatten(2))  # (B, H W, C)
        y: Tensor = x + mixed.transpose(1, 2).unflatten(2, (height, width))
        return y
