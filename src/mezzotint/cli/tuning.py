"""What `tune` does, in the library's words."""

from collections.abc import Mapping
from typing import Any

from mezzotint.config.schema import Budget
from mezzotint.errors import InputError

__all__ = ["budget_images", "tune_text"]


def budget_images(text: str) -> int:
    """A budget in images; InputError for another unit."""
    budget = Budget.parse(text)
    if budget.unit != "images":
        raise InputError(f"--budget takes images here, as in 2000images; got '{text}'")
    return max(1, int(budget.amount))


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
