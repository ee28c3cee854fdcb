"""The command line: parse, call the library, show. A user's error is one line, never a traceback.

Its exit code is 2; 1 if another process of the job is the cause. A bug keeps its traceback.

Results go to standard output (with --json one JSON object), progress and notices to standard
error. Whatever is heavy is imported inside the verb that needs it, so that --help is instant.
"""

import contextlib
import errno
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mezzotint.cli.stderr import log_to_stderr, tell
from mezzotint.config.legacy import current_options
from mezzotint.config.registry import SAMPLERS
from mezzotint.errors import InputError, MezzotintError, PeerError, is_out_of_memory
from mezzotint.evaluation.analyses import metric_names
from mezzotint.runtime.log import is_first_rank

__all__ = ["app", "main"]

app = typer.Typer(
    name="mezzotint",
    help="The small-image diffusion studio: train a class- and style-conditional diffusion "
    "model on the machine you have, draw from it in a few evaluations, and look at it.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

MISTAKE = 2
PEER_FAILED = 1
INTERRUPTED = 130
DISK_ERRORS = {
    errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EDQUOT,
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG,
}  # fmt: skip
"""What a person can mend: a full or read-only disk, a place that is not there."""

LONGEST = 900
"""Characters of a complaint; what is longer is cut in its middle."""

Source = Annotated[
    str,
    typer.Argument(
        help="digits, mnist, fashion-mnist, cifar10; a folder (class = subfolder, or parquet "
        "files); or hf:OWNER/NAME."
    ),
]
RunPath = Annotated[Path, typer.Argument(help="A run's directory, as train made it.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where named sets lie, one folder each; also MEZZOTINT_DATA."),
]
Size = Annotated[
    int | None, typer.Option(min=4, max=256, help="Resize images to SIZE x SIZE pixels.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Use so many training images, classes in balance.")
]
Preset = Annotated[
    str | None,
    typer.Option(help="A preset's name or TOML file; default: the one recommended for SOURCE."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one setting, as in training.batch=64. May be repeated."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
Evaluations = Annotated[
    int | None,
    typer.Option(min=1, max=10_000, help="Evaluations of the network per image (NFE)."),
]
SamplerName = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(SAMPLERS)}; or a table, as in '{{kind = \"ddim\", eta = 0.5}}'. dpm++3m "
        "gives its third-order term the whole weight, published code half of it."
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(help="Guidance scale of label and styles: 1 = none, 0 = unconditional."),
]
Autoguidance = Annotated[
    float | None,
    typer.Option(help="Scale of guidance by the run's early snapshot: 1 = none."),
]
Interval = Annotated[
    tuple[float, float] | None,
    typer.Option(help="LOW HIGH: guide only at levels LOW < sigma <= HIGH."),
]
Style = Annotated[
    list[str] | None,
    typer.Option(help="NAME=LEVEL or NAME=NUMBER, of a style that the run has. May be repeated."),
]
Weights = Annotated[str, typer.Option(help="ema (averaged) or network (the last step's).")]
Overwrite = Annotated[bool, typer.Option(help="Replace files that are already there.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        import mezzotint

        print(mezzotint.__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command(
    epilog="Examples:  mezzotint data digits   |   mezzotint data ./photos --size 32 --out s.png"
    "   |   mezzotint data mnist --style thickness --style slant --out styles.png"
)
def data(
    source: Source,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a sheet of samples as .png: a class a row, or a level a row."),
    ] = None,
    styles: Annotated[
        bool, typer.Option("--styles", help="Measure every style that fits, and show levels.")
    ] = False,
    style: Annotated[
        list[str] | None,
        typer.Option(help="Only this style: a measure, or a column of yours. May be repeated."),
    ] = None,
    size: Size = None,
    limit: Limit = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show what a data set holds: counts, classes, size, pixel statistics, styles, a sheet."""
    _refuse_torchrun("data")
    from mezzotint.cli import show
    from mezzotint.data import load
    from mezzotint.data.describe import data_facts, style_facts
    from mezzotint.runtime import outputs

    if out is not None:
        outputs.check_output("--out", out, (".png",), overwrite=overwrite)
    names = style or (None if styles else ())
    images = load(source, size=size, limit=limit, data_dir=data_dir, styles=names)
    if names == ():
        _print(data_facts(images, out), show.data_text, as_json)
    else:
        _print(style_facts(images, out), show.style_text, as_json)


@app.command(
    epilog="Examples:  mezzotint inspect fashion-a   |   mezzotint inspect runs/mnist --out pics"
)
def inspect(
    preset_or_run: Annotated[str, typer.Argument(help="A preset, a TOML file, or a run.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for schedule.png and forward.png."),
    ] = None,
    set_: Set = None,
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show every layer with shape, parameters and FLOPs, and the schedule with its warnings."""
    _refuse_torchrun("inspect")
    from mezzotint.cli import show
    from mezzotint.runs.inspect import PICTURES, inspection
    from mezzotint.runtime import outputs

    if out is not None:
        for name in PICTURES:
            outputs.check_output("--out", out / name, (".png",), overwrite=overwrite)
    facts = inspection(preset_or_run, tuple(set_ or ()), out, data_dir)
    _print(facts, show.inspection_text, as_json)


@app.command(
    epilog="Examples:  mezzotint train digits --out runs/digits --budget 60s   |   "
    "mezzotint train fashion-mnist --preset fashion-a --out runs/a   |   "
    "the same command again resumes; with a larger --budget it goes on."
)
def train(
    source: Source,
    out: Annotated[Path, typer.Option(help="The run's directory, new or to go on with.")],
    preset: Preset = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="The run's total: 40s, 10m, 1h, 30epochs, 20000images, 5Mimages. Default: the "
            "preset's."
        ),
    ] = None,
    limit: Limit = None,
    size: Size = None,
    style: Annotated[
        list[str] | None,
        typer.Option(
            help="A style to learn, besides the label: thickness, slant, … (see data --styles) or "
            "a column of your own. May be repeated."
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="A run whose weights a new one starts with: of other data, or of another --size.",
        ),
    ] = None,
    set_: Set = None,
    checkpoint_every: Annotated[
        str, typer.Option(help="Time or images between checkpoints: 60s, 5m, 20000images.")
    ] = "60s",
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train a model. The same command again resumes where it stopped."""
    from mezzotint.cli import verbs
    from mezzotint.runs.setup import TrainRequest

    request = TrainRequest(
        source, out, preset, budget, limit, size, tuple(style or ()), tuple(set_ or ()),
        device, data_dir, init_from, dry_run,
    )  # fmt: skip
    result, interrupted = verbs.train(request, verbs.every(checkpoint_every))
    _print(result, verbs.train_text, as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command(
    epilog="Examples:  mezzotint sample runs/digits --n 100 --out grid.png   |   "
    "mezzotint sample runs/fashion --label Sandal --seeds 10 --out sandals.png   |   "
    "mezzotint sample runs/digits --n 1000 --out images.npz   |   "
    "mezzotint sample runs/mnist --label 5 --style thickness=thick --style slant=-20deg "
    "--out fives.png   |   mezzotint sample runs/mnist --along slant --out sheet.png   |   "
    "mezzotint sample runs/mnist --prompt 'a thick clear 7' --n 20 --out sevens.png"
)
def sample(
    run: RunPath,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", "-n", min=1, max=10_000_000, help="How many images: 100, or what --seeds says."
        ),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="A class, by name or number; default: all in equal shares.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="FILE.png: a grid; FILE.npz: arrays; a folder: one PNG an image."),
    ] = None,
    strip: Annotated[
        Path | None, typer.Option(help="FILE.png: the reverse process, x and x0 estimate.")
    ] = None,
    animate: Annotated[
        Path | None, typer.Option(help="FILE.gif or FILE.webp: the reverse process, moving.")
    ] = None,
    style: Style = None,
    along: Annotated[
        str | None,
        typer.Option(
            help="A style: a row for each class (with --label: for each of --seeds), one noise a "
            "row, from the style's low to its high values."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")] = 0,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="The first image of so many seeds instead of N of one."),
    ] = None,
    evaluations: Evaluations = None,
    sampler: SamplerName = None,
    guidance: Guidance = None,
    style_guidance: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=SCALE: a style's guidance is --guidance times SCALE; 1 (default) = as the "
            "label, 0 = ignore the style. May be repeated."
        ),
    ] = None,
    autoguidance: Autoguidance = None,
    interval: Interval = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Words that a CLIP's gradient guides to, as in 'a thick clear 7'; {} is the "
            "class of each image. In addition to --label and --guidance."
        ),
    ] = None,
    prompt_scale: Annotated[
        float | None,
        typer.Option(help="How strongly: 1 (default) = as likely as CLIP says, 0 = not at all."),
    ] = None,
    prompt_interval: Annotated[
        tuple[float, float] | None,
        typer.Option(help="LOW HIGH: follow the prompt only at levels LOW < sigma <= HIGH."),
    ] = None,
    prompt_gradient: Annotated[
        str | None,
        typer.Option(
            help="x0 (default; at the estimate alone), or network (through it: 3 times the time)."
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Who reads the prompt: clip (default; the data set's own), clip:ID (hub, folder)."
        ),
    ] = None,
    weights: Weights = "ema",
    checkpoint: Annotated[str, typer.Option(help="last, best (training.best) or early.")] = "last",
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Draw images from a run."""
    from mezzotint.cli import outputs, verbs
    from mezzotint.runs.run import CheckpointRef
    from mezzotint.sampling.prompt import Prompt

    wanted = outputs.Outputs(out, strip, animate, overwrite)
    changes = _settings(
        sampler=sampler,
        evaluations=evaluations,
        guidance=guidance,
        style_guidance=verbs.scales(style_guidance or ()) or None,
        autoguidance=autoguidance,
        interval=interval,
    )
    checkpoint_ref = CheckpointRef(weights, checkpoint, device, _needs_guide_model(autoguidance))
    asked = verbs.pairs("--style", style or ())
    words = Prompt.from_options(prompt, prompt_scale, prompt_interval, prompt_gradient, score)
    request = verbs.SampleRequest(
        run, checkpoint_ref, n, label, asked, along, seed, seeds, changes, dry_run, words, data_dir
    )
    _print(verbs.sample(request, wanted), verbs.sample_text, as_json)


@app.command(
    epilog="Examples:  mezzotint evaluate runs/mnist   |   "
    "mezzotint evaluate runs/mnist --metrics cas   |   "
    "mezzotint evaluate samples.npz --against mnist --n 5000   |   "
    "mezzotint evaluate runs/b --compare runs/a"
)
def evaluate(
    images: Annotated[Path, typer.Argument(help="A run, a folder of images, or an .npz.")],
    against: Annotated[
        str | None, typer.Option(help="The real images, a SOURCE; default: the run's own.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            help=f"Names joined by commas: {', '.join(metric_names())}; or all. Default: all but "
            "cas, which takes long."
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(min=2, help="Samples to use; default: as many as real ones, up to 10000."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Real images to hold them against: test, validation or train.")
    ] = "test",
    extractor: Annotated[
        str,
        typer.Option(help="classifier (the data set's own), inception, dinov2, clip; NAME:WHERE."),
    ] = "classifier",
    seed: Annotated[int, typer.Option(help="Of samples and of random subsets.")] = 0,
    evaluations: Evaluations = None,
    sampler: SamplerName = None,
    guidance: Guidance = None,
    autoguidance: Autoguidance = None,
    interval: Interval = None,
    weights: Weights = "ema",
    checkpoint: Annotated[str, typer.Option(help="last, best or early.")] = "last",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for evaluation.json and pictures; default: the run itself."),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Another run or evaluation.json: print the differences.")
    ] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Evaluate images: numbers with their protocol, floor and anchors."""
    from mezzotint.cli import evaluating
    from mezzotint.evaluation.request import EvaluateRequest
    from mezzotint.runs.run import CheckpointRef

    question = EvaluateRequest(
        target=images,
        against=against,
        metrics=tuple(name.strip() for name in metrics.split(",")) if metrics else (),
        n=n,
        split=split,
        extractor=extractor,
        seed=seed,
        checkpoint=CheckpointRef(weights, checkpoint, device, _needs_guide_model(autoguidance)),
        changes=_settings(
            evaluations=evaluations,
            sampler=sampler,
            guidance=guidance,
            autoguidance=autoguidance,
            interval=interval,
        ),
        out=out,
        data_dir=data_dir,
        command=shlex.join(["mezzotint", *sys.argv[1:]]),
    )
    _print(evaluating.evaluate(question, compare), evaluating.evaluate_text, as_json)


@app.command(
    epilog="Examples:  mezzotint sweep runs/mnist   |   "
    "mezzotint sweep runs/mnist --scales 1,1.25,1.5,2 --n 2000 --interval 0.2 5"
)
def sweep(
    run: RunPath,
    scales: Annotated[
        str, typer.Option(help="Guidance scales, joined by commas: 1 = none, 0 = unconditional.")
    ] = "1,1.5,2,3",
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples at each scale.")] = 1000,
    interval: Annotated[
        tuple[float, float] | None,
        typer.Option(help="LOW HIGH: one more curve, guided only at levels LOW < sigma <= HIGH."),
    ] = None,
    evaluations: Evaluations = None,
    sampler: SamplerName = None,
    seed: Annotated[int, typer.Option(help="Of the samples: the same noise at all scales.")] = 0,
    weights: Weights = "ema",
    checkpoint: Annotated[str, typer.Option(help="last, best or early.")] = "last",
    out: Annotated[
        Path | None, typer.Option(help="Folder for sweep.json and sweep.png; default: the run.")
    ] = None,
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Draw at several guidance scales; what each costs in quality and variety, and which to take.

    Evaluated on the validation split; with autoguidance too where the run kept an early snapshot.
    """
    from mezzotint.cli import outputs, sweeping
    from mezzotint.evaluation.sweep import SweepRequest
    from mezzotint.evaluation.sweep import sweep as swept
    from mezzotint.runs.run import CheckpointRef

    ask = SweepRequest(
        run=run,
        scales=sweeping.scales(scales),
        n=n,
        interval=interval,
        changes=_settings(evaluations=evaluations, sampler=sampler),
        seed=seed,
        checkpoint=CheckpointRef(weights, checkpoint, device),
        out=out,
        data_dir=data_dir,
        command=shlex.join(["mezzotint", *sys.argv[1:]]),
    )
    outputs.check_folder(out, run)
    _print(swept(ask), sweeping.sweep_text, as_json)


@app.command(
    epilog="Examples:  mezzotint report runs/mnist   |   "
    "mezzotint report runs/a runs/b --out compared.html"
)
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run, or several side by side.")],
    out: Annotated[
        Path | None, typer.Option(help="FILE.html; default: report.html in the (first) run.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """One self-contained HTML page: what was trained, what it draws, how good it is."""
    _refuse_torchrun("report")
    from mezzotint.cli import evaluating

    _print(evaluating.report(runs, out, overwrite), evaluating.report_text, as_json)


@app.command(
    epilog="Examples:  mezzotint select runs/mnist --label 5 --pool 15 --top 3 --out best   |   "
    "mezzotint select runs/mnist --refill 1000 --threshold 0.9 --out clean"
)
def select(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="A new folder for the kept images and the sheet.")],
    label: Annotated[
        str | None, typer.Option(help="A class, by name or number; default: every class.")
    ] = None,
    pool: Annotated[int, typer.Option(min=1, help="Images drawn for each pool.")] = 15,
    top: Annotated[int, typer.Option(min=1, help="Images kept of each pool.")] = 3,
    pools: Annotated[
        int, typer.Option(min=1, help="Pools of each class; the more, the surer the numbers.")
    ] = 1,
    score: Annotated[
        str,
        typer.Option(help="clip (the data set's own), clip:ID (a hub id or folder), classifier."),
    ] = "clip",
    refill: Annotated[
        int | None,
        typer.Option(min=1, help="Instead: draw until so many of each class pass --threshold."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Least score: what --refill keeps; else what counts as high quality (0.5).",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")] = 0,
    evaluations: Evaluations = None,
    sampler: SamplerName = None,
    guidance: Guidance = None,
    weights: Weights = "ema",
    checkpoint: Annotated[str, typer.Option(help="last, best or early.")] = "last",
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Draw a pool, keep the best by a score, and say what that did to quality and variety."""
    _refuse_torchrun("select")
    from mezzotint.cli import selecting
    from mezzotint.evaluation import selection
    from mezzotint.runs.run import CheckpointRef

    request = selection.SelectRequest(
        run, out, label, pool, top, pools, score, refill, threshold, seed,
        _settings(sampler=sampler, evaluations=evaluations, guidance=guidance),
        CheckpointRef(weights, checkpoint, device), data_dir,
    )  # fmt: skip
    _print(selection.select(request), selecting.select_text, as_json)


edit = typer.Typer(
    help="Make pictures that are larger than what the model draws.", rich_markup_mode=None
)
app.add_typer(edit, name="edit")


@edit.callback(invoke_without_command=True)
def _edit(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@edit.command(
    epilog='Examples:  mezzotint edit compose runs/mnist "2026" --out 2026.png   |   '
    "mezzotint edit compose runs/mnist --random 5 --n 200 --out numbers   |   "
    'mezzotint edit compose runs/fashion "Sandal,Bag;Coat,Dress" --out grid.png'
)
def compose(
    run: RunPath,
    out: Annotated[
        Path, typer.Option(help="FILE.png: one, enlarged; a folder: PNGs and COCO boxes.")
    ],
    text: Annotated[
        str | None,
        typer.Argument(
            help='Classes: "2026"; names with commas, "Sandal,Bag"; rows with semicolons. A '
            "space, or nothing between two commas, is a gap."
        ),
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, help="Instead of TEXT: so many random classes an image.")
    ] = None,
    strings: Annotated[
        Path | None, typer.Option(help="Instead of TEXT: a file with one text a line.")
    ] = None,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="How many images.")] = 1,
    seed: Annotated[int, typer.Option(help="Image i depends on (seed, i) alone.")] = 0,
    spacing: Annotated[
        int | None,
        typer.Option(
            help="Pixels between neighbours, on average; negative: they interlock. Default: a "
            "seventh of an image."
        ),
    ] = None,
    style: Style = None,
    read: Annotated[
        bool, typer.Option("--read", help="Have the data set's classifier read every place.")
    ] = False,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="Of each window; windows that overlap take twice as many."),
    ] = None,
    sampler: SamplerName = None,
    guidance: Guidance = None,
    weights: Weights = "ema",
    checkpoint: Annotated[str, typer.Option(help="last, best or early.")] = "last",
    overwrite: Overwrite = False,
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Numbers, words and grids of classes as one image, drawn as one, with labels and boxes."""
    _refuse_torchrun("edit compose")
    from mezzotint.cli import editing, verbs
    from mezzotint.runs.run import CheckpointRef

    changes = _settings(sampler=sampler, evaluations=evaluations, guidance=guidance)
    request = editing.ComposeRequest(
        run, out, text, random, strings, n, seed, spacing,
        verbs.pairs("--style", style or ()), read, changes,
        CheckpointRef(weights, checkpoint, device), data_dir, overwrite,
    )  # fmt: skip
    _print(editing.composed(request), editing.compose_text, as_json)


@app.command(
    epilog="Examples:  mezzotint tune runs/mnist --prompt 'a clear {}' --out runs/clear   |   "
    "mezzotint sample runs/clear --out grid.png"
)
def tune(
    run: RunPath,
    prompt: Annotated[
        str, typer.Option(help="What CLIP shall find in the images; {} is the class of each.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the tuned run.")],
    score: Annotated[
        str,
        typer.Option(help="Who reads the prompt: clip (the data set's own), clip:ID."),
    ] = "clip",
    budget: Annotated[str, typer.Option(help="Images drawn in all.")] = "2000images",
    batch: Annotated[int, typer.Option(min=1, help="Of them a step.")] = 32,
    last: Annotated[
        int, typer.Option(min=1, help="Steps of the sampler that the gradient goes through.")
    ] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 3e-4,
    rank: Annotated[
        int | None,
        typer.Option(
            help="Change each layer by a matrix of this rank, which has fewer numbers to train; "
            "without it all weights are tuned.",
        ),
    ] = None,
    bound: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Stop where label accuracy or coverage falls below this share of the first.",
        ),
    ] = 0.95,
    check_every: Annotated[int, typer.Option(min=1, help="Images between two checks.")] = 320,
    check_images: Annotated[int, typer.Option(min=20, help="Samples drawn at a check.")] = 500,
    evaluations: Evaluations = None,
    sampler: SamplerName = None,
    guidance: Guidance = None,
    seed: Annotated[int, typer.Option(help="Of the images drawn.")] = 0,
    weights: Weights = "ema",
    device: Device = "auto",
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Tune a run to a prompt, by the gradient of CLIP's score; makes a new run, stops in time."""
    _refuse_torchrun("tune")
    from mezzotint.cli import tuning
    from mezzotint.finetuning import tune as tunings
    from mezzotint.finetuning.reward import Tuning
    from mezzotint.runs.run import CheckpointRef

    asked = tunings.TuneRequest(
        run, out, prompt, score, last, check_images,
        Tuning(tuning.budget_images(budget), batch, rate, check_every=check_every, bound=bound,
               rank=rank),
        seed, _settings(evaluations=evaluations, sampler=sampler, guidance=guidance),
        CheckpointRef(weights, "last", device), data_dir,
    )  # fmt: skip
    _print(tunings.tune(asked), tuning.tune_text, as_json)


@app.command(
    epilog="Examples:  mezzotint bench   |   mezzotint bench cifar10 --device cuda --seconds 60"
)
def bench(
    preset: Annotated[str, typer.Argument(help="A preset's name or TOML file.")] = "fashion-mnist",
    device: Device = "auto",
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="To measure for; longer where single steps are slow."),
    ] = 20.0,
    as_json: Json = False,
) -> None:
    """What this machine does: images/s for training and sampling, share of its matrix peak."""
    _refuse_torchrun("bench")
    from mezzotint.cli import benchmark

    _print(benchmark.bench(preset, device, seconds), benchmark.bench_text, as_json)


@app.command(epilog="Example:  mezzotint demo --out runs/demo")
def demo(
    out: Annotated[Path, typer.Option(help="The run's directory.")] = Path("runs/demo"),
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """The main job on the embedded digits, end to end, for a first look: about a minute."""
    _refuse_torchrun("demo")
    from mezzotint.cli import demonstration

    result, interrupted = demonstration.demo(out, device)
    _print(result, demonstration.demo_text, as_json)
    if interrupted:
        raise typer.Exit(INTERRUPTED)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the process's entry point."""
    code = run(arguments)
    if _several():
        from mezzotint.runtime.distributed import exit_process

        exit_process(code)
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        with log_to_stderr(), _joined():
            arguments = sys.argv[1:] if arguments is None else arguments
            code = app(current_options(arguments), standalone_mode=False)
    except MezzotintError as error:
        return _complain(str(error), PEER_FAILED if isinstance(error, PeerError) else MISTAKE)
    except typer.Exit as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        print("mezzotint: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # of typer, of the system; a bug is raised again
        line = _line(error)
        if line is None:
            raise
        return _complain(line, MISTAKE)
    return code if isinstance(code, int) else 0


def _needs_guide_model(autoguidance: float | None) -> bool | None:
    """Return whether a guide model is needed; None: as the run's own settings say."""
    return None if autoguidance is None else autoguidance != 1


def _settings(**settings: object) -> dict[str, object]:
    """Return the sampling settings of the command; the run's own hold for the others."""
    return {name: value for name, value in settings.items() if value is not None}


def _several() -> bool:
    """Whether torchrun started several processes of this command."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def _refuse_torchrun(verb: str) -> None:
    """Refuse a verb that does not share its work."""
    if _several():
        raise InputError(f"{verb} works in one process: start it without torchrun")


def _joined() -> contextlib.AbstractContextManager[object]:
    """Work with the others, where there are some; torch is imported only then."""
    if not _several():
        return contextlib.nullcontext()
    from mezzotint.runtime.distributed import init_distributed

    return init_distributed()


def _line(error: Exception) -> str | None:
    """What to say of an error that a person can mend; None of one that is ours."""
    if hasattr(error, "format_message"):  # a mistyped verb or option
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "mezzotint"
        text = error.format_message()
        if errors := getattr(error.__cause__, "errors", None):  # pydantic knows what was given
            text = f"{text}, got '{errors()[0]['input']}'"
        return f"{text}{'' if text.endswith(('.', '?')) else '.'} See {verb} --help"
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"cannot read or write {where}{error.strerror}; free space or choose another place; "
            "nothing saved before is lost"
        )
    if is_out_of_memory(error):
        return (
            "memory ran out: free some, or take a smaller network or less data (--limit); "
            "nothing saved before is lost, the same command goes on"
        )
    return None


def _complain(message: str, code: int) -> int:
    """Print a message as one line and return the exit code."""
    line = " ".join(message.split())
    if len(line) > LONGEST:  # somebody's value or file is in it
        line = f"{line[: LONGEST * 2 // 3]} … {line[-LONGEST // 3 :]}"
    who = "" if is_first_rank() else f"rank {os.environ['RANK']}: "
    tell(f"mezzotint: {who}{line}")
    return code


def _print(result: dict[str, Any], text: Any, as_json: bool) -> None:
    """The result of a verb, for a person or for a program."""
    if is_first_rank():
        print(json.dumps(result) if as_json else text(result))


if __name__ == "__main__":
    main()
