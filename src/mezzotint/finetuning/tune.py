"""Tune a run to a prompt: a new run, whose weights raise a CLIP's score of its images.

The new run holds config.toml and a checkpoint as any other, so that it is drawn from, evaluated
and reported unchanged. tuning.json says where it comes from and how reward and checks went,
tuning.png shows it. The checks are by the set's own classifier: label accuracy, and
coverage of the validation images. They did not make the reward, but they are no proof either:
`evaluate` is.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint.config.tables import to_table
from mezzotint.errors import InputError
from mezzotint.evaluation.samples import run_samples
from mezzotint.finetuning.lora import low_rank, merged, numbers
from mezzotint.finetuning.reward import RewardCheck, RewardStep, Tuning, climb
from mezzotint.metrics.clip.likelihood import check, prompt_log_likelihood
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.reporting import figures
from mezzotint.runs.online_metrics import OnlineMetrics
from mezzotint.runs.run import CheckpointRef, Run, disk_errors_in_one_line, read_checkpoint
from mezzotint.runtime.atomic import write_bytes
from mezzotint.runtime.log import log
from mezzotint.runtime.outputs import check_output
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Model, SampleBatch
from mezzotint.sampling.noise import image_keys
from mezzotint.sampling.prompt import Prompt
from mezzotint.training import checkpoint as checkpoints

__all__ = ["OUTSIDE", "Reward", "check_last", "tuned"]

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
    early = read_checkpoint(base.early)[0] if base.has("early") else None
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

    def keep() -> None:
        """Save the present weights as those of the new run."""
        weights = merged(network).items()
        both = {f"{part}.{k}": v for part in ("network", "ema") for k, v in weights}
        said = {**saved.facts, "logged": 0, "config": new.config_text()}
        new.write_config()
        new.last.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.write(new.last, both, said)
        if early is not None and not new.has("early"):  # guides as it did, and does not change
            checkpoints.write(new.early, early.tensors, {**early.facts, "config": said["config"]})

    facts = {**target.facts, "from": str(base.path), "judged_n": len(metrics.drawing)}
    facts |= {
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
                        keep()
                    text = json.dumps({**facts, "rows": rows}, indent=1)
                    write_bytes(out / "tuning.json", text.encode())
                    if len(rows) > 1:
                        figures.tuning(rows, out / "tuning.png")
            yield record


@dataclass(frozen=True)
class TuneRequest:
    """What to tune, and how."""

    run: Path
    out: Path
    prompt: str
    score: str
    last: int
    check_images: int
    plan: Tuning
    seed: int
    changes: Mapping[str, object]
    checkpoint: CheckpointRef
    data_dir: Path | None


def tune(request: TuneRequest) -> dict[str, Any]:
    """Tune a run to a prompt's score; return what tuning.json says of the new run."""
    check_output("--out", request.out, ("",), overwrite=False)
    words = Prompt(request.prompt, score=request.score)
    stream = run_samples(
        request.run,
        checkpoint=request.checkpoint,
        changes=request.changes,
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
    looks: list[RewardCheck] = []
    rewards: list[RewardStep] = []
    for record in tuned(stream.run, stream.model, metrics, target, request.plan, request.out):
        if isinstance(record, RewardStep):
            rewards.append(record)
            continue
        looks.append(record)
        log.info(_look(record, rewards[-1].reward if rewards else None))
    kept = [look for look in looks if look.in_bounds][-1]
    result = {
        "run": str(request.out),
        **facts,
        "rank": request.plan.rank,
        "trained": trained,
        "images_seen": looks[-1].images_seen,
        "kept": kept.images_seen,
        "stopped": "budget used up" if looks[-1].in_bounds else "out of bounds",
        "reward": {"first": rewards[0].reward, "last": rewards[-1].reward},
        "before": dict(looks[0].values),
        "after": dict(kept.values),
        "judged_n": request.check_images,
        "curves": str(request.out / "tuning.png"),
    }
    if not looks[-1].in_bounds:
        result["beyond"] = dict(looks[-1].values)
    return result


def _look(record: RewardCheck, reward: float | None) -> str:
    values = "  ".join(f"{name} {value:.3f}" for name, value in record.values.items())
    after = "" if reward is None else f"  reward {reward:.3f}"
    return f"{record.images_seen:,} images{after}  {values}" + (
        "" if record.in_bounds else "  out of bounds: the weights of the check before are kept"
    )
