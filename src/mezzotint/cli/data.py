"""`mezzotint data`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli import options
from mezzotint.cli.show import refuse_torchrun, show

EXAMPLES = (
    "mezzotint data digits",
    "mezzotint data ./photos --size 32 --out sheet.png",
    "mezzotint data mnist --style thickness --style slant --out styles.png",
)


def data(
    source: options.Source,
    out: Annotated[
        Path | None,
        typer.Option(
            help="FILE.png for a sheet of samples: a class a row, or a level a row.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    styles: Annotated[
        bool, typer.Option("--styles", help="Measure every style that fits, and show levels.")
    ] = False,
    style: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this style: a measure, or a column of yours. Repeatable."
        ),
    ] = None,
    size: options.Size = None,
    limit: options.Limit = None,
    data_dir: options.DataDir = None,
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
) -> None:
    """Show what a data set holds: counts, classes, size, pixel statistics, styles, a sheet."""
    refuse_torchrun("data")
    from mezzotint.data.describe import DescribeRequest, execute

    request = DescribeRequest(
        source,
        out=out,
        styles=tuple(style) if style else (None if styles else ()),
        size=size,
        limit=limit,
        data_dir=data_dir,
        overwrite=overwrite,
    )
    show(execute(request).to_json(), text, as_json)


def text(facts: Mapping[str, Any]) -> str:
    """Return the facts of a data set for a person; with styles, those alone."""
    lines = _style_lines(facts) if "styles" in facts else _class_lines(facts)
    return "\n".join([*lines, *([f"sheet: {facts['sheet']}"] if "sheet" in facts else [])])


def _class_lines(facts: Mapping[str, Any]) -> list[str]:
    height, width = facts["size"]
    splits = ", ".join(f"{count:,} {name}" for name, count in facts["splits"].items())
    pixels = facts["pixels"]
    return [
        f"{facts['source']}: {splits}",
        f"{height}x{width} pixels, {'grey' if facts['channels'] == 1 else 'RGB'}; in [-1, 1] "
        f"mean {pixels['mean']:.3f}, standard deviation (sigma_data) {pixels['deviation']:.3f}",
        f"augmentation: {', '.join(k for k, v in facts['augment'].items() if v) or 'none'}",
        "training images per class:",
        *(f"  {name:<24} {count:>8,}" for name, count in facts["classes"].items()),
    ]


def _style_lines(facts: Mapping[str, Any]) -> list[str]:
    lines = [f"{facts['source']}: styles of {facts['images']:,} train images"]
    if not facts["styles"]:
        lines.append("none fits")
    for name, style in facts["styles"].items():
        unit = f" {style['unit']}" if style["unit"] else ""
        unknown = f", {style['unknown']:,} not known" if style["unknown"] else ""
        if style["kind"] == "choice":
            parts = ", ".join(f"{level} {count:,}" for level, count in style["levels"].items())
            lines.append(f"{name}: {parts}{unknown}")
            continue
        levels, cuts = list(style["levels"]), style["cuts"]
        between = " | ".join(
            f"{level} | {cut:.4g}" for level, cut in zip(levels, cuts, strict=False)
        )
        spread = ", ".join(
            f"{100 * float(q):g} % {value:.4g}" for q, value in style["quantiles"].items()
        )
        lines += [
            f"{name}: mean {style['mean']:.4g}, deviation {style['deviation']:.4g}{unit}{unknown}",
            f"  levels {between} | {levels[-1]}",
            f"  quantiles {spread}",
        ]
    if len(names := list(facts["correlations"])) > 1:
        lines += ["correlations", " " * 14 + "".join(f"{name[:8]:>9}" for name in names)]
        lines += [
            f"{name[:13]:<14}" + "".join(f"{value:>9.2f}" for value in row.values())
            for name, row in facts["correlations"].items()
        ]
    return lines
