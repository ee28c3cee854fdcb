"""What `sweep` does, in the library's words."""

from collections.abc import Mapping
from typing import Any

from mezzotint.cli.evaluating import table
from mezzotint.errors import InputError
from mezzotint.reporting.words import choice

__all__ = ["scales", "sweep_text"]


def scales(text: str) -> tuple[float, ...]:
    """Read 1,1.5,2,3."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--scales takes numbers, as in 1,1.5,2,3; got '{text}'") from error


def sweep_text(result: Mapping[str, Any]) -> str:
    """The result of `sweep` for a person."""
    names = list(result["floor"])
    rows = [
        [
            f"{point['curve']} {point['scale']:g}",
            *(f"{point['values'][name]:.3f} ± {point['errors'][name]:.3f}" for name in names),
        ]
        for point in result["points"]
    ]
    rows.append(["real images", *(f"{result['floor'][name]:.3f}" for name in names)])
    head = ["", *(name.replace("_", " ") for name in names)]
    samples, held = result["samples"], result["protocol"]
    return "\n".join(
        [
            f"{samples['n']:,} samples each, {choice(samples['sampler'])}, "
            f"{samples['evaluations']} evaluations, seed {samples['seed']}, against "
            f"{held['n_reference']:,} {held['split']} images of {held['against']}; "
            "± one standard error",
            "",
            *table(head, rows),
            "",
            *result["sentences"],
            "",
            f"written: {result['written']} and its picture",
        ]
    )
