"""What this machine does: its matrix peak, training, sampling, and where a step's time goes.

    peak      2 n^3 / seconds, the median product of two n x n matrices in the run's precision; on
              a CPU by BLAS or by oneDNN, whichever is faster
    share     FLOPs of the network a second / peak
    a step    noise, network, loss, backward, optimiser and average: `runs.speed.training_steps`
    sampling  a sampler's step for one chunk of images; an image takes one for each of its sigmas

FLOPs are those of convolutions and matrix products (a multiplication and an addition are two),
forward and backward, counted by running a few images; everything else counts 0. A share of 30 %
means that the same FLOPs at the matrix peak would take 30 % of the time. A 3x3 convolution counts
as a direct one; `kernels` need a quarter of its multiplications, so a share may pass 100 %.

The images are noise: nothing here depends on what they show, and no data set is needed.
"""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mezzotint import kernels
from mezzotint.config.build import build_denoiser
from mezzotint.config.presets import load_preset, usual_source
from mezzotint.config.schema import Budget, Config
from mezzotint.config.tables import parse_config, with_deviation
from mezzotint.data import SOURCES, ImageSet
from mezzotint.diffusion import GUIDANCE, Condition, loss
from mezzotint.imaging import to_float
from mezzotint.kernels.precision import choose_compute
from mezzotint.runs.speed import OVERHEAD, stages, training_steps, usual_time
from mezzotint.runtime.device import Compute
from mezzotint.runtime.hardware import hardware, peak_memory
from mezzotint.runtime.log import log
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.training.batches import UNGUIDED_EVERY

__all__ = [
    "OUTSIDE",
    "STAGES",
    "REST",
    "BenchmarkRequest",
    "BenchmarkResult",
    "Work",
    "benchmark",
    "execute",
    "fresh_model",
    "noise_images",
    "shares",
    "training_flop",
]

EXAMPLE = 10_000
"""Training images of the set for which a budget in epochs is shown."""

CLASSES = 10
IMAGES = 1024

PRODUCT = {"cuda": 4096}
"""Side of the square matrices whose product is timed; 2048 elsewhere."""

LEAST_PRODUCTS = 5
"""At least so many are timed: in a short bench a single slow one was the peak."""

TIME = {"peak": 0.1, "training": 0.5, "sampling": 0.25, "profile": 0.1}
"""Shares of the seconds given; what is left goes into warming up."""

STAGES: Mapping[str, str] = {
    "convolutions forward": r"aten::convolution|_Convolution",
    "convolutions backward": r"(aten::convolution_b|_ConvolutionB)ackward",
    "matrix products and attention": r"aten::(addmm|b?mm|baddbmm|_?(safe_)?softmax"
    r"|_softmax_backward_data|_scaled_dot_product_\w+)|_Attention\w*",
    "normalisation and activation": r"_\w*Norm\w*|aten::(native_)?(group|batch)_norm(_backward)?"
    r"|aten::(silu|gelu)(_backward)?|aten::addcmul",
    "optimiser and averages": r"Optimizer\.\w+#.*|aten::(_foreach|_fused)_\w+"
    r"|aten::linalg_vector_norm",
    "copies and casts": r"aten::(to|copy_|contiguous|clone|cat|stack|constant_pad_nd"
    r"|pixel_(un)?shuffle|upsample_\w+|slice_backward|select_backward|zeros|zero_|fill_)",
}
"""Parts of a training step, and the operators that begin them: what an operator calls is its."""

REST = "rest"
"""Additions of feature maps and of gradients, noise, the loss, the calling of operators."""

OUTSIDE = "waiting for Python"
"""No operator is at work; on CUDA, the device is idle."""


@dataclass(frozen=True)
class Work:
    """Something repeated, in numbers."""

    images: int
    """At once."""

    seconds: float
    """Median of the repeats."""

    repeats: int
    flop: float
    """Of the network, for one image."""

    @property
    def speed(self) -> float:
        """Images a second."""
        return self.images / self.seconds

    @property
    def flop_per_second(self) -> float:
        """FLOP a second."""
        return self.flop * self.speed


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured, of which preset, on what."""

    preset: str
    shape: tuple[int, int, int]
    """(C, H, W) of an image."""

    hardware: Mapping[str, Any]
    compute: Compute
    kernels: bool
    """Whether our C++ kernels are there."""

    peak: float
    """FLOP a second."""

    training: Work
    """A step of the preset's batch."""

    sampling: Work
    """A sampler's step of one chunk; of second order, it is two evaluations of the network."""

    steps: int
    """Sampler's steps that an image takes."""

    evaluations: int
    """Evaluations that an image takes."""

    profile: Mapping[str, float]
    """Part of a training step -> its share of the time; empty where that cannot be had."""

    memory: int
    """Peak in bytes, of the device on CUDA, else of the process; 0: not known."""

    budget: Budget
    """The preset's own."""

    @property
    def drawn(self) -> float:
        """Images drawn a second."""
        return self.sampling.speed / self.steps

    def trained(self, seconds: float) -> float:
        """Images that so many seconds of `train` see, validation and previews included."""
        return self.training.speed * OVERHEAD * seconds

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: times in seconds, shares from 0 to 1."""
        each = self.evaluations / self.steps  # evaluations in a sampler's step
        return {
            "preset": self.preset,
            "image": list(self.shape),
            "device": self.compute.device,
            "precision": self.compute.precision,
            "threads": self.compute.threads,
            "kernels": self.kernels,
            "hardware": dict(self.hardware),
            "peak": {"tflops": self.peak / 1e12},
            "training": {
                "batch": self.training.images,
                "images_per_second": self.training.speed,
                "gflop_per_image": self.training.flop / 1e9,
                **self._rate(self.training),
            },
            "sampling": {
                "chunk": self.sampling.images,
                "evaluations": self.evaluations,
                "images_per_second": self.drawn,
                "evaluations_per_second": self.sampling.speed * each,
                "gflop_per_evaluation": self.sampling.flop / each / 1e9,
                **self._rate(self.sampling),
            },
            "profile": dict(self.profile),
            "peak_memory_bytes": self.memory,
            "budget": self._budget(),
        }

    def _rate(self, work: Work) -> dict[str, Any]:
        return {
            "tflops": work.flop_per_second / 1e12,
            "share_of_peak": work.flop_per_second / self.peak,
            "repeats": work.repeats,
        }

    def _budget(self) -> dict[str, Any]:
        """Return the preset's budget here; one in epochs is of EXAMPLE training images."""
        amount, unit = self.budget.amount, self.budget.unit
        facts = {"amount": amount, "unit": unit}
        if unit == "seconds":
            return {**facts, "seconds": amount, "images": round(self.trained(amount))}
        images = round(amount * EXAMPLE if unit == "epochs" else amount)
        return {**facts, "seconds": images / self.trained(1), "images": images}


@dataclass(frozen=True)
class BenchmarkRequest:
    """The preset to measure, and the seconds to measure for."""

    preset: str = "fashion-mnist"
    _: KW_ONLY
    device: str = "auto"
    seconds: float = 20.0


def benchmark(
    preset: str | Path = "fashion-mnist", *, device: str = "auto", seconds: float = 20.0
) -> BenchmarkResult:
    """Measure images/s in training and sampling, and the share of this machine's matrix peak.

        mezzotint.benchmark("fashion-mnist", seconds=5).training.speed

    Args:
        preset: A preset's name or TOML file.
        device: "auto", "cpu", "cuda" or "mps".
        seconds: Time to measure for, above 0. Each kind of work is done at least twice, products
            six times, and three steps are profiled: a slow machine takes longer.

    Returns:
        What was measured.

    Raises:
        InputError: There is no such preset, or the device is not there.

    """
    return execute(BenchmarkRequest(str(preset), device=device, seconds=seconds))


def execute(request: BenchmarkRequest) -> BenchmarkResult:
    """Measure what a request asks for; the first repeat of each kind of work warms up."""
    preset, seconds = request.preset, request.seconds
    table = load_preset(preset)
    data = noise_images(usual_source(preset))
    config = parse_config(with_deviation(table, data.deviation), Config)
    budget = Budget.parse(config.training.budget)
    model = fresh_model(config, data, choose_compute(request.device))
    compute, batch = model.compute, config.training.batch
    with compute.active():
        side = PRODUCT.get(compute.device, 2048)
        log.info(f"products of {side}x{side} matrices in {compute.precision} …")
        ways = _products(side, compute)
        share = TIME["peak"] * seconds / len(ways)
        product = min(usual_time(_timed(way, compute), share, LEAST_PRODUCTS)[0] for way in ways)
        log.info("training …")
        step, repeats, flop = 0.0, 0, 0.0
        for share, last in stages(config):
            steps = training_steps(last, data, compute)
            usual, count = usual_time(steps, share * TIME["training"] * seconds)
            step, repeats = step + share * usual, repeats + count
            flop += share * training_flop(last, data)
        log.info("sampling …")
        chunk, flop_drawn = model.chunk(), _sampling_flop(model)
        steps_drawn = len(model.sigmas()) - 1
        drawn = usual_time(_sampling_steps(model), TIME["sampling"] * seconds)
        memory = peak_memory()  # before the profile, which takes some for itself
        log.info("profile …")
        if compute.cuda_graphs:  # operators are seen where they are called
            steps = training_steps(last, data, dataclasses.replace(compute, use_cuda_graphs=False))
            next(steps)
        count = max(3, min(10, int(TIME["profile"] * seconds / usual)))
        return BenchmarkResult(
            preset=preset,
            shape=model.shape,
            hardware=_hardware(compute),
            compute=compute,
            kernels=kernels.library() is not None,
            peak=2 * side**3 / product,
            training=Work(batch, step, repeats, flop),
            sampling=Work(chunk, *drawn, flop_drawn),
            steps=steps_drawn,
            evaluations=config.sampling.sampler.evaluations(steps_drawn),
            profile=_profile(steps, count, usual, compute),
            memory=memory,
            budget=budget,
        )


def training_flop(config: Config, data: ImageSet) -> float:
    """FLOPs of one image in a training step, forward and backward."""
    denoiser = build_denoiser(config, data.channels, len(data.classes))
    x0, label = to_float(data.images[:UNGUIDED_EVERY]), data.labels[:UNGUIDED_EVERY]
    condition, sigma, eps = Condition({"label": label}), torch.ones(len(x0)), torch.zeros_like(x0)
    weight = config.objective.weight
    if config.training.model_guidance.max_scale > 1:
        scales = torch.full((UNGUIDED_EVERY,), config.training.model_guidance.max_scale)
        scales[-1] = torch.nan  # learns none
        condition = condition.with_factor(GUIDANCE, scales)

    def step() -> None:
        loss(denoiser, x0, condition, sigma, eps, weight).sum().backward()

    return _flop(step) / len(x0)


def shares(spent: Iterable[tuple[tuple[str, ...], float]], whole: float) -> dict[str, float]:
    """Each part's share of the time, the parts of `STAGES`, REST and OUTSIDE; they add up to 1.

    spent  (names of an operator and of those that called it, outermost first; its own time)
    whole  all time, of the same unit; what no operator spent is OUTSIDE
    """
    times = dict.fromkeys([*STAGES, REST, OUTSIDE], 0.0)
    for names, amount in spent:
        times[next(filter(None, map(_part, names)), REST)] += amount
    times[OUTSIDE] = max(0.0, whole - sum(times.values()))
    total = sum(times.values())
    return {part: amount / total for part, amount in times.items()}


@cache
def _part(name: str) -> str | None:
    """The part that an operator begins."""
    return next((part for part, names in STAGES.items() if re.fullmatch(names, name)), None)


def _profile(
    steps: Iterator[float], count: int, usual: float, compute: Compute
) -> dict[str, float]:
    """Where the time of `count` steps goes; `usual` seconds is what one takes unobserved."""
    if compute.device not in ("cpu", "cuda"):
        return {}
    on_cpu = compute.device == "cpu"
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else it announces itself
    activities = [ProfilerActivity.CPU] + ([] if on_cpu else [ProfilerActivity.CUDA])
    with profile(activities=activities) as recorded:
        observed = sum(islice(steps, count))
    # Being observed slows operators and Python alike; what the device does is not slowed by it.
    whole = observed if on_cpu else usual * count
    operators = [event for event in recorded.events() if event.device_type == DeviceType.CPU]
    own = "self_cpu_time_total" if on_cpu else "self_device_time_total"
    return shares(((_callers(event), getattr(event, own)) for event in operators), whole * 1e6)


def _callers(event: Any) -> tuple[str, ...]:
    """The names of a profiled operator and of those around it, outermost first."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return tuple(reversed(names))


def _products(side: int, compute: Compute) -> list[Callable[[], object]]:
    """Return the ways to multiply two (side, side) matrices; the fastest one is the peak.

    The BLAS library that torch comes with leaves AVX-512 of some processors unused; oneDNN, which
    convolutions use, does not: 110 against 244 GFLOP/s on one core of an EPYC of 2024.
    """
    precision = getattr(torch, compute.precision)
    pair = torch.randn(2, side, side, generator=generator("products"))
    a, b = pair.to(compute.device, precision)
    ways: list[Callable[[], object]] = [partial(torch.mm, a, b)]
    if compute.device == "cpu" and torch.backends.mkldnn.is_available():
        ways.append(partial(torch.nn.functional.linear, a.to_mkldnn(), b.to_mkldnn()))
    return ways


def _timed(work: Callable[[], object], compute: Compute) -> Iterator[float]:
    """Yield the seconds that each call takes, without end."""
    while True:
        start = time.perf_counter()
        work()
        _wait(compute)
        yield time.perf_counter() - start


def _sampling_steps(model: Model) -> Iterator[float]:
    """The seconds that each step of the sampler takes, chunk after chunk, without end."""
    drawing, recorded = SampleBatch.of(model.labels(None, model.chunk())), model.with_cuda_graphs()
    while True:
        steps_of_sampler = recorded.iterate(drawing)
        next(steps_of_sampler)  # the noise
        for _ in range(len(model.sigmas()) - 1):
            start = time.perf_counter()
            next(steps_of_sampler)
            _wait(model.compute)
            yield time.perf_counter() - start


def _sampling_flop(model: Model) -> float:
    """FLOPs of one image in the sampler's first step."""
    steps_of_sampler = model.iterate(SampleBatch.of(model.labels(None, 2)))
    next(steps_of_sampler)
    return _flop(lambda: next(steps_of_sampler)) / 2


def _flop(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops()
    return total


def _wait(compute: Compute) -> None:
    """Wait until the device has finished its work."""
    if compute.device != "cpu":
        torch.accelerator.synchronize()


def noise_images(source: str) -> ImageSet:
    """Noise in the shape of a source's images."""
    entry, draws = SOURCES[source], generator("bench")
    images = torch.randint(0, 256, (IMAGES, *entry.shape), dtype=torch.uint8, generator=draws)
    return ImageSet(
        name=source,
        images=images,
        labels=torch.arange(IMAGES) % CLASSES,
        classes=tuple(map(str, range(CLASSES))),
        splits={name: torch.arange(IMAGES) for name in ("train", "validation", "test")},
        mean=float(to_float(images).mean()),
        deviation=float(to_float(images).std()),
        augment=entry.augment,
        fingerprint="",
    )


def fresh_model(config: Config, data: ImageSet, compute: Compute) -> Model:
    """An untrained model; drawing from it takes as long as from one that trained to the end."""
    denoiser = build_denoiser(config, data.channels, len(data.classes))
    compute.place(denoiser)
    return Model(
        denoiser=denoiser,
        sampling=config.sampling,
        schedule=config.objective.schedule,
        shape=(data.channels, data.height, data.width),
        classes=data.classes,
        mean=data.mean,
        deviation=data.deviation,
        max_model_guidance=config.training.model_guidance.max_scale,
        compute=compute,
    )


def _hardware(compute: Compute) -> dict[str, Any]:
    """What the machine is, with the graphics card's name where it does the work."""
    if compute.device != "cuda":
        return hardware()
    return {**hardware(), "card": torch.cuda.get_device_name()}
