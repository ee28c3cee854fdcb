"""What `bench` measures and how it says it."""

from collections.abc import Mapping
from typing import Any

from mezzotint import benchmarking as benchmark
from mezzotint.benchmarking import Bench, Work
from mezzotint.reporting.words import duration

__all__ = ["bench", "bench_text"]

EXAMPLE = 10_000
"""Training images of the set for which a budget in epochs is shown."""


def bench(preset: str, device: str, seconds: float) -> dict[str, Any]:
    """Measure a preset; times in seconds, shares from 0 to 1."""
    found = benchmark.bench(preset, device, seconds)
    each = found.evaluations / found.steps  # evaluations in a sampler's step
    return {
        "preset": found.preset,
        "image": list(found.shape),
        "device": found.compute.device,
        "precision": found.compute.precision,
        "threads": found.compute.threads,
        "kernels": found.kernels,
        "hardware": dict(found.hardware),
        "peak": {"tflops": found.peak / 1e12},
        "training": {
            "batch": found.training.images,
            "images_per_second": found.training.speed,
            "gflop_per_image": found.training.flop / 1e9,
            **_rate(found.training, found.peak),
        },
        "sampling": {
            "chunk": found.sampling.images,
            "evaluations": found.evaluations,
            "images_per_second": found.drawn,
            "evaluations_per_second": found.sampling.speed * each,
            "gflop_per_evaluation": found.sampling.flop / each / 1e9,
            **_rate(found.sampling, found.peak),
        },
        "profile": dict(found.profile),
        "peak_memory_bytes": found.memory,
        "budget": _budget(found),
    }


def _rate(work: Work, peak: float) -> dict[str, Any]:
    return {
        "tflops": work.flop_per_second / 1e12,
        "share_of_peak": work.flop_per_second / peak,
        "repeats": work.repeats,
    }


def _budget(found: Bench) -> dict[str, Any]:
    """What the preset's budget is here; one in epochs, of a set of EXAMPLE training images."""
    amount, unit = found.budget.amount, found.budget.unit
    facts = {"amount": amount, "unit": unit}
    if unit == "seconds":
        return {**facts, "seconds": amount, "images": round(found.trained(amount))}
    images = round(amount * EXAMPLE if unit == "epochs" else amount)
    return {**facts, "seconds": images / found.trained(1), "images": images}


def bench_text(result: Mapping[str, Any]) -> str:
    """The result of `bench` for a person."""
    training, sampling, hardware = result["training"], result["sampling"], result["hardware"]
    shape = "x".join(map(str, result["image"]))
    kernels = "with" if result["kernels"] else "without"
    row = "{:<34}{:>12}{:>10}{:>10}{:>10}".format
    lines = [
        f"{result['preset']}: {shape} images, {training['batch']} a training step, "
        f"{sampling['chunk']} drawn at once",
        f"{hardware.get('card', hardware['processor'])}: {result['device']} in "
        f"{result['precision']}, threads {result['threads']}, {kernels} C++ kernels, "
        f"torch {hardware['torch']}",
        "",
        row("", "a second", "GFLOP", "TFLOP/s", "of peak"),
        row("matrix products", "", "", f"{result['peak']['tflops']:.3f}", "100 %"),
        row("training, images", *_cells("images_per_second", "gflop_per_image", training)),
        row("evaluations of the network",
            *_cells("evaluations_per_second", "gflop_per_evaluation", sampling)),
        row(f"drawing, images of {sampling['evaluations']} evaluations",
            f"{sampling['images_per_second']:,.1f}", "", "", ""),
    ]  # fmt: skip
    if max(training["share_of_peak"], sampling["share_of_peak"]) > 1:
        lines.append("above 100 %: fewer multiplications do the same as those that are counted")
    if result["profile"]:
        lines += ["", "a training step's time:"]
        lines += [
            f"  {part:<34}{100 * share:>5.1f} %" for part, share in result["profile"].items()
        ]
    lines.append("")
    if result["peak_memory_bytes"]:
        lines.append(f"peak memory {result['peak_memory_bytes'] / 2**30:.2f} GiB")
    lines.append(_budget_text(result["budget"]))
    return "\n".join(line.rstrip() for line in lines)


def _cells(speed: str, work: str, numbers: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{numbers[speed]:,.1f}",
        f"{numbers[work]:.3g}",
        f"{numbers['tflops']:.3f}",
        f"{100 * numbers['share_of_peak']:.0f} %",
    )


def _budget_text(budget: Mapping[str, Any]) -> str:
    time, images = duration(budget["seconds"]), f"{budget['images']:,} images"
    if budget["unit"] == "seconds":
        return f"{time} of training, the preset's budget, see about {images}"
    if budget["unit"] == "epochs":
        images = f"{budget['amount']:g} epochs of {EXAMPLE:,} images"
    return f"{images}, the preset's budget, take about {time} of training"
