"""evaluation.json: read, written whole or not at all, and joined with an earlier one."""

import json
from pathlib import Path
from typing import Any

from mezzotint.config import legacy
from mezzotint.errors import DataError
from mezzotint.evaluation.summary import summary_sentences
from mezzotint.runs.run import Run
from mezzotint.runtime import checksum
from mezzotint.runtime.atomic import write_bytes
from mezzotint.runtime.outputs import check_writable

__all__ = ["add_section", "check_folder", "differing", "evaluation_of", "keep"]

Json = dict[str, Any]


def evaluation_of(path: Path) -> Json:
    """Return the evaluation.json in a folder, or that file itself, with the keys of today."""
    file = path / "evaluation.json" if path.is_dir() else path
    try:
        found = dict(json.loads(file.read_text()))
    except OSError as error:
        raise DataError(f"{file} is not there: make it with mezzotint evaluate") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file} is not an evaluation ({error}): make it anew") from error
    if not checksum.is_valid(found):
        raise DataError(f"{file} is damaged, or was edited: make it anew")
    return legacy.current_evaluation(checksum.strip_checksum(found))


def check_folder(out: Path | None, target: Path) -> None:
    """Raise InputError where an evaluation could not be kept: in `out`, else in its run."""
    if out is not None or Run.is_at(target):
        folder = out or target
        check_writable("--out", folder, (folder.absolute(), *folder.absolute().parents))


def keep(folder: Path, result: Json) -> Json:
    """Write an evaluation, joined with what lies there of the same images; returns the whole."""
    result = _joined(folder / "evaluation.json", result)
    _write(folder, result)
    return result


def differing(folder: Path, result: Json) -> list[str]:
    """In what an evaluation that lies there differs, so that it cannot be joined."""
    try:
        earlier = evaluation_of(folder)
    except DataError:
        return []
    return _differing(earlier, result) if "samples" in earlier else []  # else a selection alone


def add_section(folder: Path, name: str, value: Json) -> None:
    """Put one more section, such as `selection`, into the evaluation that lies in a folder."""
    file = folder / "evaluation.json"
    _write(folder, {**(evaluation_of(file) if file.exists() else {}), name: value})


def _write(folder: Path, result: Json) -> None:
    text = json.dumps(checksum.with_checksum(result), indent=1)
    write_bytes(folder / "evaluation.json", text.encode())


def _differing(earlier: Json, result: Json) -> list[str]:
    ours, theirs = (
        {
            **(facts if isinstance(facts := found.get("samples"), dict) else {}),
            "data": found.get("against"),
            "extractor": found.get("extractor"),
        }
        for found in (result, earlier)
    )
    return sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key))


def _joined(file: Path, result: Json) -> Json:
    """Return the result with other sections of an earlier evaluation of the same images."""
    try:
        earlier = evaluation_of(file)
    except DataError:
        return result
    if _differing(earlier, result):
        # A selection from the same weights stays.
        same = earlier.get("selection", {}).get("hash") == result["samples"].get("hash", "")
        return {**result, "selection": earlier["selection"]} if same else result
    joined = {**earlier, **result}
    for key in ("metrics", "pictures", "seconds"):
        joined[key] = {**earlier.get(key, {}), **result[key]}
    joined["summary"] = summary_sentences(joined)
    return joined
