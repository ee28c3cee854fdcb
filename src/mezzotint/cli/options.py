"""Options that several commands share, each once.

Nothing here imports torch: `--help` lists every choice at once.
"""

from pathlib import Path
from typing import Annotated

import typer

from mezzotint.cli.texts import Checkpoint, Device, Weights, choices, registered

SAMPLING, PROMPT, RUN = "Sampling", "Prompt", "Run"
MACHINE, OUTPUT = "Data and machine", "Output"
"""Panels of the help."""

SAMPLERS = "mezzotint.config.registry:SAMPLERS"

Source = Annotated[
    str,
    typer.Argument(
        help="digits, mnist, fashion-mnist, cifar10; a folder (class = subfolder, or parquet "
        "files); or hf:OWNER/NAME."
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]
Preset = Annotated[
    str | None,
    typer.Option(help="Name or TOML file of a preset. Default: the one recommended for SOURCE."),
]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one setting: training.batch=64. Repeatable."
    ),
]
Size = Annotated[
    int | None, typer.Option(min=4, max=256, help="Resize images to SIZE x SIZE pixels.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Number of training images to use, classes in balance.")
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of named data sets, one folder each; also MEZZOTINT_DATA.",
        rich_help_panel=MACHINE,
    ),
]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where to compute.", rich_help_panel=MACHINE)
]
Evaluations = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000,
        help="Evaluations of the network per image (NFE). Default: the preset's.",
        rich_help_panel=SAMPLING,
    ),
]
SamplerOption = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        metavar=choices(SAMPLERS),
        autocompletion=registered(SAMPLERS),
        help='Sampler, or a table as in {kind = "ddim", eta = 0.5}. Default: the preset\'s. '
        "dpm++3m gives its third-order term the whole weight, published code half of it.",
        rich_help_panel=SAMPLING,
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="Guidance scale of label and styles: 1 = none, 0 = unconditional. Default: the "
        "preset's.",
        rich_help_panel=SAMPLING,
    ),
]
Autoguidance = Annotated[
    float | None,
    typer.Option(
        help="Scale of guidance by the run's early snapshot: 1 = none. Default: the preset's.",
        rich_help_panel=SAMPLING,
    ),
]
Interval = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH",
        help="Guide only at levels LOW < sigma <= HIGH. Default: the preset's.",
        rich_help_panel=SAMPLING,
    ),
]
StyleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--style",
        metavar="NAME=VALUE",
        help="Level or number of a style that the run has. Repeatable.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Image i depends on (seed, i) alone.")]
WeightsOption = Annotated[
    Weights,
    typer.Option("--weights", help="ema: averaged; raw: the last step's.", rich_help_panel=RUN),
]
CheckpointOption = Annotated[
    Checkpoint,
    typer.Option(
        "--checkpoint",
        help="best: by training.best; snapshot: the early one of training.snapshot.",
        rich_help_panel=RUN,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace files that are already there.", rich_help_panel=OUTPUT
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON object on standard output.", rich_help_panel=OUTPUT),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show what would be done; do nothing.", rich_help_panel=OUTPUT),
]
PromptWords = Annotated[
    str | None,
    typer.Option(
        help="Words that a CLIP's gradient guides to, as in 'a thick clear 7'; {} is the "
        "class of each image. In addition to --label and --guidance.",
        rich_help_panel=PROMPT,
    ),
]
PromptScale = Annotated[
    float | None,
    typer.Option(
        help="1 = as likely as CLIP says, 0 = not at all. Default: 1.",
        rich_help_panel=PROMPT,
    ),
]
PromptInterval = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH",
        help="Follow the prompt only at levels LOW < sigma <= HIGH.",
        rich_help_panel=PROMPT,
    ),
]
PromptGradient = Annotated[
    str | None,
    typer.Option(
        metavar="<x0|network>",
        help="x0: at the estimate alone; network: through it, which takes 3 times as long. "
        "Default: x0.",
        rich_help_panel=PROMPT,
    ),
]
PromptScore = Annotated[
    str | None,
    typer.Option(
        help="The CLIP that reads the prompt: clip (the data set's own), clip:ID (hub id or "
        "folder). Default: clip.",
        rich_help_panel=PROMPT,
    ),
]
