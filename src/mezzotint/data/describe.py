"""What a data set holds, as facts and a sheet."""

from pathlib import Path
from typing import Any

import torch

from mezzotint import imaging
from mezzotint.data import ImageSet, spread

__all__ = ["data_facts", "style_facts"]

SHEET_ROW = 10


QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)


def data_facts(data: ImageSet, sheet: Path | None) -> dict[str, Any]:
    """What is in a data set; writes the sample sheet."""
    counts = {name: len(rows) for name, rows in data.splits.items()}
    labels = data.labels[data.splits["train"]]
    per_class = torch.bincount(labels, minlength=len(data.classes)).tolist()
    facts = {
        "source": data.name,
        "splits": counts,
        "size": [data.height, data.width],
        "channels": data.channels,
        "classes": dict(zip(data.classes, per_class, strict=True)),
        "pixels": {"mean": data.mean, "deviation": data.deviation},
        "augment": {"flip": data.augment.flip, "shift": data.augment.shift},
        "fingerprint": data.fingerprint,
    }
    if sheet is None:
        return facts
    rows = []
    for index, name in enumerate(data.classes):
        own = data.splits["train"][labels == index][:SHEET_ROW]
        rows.append((name, data.images[own]))
    return {**facts, "sheet": str(imaging.save_png(imaging.labelled_grid(rows), sheet))}


def style_facts(data: ImageSet, sheet: Path | None) -> dict[str, Any]:
    """What is known of a data set's styles; writes examples, a row for each level.

    Of a level's train images in ascending order, every row shows some at equal distances.
    """
    values = data.styles_of(data.splits["train"])  # (n, K)
    styles: dict[str, Any] = {}
    rows = []
    for style, own in zip(data.styles, values.T, strict=True):
        levels = style.level(own)
        counts = [int((levels == i).sum()) for i in range(len(style.levels))]
        order = own.argsort()
        for i, name in enumerate(style.levels):
            shown = spread(data.splits["train"][order[levels[order] == i]], SHEET_ROW)
            if len(shown):
                rows.append((f"{style.name}: {name}", data.images[shown]))
        known = own[~own.isnan()].sort().values
        styles[style.name] = {
            "kind": "choice" if style.choice else "number",
            "unit": style.unit,
            "levels": dict(zip(style.levels, counts, strict=True)),
            "unknown": int(own.isnan().sum()),
        }
        if not style.choice:
            styles[style.name] |= {
                "mean": style.mean,
                "deviation": style.deviation,
                "quantiles": {str(q): float(known[int(q * (len(known) - 1))]) for q in QUANTILES},
                "cuts": list(style.cuts),
                "middles": list(style.middles),
            }
    facts: dict[str, Any] = {
        "source": data.name,
        "images": len(values),
        "styles": styles,
        "correlations": _correlations(data),
    }
    if sheet is None or not rows:
        return facts
    return {**facts, "sheet": str(imaging.save_png(imaging.labelled_grid(rows), sheet))}


def _correlations(data: ImageSet) -> dict[str, dict[str, float]]:
    """Pearson's, between all styles that are numbers, over the train images that have both."""
    numbers = [i for i, style in enumerate(data.styles) if not style.choice]
    values = data.styles_of(data.splits["train"])
    table: dict[str, dict[str, float]] = {}
    for i in numbers:
        row = table[data.styles[i].name] = {}
        for j in numbers:
            both = values[:, [i, j]]
            both = both[both.isfinite().all(1)]
            row[data.styles[j].name] = float(torch.corrcoef(both.T)[0, 1])
    return table
