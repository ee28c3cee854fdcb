"""Mezzotint: the small-image diffusion studio.

    import mezzotint

    run = mezzotint.train("digits", out="runs/digits", budget="60s")
    images = mezzotint.load(run).sample(label="5", n=10, seed=0)  # uint8 (10, 1, 8, 8)

Every verb of the command line is a function here, with the same options as keywords. Images are
uint8 (N, C, H, W) wherever they enter or leave. Names are imported when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint.benchmarking import BenchmarkRequest, BenchmarkResult, benchmark
    from mezzotint.data import ImageSet
    from mezzotint.data.describe import DescribeRequest, DescribeResult, describe
    from mezzotint.editing.composition import ComposeRequest, ComposeResult, compose
    from mezzotint.errors import (
        CheckpointError,
        DataError,
        DivergenceError,
        InputError,
        MezzotintError,
        PeerError,
    )
    from mezzotint.evaluation.evaluate import EvaluateRequest, EvaluateResult, evaluate
    from mezzotint.evaluation.selection import SelectRequest, SelectResult, select
    from mezzotint.evaluation.sweep import SweepRequest, SweepResult, sweep
    from mezzotint.finetuning.tune import TuneRequest, TuneResult, tune
    from mezzotint.runs.find import load
    from mezzotint.runs.inspect import InspectRequest, InspectResult, inspect
    from mezzotint.runs.report import ReportRequest, ReportResult, report
    from mezzotint.runs.run import Run
    from mezzotint.runs.sample import SampleFilesRequest, SampleResult, sample
    from mezzotint.runs.setup import TrainRequest
    from mezzotint.runs.train import TrainResult, train
    from mezzotint.sampling.model import Model
    from mezzotint.sampling.request import Prompt, SampleRequest, SamplingOptions

__all__ = [
    "BenchmarkRequest",
    "BenchmarkResult",
    "CheckpointError",
    "ComposeRequest",
    "ComposeResult",
    "DataError",
    "DescribeRequest",
    "DescribeResult",
    "DivergenceError",
    "EvaluateRequest",
    "EvaluateResult",
    "ImageSet",
    "InputError",
    "InspectRequest",
    "InspectResult",
    "MezzotintError",
    "Model",
    "PeerError",
    "Prompt",
    "ReportRequest",
    "ReportResult",
    "Run",
    "SampleFilesRequest",
    "SampleRequest",
    "SampleResult",
    "SamplingOptions",
    "SelectRequest",
    "SelectResult",
    "SweepRequest",
    "SweepResult",
    "TrainRequest",
    "TrainResult",
    "TuneRequest",
    "TuneResult",
    "__version__",
    "benchmark",
    "compose",
    "describe",
    "evaluate",
    "inspect",
    "load",
    "report",
    "sample",
    "select",
    "sweep",
    "train",
    "tune",
]

__version__ = "0.1.0"

_HOMES = {
    "errors": (
        "CheckpointError",
        "DataError",
        "DivergenceError",
        "InputError",
        "MezzotintError",
        "PeerError",
    ),
    "data": ("ImageSet",),
    "data.describe": ("DescribeRequest", "DescribeResult", "describe"),
    "sampling.model": ("Model",),
    "sampling.request": ("Prompt", "SampleRequest", "SamplingOptions"),
    "runs.run": ("Run",),
    "runs.find": ("load",),
    "runs.setup": ("TrainRequest",),
    "runs.train": ("TrainResult", "train"),
    "runs.sample": ("SampleFilesRequest", "SampleResult", "sample"),
    "runs.inspect": ("InspectRequest", "InspectResult", "inspect"),
    "runs.report": ("ReportRequest", "ReportResult", "report"),
    "editing.composition": ("ComposeRequest", "ComposeResult", "compose"),
    "evaluation.evaluate": ("EvaluateRequest", "EvaluateResult", "evaluate"),
    "evaluation.sweep": ("SweepRequest", "SweepResult", "sweep"),
    "evaluation.selection": ("SelectRequest", "SelectResult", "select"),
    "finetuning.tune": ("TuneRequest", "TuneResult", "tune"),
    "benchmarking": ("BenchmarkRequest", "BenchmarkResult", "benchmark"),
}
"""Module -> the public names that lie there."""

_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mezzotint' has no attribute '{name}'")
    return getattr(import_module(f"mezzotint.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
