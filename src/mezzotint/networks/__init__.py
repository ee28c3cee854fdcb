"""Networks: F(x, noise, condition) -> the shape of x.

Here: what any network has, the U-Net, its blocks, the embedding of noise level and condition, a
summary of layers.
Not here: what the network predicts (`diffusion.parameterization`), schedules and data.
"""

from mezzotint.networks.blocks import Block
from mezzotint.networks.embeddings import Embedding, Factor
from mezzotint.networks.network import Network, NetworkSpec
from mezzotint.networks.unet import Level, UNet, UNetSpec

__all__ = ["Block", "Embedding", "Factor", "Level", "Network", "NetworkSpec", "UNet", "UNetSpec"]
