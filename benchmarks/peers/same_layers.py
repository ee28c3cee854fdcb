"""diffusers' own layers and weights, computed our way: what the kernels and the layout alone give.

The network keeps its modules and parameters; forward methods are replaced: of the residual block
and the end (GroupNorm and SiLU in one pass), of attention (one kernel, queries, keys and values
from one product), of 3x3 convolutions and of upsampling (the layout stays channels_last). Outputs
are equal but for rounding, which is checked here, before anything is timed.
"""

import copy
import types

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.kernels import attention, conv3x3, fits, group_norm

TOLERANCE = 1e-4  # relative, in float32


def normed(norm: nn.GroupNorm, x: Tensor, silu: bool) -> Tensor:
    assert fits(x), "no C++ compiler: there are no kernels to measure"
    return group_norm(
        x, norm.num_groups, norm.weight, norm.bias, None, None, epsilon=norm.eps, silu=silu
    )


def residual(block: nn.Module, x: Tensor, temb: Tensor) -> Tensor:
    h = block.conv1(normed(block.norm1, x, silu=True))
    h = h + block.time_emb_proj(F.silu(temb))[:, :, None, None]
    h = block.conv2(normed(block.norm2, h, silu=True))
    return h + (x if block.conv_shortcut is None else block.conv_shortcut(x))


def attend(block: nn.Module, x: Tensor, temb: object = None) -> Tensor:
    height, across = x.shape[2:]
    tokens = normed(block.group_norm, x, silu=False).flatten(2).transpose(1, 2)  # (B, HW, C)
    projections = block.to_q, block.to_k, block.to_v
    weight = torch.cat([p.weight for p in projections])
    qkv = F.linear(tokens, weight, torch.cat([p.bias for p in projections]))
    mixed = attention(qkv.unflatten(2, (3, block.heads, -1)))  # (B, HW, heads, C / heads)
    mixed = block.to_out[0](mixed.flatten(2))
    return x + mixed.transpose(1, 2).unflatten(2, (height, across))


def convolve(layer: nn.Conv2d, x: Tensor) -> Tensor:
    if (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1)):
        return conv3x3(x, layer.weight, layer.bias)
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)


def upsample(block: nn.Module, x: Tensor, output_size: object = None) -> Tensor:
    return block.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


FORWARDS = {
    "ResnetBlock2D": residual,
    "Attention": attend,
    "Upsample2D": upsample,
    "Conv2d": convolve,
}


def replace_forwards(unet: nn.Module) -> None:
    """Make a UNet2DModel compute our way, channels_last."""
    for module in unet.modules():
        if forward := FORWARDS.get(type(module).__name__):
            module.forward = types.MethodType(forward, module)
    norm = unet.conv_norm_out
    norm.forward = lambda x: normed(norm, x, silu=True)
    unet.conv_act = nn.Identity()
    unet.to(memory_format=torch.channels_last)


def through_our_kernels(network: nn.Module) -> nn.Module:
    """The network with its forward methods replaced; AssertionError if it computes otherwise."""
    before = copy.deepcopy(network)
    unet = network.network
    replace_forwards(unet)
    x = torch.randn(4, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    arguments = x, torch.rand(4), torch.arange(4)
    with torch.no_grad():
        a, b = before(*arguments), network(*arguments)
    assert (a - b).norm() <= TOLERANCE * a.norm(), "not the same network"
    return network
