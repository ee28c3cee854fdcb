"""Summarise an evaluation in sentences; each sentence names what it rests on."""

from typing import Any

__all__ = ["summary_sentences"]

Json = dict[str, Any]


def summary_sentences(result: Json) -> list[str]:
    """Sentences from an evaluation's JSON, the distance first."""
    metrics = result.get("metrics", {})
    lines = []
    by_kind = {metric["protocol"]["metric"]: metric for metric in metrics.values()}
    if (distance := by_kind.get("fd") or by_kind.get("kd")) is not None:
        lines.append(_placed(distance))
    if (right := metrics.get("accuracy")) is not None:
        lines.append(
            f"{right['value']:.1%} of the images are read as the class that was asked for; of "
            f"real ones {right['floor']:.1%}."
        )
    if (share := metrics.get("coverage")) is not None:
        lines.append(
            f"The samples cover {share['value']:.0%} of the real images (coverage; other real "
            f"images {share['floor']:.0%}, with one class missing "
            f"{share['anchors']['one class missing']:.0%})."
        )
    styles = result.get("styles", {}).items()
    lines += [_followed(name, style) for name, style in styles if style["correlation"] is not None]
    if (worth := metrics.get("cas")) is not None:
        lines.append(
            f"A classifier trained on {worth['protocol']['n']:,} samples reads "
            f"{worth['value']:.2%} of the real test images, one trained on the real images "
            f"{worth['floor']:.2%}."
        )
    if "memorisation" in result:
        lines.append(_sentence(result["memorisation"]["summary"]))
    lines += result.get("recognition", {}).get("sentences", [])[:1]
    return lines


def _followed(name: str, style: Json) -> str:
    unit = f" {style['unit']}" if style["unit"] else ""
    return (
        f"{name.capitalize()} is drawn as it was asked for with a correlation of "
        f"{style['correlation']:.2f} and a mean error of {style['error']:.2g}{unit}; real images "
        f"of the same classes in random order would be {style['deaf']:.2g}{unit} off."
    )


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _placed(distance: Json) -> str:
    """Where a distance lies between its floor and the anchors."""
    value, floor = distance["value"], distance["floor"]
    ranked = sorted(distance["anchors"].items(), key=lambda item: item[1])
    better_than = [f"{name} ({at:.3g})" for name, at in ranked if value < at]
    worse_than = [f"{name} ({at:.3g})" for name, at in ranked if value >= at]
    words = (
        f"{distance['title'].capitalize()} {value:.3g} at n = {distance['protocol']['n']:,}; real "
        f"images have {floor:.3g}"
    )
    if better_than:
        words += f"; nearer to real than real images with {', '.join(better_than)}"
    if worse_than:
        words += f"; no nearer than real images with {', '.join(worse_than)}"
    return words + "."
