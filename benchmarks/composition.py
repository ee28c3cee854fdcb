"""Composing against pasting: random strings, the same places, the same model, the same noise.

    python benchmarks/composition.py RUN --strings 40 --spacing 2 4

Each way draws the same strings at the same places and is evaluated alike: how many digits the data
set's classifier reads in their windows, neighbours and all, and with all but their boxes blanked;
how many strings are so read whole; how many neighbours' strokes run into each other (ink of both
within one pixel); how much steeper the image is across the rims of windows than two pixels beside
them (1: no seam); how many windows' images are read before they are put on the canvas. Ways:

    overwrite   single images pasted, the later over the earlier
    lighter     single images pasted, the stronger ink stays
    mean        one canvas of noise, windows fused by their mean at every step (MultiDiffusion)
    compose     what `mezzotint edit compose` does
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F

from mezzotint import imaging
from mezzotint.cli.stderr import log_to_stderr
from mezzotint.data import load
from mezzotint.diffusion import Condition
from mezzotint.editing.compose import Windows, compose, ink_box, laid_out, read_text
from mezzotint.editing.compose.compose import Composed, random_text, read_back
from mezzotint.imaging import to_uint8
from mezzotint.metrics.extractors.extractor import classifier_for
from mezzotint.runs.run import CheckpointRef, Run
from mezzotint.sampling.denoise import build_denoise
from mezzotint.sampling.noise import image_keys, noise_of

WAYS = ("overwrite", "lighter", "mean", "compose")


def overwritten(windows, x0):
    """The later over the earlier, their ground as well."""
    canvases = torch.full((len(windows.layouts), x0.shape[1], *windows.shape), windows.ground)
    for (i, rows, columns), image in zip(windows._places, x0, strict=True):
        canvases[i, :, rows, columns] = image
    return canvases


def by_mean(model, windows, keys):
    """Bar-Tal et al. 2023, equation 5, with equal weights: canvases (B, C, H', W')."""
    height, width = windows.shape
    own = [
        noise_of(model.sampling.noise, key[None], (model.shape[0], at.height, at.width))
        for key, at in zip(keys, windows.layouts, strict=True)
    ]

    def noise():
        each = [draw()[0] for draw in own]
        sizes = [(0, width - x.shape[2], 0, height - x.shape[1]) for x in each]
        return torch.stack([F.pad(x, size) for x, size in zip(each, sizes, strict=True)])

    count = windows.add(torch.ones(len(windows), 1, *windows.size)).clamp(min=1)
    denoise = build_denoise(model, Condition({"label": windows.labels}))

    def fused(x, sigma):
        ink = denoise(windows.cut(x), sigma) - windows.ground
        return windows.ground + windows.add(ink) / count

    for step in model.reverse(fused, noise):
        last = step
    return last.x.float()


def touching(layout, inks):
    """Neighbours whose ink comes within a pixel of each other, one bool a pair."""
    placed = torch.zeros(len(inks), layout.height, layout.width)
    for k, (top, left) in enumerate(layout.corners):
        seen = inks[k].amax(0) > 0.5
        placed[k, top : top + seen.shape[0], left : left + seen.shape[1]] = seen.float()
    wide = F.max_pool2d(placed[:, None], 3, 1, 1)[:, 0]
    return [bool((a * b).any()) for a, b in zip(wide[:-1], placed[1:], strict=True)]


def seam(pages):
    """Steps of brightness across the rims of windows, relative to those two pixels beside."""
    at, residual = [], []
    for page in pages:
        steps = (page.image[..., 1:].float() - page.image[..., :-1].float()).abs().mean((0, 1))
        starts = [ink.window[0] for ink in page.inks]
        ends = [ink.window[0] + ink.window[2] for ink in page.inks]
        for rim in [start - 1 for start in starts[1:]] + [end - 1 for end in ends[:-1]]:
            at.append(steps[rim])
            residual += [steps[rim - 2], steps[rim + 2]]
    return float(torch.stack(at).mean() / torch.stack(residual).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--strings", type=int, default=40)
    parser.add_argument("--places", type=int, default=5)
    parser.add_argument("--spacing", type=int, nargs="+", default=[4], help="pixels")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for a sheet of each way")
    arguments = parser.parse_args()

    run = Run.at(arguments.run)
    model = run.model(CheckpointRef(device="cpu"))[0]
    if arguments.guidance is not None:
        model = model.changed(guidance=arguments.guidance)
    classifier = classifier_for(load(run.config.origin.source))
    texts = [
        random_text(model.classes, arguments.places, arguments.seed, i)
        for i in range(arguments.strings)
    ]
    rows = [read_text(text, model.classes) for text in texts]
    style = model.style_values({})
    ground, room = compose._measured(model, style)
    size = model.shape[1:]
    singles = {}  # the same at every spacing
    print(f"{run.path}: {arguments.strings} strings of {arguments.places}, seed {arguments.seed}")
    for spacing in arguments.spacing:
        layouts = [laid_out(page, room, size, spacing) for page in rows]
        for way in arguments.ways:
            pages, close, right = [], [], []
            for part in compose._batches(layouts, model.chunk()):
                windows = Windows(layouts[part], size, ground)
                keys = image_keys(arguments.seed, torch.arange(part.start, part.stop))
                if way == "mean":
                    canvases = by_mean(model, windows, keys)
                    x0 = windows.cut(canvases)  # whose ink is whose, nobody knows
                elif way == "compose":
                    x0 = compose._drawn(model, windows, keys, style)
                    canvases = windows.joined(x0)
                else:
                    if part.start not in singles:
                        far = [laid_out(page, room, size, size[1]) for page in rows[part]]
                        singles[part.start] = compose._drawn(
                            model, Windows(far, size, ground), keys, style
                        )
                    x0 = singles[part.start]
                    lighter = way == "lighter"
                    canvases = windows.joined(x0) if lighter else overwritten(windows, x0)
                read = classifier.read(to_uint8(x0)).probabilities.argmax(1)
                right.append(read == windows.labels)
                each = iter(x0 - ground)
                for layout, canvas in zip(windows.layouts, to_uint8(canvases), strict=True):
                    inks = torch.stack([next(each) for _ in layout.labels]) * -ground
                    close += touching(layout, inks)
                    own = zip(inks, layout.labels, layout.corners, strict=True)
                    boxes = tuple(ink_box(*each_ink) for each_ink in own)
                    image = canvas[:, : layout.height, : layout.width]
                    pages.append(
                        Composed(texts[len(pages)], image, boxes, 0 if ground < 0 else 255)
                    )
            show(way, spacing, pages, close, torch.cat(right), classifier, arguments.out)


def show(way, spacing, pages, close, right, classifier, out):
    seen = read_back(pages, classifier)
    whole = seen.boxes.view(len(pages), -1).all(1)
    facts = f"in windows {seen.windows.double().mean():.1%}  seam {seam(pages):.2f}"
    if way != "mean":
        facts += (
            f"  in boxes {seen.boxes.double().mean():.1%}  strings {whole.double().mean():.1%}"
            f"  touching {sum(close) / len(close):.1%}  alone {right.double().mean():.1%}"
        )
    print(f"{way:9} spacing {spacing:2}: {facts}", flush=True)
    if out is not None:
        few = pages[:24]
        wide = max(page.image.shape[2] for page in few)
        sheet = torch.stack([F.pad(p.image, (0, wide - p.image.shape[2])) for p in few])
        imaging.save_png(imaging.grid(sheet, 3, scale=2, gap=3), out / f"{way}{spacing:+d}.png")


if __name__ == "__main__":
    with log_to_stderr():
        main()
