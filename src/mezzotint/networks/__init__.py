"""Networks: F(x, noise, condition). They know no schedule and no data."""

from mezzotint.networks.blocks import Block
from mezzotint.networks.embeddings import Embedding, Factor
from mezzotint.networks.unet import Level, UNet, UNetSpec

__all__ = ["Block", "Embedding", "Factor", "Level", "UNet", "UNetSpec"]
