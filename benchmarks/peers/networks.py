"""The networks that are compared, each as it comes, called as network(x, sigma (B,), label (B,)).

`units` scales the width; how, each library's own rules decide (groups of 32 channels, say).
"""

import sys
import types
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

Network = nn.Module


class Called(nn.Module):
    """A network with the call of ours."""

    def __init__(self, network: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        return self.call(self.network, x, sigma, label)


def diffusers(units: int, size: int, channels: int) -> Network:
    """UNet2DModel: two layers a level, attention at the two lower levels."""
    from diffusers import UNet2DModel

    network = UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=2,
        block_out_channels=(32 * ((units + 1) // 2), 32 * units, 32 * units),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=10,
    )
    return Called(network, lambda n, x, s, y: n(x, s * 100, class_labels=y).sample)


def azula(units: int, size: int, channels: int) -> Network:
    """azula's UNet with its default three blocks a level, with an embedding of 256."""
    from azula.nn.unet import UNet

    width = 8 * units
    network = nn.ModuleDict(
        {
            "unet": UNet(
                channels, channels, hid_channels=(width, 2 * width, 4 * width), mod_features=256
            ),
            "sigma": nn.Linear(1, 256),
            "label": nn.Embedding(10, 256),
        }
    )
    return Called(network, lambda n, x, s, y: n["unet"](x, n["sigma"](s[:, None]) + n["label"](y)))


def without_torchvision() -> None:
    """Let smalldiffusion be imported without it: only its data sets use it; no CPU build."""
    if "torchvision" in sys.modules:
        return
    sys.modules["torchvision"] = stub = types.ModuleType("torchvision")
    stub.transforms = types.SimpleNamespace(  # type: ignore[attr-defined]
        Compose=lambda steps: None,
        RandomHorizontalFlip=lambda: None,
        ToTensor=lambda: None,
        Lambda=lambda f: None,
    )


def smalldiffusion(units: int, size: int, channels: int) -> Network:
    """smalldiffusion's Unet as in its Fashion-MNIST example: ch_mult (1, 1, 2), attention."""
    without_torchvision()
    from smalldiffusion import CondEmbedderLabel, Unet

    ch = 32 * units
    network = Unet(
        size,
        channels,
        channels,
        ch=ch,
        ch_mult=(1, 1, 2),
        attn_resolutions=(size // 2,),
        cond_embed=CondEmbedderLabel(4 * ch, 10),
    )
    return Called(network, lambda n, x, s, y: n(x, s, cond=y))


Shape = tuple[tuple[int, int, bool], ...]
"""Of each level the width in units of 8 channels, the blocks, and whether it has attention."""

PRESET: Shape = ((1, 1, False), (2, 2, False), (4, 2, True))
PATCHES: Shape = ((2, 2, False), (4, 2, True))
LARGE: Shape = ((4, 2, False), (4, 4, True), (4, 4, True))


def ours(units: int, size: int, channels: int, shape: Shape = PRESET, patch: int = 1) -> Network:
    from mezzotint.diffusion import Condition
    from mezzotint.networks import Factor, Level, UNet, UNetSpec

    levels = tuple(Level(8 * units * wide, blocks, attends) for wide, blocks, attends in shape)
    network = UNet(channels, [Factor("label", 10)], UNetSpec(levels, patch=patch))
    network = network.to(memory_format=torch.channels_last)
    return Called(network, lambda n, x, s, y: n(x, s.log() / 4, Condition({"label": y})))


NETWORKS: dict[str, Callable[[int, int, int], Network]] = {
    "diffusers": diffusers,
    "azula": azula,
    "smalldiffusion": smalldiffusion,
    "mezzotint": ours,
    "mezzotint-patch": partial(ours, shape=PATCHES, patch=2),
    "mezzotint-large": partial(ours, shape=LARGE),
}
