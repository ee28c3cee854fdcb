"""What is measured on images: one number an image, a function of its pixels and of nothing else.

Grey g is the mean of the channels over 255, in 0 ... 1. A figure is drawn on flat ground: its ink
is m = |g - ground|, ground being the median of the image's outermost pixels, beyond which there
is no ink. With M = sum m, central moments u_ij as shares of M, x to the right and y down:

Strokes. A pen of width w that follows a line of length l covers, by Steiner's formula (1840),
an area M = w l + pi/4 chi w^2 and has an outline P = 2 l + pi chi w, chi being the line's Euler
number: 1 for a line with two ends, 0 for a ring, -1 for an eight. Solved for w and l,

    R = sqrt(P^2 - 4 pi chi M),  thickness w = 4 M / (P + R),  length l = M / w - pi/4 chi w.

M is the ink as a share of the image's strongest, P its total variation (by the coarea formula the
outline's length, averaged over all thresholds), and chi that of the ink above one half, counted
in quads (Gray 1971). The total variation is that of the bilinear surface through the pixels. The
pixels' own blur lowers the ridge of a line of width w to erf(w / sqrt(8) s), s = 0.4 pixels as
found on drawn lines, whence 2 M / P is w / erf(...): it is solved for w.

Castro et al. 2019 (arXiv 1809.10780, section 3: Morpho-MNIST) enlarge four times, cut at half and
take twice the mean distance to the edge along the medial axis: for a pen's stroke the same number
(on MNIST's digits they correlate by 0.99), some ten times slower, and a quarter short for a bar
three times as long as wide, since the axis runs into its corners. The price here: of a blob as
wide as long, R is the small difference of large numbers, and it comes out up to a fifth too thin.

    consistency     1 - deviation / mean of the thickness along the medial axis       0 ... 1
    slant           atan2(-u11, u02), right positive (Castro et al. 2019)           degrees
    width           sqrt((u20 - u11^2 / u02) / u02), once set upright               1 = as tall
    tone            sum m g / M: how bright the figure itself is                    0 ... 1

Any image.

    brightness      mean of g                                                       0 ... 1
    contrast        standard deviation of g                                         0 ... 1/2
    edges           mean length of Sobel's gradient                     grey levels per pixel
    outline         width of dark lines: 2 M / P of what a closing fills in, max
                    then min over 7 x 7 pixels (Serra 1982), so of up to 6 pixels    pixels
    symmetry        correlation of the image with its mirror image; of a figure about
                    its own axis, the centre of its ink                             -1 ... 1

Colour images. With rg = R - G and yb = (R + G) / 2 - B in 0 ... 255, each with mean and standard
deviation over the pixels (Hasler & Suesstrunk 2003, equation 5),

    colourfulness   sqrt(dev_rg^2 + dev_yb^2) + 0.3 sqrt(mean_rg^2 + mean_yb^2)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.data.styles.registry import MEASURES
from mezzotint.errors import InputError, suggest
from mezzotint.imaging import check_batch

__all__ = [
    "VERSION",
    "Measure",
    "border",
    "flat_share",
    "gradient",
    "grey",
    "ink",
    "measured",
    "moments",
    "shows_figures",
]

VERSION = 2  # of the formulas in this file
CHUNK = 128  # small enough for the processor's cache
FLAT = 0.65  # share of a border near its median from which an image has a flat ground
NOTHING = 1e-6  # so little is nothing to divide by
FAINT = 1 / 255  # ink of a grey level or less is no figure
BLUR = 0.4  # pixels: standard deviation, across a line, of what pixels do to it
STEPS = 8  # of a fixed-point iteration that gains a digit with each
FINE = 4  # times as large, as in Morpho-MNIST
RIDGE = 0.6  # slope of the distance to the edge: below this on the medial axis, 1 elsewhere
FARTHEST = 120  # fine pixels: strokes thicker than twice that are as thick as that
LINE = 7  # pixels: lines narrower than this are outlines


# What measures look at -----------------------------------------------------------------------


def grey(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) -> float64 (N, H, W), 0 ... 1."""
    return images.double().mean(1) / 255


def border(values: Tensor) -> Tensor:
    """The outermost pixels of (N, H, W), as (N, P)."""
    return torch.cat([values[:, 0], values[:, -1], values[:, 1:-1, 0], values[:, 1:-1, -1]], 1)


def flat_share(values: Tensor) -> Tensor:
    """The share of each border, of (N, H, W), that is within a tenth of its median: (N,)."""
    outer = border(values)
    return ((outer - outer.median(1, keepdim=True).values).abs() < 0.1).double().mean(1)


def ink(values: Tensor) -> Tensor:
    """How far each pixel of grey (N, H, W) is from the ground."""
    return (values - border(values).median(1).values[:, None, None]).abs()


def moments(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u20, u11, u02 of weights (N, H, W), each (N,), in square pixels; 0 where there is none."""
    m = weights / weights.sum((1, 2)).clamp(min=NOTHING)[:, None, None]
    steps_y, steps_x = (torch.arange(n).to(m) for n in m.shape[1:])
    y = steps_y - torch.einsum("nyx,y->n", m, steps_y)[:, None]  # (N, H)
    x = steps_x - torch.einsum("nyx,x->n", m, steps_x)[:, None]  # (N, W)
    u20 = torch.einsum("nyx,nx->n", m, x**2)
    u11 = torch.einsum("nyx,ny,nx->n", m, y, x)
    return u20, u11, torch.einsum("nyx,ny->n", m, y**2)


def gradient(images: Tensor) -> Tensor:
    """Length of the gradient (N, C, H - 2, W - 2) in grey levels per pixel.

    Sobel's operator over 8, so that a ramp of slope s gives s.
    """
    x = images.float()
    down = x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]  # smoothed over rows
    across = x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]  # smoothed over columns
    horizontal = (down[..., 2:] - down[..., :-2]) / 8
    vertical = (across[..., 2:, :] - across[..., :-2, :]) / 8
    return torch.hypot(horizontal, vertical)


def shows_figures(images: Tensor) -> bool:
    """Whether most of these images, uint8 (N, C, H, W), have a flat ground around them."""
    shares = [flat_share(grey(part)) for part in images.split(CHUNK)]
    return bool(torch.cat(shares).median() >= FLAT)


# Strokes ---------------------------------------------------------------------------------------


def _strokes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Thickness and length of the strokes, in pixels, each (N,); nan without ink."""
    m, there = _drawn(images)
    outline, inside = _surface(m)
    area, chi = m.sum((1, 2)), _euler(inside)
    root = (outline**2 - 4 * math.pi * chi * area).clamp(min=0).sqrt()
    thickness = _unblurred(4 * area / (outline + root).clamp(min=NOTHING))
    length = (area / thickness.clamp(min=NOTHING) - math.pi / 4 * chi * thickness).clamp(min=0)
    return thickness.where(there, math.nan), length.where(there, math.nan)


def _drawn(images: Tensor) -> tuple[Tensor, Tensor]:
    """Ink as a share of the strongest with two pixels of ground around, and where there is any."""
    m = ink(grey(images))
    peak = m.amax((1, 2))
    return F.pad(m / peak.clamp(min=NOTHING)[:, None, None], (2, 2, 2, 2)), peak > FAINT


def _surface(m: Tensor) -> tuple[Tensor, Tensor]:
    """Of the bilinear surface through m (N, H, W): its total variation (N,), where it is above a
    half, bool (N, 2 H - 2, 2 W - 2).

    Sampled at four points between four pixels; a quarter in, they are the pixels of an image
    twice as large.
    """
    n, height, width = m.shape
    variation = torch.zeros(n, dtype=m.dtype)
    inside = torch.zeros(n, 2 * height - 2, 2 * width - 2, dtype=torch.bool)
    down, across = m.diff(dim=1), m.diff(dim=2)
    for i, v in enumerate((0.25, 0.75)):
        rows = torch.lerp(m[:, :-1], m[:, 1:], v)
        slope_x = torch.lerp(across[:, :-1], across[:, 1:], v).square_()
        for j, u in enumerate((0.25, 0.75)):
            slope_y = torch.lerp(down[..., :-1], down[..., 1:], u).square_()
            variation += slope_y.add_(slope_x).sqrt_().sum((1, 2)) / 4
            inside[:, i::2, j::2] = torch.lerp(rows[..., :-1], rows[..., 1:], u) >= 0.5
    return variation, inside


def _unblurred(width: Tensor) -> Tensor:
    """The width of a line that is measured as `width`, both in pixels."""
    line = width
    for _ in range(STEPS):
        line = width * torch.erf(line / (2 * math.sqrt(2) * BLUR))
    return line


def _euler(inside: Tensor) -> Tensor:
    """Pieces less holes of bool (N, H, W), False at its border; pieces join at corners too."""
    a, b, c, d = inside[:, :-1, :-1], inside[:, :-1, 1:], inside[:, 1:, :-1], inside[:, 1:, 1:]
    count = a.to(torch.int8) + b + c + d
    crossed = (count == 2) & (a == d)
    quads = (count == 1).sum((1, 2)) - (count == 3).sum((1, 2)) - 2 * crossed.sum((1, 2))
    return quads.double() / 4


def _thickness(images: Tensor) -> Tensor:
    return _strokes(images)[0]


def _length(images: Tensor) -> Tensor:
    return _strokes(images)[1]


def _consistency(images: Tensor) -> Tensor:
    m, there = _drawn(images)
    inside = F.interpolate(m.float()[:, None], scale_factor=FINE, mode="bilinear")[:, 0] >= 0.5
    d = torch.from_numpy(_distances(inside.numpy()))
    middle = d[:, 1:-1, 1:-1]
    across, down = d[:, 1:-1, 2:] - d[:, 1:-1, :-2], d[:, 2:, 1:-1] - d[:, :-2, 1:-1]
    axis = (across**2 + down**2 < (2 * RIDGE) ** 2) & (middle >= 1)
    radius = (middle - 0.25).double()  # the edge is half a pixel before, the axis a quarter aside
    count = axis.sum((1, 2)).clamp(min=1)
    mean = (radius * axis).sum((1, 2)) / count
    variance = ((radius - mean[:, None, None]) ** 2 * axis).sum((1, 2)) / count
    return (1 - variance.sqrt() / mean).where(there & axis.any(2).any(1), math.nan)


def _distances(inside: np.ndarray) -> np.ndarray:
    """Distance of each pixel of bool (N, H, W) to the nearest False one, 0 there.

    Squares along columns first, then their lower envelope along rows (Felzenszwalb & Huttenlocher
    2012, equation 2), which among short distances is cheapest tried one by one. The same values as
    scipy.ndimage.distance_transform_edt up to `FARTHEST`, in 0.55 of its time on MNIST.
    """
    _, height, width = inside.shape
    far = np.int16(min(height + width, FARTHEST))
    rows = np.arange(height, dtype=np.int16)[:, None]
    above = np.maximum.accumulate(np.where(inside, -far, rows), axis=1)
    below = np.minimum.accumulate(np.where(inside, height + far, rows)[:, ::-1], axis=1)[:, ::-1]
    column = np.minimum(np.minimum(rows - above, below - rows), far) ** 2
    nearest = column.copy()
    reach, most = 1, int(nearest.max())
    while reach < width and reach * reach < most:
        step = np.int16(reach * reach)
        np.minimum(nearest[..., reach:], column[..., :-reach] + step, out=nearest[..., reach:])
        np.minimum(nearest[..., :-reach], column[..., reach:] + step, out=nearest[..., :-reach])
        reach, most = reach + 1, int(nearest.max()) if reach % 4 == 0 else most
    distances: np.ndarray = np.sqrt(nearest, dtype=np.float32)
    return distances


def _slant(images: Tensor) -> Tensor:
    m = ink(grey(images))
    _, u11, u02 = moments(m)
    return torch.atan2(-u11, u02).rad2deg().where(_inked(m), math.nan)


def _width(images: Tensor) -> Tensor:
    m = ink(grey(images))
    u20, u11, u02 = (u + e for u, e in zip(moments(m), (NOTHING, 0, NOTHING), strict=True))
    return ((u20 - u11**2 / u02).clamp(min=0) / u02).sqrt().where(_inked(m), math.nan)


def _tone(images: Tensor) -> Tensor:
    g = grey(images)
    m = ink(g)
    return ((m * g).sum((1, 2)) / m.sum((1, 2)).clamp(min=NOTHING)).where(_inked(m), math.nan)


def _inked(m: Tensor) -> Tensor:
    return m.amax((1, 2)) > FAINT


# Any image -------------------------------------------------------------------------------------


def _brightness(images: Tensor) -> Tensor:
    return grey(images).mean((1, 2))


def _contrast(images: Tensor) -> Tensor:
    return grey(images).std((1, 2), correction=0)


def _edges(images: Tensor) -> Tensor:
    return gradient(images).mean((1, 2, 3)).double()


def _outline(images: Tensor) -> Tensor:
    g = grey(images)[:, None]
    edge = LINE // 2
    most = F.max_pool2d(F.pad(g, (edge,) * 4, mode="replicate"), LINE, 1)
    closed = -F.max_pool2d(F.pad(-most, (edge,) * 4, mode="replicate"), LINE, 1)
    lines = (closed - g)[:, 0]
    variation, _ = _surface(lines)
    width = _unblurred(2 * lines.sum((1, 2)) / variation.clamp(min=NOTHING))
    return width.where(lines.amax((1, 2)) > FAINT, math.nan)


def _symmetry(images: Tensor) -> Tensor:
    g = grey(images)
    m = ink(g)
    flat = flat_share(g) >= FLAT
    n, _, width = m.shape
    columns = torch.arange(width, dtype=torch.float64)
    mass = m.sum((1, 2))
    centre = (m.sum(1) @ columns) / mass.clamp(min=NOTHING)
    centre = centre.where(flat & (mass > NOTHING), (width - 1) / 2)
    # Of a figure, room for its mirror image: what lies outside is ground.
    m = F.pad(m, (width, width)).where(flat[:, None, None], F.pad(g, (width, width)))
    mirrored = (2 * (centre + width)).round().long()[:, None] - torch.arange(3 * width)
    inside = (mirrored >= 0) & (mirrored < 3 * width)
    other = m.gather(2, mirrored.clamp(0, 3 * width - 1)[:, None].expand(n, m.shape[1], -1))
    seen = torch.zeros(3 * width, dtype=torch.bool)
    seen[width : 2 * width] = True
    seen = (seen | flat[:, None]) & inside
    weight = seen[:, None].expand_as(m).double()
    mean = (m * weight).sum((1, 2)) / weight.sum((1, 2))
    one, two = ((x - mean[:, None, None]) * weight for x in (m, other))
    variance = (one**2).sum((1, 2))
    return ((one * two).sum((1, 2)) / variance).where(variance > NOTHING, math.nan)


def _colourfulness(images: Tensor) -> Tensor:
    red, green, blue = images.double().unbind(1)
    rg, yb = (red - green).flatten(1), ((red + green) / 2 - blue).flatten(1)
    deviation = torch.hypot(rg.std(1, correction=0), yb.std(1, correction=0))
    return deviation + 0.3 * torch.hypot(rg.mean(1), yb.mean(1))


# By name ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """One number of an image.

    name    what a person calls it
    unit    as it is written behind the number; "" for none
    fits    "figures" on flat ground, "photographs" without one, "colour" images, or "any"
    levels  what the lowest, middle and highest third of a data set are called
    source  where the formula is from
    of      uint8 (N, C, H, W) -> float64 (N,); nan where an image has nothing to measure
    version of the formula: another number, other values in the cache
    """

    name: str
    unit: str
    fits: str
    levels: tuple[str, ...]
    source: str
    of: Callable[[Tensor], Tensor]
    version: int = VERSION


THICKNESS = Measure(
    "thickness", "px", "figures", ("thin", "medium", "thick"),
    "Steiner 1840; agrees with Castro et al. 2019, arXiv 1809.10780", _thickness,
)  # fmt: skip
SLANT = Measure(
    "slant", "deg", "figures", ("left", "upright", "right"),
    "Castro et al. 2019, arXiv 1809.10780, section 3", _slant,
)  # fmt: skip
LENGTH = Measure("length", "px", "figures", ("short", "medium", "long"), "Steiner 1840", _length)
WIDTH = Measure(
    "width", "", "figures", ("narrow", "medium", "wide"),
    "Castro et al. 2019, arXiv 1809.10780, section 3, by moments", _width,
)  # fmt: skip
CONSISTENCY = Measure(
    "consistency", "", "figures", ("uneven", "medium", "even"),
    "deviation along the medial axis of Castro et al. 2019", _consistency,
)  # fmt: skip
TONE = Measure("tone", "", "figures", ("dark", "medium", "bright"), "mean of the ink", _tone)
BRIGHTNESS = Measure("brightness", "", "any", ("dark", "medium", "bright"), "mean", _brightness)
CONTRAST = Measure("contrast", "", "any", ("flat", "medium", "strong"), "deviation", _contrast)
EDGES = Measure("edges", "", "any", ("plain", "medium", "busy"), "Sobel 1968", _edges)
OUTLINE = Measure(
    "outline", "px", "photographs", ("thin", "medium", "thick"), "Serra 1982", _outline
)
SYMMETRY = Measure(
    "symmetry", "", "any", ("lopsided", "medium", "symmetric"), "correlation", _symmetry
)
COLOURFULNESS = Measure(
    "colourfulness", "", "colour", ("pale", "medium", "vivid"),
    "Hasler & Suesstrunk 2003, equation 5", _colourfulness,
)  # fmt: skip


def measured(images: Tensor, names: Sequence[str]) -> Tensor:
    """Measures by name of uint8 (N, C, H, W), in pieces: float64 (N, K), nan where impossible."""
    check_batch(images)
    if unknown := [name for name in names if name not in MEASURES]:
        raise InputError(f"'{unknown[0]}' is no measure: {suggest(unknown[0], MEASURES)}")
    measures = [MEASURES[name] for name in names]
    if images.shape[1] != 3 and (colour := [m.name for m in measures if m.fits == "colour"]):
        raise InputError(f"{colour[0]} is of colour images, these are grey: leave it out")
    columns = [
        torch.stack([measure.of(part) for measure in measures], 1)
        for part in images.split(CHUNK)
        if measures
    ]
    return torch.cat(columns) if columns else torch.zeros(len(images), 0, dtype=torch.float64)
