"""Numbers that are none: NaN in gradients, in images and in noise, at random steps."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from mezzotint.diffusion import Denoiser
from mezzotint.training import batches
from mezzotint.training.checkpoint import read

from .children import command
from .runs import last, training

IMAGES, BATCH = 1600, 16


def not_a_number(n: int, place: Path, seed: int) -> Iterator[str]:
    """Single steps, and long rows of them; the run ends with all its images and finite weights."""
    chance = random.Random(seed)
    for number in range(n):
        where = chance.choice(["gradients", "images", "noise"])
        length = chance.choice([1, 3, 12])  # of which ten in a row are too many
        first = chance.randrange(IMAGES // BATCH - length)
        out = place / f"run{number}"
        spoils = {"gradients": gradients, "images": spoilt("x0"), "noise": spoilt("eps")}[where]
        bad = range(first, first + length)
        ending = command(*training(out, IMAGES), before=lambda s=spoils, b=bad: s(b))
        what = f"NaN in {where}, {length} steps"
        if ending.code != 0:
            yield f"BAD: {what}: {ending.code} {ending.said}"
            continue
        end = read(last(out))
        finite = all(bool(v.isfinite().all()) for v in end.tensors.values())
        rolled = "rolled back" in ending.said
        expected = rolled if length == 12 else end.facts["skipped"] == length
        good = finite and expected and end.facts["images_seen"] == IMAGES
        did = "rolled back" if rolled else "left out"
        yield f"{what}: {did}, all images seen, weights finite" if good else f"BAD: {what}"


def gradients(bad: range) -> None:
    """The gradient of these steps' estimates is NaN."""
    forward, calls = Denoiser.forward, iter(range(10**9))

    def spoilt_forward(self: Denoiser, *arguments: object) -> torch.Tensor:
        out = forward(self, *arguments)
        if out.requires_grad and next(calls) in bad:
            out.register_hook(lambda g: g * torch.nan)
        return out

    Denoiser.forward = spoilt_forward


def spoilt(name: str) -> Callable[[range], None]:
    """One number of a batch's tensor is NaN."""

    def before(bad: range) -> None:
        drawn, calls = batches.next_batch, iter(range(10**9))

        def spoilt_batch(*arguments: object) -> object:
            batch = drawn(*arguments)
            if next(calls) in bad:
                getattr(batch, name)[0, 0, 0, 0] = torch.nan
            return batch

        batches.next_batch = spoilt_batch

    return before
