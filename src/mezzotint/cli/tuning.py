"""What `tune` does, in the library's words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.cli.outputs import check_output
from mezzotint.cli.prompting import Prompt
from mezzotint.config import Budget
from mezzotint.errors import InputError
from mezzotint.evaluation.prompts import check, wish
from mezzotint.evaluation.scorers import clip_for
from mezzotint.gauge import Gauge
from mezzotint.run import Pick
from mezzotint.subjects import run_subject
from mezzotint.training.low_rank import numbers
from mezzotint.training.tune import Climbed, Judged, Tuning
from mezzotint.tuned import Goal, check_last, tuned

__all__ = ["Tune", "budget_images", "tune", "tune_text"]

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
    gauge = Gauge.of(stream.data, asked.judged, say)
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


def budget_images(text: str) -> int:
    """A budget in images; InputError for another unit."""
    budget = Budget.parse(text)
    if budget.unit != "images":
        raise InputError(f"--budget takes images here, as in 2000images; got '{text}'")
    return max(1, int(budget.amount))


def _look(record: Judged, reward: float | None) -> str:
    values = "  ".join(f"{name} {value:.3f}" for name, value in record.values.items())
    after = "" if reward is None else f"  reward {reward:.3f}"
    return f"{record.images_seen:,} images{after}  {values}" + (
        "" if record.within else "  out of bounds: the weights of the look before are kept"
    )


def tune_text(result: Mapping[str, Any]) -> str:
    """The result of `tune` for a person."""
    how = "all weights" if result["rank"] is None else f"changes of rank {result['rank']}"
    lines = [
        f"{result['run']}: tuned to '{result['prompt']}', {result['stopped']} after "
        f"{result['images_seen']:,} images; weights of {result['kept']:,} kept",
        f"trained: {how}, {result['trained']:,} numbers",
        f"reward {result['reward']['first']:.3f} -> {result['reward']['last']:.3f}",
    ]
    for name, before in result["before"].items():
        beyond = f" (then {result['beyond'][name]:.3f})" if "beyond" in result else ""
        lines.append(f"{name} {before:.3f} -> {result['after'][name]:.3f}{beyond}")
    return "\n".join([*lines, f"curves: {result['curves']}"])
