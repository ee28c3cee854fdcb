"""The two processes as pictures: images drowning in noise, and coming out of it.

Noisy states are shown as DDPM's x_t = x / sqrt(1 + sigma^2), which stays in the range of pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.diffusion import Schedule, Step
from mezzotint.imaging import shown
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch

__all__ = ["animate", "forward_strip", "reverse_strip", "trajectory"]

SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the forward process, where it is shown."""

COLUMNS = 9
"""Most moments of the reverse process on a strip."""

SECONDS_PER_FRAME = 0.15
LAST_FRAME_REPEATS = 8


def forward_strip(images: Tensor, schedule: Schedule) -> Tensor:
    """uint8 (N, C, H, W) after 0, 20, …, 100 % of a schedule, sigma and SNR above each column."""
    x0 = imaging.to_float(images)
    eps = torch.randn(x0.shape, generator=generator("forward strip"))
    frames, captions = [images], ["image"]
    for share in SHARES:
        sigma = float(schedule.sigma(torch.tensor([share], dtype=torch.float64)))
        frames.append(shown(x0 + sigma * eps, sigma))
        captions.append(f"{share:.0%}\nsigma {sigma:.3g}\nSNR {sigma**-2:.2g}")
    return imaging.strip(frames, captions)


def trajectory(model: Model, drawing: SampleBatch) -> list[Step]:
    """Every step of the reverse process of a few images, from the noise on."""
    return list(model.iterate(drawing))


def reverse_strip(steps: Sequence[Step]) -> Tensor:
    """x and the x0 estimate at moments spread over the process, sigma above each column."""
    count = min(COLUMNS, len(steps))
    chosen = [steps[round(i * (len(steps) - 1) / max(1, count - 1))] for i in range(count)]
    return imaging.strip(
        [shown(step.x, float(step.sigma)) for step in chosen],
        [f"sigma\n{float(step.sigma):.3g}" for step in chosen],
        estimates=[imaging.to_uint8(step.x0.float().cpu()) for step in chosen],
    )


def animate(steps: Sequence[Step], path: Path, columns: int) -> Path:
    """The reverse process of all images as a GIF or WebP, holding the last frame a while."""
    grids = [
        imaging.grid(
            shown(step.x, float(step.sigma)),
            columns,
            scale=imaging.scale_for(step.x.shape[-1]),
        )
        for step in steps
    ]
    frames = [*grids, *[grids[-1]] * LAST_FRAME_REPEATS]
    return imaging.save_animation(frames, path, seconds_per_frame=SECONDS_PER_FRAME)
