"""What a data set holds, as facts and a sheet."""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mezzotint import imaging
from mezzotint.data import ImageSet, load, spread
from mezzotint.runtime.outputs import check_output, optional_path

__all__ = ["DescribeRequest", "DescribeResult", "describe", "execute"]

SHEET_ROW = 10


QUANTILES = (0.02, 0.25, 0.5, 0.75, 0.98)


@dataclass(frozen=True)
class DescribeRequest:
    """Which data set to describe."""

    source: str
    _: KW_ONLY
    out: Path | None = None
    """FILE.png for a sheet of samples; None: none."""

    styles: tuple[str, ...] | None = ()
    """Styles to measure; None: all that fit; (): none."""

    size: int | None = None
    limit: int | None = None
    data_dir: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class DescribeResult:
    """What a data set holds."""

    data: ImageSet = field(repr=False)
    class_counts: Mapping[str, int]
    """Train images of each class."""

    styles: Mapping[str, Mapping[str, Any]] | None = field(repr=False)
    """Levels, counts and spread of each style; None where none was asked for."""

    correlations: Mapping[str, Mapping[str, float]] | None = field(repr=False)
    """Pearson's correlation between styles that are numbers."""

    sheet: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        data = self.data
        facts: dict[str, Any] = {
            "source": data.name,
            "splits": {name: len(rows) for name, rows in data.splits.items()},
            "size": [data.height, data.width],
            "channels": data.channels,
            "classes": dict(self.class_counts),
            "pixels": {"mean": data.mean, "deviation": data.deviation},
            "augment": {"flip": data.augment.flip, "shift": data.augment.shift},
            "fingerprint": data.fingerprint,
        }
        if self.styles is not None:
            facts["images"] = len(data.splits["train"])
            facts["styles"] = dict(self.styles)
            facts["correlations"] = dict(self.correlations or {})
        if self.sheet is not None:
            facts["sheet"] = str(self.sheet)
        return facts


def describe(
    source: str | Path,
    *,
    out: str | Path | None = None,
    styles: Iterable[str] | None = (),
    size: int | None = None,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    overwrite: bool = False,
) -> DescribeResult:
    """Return what a data set holds: counts, classes, size, pixel statistics, styles.

        mezzotint.describe("mnist", out="sheet.png").class_counts

    Args:
        source: A name (digits, mnist, fashion-mnist, cifar10), a folder, or hf:OWNER/NAME.
        out: FILE.png for a sheet of samples: a class a row, with styles a level a row.
        styles: Styles to measure, as in ("thickness", "slant"). None: all that fit.
        size: Resize every image to size x size pixels. None: as they are.
        limit: Number of training images to use, classes in balance. None: all.
        data_dir: Folder of named data sets, looked at before MEZZOTINT_DATA.
        overwrite: Replace `out` where it is already there.

    Returns:
        The facts.

    Raises:
        InputError: There is no such data set, or it cannot be read.

    """
    return execute(
        DescribeRequest(
            str(source),
            out=optional_path(out),
            styles=tuple(styles) if styles is not None else None,
            size=size,
            limit=limit,
            data_dir=optional_path(data_dir),
            overwrite=overwrite,
        )
    )


def execute(request: DescribeRequest) -> DescribeResult:
    """Read the data set of a request, measure it, and write its sheet."""
    if request.out is not None:
        check_output("--out", request.out, (".png",), overwrite=request.overwrite)
    data = load(
        request.source,
        size=request.size,
        limit=request.limit,
        data_dir=request.data_dir,
        styles=request.styles,
    )
    labels = data.labels[data.splits["train"]]
    counts = torch.bincount(labels, minlength=len(data.classes)).tolist()
    asked = request.styles != ()
    rows = _level_rows(data) if asked else _class_rows(data, labels)
    sheet = None
    if request.out is not None and rows:
        sheet = imaging.save_png(imaging.labelled_grid(rows), request.out)
    return DescribeResult(
        data=data,
        class_counts=dict(zip(data.classes, counts, strict=True)),
        styles=_style_facts(data) if asked else None,
        correlations=_correlations(data) if asked else None,
        sheet=sheet,
    )


def _class_rows(data: ImageSet, labels: Tensor) -> list[tuple[str, Tensor]]:
    """Return the first train images of each class, for a sheet."""
    rows = []
    for index, name in enumerate(data.classes):
        own = data.splits["train"][labels == index][:SHEET_ROW]
        rows.append((name, data.images[own]))
    return rows


def _level_rows(data: ImageSet) -> list[tuple[str, Tensor]]:
    """Return examples of each style's levels, for a sheet.

    Of a level's train images in ascending order, a row shows some at equal distances.
    """
    train, rows = data.splits["train"], []
    for style, own in zip(data.styles, data.styles_of(train).T, strict=True):
        levels, order = style.level(own), own.argsort()
        for i, name in enumerate(style.levels):
            shown = spread(train[order[levels[order] == i]], SHEET_ROW)
            if len(shown):
                rows.append((f"{style.name}: {name}", data.images[shown]))
    return rows


def _style_facts(data: ImageSet) -> dict[str, dict[str, Any]]:
    """Return levels, counts and spread of each style over the train images."""
    values = data.styles_of(data.splits["train"])  # (n, K)
    styles: dict[str, dict[str, Any]] = {}
    for style, own in zip(data.styles, values.T, strict=True):
        levels = style.level(own)
        counts = [int((levels == i).sum()) for i in range(len(style.levels))]
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
    return styles


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
