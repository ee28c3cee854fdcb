"""A training small enough to be run in a blink: 4x4 images of two classes, one level of 8."""

import torch

from mezzotint.data import Augment, ImageSet
from mezzotint.diffusion import Denoiser, Edm, LogNormal, Uniform
from mezzotint.networks import Factor, Level, UNet, UNetSpec
from mezzotint.training import Plan, TrainState


def make_data(n=40):
    g = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 1, 4, 4), generator=g, dtype=torch.uint8)
    rows = torch.arange(n)
    return ImageSet(
        name="tiny",
        images=images,
        labels=rows % 2,
        classes=("even", "odd"),
        splits={
            "train": rows[: n - 10],
            "validation": rows[n - 10 : n - 5],
            "test": rows[n - 5 :],
        },
        mean=0.0,
        deviation=0.58,
        augment=Augment(),
        fingerprint="tiny",
    )


def make_state(norm="group", micro_batch=8, learning_rate=1e-2):
    from mezzotint.networks import Block

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        spec = UNetSpec((Level(8),), Block(norm=norm))
        network = UNet(1, [Factor("label", 2)], spec).to(memory_format=torch.channels_last)
    denoiser = Denoiser(network, Edm(0.58))
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
    return TrainState(denoiser, optimizer, micro_batch)


def make_plan(**changes):
    settings = {
        "images": 80,
        "batch": 8,
        "seed": 5,
        "schedule": LogNormal(),
        "loss_weight": Uniform(),
        "learning_rate": 1e-2,
        "dropout": {"label": 0.2},
        "validate_every": 24,
    }
    return Plan(**{**settings, **changes})
