"""Tune a run to a prompt: a new run, whose weights raise a CLIP's score of its images.

The new run holds config.toml and a checkpoint as any other, so that it is drawn from, evaluated
and reported unchanged. tuning.json says where it comes from and how reward and checks went,
tuning.png shows it. The checks are by the set's own classifier: label accuracy, and
coverage of the validation images. They did not make the reward, but they are no proof either:
`evaluate` is.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import KW_ONLY, asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mezzotint.config.schema import Budget
from mezzotint.config.tables import to_table
from mezzotint.errors import InputError
from mezzotint.evaluation.samples import run_samples
from mezzotint.finetuning.lora import low_rank, merged, numbers
from mezzotint.finetuning.reward import RewardCheck, RewardStep, Tuning, climb
from mezzotint.metrics.clip.likelihood import check, prompt_log_likelihood
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.reporting import figures
from mezzotint.runs.find import path_of
from mezzotint.runs.online_metrics import OnlineMetrics
from mezzotint.runs.run import (
    CheckpointRef,
    Run,
    Weights,
    disk_errors_in_one_line,
    read_checkpoint,
)
from mezzotint.runtime.atomic import write_bytes
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import check_output, optional_path
from mezzotint.runtime.progress_bar import progress as progress_of
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.noise import image_keys
from mezzotint.sampling.request import Prompt, SamplingOptions
from mezzotint.training import checkpoint as checkpoints

__all__ = [
    "OUTSIDE",
    "Reward",
    "TuneRequest",
    "TuneResult",
    "budget_images",
    "check_last",
    "execute",
    "tune",
    "tuned",
]

OUTSIDE = ("accuracy", "coverage")
"""Numbers of `OnlineMetrics` that are checked; larger is better."""


@dataclass(frozen=True)
class Reward:
    """The reward, and how its images are drawn.

    log_likelihood  x0 (N, C, H, W) in [-1, 1], labels (N,) -> rewards (N,), differentiable
    last            steps of the sampler that the gradient goes back through
    seed            of the images drawn, and of the changes where their rank is low
    facts           what to write down of it
    """

    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    last: int
    seed: int
    facts: Mapping[str, Any]


def check_last(model: Model, last: int) -> None:
    """InputError where the sampler has no such number of last steps."""
    steps = len(model.sigmas()) - 1
    if not 1 <= last <= steps:
        raise InputError(f"the last {last} steps of {steps}: give 1 to {steps}")


def tuned(
    base: Run, model: Model, metrics: OnlineMetrics, target: Reward, plan: Tuning, out: Path
) -> Iterator[RewardStep | RewardCheck]:
    """Tune a run's model; the last weights within bounds become a new run at `out`.

    The model's weights change. Everything is written at every `RewardCheck`.
    """
    check_last(model, target.last)
    network = model.denoiser.network
    trained = numbers(network, plan.rank)
    new = dataclasses.replace(base, path=out)
    saved, _ = read_checkpoint(base.last)
    snapshot = read_checkpoint(base.snapshot)[0] if base.has("snapshot") else None
    rows: list[dict[str, Any]] = []

    def reward(seen: int, batch: int) -> Tensor:
        labels = torch.arange(seen, seen + batch) % len(model.classes)
        keys = image_keys(target.seed, torch.arange(seen, seen + batch))
        *_, last = model.iterate(SampleBatch(labels, keys), grad_steps=target.last)
        # What lies beyond black and white is cut from the picture; without the clamp the reward
        # rises there first.
        return target.log_likelihood(last.x.clamp(-1, 1), labels)

    def check() -> dict[str, float]:
        values = metrics.measure(model)
        return {name: values[name] for name in OUTSIDE}

    facts = {
        **target.facts,
        "from": str(base.path),
        "check_images": len(metrics.drawing),
        "sampling": to_table(model.sampling),
        **asdict(plan),
        "trained": trained,
        "last": target.last,
        "seed": target.seed,
    }
    draws = generator("low rank", target.seed)
    with low_rank(network, plan.rank, draws) if plan.rank is not None else nullcontext():
        for record in climb(network, reward, check, plan):
            kind = "check" if isinstance(record, RewardCheck) else "step"
            rows.append({"kind": kind, **asdict(record)})
            if isinstance(record, RewardCheck):
                with disk_errors_in_one_line(out):
                    if record.in_bounds:
                        _keep(new, network, saved, snapshot)
                    _write_log(out, {**facts, "rows": rows})
            yield record


def _keep(
    new: Run,
    network: nn.Module,
    saved: checkpoints.Checkpoint,
    snapshot: checkpoints.Checkpoint | None,
) -> None:
    """Save the present weights as those of the new run, with the base's facts and snapshot."""
    weights = merged(network).items()
    both = {f"{part}.{k}": v for part in ("network", "ema") for k, v in weights}
    facts = {**saved.facts, "logged": 0, "config": new.config_text()}
    new.write_config()
    new.last.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.write(new.last, both, facts)
    # It guides as it did, and does not change.
    if snapshot is not None and not new.has("snapshot"):
        kept = {**snapshot.facts, "config": facts["config"]}
        checkpoints.write(new.snapshot, snapshot.tensors, kept)


def _write_log(out: Path, log: Mapping[str, Any]) -> None:
    """Write tuning.json and its picture."""
    write_bytes(out / "tuning.json", json.dumps(log, indent=1).encode())
    if len(log["rows"]) > 1:
        figures.tuning(log["rows"], out / "tuning.png")


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, and how."""

    run: Path
    _: KW_ONLY
    out: Path
    """A new folder for the tuned run."""

    prompt: str
    """What CLIP shall find in the images; {} is the class of each."""

    plan: Tuning
    score: str = "clip"
    """The CLIP that reads the prompt: clip (the data set's own), clip:ID."""

    last: int = 1
    """Steps of the sampler that the gradient goes through."""

    check_images: int = 500
    """Samples drawn at a check."""

    seed: int = 0
    options: SamplingOptions = SamplingOptions()
    checkpoint: CheckpointRef = CheckpointRef()
    data_dir: Path | None = None
    progress: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """The tuned run, and how the reward and the checks went."""

    run: Run
    facts: Mapping[str, Any]
    """Prompt, CLIP and weights."""

    rank: int | None
    trained: int
    """How many numbers were trained."""

    rewards: Sequence[RewardStep] = field(repr=False)
    checks: Sequence[RewardCheck]
    check_images: int

    @property
    def kept(self) -> RewardCheck:
        """The last check within bounds, whose weights the run has."""
        return [check for check in self.checks if check.in_bounds][-1]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        last = self.checks[-1]
        facts = {
            "run": str(self.run.path),
            **self.facts,
            "rank": self.rank,
            "trained": self.trained,
            "images_seen": last.images_seen,
            "kept": self.kept.images_seen,
            "stopped": "budget used up" if last.in_bounds else "out of bounds",
            "reward": {"first": self.rewards[0].reward, "last": self.rewards[-1].reward},
            "before": dict(self.checks[0].values),
            "after": dict(self.kept.values),
            "check_images": self.check_images,
            "curves": str(self.run.path / "tuning.png"),
        }
        return facts if last.in_bounds else {**facts, "beyond": dict(last.values)}


def tune(
    run: Run | str | Path,
    *,
    prompt: str,
    out: str | Path,
    score: str = "clip",
    budget: str = "2000images",
    batch: int = 32,
    last: int = 1,
    learning_rate: float = 3e-4,
    rank: int | None = None,
    bound: float = 0.95,
    check_every: int = 320,
    check_images: int = 500,
    sampler: str | Mapping[str, object] | None = None,
    evaluations: int | None = None,
    guidance: float | None = None,
    seed: int = 0,
    weights: Weights = "ema",
    device: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool | None = None,
) -> TuneResult:
    """Tune a run to a prompt by the gradient of CLIP's score: a new run, stopped in time.

        mezzotint.tune("runs/mnist", prompt="a clear {}", out="runs/clear")

    Args:
        run: A run's directory, or the `Run`.
        prompt: What CLIP shall find in the images; {} is the class of each.
        out: A new folder for the tuned run.
        score: The CLIP that reads the prompt: "clip" (the data set's own), "clip:ID".
        budget: Number of images drawn in all, as in "2000images".
        batch: Number of images drawn for each step.
        last: Number of steps of the sampler that the gradient goes through.
        learning_rate: Adam's, above 0.
        rank: Rank of the change of each layer (LoRA). None: all weights are tuned.
        bound: Stop where label accuracy or coverage falls below this share of the first.
        check_every: Number of images between two checks.
        check_images: Number of samples drawn at a check.
        sampler: Name of a sampler, or a table as in {"kind": "ddim", "eta": 0.5}.
        evaluations: Evaluations of the network per image (NFE), 1 or more.
        guidance: Guidance scale, 0 or more: 1 is none, 0 unconditional.
        seed: Seed of the images drawn.
        weights: "ema" (averaged) or "raw" (the last step's).
        device: "auto" (the run's own), "cpu", "cuda" or "mps".
        data_dir: Folder of named data sets, looked at before MEZZOTINT_DATA.
        progress: Show a bar: None where there is a terminal or notebook, True always.

    Returns:
        The tuned run, with rewards and checks.

    Raises:
        InputError: `out` holds something, or the prompt cannot be read.

    """
    plan = Tuning(
        budget_images(budget),
        batch,
        learning_rate,
        check_every=check_every,
        bound=bound,
        rank=rank,
    )
    return execute(
        TuneRequest(
            path_of(run),
            out=Path(out),
            prompt=prompt,
            plan=plan,
            score=score,
            last=last,
            check_images=check_images,
            seed=seed,
            options=SamplingOptions(sampler=sampler, evaluations=evaluations, guidance=guidance),
            checkpoint=CheckpointRef(weights, "last", device),
            data_dir=optional_path(data_dir),
            progress=progress,
        )
    )


def budget_images(text: str) -> int:
    """Read a budget in images; InputError for another unit."""
    budget = Budget.parse(text)
    if budget.unit != "images":
        raise InputError(f"--budget takes images here, as in 2000images; got '{text}'")
    return max(1, int(budget.amount))


def execute(request: TuneRequest) -> TuneResult:
    """Tune a run to a prompt's score; the new run lies at `request.out`."""
    check_output("--out", request.out, ("",), overwrite=False)
    words = Prompt(request.prompt, score=request.score)
    stream = run_samples(
        request.run,
        checkpoint=request.checkpoint,
        options=request.options,
        seed=request.seed,
        data_dir=request.data_dir,
    )
    if "{}" not in words.prompt:
        raise InputError(
            f"the prompt '{words.prompt}' is for every class of the run: put {{}} where the "
            "class's name belongs"
        )
    # Before a CLIP is trained, which takes minutes.
    trained = numbers(stream.model.denoiser.network, request.plan.rank)
    check_last(stream.model, request.last)
    if words.score == "clip" and (strange := check(words.prompt, stream.data)):
        log.info(strange)
    clip = clip_for(stream.data, words.score)
    metrics = OnlineMetrics.of(stream.data, request.check_images, stream.model.compute.device)
    facts = {"prompt": words.prompt, "clip": clip.name, "weights": request.checkpoint.weights}
    log_likelihood = prompt_log_likelihood(clip, words.prompt, stream.model.classes)
    target = Reward(log_likelihood, request.last, request.seed, facts)
    checks: list[RewardCheck] = []
    rewards: list[RewardStep] = []
    with progress_of("tuning", request.plan.images, request.progress) as update:
        for record in tuned(stream.run, stream.model, metrics, target, request.plan, request.out):
            update(record.images_seen)
            if isinstance(record, RewardStep):
                rewards.append(record)
                continue
            checks.append(record)
            log.info(_look(record, rewards[-1].reward if rewards else None))
    return TuneResult(
        run=Run.at(request.out),
        facts=facts,
        rank=request.plan.rank,
        trained=trained,
        rewards=rewards,
        checks=checks,
        check_images=request.check_images,
    )


def _look(record: RewardCheck, reward: float | None) -> str:
    values = "  ".join(f"{name} {value:.3f}" for name, value in record.values.items())
    after = "" if reward is None else f"  reward {reward:.3f}"
    return f"{record.images_seen:,} images{after}  {values}" + (
        "" if record.in_bounds else "  out of bounds: the weights of the check before are kept"
    )
