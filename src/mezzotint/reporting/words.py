"""Names, settings and times as a reader wants them; numbers are in `charts`."""

import json
from collections.abc import Mapping

from mezzotint.reporting.charts import finite, number

__all__ = ["choice", "duration", "exact", "facts", "or_dash", "plain", "spaced", "upper"]


def spaced(key: str) -> str:
    """A key in words."""
    return key.replace("_", " ")


def upper(text: str) -> str:
    """With a capital first letter; the others stay."""
    return text[:1].upper() + text[1:]


def or_dash(value: object) -> str:
    """A number, or the dash where there is none."""
    return number(value) if finite(value) else "–"


def facts(values: Mapping[str, object]) -> dict[str, str]:
    """Names and values in words; without those that are None."""
    return {spaced(key): number(item) for key, item in values.items() if item is not None}


def plain(value: object) -> str:
    """A value as text, equal for equal values (1 and 1.0 are)."""
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def exact(value: object) -> str:
    """A setting, not rounded."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {exact(item)}" for key, item in value.items())
    if isinstance(value, list):
        between = "; " if any(isinstance(item, dict) for item in value) else ", "
        return between.join(exact(item) for item in value)
    return value if isinstance(value, str) else "none" if value is None else plain(value)


def choice(value: object) -> str:
    """A setting that is a name, or a table of a name and what it changes, in words.

    >>> choice("ddim"), choice({"kind": "ddim", "eta": 0.5})
    ('ddim', 'ddim (eta 0.5)')
    """
    if not isinstance(value, Mapping) or "kind" not in value:
        return exact(value)
    changed = ", ".join(f"{key} {exact(item)}" for key, item in value.items() if key != "kind")
    return f"{value['kind']} ({changed})" if changed else str(value["kind"])


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them.

    >>> [duration(s) for s in (0.5, 42, 700, 9000)]
    ['0.5 s', '42 s', '11.7 min', '2.5 h']
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size or (unit == "min" and seconds >= 100):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
