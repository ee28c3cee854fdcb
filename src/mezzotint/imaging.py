"""Pictures: uint8 tensors to and from PNG, grids, film strips, animations, folders and .npz.

Convention: a batch of images is uint8 (N, C, H, W), a finished picture uint8 (C, H, W), C = 1
(grey) or 3 (RGB), any size. Models work on x = v / 127.5 - 1 in [-1, 1]; the way back is
v = round(127.5 (x + 1)), and `to_uint8` is the one place where x is clamped.

Pages are white and text is black. Small images are enlarged by a whole factor, each pixel
becoming a square, so that a pixel stays a pixel. Files are written under a temporary name and
then renamed: a full disk or a killed process never leaves half a picture.
"""

import json
import math
import os
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody uses
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mezzotint.errors import InputError

__all__ = [
    "Samples",
    "folder_names",
    "from_pillow",
    "grid",
    "labelled_grid",
    "load_npz",
    "replacing",
    "save_animation",
    "save_folder",
    "save_npz",
    "save_png",
    "scale_for",
    "strip",
    "to_float",
    "to_pillow",
    "to_uint8",
]

WHITE = 255
VISIBLE = 84  # pixels: an enlarged image is at least this wide ...
LARGEST_SCALE = 8  # ... unless that takes more than this; 8x8 digits are then 64 pixels wide
TEXT = 14  # font size in pixels, legible where a sheet is shown at its own size
MARGIN = 6  # pixels around a sheet with text, and between text and images
MANIFEST = "manifest.jsonl"
NPZ_KEYS = ("images", "labels", "styles", "style_names", "meta")


# --- [-1, 1] and 0 ... 255 ------------------------------------------------------------------


def to_float(images: Tensor) -> Tensor:
    """uint8 images of any shape -> float32 in [-1, 1], 0 at -1 and 255 at 1."""
    if images.dtype != torch.uint8:
        raise InputError(f"images are {images.dtype}; allowed: torch.uint8, values 0 to 255")
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Float images of any shape in about [-1, 1] -> uint8, clamped and rounded to nearest.

    Exact inverse of `to_float`. NaN and infinity raise `InputError`: a broken model must not
    look like a grey picture.
    """
    if not x.is_floating_point():
        raise InputError(f"x is {x.dtype}; allowed: floating point, values about -1 to 1")
    broken = int((~x.isfinite()).sum())
    if broken:
        raise InputError(f"{broken} of {x.numel()} values are NaN or infinite, so not a picture")
    # half precision has too few bits for 256 levels, hence float() before the arithmetic
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


# --- sheets ---------------------------------------------------------------------------------


def scale_for(width: int) -> int:
    """The whole factor that shows images of this width (pixels) at a visible size.

    >>> [scale_for(width) for width in (8, 28, 32, 64, 256)]
    [8, 3, 3, 2, 1]
    """
    return max(1, min(LARGEST_SCALE, math.ceil(VISIBLE / width)))


def grid(images: Tensor, columns: int, *, scale: int = 1, gap: int = 2) -> Tensor:
    """Images (N, C, H, W) row by row on one white page -> (C, H', W').

    images: uint8, N >= 1.
    columns: images in a row; cells left over in the last row stay white.
    scale: whole factor of enlargement, 1 for none.
    gap: white pixels between neighbours, none outside; 0 for none.
    """
    _check_batch(images)
    _check_least("columns", columns, 1)
    _check_least("gap", gap, 0)
    cells = _enlarge(images, scale)
    n, channels, height, width = cells.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    cells = F.pad(cells, (0, gap, 0, gap, 0, 0, 0, rows * columns - n), value=WHITE)
    cells = cells.view(rows, columns, channels, height + gap, width + gap)
    page = cells.permute(2, 0, 3, 1, 4)  # C, rows, H, columns, W
    page = page.reshape(channels, rows * (height + gap), columns * (width + gap))
    return page[:, : page.shape[1] - gap, : page.shape[2] - gap].contiguous()


def labelled_grid(
    rows: Sequence[tuple[str, Tensor]], *, scale: int | None = None, gap: int = 2
) -> Tensor:
    """One row of images per class, the name left of it -> uint8 (C, H', W').

    rows: name and uint8 images (n, C, H, W); n may differ between rows, C, H and W may not.
    scale: whole factor of enlargement; None: `scale_for` their width.
    gap: white pixels between neighbours.
    """
    return _table([_Row(name, images) for name, images in rows], [], scale, gap, together=1)


def strip(
    frames: Sequence[Tensor],
    captions: Sequence[str],
    *,
    estimates: Sequence[Tensor] | None = None,
    scale: int | None = None,
    gap: int = 2,
) -> Tensor:
    """The film strip of the reverse process, a column per moment -> uint8 (C, H', W').

    An early x is mostly noise far outside [-1, 1]; pass x / sqrt(1 + sigma^2) through
    `to_uint8`, or it is black and white only.

    frames: x at each moment, uint8 (N, C, H, W) each.
    captions: one a moment, written over its column.
    estimates: the x0 estimates of the same moments; each image then has two rows,
        "x" and "x0 estimate". None: the rows of x alone.
    scale: whole factor of enlargement; None: `scale_for` their width.
    gap: white pixels between neighbours.
    """
    bands = [("x", frames)] + ([] if estimates is None else [("x0 estimate", estimates)])
    shapes = {tuple(moment.shape) for _, band in bands for moment in band}
    lengths = {len(captions)} | {len(band) for _, band in bands}
    if len(lengths) != 1 or len(shapes) != 1:
        raise InputError(
            f"a strip needs one caption per moment and one shape of images; given "
            f"{len(captions)} captions, {len(frames)} moments, shapes {sorted(shapes)}"
        )
    for _, band in bands:
        for moment in band:
            _check_batch(moment)
    stacks = [(title, torch.stack(list(band), dim=1)) for title, band in bands]  # N, M, C, H, W
    rows = [
        _Row(title if len(bands) > 1 else "", stack[i])
        for i in range(len(frames[0]))
        for title, stack in stacks
    ]
    return _table(rows, captions, scale, gap, together=len(bands))


@dataclass(frozen=True)
class _Row:
    """One row of a sheet: its title, "" for none, and its images uint8 (n, C, H, W)."""

    title: str
    images: Tensor


def _table(
    rows: Sequence[_Row], captions: Sequence[str], scale: int | None, gap: int, *, together: int
) -> Tensor:
    """Rows of images, titles left, captions on top; every `together` rows form a group."""
    channels, height, width = _common_shape(rows)
    _check_least("gap", gap, 0)
    scale = scale_for(width) if scale is None else scale
    font = ImageFont.load_default(TEXT)
    titles = [_printable(row.title) for row in rows]
    captions = [_printable(caption) for caption in captions]
    widest_title = math.ceil(max(font.getlength(title) for title in titles))
    widest_caption = math.ceil(max((font.getlength(text) for text in captions), default=0))
    line = math.ceil(TEXT * 1.3)  # the built-in font's ascent and descent

    cell_height = max(height * scale, line if widest_title else 0)
    cell_width = max(width * scale, widest_caption + 2 * MARGIN if widest_caption else 0)
    left = MARGIN + (widest_title + MARGIN if widest_title else 0)
    top = MARGIN + (line + MARGIN if widest_caption else 0)
    between = MARGIN if together > 1 else 0  # groups must read as groups
    columns = max(len(row.images) for row in rows)
    xs = [left + j * (cell_width + gap) for j in range(columns)]
    ys = [top + i * (cell_height + gap) + i // together * between for i in range(len(rows))]

    shape = (channels, ys[-1] + cell_height + MARGIN, xs[-1] + cell_width + MARGIN)
    page = torch.full(shape, WHITE, dtype=torch.uint8)
    down, right = (cell_height - height * scale) // 2, (cell_width - width * scale) // 2
    for y, row in zip(ys, rows, strict=True):
        for x, image in zip(xs, _enlarge(row.images.cpu(), scale), strict=False):
            page[:, y + down :, x + right :][:, : height * scale, : width * scale] = image

    # Pillow's anchors: right end and middle of the line, middle and top of the line
    middles = [y + cell_height // 2 for y in ys]
    texts = [(left - MARGIN, y, "rm", t) for y, t in zip(middles, titles, strict=True)]
    texts += [(x + cell_width // 2, MARGIN, "ma", c) for x, c in zip(xs, captions, strict=False)]
    return _write(page, texts, font)


def _write(
    page: Tensor,
    texts: Sequence[tuple[int, int, str, str]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> Tensor:
    """The page (C, H, W) with black texts (x, y, Pillow's anchor, text)."""
    picture = to_pillow(page)
    draw = ImageDraw.Draw(picture)
    for x, y, anchor, text in texts:
        draw.text((x, y), text, fill=0 if len(page) == 1 else (0, 0, 0), font=font, anchor=anchor)
    return from_pillow(picture)


def _printable(text: str) -> str:
    """The text on one line in the letters Pillow's built-in font has, which are ASCII."""
    plain = unicodedata.normalize("NFKD", text.replace("σ", "sigma"))
    letters = (c for c in " ".join(plain.split()) if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else "?" for c in letters)


def _enlarge(images: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) -> (N, C, scale H, scale W), each pixel a square."""
    _check_least("scale", scale, 1)
    return images.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)


def _common_shape(rows: Sequence[_Row]) -> tuple[int, int, int]:
    """The shape (C, H, W) that the images of all rows share."""
    if not rows:
        raise InputError("a sheet needs at least one row of images; given none")
    for row in rows:
        _check_batch(row.images)
    shapes = {tuple(row.images.shape[1:]) for row in rows}
    if len(shapes) > 1:
        raise InputError(f"the images of a sheet must share one shape; given {sorted(shapes)}")
    channels, height, width = shapes.pop()
    return channels, height, width


def _check_batch(images: Tensor) -> None:
    """Refuse what is no batch of images."""
    given = f"given {images.dtype} {tuple(images.shape)}"
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images must be uint8 (N, C, H, W) with C = 1 or 3; {given}")
    if images.numel() == 0:
        raise InputError(f"there must be at least one image; {given}")


def _check_least(name: str, value: int, least: int) -> None:
    """Refuse an option that is too small."""
    if value < least:
        raise InputError(f"{name} is {value}; it must be at least {least}")


# --- files ----------------------------------------------------------------------------------


def to_pillow(image: Tensor) -> Image.Image:
    """A picture uint8 (C, H, W) -> Pillow, mode L for C = 1 and RGB for C = 3."""
    if image.dim() != 3:
        raise InputError(f"a picture must be uint8 (C, H, W); given {tuple(image.shape)}")
    _check_batch(image[None])
    pixels = image.cpu().permute(1, 2, 0).contiguous().numpy()  # H, W, C
    return Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels)


def from_pillow(picture: Image.Image) -> Tensor:
    """A Pillow picture -> uint8 (C, H, W): C = 1 for mode L, RGB for every other mode."""
    pixels = np.array(picture if picture.mode == "L" else picture.convert("RGB"))
    return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the name `path` only once it is complete; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            yield file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def save_png(image: Tensor, path: Path) -> Path:
    """Write a picture uint8 (C, H, W) as PNG, losslessly; returns the path."""
    _check_suffix(path, ".png")
    picture = to_pillow(image)
    with replacing(path) as file:
        picture.save(file, format="PNG")
    return path


def save_animation(frames: Sequence[Tensor], path: Path, *, seconds_per_frame: float) -> Path:
    """Write pictures uint8 (C, H, W) of one shape as an endless .gif or .webp; returns the path.

    A frame equal to the one before it is not stored again: that one is shown longer. WebP and
    grey GIF are lossless; a GIF in colour has 256 colours a frame.

    frames: at least one.
    path: its suffix chooses the format.
    seconds_per_frame: at least 0.02, since viewers slow down what is faster; GIF rounds it
        to hundredths of a second.
    """
    _check_suffix(path, ".gif", ".webp")
    if not 0.02 <= seconds_per_frame < math.inf:
        raise InputError(f"seconds_per_frame is {seconds_per_frame}; it must be at least 0.02")
    if len({tuple(frame.shape) for frame in frames}) != 1:
        raise InputError("an animation needs at least one frame, and all of one shape")
    first, *others = [to_pillow(frame) for frame in frames]
    gif = path.suffix.lower() == ".gif"
    duration = 10 * round(100 * seconds_per_frame) if gif else round(1000 * seconds_per_frame)
    form: dict[str, Any] = {"format": "GIF"} if gif else {"format": "WEBP", "lossless": True}
    with replacing(path) as file:
        first.save(file, save_all=True, append_images=others, duration=duration, loop=0, **form)
    return path


def folder_names(classes: Sequence[str]) -> list[str]:
    """A folder name for each class: safe on every file system, and no two alike.

    >>> folder_names(["T-shirt/top", "Sandal", "T-shirt:top"])
    ['T-shirt_top', 'Sandal', 'T-shirt_top_2']
    """
    names: list[str] = []
    taken = {MANIFEST}
    for name in classes:
        safe = re.sub(r"[^\w.+-]", "_", name)[:60].strip(".") or "class"
        unique, count = safe, 1
        while unique.casefold() in taken:  # some file systems ignore case
            count += 1
            unique = f"{safe}_{count}"
        taken.add(unique.casefold())
        names.append(unique)
    return names


def save_folder(
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    folder: Path,
    extra: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write CLASS/00000.png, counted within its class, and manifest.jsonl; returns the latter.

    The manifest has one JSON object an image, in the order of `images`: file (relative to the
    folder), label, class, index (position in `images`), then what `extra` adds. It is written
    last, so a folder that has one is complete. Nothing that exists is overwritten.

    images: uint8 (N, C, H, W).
    labels: integers (N,), positions in `classes`.
    classes: the names; characters a file name cannot have become "_" (`folder_names`).
    folder: made if missing; must hold neither a manifest nor folders of these names.
    extra: N mappings of plain values, such as the seed; None for nothing more.
    """
    _check_labels(images, labels)
    rows = _manifest(labels.tolist(), classes, extra)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    names = {MANIFEST} | {row["file"].split("/")[0] for row in rows}
    if taken := sorted(name for name in names if (folder / name).exists()):
        raise InputError(f"{folder} already holds {', '.join(taken)}; choose a new folder")
    for image, row in zip(images.cpu(), rows, strict=True):
        save_png(image, folder / row["file"])
    with replacing(folder / MANIFEST) as file:
        file.write("".join(lines).encode())
    return folder / MANIFEST


def _manifest(
    labels: Sequence[int], classes: Sequence[str], extra: Sequence[Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """One row for each image; the files of a class are counted from 0."""
    if not 0 <= min(labels) <= max(labels) < len(classes):
        given = f"{min(labels)} to {max(labels)}"
        raise InputError(f"labels are {given}, but the {len(classes)} classes are 0 and up")
    if extra is not None and len(extra) != len(labels):
        raise InputError(f"extra has {len(extra)} entries for {len(labels)} images")
    names = folder_names(classes)
    counts = [0] * len(classes)
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(labels):
        file = f"{names[label]}/{counts[label]:05d}.png"
        counts[label] += 1
        row = {"file": file, "label": label, "class": classes[label], "index": index}
        more = {} if extra is None else extra[index]
        if clash := sorted(row.keys() & more.keys()):
            raise InputError(f"extra may not set {', '.join(clash)}; choose another name")
        rows.append({**row, **more})
    return rows


@dataclass(frozen=True)
class Samples:
    """What a samples .npz holds."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,)
    styles: Tensor  # float32 (N, K); K = 0 without styles
    style_names: tuple[str, ...]  # K
    meta: dict[str, Any]  # how they were made


def save_npz(
    path: Path,
    images: Tensor,
    labels: Tensor,
    meta: Mapping[str, Any],
    styles: Tensor | None = None,
    style_names: Sequence[str] = (),
) -> Path:
    """Write samples as .npz, readable without pickle; returns the path.

    path: ends in .npz.
    images: uint8 (N, C, H, W).
    labels: integers (N,), stored as int64.
    meta: plain values, stored as a JSON string.
    styles: (N, K), stored as float32; None: K = 0.
    style_names: K names.
    """
    _check_suffix(path, ".npz")
    _check_labels(images, labels)
    styles = torch.zeros(len(images), 0) if styles is None else styles
    _check_styles(images, styles, style_names)
    arrays = {
        "images": images.cpu().numpy(),
        "labels": labels.cpu().to(torch.int64).numpy(),
        "styles": styles.cpu().float().numpy(),
        "style_names": np.array(list(style_names), dtype=np.str_),
        "meta": np.array(json.dumps(dict(meta), ensure_ascii=False)),
    }
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return path


def load_npz(path: Path) -> Samples:
    """Read what `save_npz` wrote; `InputError` for a file that is missing, broken or other."""
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in NPZ_KEYS if key not in file]
            arrays = {} if missing else {key: file[key] for key in NPZ_KEYS}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; make it with `mezzotint sample`") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as .npz samples ({error})") from error
    if missing:
        raise InputError(f"{path} lacks {', '.join(missing)}; needed: {', '.join(NPZ_KEYS)}")
    images, labels, styles = (torch.from_numpy(arrays[key]) for key in NPZ_KEYS[:3])
    style_names = tuple(str(name) for name in arrays["style_names"])
    _check_labels(images, labels)
    _check_styles(images, styles, style_names)
    return Samples(images, labels, styles, style_names, json.loads(str(arrays["meta"])))


def _check_suffix(path: Path, *allowed: str) -> None:
    """Refuse a file name that promises another format."""
    if path.suffix.lower() not in allowed:
        raise InputError(f"{path} does not end in {' or '.join(allowed)}; rename it")


def _check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse labels that are not one integer for each image."""
    _check_batch(images)
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        given = f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(f"labels must be integers ({len(images)},), one an image; given {given}")


def _check_styles(images: Tensor, styles: Tensor, style_names: Sequence[str]) -> None:
    """Refuse styles that are not one number for each image and name."""
    needed = (len(images), len(style_names))
    if tuple(styles.shape) != needed:
        raise InputError(f"styles must be {needed}, images by names; given {tuple(styles.shape)}")
