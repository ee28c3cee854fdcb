"""A model ready to draw with: images in uint8, whatever it was trained on.

    images = mezzotint.load("runs/fashion").sample(label="Sandal", n=10, seed=0)  # (10, 1, 28, 28)

The noise of image i depends on (seed, i) alone, so an image is the same alone and in any batch,
to within one grey level (the same chunk size gives the same bytes).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mezzotint.config import Sampling, parse_config, sampler_named
from mezzotint.data import find_class
from mezzotint.diffusion import (
    Condition,
    Denoise,
    Denoiser,
    Schedule,
    Step,
    begin,
    bind,
    clip,
    guide,
    ladder,
    told,
    within,
)
from mezzotint.errors import InputError, is_out_of_memory, suggest
from mezzotint.imaging import to_uint8
from mezzotint.machine import Compute
from mezzotint.networks import UNet
from mezzotint.randomness import generator

__all__ = ["Drawing", "Model"]

CHUNK_BYTES = 512 * 2**20
"""Memory that the feature maps of one chunk of images may take, roughly."""

LARGEST_CHUNK = {"cpu": 128, "cuda": 512, "mps": 256}
"""Images drawn at once; on two CPU cores 128 go twice as fast as 512."""

MPS_LARGEST_SIGMA = 1e3
"""Where there is no float64, larger levels would lose the image to rounding."""


@dataclass(frozen=True)
class Drawing:
    """What to draw: one row per image."""

    labels: Tensor
    """int64 (N,)."""

    keys: Sequence[tuple[int, int]]
    """(seed, i) of every image, which decides its noise."""

    @staticmethod
    def of(labels: Tensor, seed: int = 0) -> "Drawing":
        """Images 0 … N - 1 of one seed."""
        return Drawing(labels, [(seed, i) for i in range(len(labels))])

    def __getitem__(self, rows: slice) -> "Drawing":
        """Some of the images."""
        return Drawing(self.labels[rows], self.keys[rows])

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)


@dataclass(frozen=True)
class Model:
    """A denoiser with everything it needs to draw images."""

    denoiser: Denoiser
    sampling: Sampling
    schedule: Schedule
    """The training schedule: the ladder where `sampling` gives none."""

    shape: tuple[int, int, int]
    """(C, H, W) of an image."""

    classes: tuple[str, ...]
    mean: float
    """Of the training pixels in [-1, 1], as is `deviation`."""

    deviation: float
    compute: Compute = Compute()
    guidable: bool = True
    """Whether labels were left out in training now and then; guidance means nothing without."""

    learned: float = 1.0
    """The largest scale of guidance that costs no second evaluation."""

    def sample(
        self,
        label: str | int | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        watch: Callable[[int], None] = lambda done: None,
        **changes: object,
    ) -> Tensor:
        """Draw n images, uint8 (n, C, H, W); without a label, the classes in equal shares.

        `changes` are fields of `Sampling`: sampler, evaluations, guidance, interval, ….
        `watch` is called with the number of images done.
        """
        return self.changed(**changes).draw(Drawing.of(self.labels(label, n), seed), watch)

    def changed(self, **changes: object) -> "Model":
        """The same model with other sampling settings; InputError for one that is not known."""
        known = set(Sampling.model_fields)
        for name in changes:
            if name not in known:
                raise InputError(f"sampling has no setting '{name}': {suggest(name, known)}")
        given = {name: value for name, value in changes.items() if value is not None}
        sampling = parse_config({**dict(self.sampling), **given}, Sampling)
        return dataclasses.replace(self, sampling=sampling)

    def labels(self, label: str | int | None, n: int) -> Tensor:
        """The labels (n,) of n images: all the same, or the classes in order and equal shares."""
        if n < 1:
            raise InputError(f"the number of images is at least 1, got {n}")
        if label is None:
            return torch.arange(n) * len(self.classes) // n
        return torch.full((n,), self.label_index(label))

    def label_index(self, label: str | int) -> int:
        """The class that a name or a number means."""
        return find_class(self.classes, label)

    def ladder(self) -> Tensor:
        """The levels that will be visited, float64 (steps + 1,)."""
        steps = sampler_named(self.sampling.sampler).steps(self.sampling.evaluations)
        try:
            levels = ladder(self.sampling.ladder or self.schedule, steps)
        except ValueError as error:  # more steps than a discrete schedule has levels
            raise InputError(str(error)) from error
        return levels.clamp(max=MPS_LARGEST_SIGMA) if self._single() else levels

    def chunk(self) -> int:
        """How many images are drawn at once."""
        network = self.denoiser.network
        assert isinstance(network, UNet)
        widest = network.spec.levels[0].width
        per_image = self.shape[1] * self.shape[2] * widest * 4 * 8
        return max(1, min(LARGEST_CHUNK[self.compute.device], CHUNK_BYTES // per_image))

    def draw(self, drawing: Drawing, watch: Callable[[int], None] = lambda done: None) -> Tensor:
        """Images uint8 (N, C, H, W) on the CPU, in chunks, so memory does not grow with N.

        Several processes take the chunks in turn, and each returns all images.
        """
        world, chunk, trouble = self.compute.world, self.chunk(), None
        images = torch.zeros((len(drawing), *self.shape), dtype=torch.uint8)
        together = world.size * chunk
        for start in range(0, len(drawing), together):
            rows = slice(start + world.rank * chunk, start + (world.rank + 1) * chunk)
            try:
                if drawing[rows]:
                    images[rows] = self._drawn(drawing[rows])
            except InputError as error:  # the others wait for these images
                trouble = error
                break
            watch(min(len(drawing), start + together))
        if world.any(trouble is not None):
            raise trouble or InputError("another process drew what is no picture; it says why")
        world.add([images])
        return images

    def _drawn(self, drawing: Drawing) -> Tensor:
        """One chunk; where memory runs out, in halves: the same, to within one grey level."""
        try:
            for step in self.walk(drawing):
                last = step
            return to_uint8(last.x.float()).cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(drawing) == 1:
                raise
        half = (len(drawing) + 1) // 2
        return torch.cat([self._drawn(drawing[:half]), self._drawn(drawing[half:])])

    def walk(self, drawing: Drawing) -> Iterator[Step]:
        """The reverse process of one chunk of images, step by step; starts with the noise itself.

        The first `Step` is the starting point with the mean image as its estimate.
        """
        draws = [generator("image", *key) for key in drawing.keys]

        def noise() -> Tensor:
            return torch.stack([torch.randn(self.shape, generator=g) for g in draws])

        denoise = self.denoise(Condition({"label": drawing.labels}))
        yield from self.reverse(denoise, noise)

    def reverse(self, denoise: Denoise, noise: Callable[[], Tensor]) -> Iterator[Step]:
        """The reverse process by any denoiser, from and with unit noise (N, C, H, W).

        The first `Step` is the starting point with the mean image as its estimate.
        """
        here = (self.compute.device, torch.float32 if self._single() else torch.float64)

        def noise_here() -> Tensor:
            return noise().to(*here)

        levels = self.ladder().to(*here)
        x = begin(noise_here(), levels[0], *self._start())
        yield Step(levels[0], x, torch.full_like(x, self.mean))
        sampler = sampler_named(self.sampling.sampler)
        yield from sampler.walk(denoise, x, levels, noise_here)

    def denoise(self, condition: Condition) -> Denoise:
        """The denoiser as our samplers see it: of these images, guided, in our precision."""
        self.denoiser.eval()
        return self._denoise(condition.to(self.compute.device))

    def _denoise(self, condition: Condition) -> Denoise:
        """The denoiser as the sampler shall see it: conditioned, guided, in our precision."""
        settings = self.sampling
        if settings.guidance != 1 and not self.guidable:
            raise InputError(
                f"guidance {settings.guidance:g} needs a model that was trained without labels "
                "now and then; this one had training.drop = 0: leave --guidance at 1"
            )
        learned = max(1.0, min(settings.guidance, self.learned))
        denoiser = told(self.denoiser, learned) if learned > 1 else self.denoiser
        denoise = guide(denoiser, condition, {"label": settings.guidance / learned})
        if settings.interval is not None:
            denoise = within(denoise, bind(self.denoiser, condition), *settings.interval)
        return self._precise(clip(denoise) if settings.clip else denoise)

    def free(self) -> Denoise:
        """The denoiser without a label, in our precision: what the noisy image alone tells."""
        return self._precise(bind(self.denoiser))

    def _precise(self, denoise: Denoise) -> Denoise:
        def precise(x: Tensor, sigma: Tensor) -> Tensor:
            """On our device, wherever x lies; a reader's x lies on the CPU."""
            here = (self.compute.device, torch.float32 if self._single() else x.dtype)
            with torch.no_grad(), self.compute.active(), self.compute.autocast():
                return denoise(x.to(*here), sigma.to(*here)).to(x.device)

        return precise

    def _start(self) -> tuple[float, float]:
        """Mean and deviation of the data that the first level is drawn with."""
        return {
            "noise": (0.0, 0.0),
            "standard": (0.0, 1.0),
            "matched": (self.mean, self.deviation),
        }[self.sampling.start]

    def _single(self) -> bool:
        """Whether the device knows no float64."""
        return self.compute.device == "mps"
