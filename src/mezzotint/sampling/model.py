"""A model ready to draw with: images in uint8, whatever it was trained on.

    images = mezzotint.load("runs/fashion").sample(label="Sandal", n=10, seed=0)  # (10, 1, 28, 28)

The noise of image i depends on (seed, i) alone (`runtime.noise`), so an image is the same alone
and in any batch, to within one grey level (the same chunk size gives the same bytes).
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count

import torch
from torch import Tensor, nn

from mezzotint.config import legacy
from mezzotint.config.schema import Sampling
from mezzotint.config.tables import parse_config
from mezzotint.data import ImageSet, Style, find_class, standards
from mezzotint.diffusion import (
    Condition,
    Denoise,
    Denoiser,
    Schedule,
    Step,
    distinct_sigmas,
    initial_state,
    posterior_variance,
    sampling_sigmas,
)
from mezzotint.errors import DivergenceError, InputError, PeerError, is_out_of_memory, suggest
from mezzotint.imaging import to_float, to_uint8
from mezzotint.networks import Network
from mezzotint.runtime.cuda_graphs import CudaGraphs
from mezzotint.runtime.device import Compute, settle_thread_count
from mezzotint.runtime.progress_bar import progress as progress_of
from mezzotint.runtime.rng import generator
from mezzotint.sampling.denoise import build_denoise
from mezzotint.sampling.noise import noise_of
from mezzotint.sampling.request import (
    Noise,
    Prompt,
    SampleBatch,
    SampleRequest,
    SamplingOptions,
    Start,
    as_prompt,
)

__all__ = ["Model", "SampleBatch"]

CHUNK_BYTES = {"cpu": 2**29, "cuda": 2**33, "mps": 2**31}
"""Memory that the feature maps of one chunk of images may take, roughly."""

LARGEST_CHUNK = {"cpu": 128, "cuda": 512, "mps": 256}
"""Images drawn at once; on two CPU cores 128 go twice as fast as 512."""

MPS_LARGEST_SIGMA = 1e3
"""Where there is no float64, larger levels would lose the image to rounding."""


@dataclass(frozen=True)
class Model:
    """A denoiser with everything it needs to draw images."""

    denoiser: Denoiser
    sampling: Sampling
    schedule: Schedule
    """The training schedule, which sampling uses where `sampling.schedule` is none."""

    shape: tuple[int, int, int]
    """(C, H, W) of an image."""

    classes: tuple[str, ...]
    mean: float
    """Of the training pixels in [-1, 1], as is `deviation`."""

    deviation: float
    compute: Compute = Compute()
    droppable: Collection[str] = ("label",)
    """Factors left out in training now and then; guidance by others means nothing."""

    max_model_guidance: float = 1.0
    """The largest scale of guidance that costs no second evaluation."""

    images_seen: int = 0
    """By the weights."""

    styles: tuple[Style, ...] = ()
    """What else than a label it can be asked for."""

    guide_model: "Model | None" = None
    """A weaker model of the same images, which autoguidance guides away from."""

    data: Callable[[], ImageSet] | None = field(default=None, compare=False, repr=False)
    """Loads the data set it was trained on, which a prompt needs."""

    denoise_wrapper: Callable[[Denoise, Tensor], Denoise] | None = None
    """Wraps the guided denoiser of images with these labels (B,), as guidance by a prompt does."""

    @legacy.renamed_keywords(ladder="schedule")
    def sample(
        self,
        label: str | int | None = None,
        n: int = 1,
        *,
        seed: int = 0,
        styles: Mapping[str, str | float] = {},  # noqa: B006 - never changed
        sampler: str | Mapping[str, object] | None = None,
        evaluations: int | None = None,
        schedule: Schedule | Mapping[str, object] | None = None,
        guidance: float | None = None,
        style_guidance: Mapping[str, float] | None = None,
        autoguidance: float | None = None,
        interval: tuple[float, float] | None = None,
        clip: bool | None = None,
        start: Start | None = None,
        noise: Noise | None = None,
        prompt: str | Prompt | None = None,
        progress: bool | None = None,
        watch: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Draw n images.

            images = model.sample(label="5", n=10, seed=0, guidance=1.5)

        What is None is as the run's own sampling settings say.

        Args:
            label: Class, by name or number. None: all classes in equal shares, in order.
            n: Number of images.
            seed: Image i depends on (seed, i) alone.
            styles: Level ("thick") or number in the style's own unit, by the style's name.
            sampler: Name of a sampler, or a table as in {"kind": "ddim", "eta": 0.5}.
            evaluations: Evaluations of the network per image (NFE), 1 or more.
            schedule: Noise levels to visit: a schedule, or a table as in {"kind": "karras"}.
            guidance: Guidance scale of label and styles, 0 or more: 1 is none, 0 unconditional.
            style_guidance: Factor on `guidance` by the style's name; 0 ignores the style.
            autoguidance: Scale of guidance by the run's early snapshot: 1 is none.
            interval: (low, high): both guidances act at levels low < sigma <= high alone.
            clip: Keep the estimate of x0 in [-1, 1] at every step.
            start: Mean and deviation of the data that the first level is drawn with: "noise",
                "standard" or "matched".
            noise: Generator of the noise, "philox" or "torch".
            prompt: Words that a CLIP's gradient guides to, or a `Prompt` with their scale.
            progress: Show a bar: None where there is a terminal or notebook, True always.
            watch: Deprecated: called with the number of images done.

        Returns:
            Images, uint8 (n, C, H, W), on the CPU.

        Raises:
            InputError: A value is unknown, out of range, or not possible with this model.

        """
        if watch is not None:
            legacy.warn("Model.sample(watch=) goes away: progress= shows a bar")
        options = SamplingOptions(
            sampler=sampler,
            evaluations=evaluations,
            schedule=schedule,
            start=start,
            noise=noise,
            guidance=guidance,
            style_guidance=style_guidance,
            autoguidance=autoguidance,
            interval=interval,
            clip=clip,
        )
        request = SampleRequest(
            label=label, n=n, seed=seed, styles=styles, options=options, prompt=as_prompt(prompt)
        )
        model = self.with_options(options)
        batch = request.batch(model)  # refuses what cannot be drawn, before a CLIP is trained
        model = model.guided_by(request.prompt)
        with progress_of("drawing", n, progress) as update:
            return model.sample_batch(batch, watch or update)

    def guided_by(self, prompt: Prompt | None) -> "Model":
        """Return the same model, guided by a prompt; None: by none."""
        if prompt is None:
            return self
        from mezzotint.sampling.prompt import with_prompt  # imports the whole of CLIP

        return with_prompt(self, prompt)

    def with_options(self, options: SamplingOptions) -> "Model":
        """Return the same model with other sampling settings; InputError for a bad value."""
        if not (changes := options.changes()):
            return self
        table = {**dict(self.sampling), **legacy.current_table(changes, "sampling")}
        return dataclasses.replace(self, sampling=parse_config(table, Sampling))

    def changed(
        self,
        *,
        sampler: str | Mapping[str, object] | None = None,
        evaluations: int | None = None,
        schedule: Schedule | Mapping[str, object] | None = None,
        start: Start | None = None,
        noise: Noise | None = None,
        guidance: float | None = None,
        style_guidance: Mapping[str, float] | None = None,
        autoguidance: float | None = None,
        interval: tuple[float, float] | None = None,
        clip: bool | None = None,
    ) -> "Model":
        """Return the same model with other sampling settings; see `SamplingOptions`."""
        return self.with_options(
            SamplingOptions(
                sampler=sampler,
                evaluations=evaluations,
                schedule=schedule,
                start=start,
                noise=noise,
                guidance=guidance,
                style_guidance=style_guidance,
                autoguidance=autoguidance,
                interval=interval,
                clip=clip,
            )
        )

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

    @property
    def style_names(self) -> tuple[str, ...]:
        """The names of its styles."""
        return tuple(style.name for style in self.styles)

    def style_index(self, name: str) -> int:
        """Which of its styles a name means; InputError says which there are."""
        names = self.style_names
        if not names:
            raise InputError(
                f"no style '{name}': this model was trained without styles; train one with "
                f"--style {name}"
            )
        if name not in names:
            raise InputError(f"this model knows no style '{name}': {suggest(name, names)}")
        return names.index(name)

    def style_values(self, styles: Mapping[str, str | float], n: int = 1) -> Tensor:
        """Return the same styles for n images, float64 (n, K); nan for those that are not set."""
        values = torch.full((len(self.styles),), torch.nan, dtype=torch.float64)
        for name, value in styles.items():
            index = self.style_index(name)
            values[index] = self.styles[index].parse(str(value))
        return values.expand(n, -1).clone()

    def style_warnings(self, styles: Mapping[str, str | float]) -> list[str]:
        """Return warnings for styles outside the range of the train images."""
        values = self.style_values(styles)[0].tolist()
        found = (style.warning(value) for style, value in zip(self.styles, values, strict=True))
        return [warning for warning in found if warning is not None]

    def styles_of(self, drawing: SampleBatch) -> Tensor:
        """Return the styles of a batch, float64 (N, K); nan where null."""
        table = drawing.styles
        if table is None or table.shape[1] == 0:  # nothing is asked for, or the data has none
            return self.style_values({}, len(drawing))
        return table

    def condition(self, drawing: SampleBatch) -> Condition:
        """Return the condition of a batch on the model's device."""
        styles = standards(self.styles, self.styles_of(drawing))
        return Condition({"label": drawing.labels, **styles}).to(self.compute.device)

    def sigmas(self) -> Tensor:
        """Return the sigmas that the sampler visits, float64 (steps + 1,), the last one 0.

        There are fewer where equal neighbours are merged.
        """
        steps = self.sampling.sampler.steps(self.sampling.evaluations)
        try:
            levels = sampling_sigmas(self.sampling.schedule or self.schedule, steps)
        except ValueError as error:  # more steps than a discrete schedule has levels
            raise InputError(str(error)) from error
        if not self.single_precision():
            return levels
        # In float32, as they will be used: what it cannot tell apart is one level.
        return distinct_sigmas(levels.clamp(max=MPS_LARGEST_SIGMA).float()).double()

    def posterior_variance(self, images: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """Measure the posterior variance of a pixel at each level, on real images, averaged.

        images  uint8 (N, C, H, W), some of one chunk; labels (N,)

        Guidance moves x0 and is no part of the posterior: measured without.
        """
        guidance = min(self.sampling.guidance, 1.0)
        plain = self.changed(guidance=guidance, autoguidance=1.0)
        drawing = SampleBatch.of(labels, 0)
        denoise = build_denoise(
            dataclasses.replace(plain, denoise_wrapper=None), self.condition(drawing)
        )
        draws = [generator("still open", *key) for key in drawing.keys.tolist()]
        noise = torch.stack([torch.randn(self.shape, generator=g) for g in draws])
        x0, noise = (part.to(self.compute.device) for part in (to_float(images), noise))
        return posterior_variance(denoise, x0, self.sigmas()[:-1], noise)

    def chunk(self) -> int:
        """How many images are drawn at once."""
        network, device = self.denoiser.network, self.compute.device
        assert isinstance(network, Network)
        per_image = network.bytes_per_image(*self.shape[1:])
        return max(1, min(LARGEST_CHUNK[device], CHUNK_BYTES[device] // per_image))

    def sample_batch(
        self, drawing: SampleBatch, watch: Callable[[int], None] = lambda done: None
    ) -> Tensor:
        """Images uint8 (N, C, H, W) on the CPU, in chunks, so memory does not grow with N.

        Several processes take the chunks in turn, and each returns all images.

        Raises:
            InputError: The sampling settings cannot work with this model.
            DivergenceError: Pixels are NaN or infinite.
            PeerError: Pixels of another process are NaN or infinite.
        """
        settle_thread_count()
        ranks, chunk, trouble = self.compute.ranks, self.chunk(), None
        recorded = self.with_cuda_graphs()
        # Every process refuses settings that cannot work, also one that draws no image: else it
        # would wait for the others.
        build_denoise(recorded, recorded.condition(drawing[:1]))
        recorded.sigmas()
        images = torch.zeros((len(drawing), *self.shape), dtype=torch.uint8)
        together = ranks.size * chunk
        for start in range(0, len(drawing), together):
            rows = slice(start + ranks.rank * chunk, start + (ranks.rank + 1) * chunk)
            try:
                if drawing[rows]:
                    images[rows] = recorded._sample_chunk(drawing[rows])
            except DivergenceError as error:  # the others wait for these images
                trouble = error
                break
            watch(min(len(drawing), start + together))
        if ranks.any(trouble is not None):
            raise trouble or PeerError("another process drew what is no picture; it says why")
        ranks.all_reduce_([images])
        return images

    def with_cuda_graphs(self) -> "Model":
        """Return the same model; on CUDA, one that replays CUDA graphs of its network.

        The graphs live as long as the model. Evaluations with a gradient run eagerly.
        """
        # A CUDA graph reads and writes fixed memory. Each call captures its own, so threads may
        # share a model.
        network = self.denoiser.network
        if not self.compute.cuda_graphs or isinstance(network, _GraphedNetwork):
            return self
        denoiser = Denoiser(_GraphedNetwork(network), self.denoiser.parameterization)
        guide_model = self.guide_model.with_cuda_graphs() if self.guide_model is not None else None
        return dataclasses.replace(self, denoiser=denoiser, guide_model=guide_model)

    def _sample_chunk(self, drawing: SampleBatch) -> Tensor:
        """One chunk; where memory runs out, in halves: the same, to within one grey level."""
        try:
            with self.compute.active():  # once a chunk, not at each evaluation
                for step in self.iterate(drawing):
                    last = step
            return to_uint8(last.x.float()).cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(drawing) == 1:
                raise
        half = (len(drawing) + 1) // 2
        return torch.cat([self._sample_chunk(drawing[:half]), self._sample_chunk(drawing[half:])])

    def iterate(self, drawing: SampleBatch, grad_steps: int = 0) -> Iterator[Step]:
        """The reverse process of one chunk of images, step by step; starts with the noise itself.

        The first `Step` is the starting point with the mean image as its estimate. The last
        `grad_steps` steps keep their gradient.
        """
        settle_thread_count()
        denoise = build_denoise(self, self.condition(drawing))
        yield from self.reverse(denoise, self.noise(drawing.keys), grad_steps)

    def noise(self, keys: Tensor, tiles: Tensor | None = None) -> Callable[[], Tensor]:
        """Return the noise of images for `reverse`; see `noise_of`."""
        device = (
            "cpu" if self.single_precision() else self.compute.device
        )  # Philox's normals are float64
        return noise_of(self.sampling.noise, keys, self.shape, device, tiles)

    def reverse(
        self, denoise: Denoise, noise: Callable[[], Tensor], grad_steps: int = 0
    ) -> Iterator[Step]:
        """The reverse process by any denoiser, from and with unit noise (N, C, H, W).

        The first `Step` is the starting point with the mean image as its estimate. The last
        `grad_steps` steps keep their gradient.
        """
        here = (self.compute.device, torch.float32 if self.single_precision() else torch.float64)

        def noise_here() -> Tensor:
            return noise().to(*here)

        levels = self.sigmas().to(here[1])  # on the CPU: reading one does not wait for the device
        x = initial_state(noise_here(), levels[0], *self._start())
        yield Step(levels[0], x, torch.full_like(x, self.mean))
        steps = self.sampling.sampler.iterate(denoise, x, levels, noise_here)
        yield from with_gradients(steps, len(levels) - 1 - grad_steps)

    def _start(self) -> tuple[float, float]:
        """Mean and deviation of the data that the first level is drawn with."""
        return {
            "noise": (0.0, 0.0),
            "standard": (0.0, 1.0),
            "matched": (self.mean, self.deviation),
        }[self.sampling.start]

    def single_precision(self) -> bool:
        """Return whether the device knows no float64."""
        return self.compute.device == "mps"


class _GraphedNetwork(nn.Module):
    """A network that captures its evaluations without a gradient in CUDA graphs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.graphs = CudaGraphs(active=True)

    def forward(self, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        """Return the network's output."""
        network, names = self.network, tuple(condition.factors)
        if torch.is_grad_enabled():
            raw: Tensor = network(x, noise, condition)
            return raw

        def work(x: Tensor, noise: Tensor, *factors: Tensor) -> object:
            return network(x, noise, Condition(dict(zip(names, factors, strict=True))))

        raw = self.graphs(names, work, x, noise, *condition.factors.values())
        return raw  # until the next evaluation: the denoiser makes x0 of it at once

    def bytes_per_image(self, height: int, width: int) -> int:
        """Return that of the network."""
        network = self.network
        assert isinstance(network, Network)
        return network.bytes_per_image(height, width)


def with_gradients(steps: Iterator[Step], plain: int) -> Iterator[Step]:
    """Yield the steps of a sampler, all after the first `plain` with a gradient."""
    for i in count():
        with torch.set_grad_enabled(i >= plain):
            step = next(steps, None)
        if step is None:
            return
        yield step
