"""A run tuned to a prompt: a new run, whose weights climbed what a CLIP thinks of its images.

The new run holds config.toml and a checkpoint as any other, so that it is drawn from, judged and
reported unchanged; tuning.json says where it comes from and how reward and outside numbers went,
tuning.png shows it. What is watched from outside is the set's own classifier: label accuracy, and
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
from mezzotint.evaluation.samples import run_subject
from mezzotint.finetuning.lora import low_rank, merged, numbers
from mezzotint.finetuning.reward import Climbed, Judged, Tuning, climb
from mezzotint.metrics.clip.likelihood import check, wish
from mezzotint.metrics.clip.scorers import clip_for
from mezzotint.reporting import figures
from mezzotint.runs.online_metrics import Gauge
from mezzotint.runs.run import Pick, Run, saying
from mezzotint.runtime.atomic import write_bytes
from mezzotint.runtime.outputs import check_output
from mezzotint.runtime.rng import generator
from mezzotint.sampling.model import Drawing, Model
from mezzotint.sampling.noise import image_keys
from mezzotint.sampling.prompt import Prompt
from mezzotint.training import checkpoint as checkpoints

__all__ = ["OUTSIDE", "Goal", "check_last", "tuned"]

OUTSIDE = ("accuracy", "coverage")
"""What is watched: numbers of `Gauge` of which larger is better."""


@dataclass(frozen=True)
class Goal:
    """What is climbed, and how it is drawn.

    wished  from x0 (N, C, H, W) in [-1, 1] and labels (N,) to rewards (N,), differentiable
    last    steps of the sampler that the gradient goes back through
    seed    of the images drawn, and of the changes where their rank is low
    facts   what to write down of it
    """

    wished: Callable[[Tensor, Tensor], Tensor]
    last: int
    seed: int
    facts: Mapping[str, Any]


def check_last(model: Model, last: int) -> None:
    """InputError where the sampler has no such number of last steps."""
    steps = len(model.ladder()) - 1
    if not 1 <= last <= steps:
        raise InputError(f"the last {last} steps of {steps}: give 1 to {steps}")


def tuned(
    base: Run, model: Model, gauge: Gauge, goal: Goal, plan: Tuning, out: Path
) -> Iterator[Climbed | Judged]:
    """Tune a run's model; the last weights within bounds become a new run at `out`.

    The model's weights change. Everything is written at every `Judged`.
    """
    check_last(model, goal.last)
    network = model.denoiser.network
    trained = numbers(network, plan.rank)
    new = dataclasses.replace(base, path=out)
    saved, _ = checkpoints.recover(base.last)
    early = checkpoints.recover(base.early)[0] if base.has("early") else None
    rows: list[dict[str, Any]] = []

    def reward(seen: int, batch: int) -> Tensor:
        labels = torch.arange(seen, seen + batch) % len(model.classes)
        keys = image_keys(goal.seed, torch.arange(seen, seen + batch))
        *_, last = model.walk(Drawing(labels, keys), traced=goal.last)
        # What lies beyond black and white is cut from the picture; left to itself the reward is
        # climbed there first.
        return goal.wished(last.x.clamp(-1, 1), labels)

    def judge() -> dict[str, float]:
        values = gauge.measure(model)
        return {name: values[name] for name in OUTSIDE}

    def keep() -> None:
        """The weights as they stand are those of the new run."""
        weights = merged(network).items()
        both = {f"{part}.{k}": v for part in ("network", "ema") for k, v in weights}
        said = {**saved.facts, "logged": 0, "config": new.config_text()}
        new.write_config()
        new.last.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.write(new.last, both, said)
        if early is not None and not new.has("early"):  # guides as it did, and does not change
            checkpoints.write(new.early, early.tensors, {**early.facts, "config": said["config"]})

    facts = {**goal.facts, "from": str(base.path), "judged_n": len(gauge.drawing)}
    facts |= {
        "sampling": to_table(model.sampling),
        **asdict(plan),
        "trained": trained,
        "last": goal.last,
        "seed": goal.seed,
    }
    draws = generator("low rank", goal.seed)
    with low_rank(network, plan.rank, draws) if plan.rank is not None else nullcontext():
        for record in climb(network, reward, judge, plan):
            rows.append({"kind": type(record).__name__.lower(), **asdict(record)})
            if isinstance(record, Judged):
                with saying(out):
                    if record.within:
                        keep()
                    text = json.dumps({**facts, "rows": rows}, indent=1)
                    write_bytes(out / "tuning.json", text.encode())
                    if len(rows) > 1:
                        figures.tuning(rows, out / "tuning.png")
            yield record


Say = Callable[[str], None]


@dataclass(frozen=True)
class Tune:
    """What the user asked for."""

    run: Path
    out: Path
    prompt: str
    score: str
    last: int
    judged: int
    plan: Tuning
    seed: int
    changes: Mapping[str, object]
    pick: Pick
    data_dir: Path | None


def tune(asked: Tune, say: Say) -> dict[str, Any]:
    """A new run whose weights climbed a prompt's score, and how that went."""
    check_output("--out", asked.out, ("",), overwrite=False)
    words = Prompt(asked.prompt, score=asked.score)
    stream = run_subject(
        asked.run,
        pick=asked.pick,
        changes=asked.changes,
        seed=asked.seed,
        data_dir=asked.data_dir,
        say=say,
    )
    if "{}" not in words.prompt:
        raise InputError(
            f"the prompt '{words.prompt}' is for every class of the run: put {{}} where the "
            "class's name belongs"
        )
    # Before a CLIP is trained, which takes minutes.
    trained = numbers(stream.model.denoiser.network, asked.plan.rank)
    check_last(stream.model, asked.last)
    if words.score == "clip" and (strange := check(words.prompt, stream.data)):
        say(strange)
    clip = clip_for(stream.data, words.score, say)
    gauge = Gauge.of(stream.data, asked.judged, say, stream.model.compute.device)
    facts = {"prompt": words.prompt, "clip": clip.name, "weights": asked.pick.weights}
    wished = wish(clip, words.prompt, stream.model.classes)
    goal = Goal(wished, asked.last, asked.seed, facts)
    looks: list[Judged] = []
    rewards: list[Climbed] = []
    for record in tuned(stream.run, stream.model, gauge, goal, asked.plan, asked.out):
        if isinstance(record, Climbed):
            rewards.append(record)
            continue
        looks.append(record)
        say(_look(record, rewards[-1].reward if rewards else None))
    kept = [look for look in looks if look.within][-1]
    result = {
        "run": str(asked.out),
        **facts,
        "rank": asked.plan.rank,
        "trained": trained,
        "images_seen": looks[-1].images_seen,
        "kept": kept.images_seen,
        "stopped": "budget used up" if looks[-1].within else "out of bounds",
        "reward": {"first": rewards[0].reward, "last": rewards[-1].reward},
        "before": dict(looks[0].values),
        "after": dict(kept.values),
        "judged_n": asked.judged,
        "curves": str(asked.out / "tuning.png"),
    }
    if not looks[-1].within:
        result["beyond"] = dict(looks[-1].values)
    return result


def _look(record: Judged, reward: float | None) -> str:
    values = "  ".join(f"{name} {value:.3f}" for name, value in record.values.items())
    after = "" if reward is None else f"  reward {reward:.3f}"
    return f"{record.images_seen:,} images{after}  {values}" + (
        "" if record.within else "  out of bounds: the weights of the look before are kept"
    )
