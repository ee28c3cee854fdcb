"""What `select` does, in the library's words."""

from collections.abc import Mapping
from typing import Any

__all__ = ["select_text"]


def select_text(result: Mapping[str, Any]) -> str:
    """The result of `select` for a person."""
    lines = [f"kept {result['kept']:,} of {result['drawn']:,} images by {result['score']}"]
    if "share_passed" in result:
        lines[0] += (
            f", threshold {result['threshold']:g}: {result['share_passed']:.1%} of the draws"
        )
    for row in result.get("classes", []):
        lines.append(
            f"{row['class']}: {row['high_quality']:.0%} score {result['threshold']:g} or more; "
            f"mean {row['mean_score']:.3f}, of the kept {row['kept_score']:.3f}"
        )
    if effects := result.get("effect"):
        lines.append(f"as the pool grows, {effects[0]['keep']} kept ({effects[0]['n']} measured):")
        lines += [
            f"  pool {row['pool']}: accuracy {row['accuracy']:.3f}  kd {row['kd']:.4g}  "
            f"coverage {row['coverage']:.3f}  density {row['density']:.3f}  "
            f"spread {row['spread']:.3f}"
            for row in effects
        ]
    return "\n".join([*lines, *(f"{name}: {path}" for name, path in result["written"].items())])
