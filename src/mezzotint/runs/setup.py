"""Set up a training: from the user's request to a run that can be trained.

`setup` reads data and configuration, decides for this machine, measures how fast it trains where
the budget is a time, and refuses a directory that holds something else.
"""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mezzotint import kernels
from mezzotint.config.presets import load_preset, preset_variant, recommended
from mezzotint.config.schema import Budget, Config
from mezzotint.config.tables import flatten, override, parse_config, to_table, with_deviation
from mezzotint.data import ImageSet, load
from mezzotint.diffusion import terminal_snr
from mezzotint.errors import CheckpointError, DataError, InputError
from mezzotint.kernels.precision import choose_compute
from mezzotint.runs.facts import DataFacts, Machine, Origin, RunConfig
from mezzotint.runs.run import Run, is_leftover
from mezzotint.runs.speed import OVERHEAD, images_per_second
from mezzotint.runs.trainer import CheckpointInterval
from mezzotint.runtime.device import Compute, resolve_device
from mezzotint.runtime.distributed import Ranks, current_ranks
from mezzotint.runtime.log import log
from mezzotint.training import fitting_weights

__all__ = ["OVERHEAD", "TrainRequest", "setup", "recommended", "warnings"]


LOW_SNR = 0.01
"""Above this terminal SNR (sigma below 10) the last level is visibly not noise."""

FEW_IMAGES = 1000

LEAST_FIT = 0.5
"""Share of a network's weights that the run of `--from` must have."""


@dataclass(frozen=True)
class TrainRequest:
    """What to train, and how."""

    source: str
    out: Path
    _: KW_ONLY
    preset: str | None = None
    budget: str | None = None
    limit: int | None = None
    size: int | None = None
    styles: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    device: str = "auto"
    data_dir: Path | None = None
    init_from: Path | None = None
    """A run whose weights a new one starts with."""

    checkpoint_every: CheckpointInterval = CheckpointInterval()
    dry_run: bool = False
    """Decide everything, measure and write nothing."""

    progress: bool | None = None


def setup(request: TrainRequest) -> tuple[Run, ImageSet]:
    """Return the requested run, new or found, and its data; nothing is written yet."""
    found = _existing(request.out)
    preset = request.preset or recommended(request.source)
    images = (
        found.config.origin.variant_budget
        if found is not None
        else _variant_of_base(request, preset)
    )
    table = _table(request, preset, images, found)
    # Bad settings are said before the data is read.
    asked, ranks = parse_config(table, Config), current_ranks()
    budget = Budget.parse(asked.training.budget)
    _refuse_too_many(ranks, asked)
    data = _data(request, ranks)
    config = parse_config(with_deviation(table, data.deviation), Config)
    if found is None:
        _refuse_undrawable(config)
    facts = DataFacts.of(data)
    network = facts.denoiser(config).network  # refuses what cannot work
    if found is None and request.init_from is not None:
        _check_fit(request.init_from, network)
    origin = Origin(
        source=request.source,
        preset=preset,
        size=request.size,
        limit=request.limit,
        styles=request.styles,
        init_from=_init_from(request, found),
        variant_budget=images,
    )
    if found is not None:
        _refuse_other(found, config, origin, facts)
        machine = _here(found.config.machine, request.device)
    else:
        machine = _new_machine(request.device)
    measured = _with_budget(machine, budget, config, data, dry=request.dry_run)
    if found is not None:
        _refuse_used_up(found, measured)
    images, words = preset_variant(preset, measured.images)
    if found is None and request.init_from is None and images:
        table = _table(request, preset, images)
        config = parse_config(with_deviation(table, data.deviation), Config)
        _refuse_too_many(ranks, config)  # it may have another batch
        origin = origin.model_copy(update={"variant_budget": images})
        log.info(f"{preset} with its settings for {words}")
        measured = _with_budget(machine, budget, config, data, dry=request.dry_run)
    elif origin.variant_budget and measured.images and images != origin.variant_budget:
        log.info(
            f"{preset} keeps its settings for {preset_variant(preset, origin.variant_budget)[1]}"
        )
    machine = measured
    tables = {**to_table(config), "origin": origin, "data": facts, "machine": machine}
    run = Run(request.out, RunConfig.model_validate(tables))
    ranks.barrier()  # nobody writes before all have read what is there
    return run, data


def _data(request: TrainRequest, ranks: Ranks) -> ImageSet:
    """Return the data of a request; DataError where there is nothing to validate on."""
    with ranks.rank0_first():  # the first decodes the images, the others find them in the cache
        data = load(
            request.source,
            size=request.size,
            limit=request.limit,
            styles=request.styles,
            data_dir=request.data_dir,
        )
    if len(data.splits["validation"]) == 0:
        raise DataError(
            f"{request.source}: no class has the 3 images that it takes to hold one out; "
            "bring more images"
        )
    return data


def warnings(config: Config, facts: DataFacts | None = None) -> list[str]:
    """What a user should know before training with a configuration."""
    found = []
    snr = terminal_snr(config.objective.schedule)
    if snr > LOW_SNR and config.sampling.start != "matched":
        found.append(
            f"the noisiest level still shows the image: terminal SNR {snr:.3g}, sigma "
            f"{snr**-0.5:.3g}; sampling starts from noise that the model never saw; "
            "sampling.start=matched or rescaled betas mend it (docs/theory.md, schedules)"
        )
    if facts is not None and facts.train < FEW_IMAGES:
        found.append(
            f"only {facts.train} training images: the model will learn them by heart; train "
            "briefly, or bring more"
        )
    return found


def _table(
    request: TrainRequest, preset: str, images: int, found: Run | None = None
) -> dict[str, Any]:
    """Return the preset for a budget of this many images, with the user's changes.

    A run that is there keeps its own budget and its generator of noise until another is given.
    """
    table = load_preset(preset, images)
    if found is not None:
        own = found.config
        kept = (("training.budget", own.training.budget), ("sampling.noise", own.sampling.noise))
        table = override(table, [f'{name}="{value}"' for name, value in kept])
    table = override(table, request.settings)
    if request.budget is not None:
        table = override(table, [f'training.budget="{request.budget}"'])
    return table


def _refuse_used_up(found: Run, machine: Machine) -> None:
    """InputError for a budget below what a run has seen already, unless it is its own."""
    seen = found.images_seen()
    if 0 < machine.images < min(seen, found.config.machine.images):
        raise InputError(
            f"{found.path} has seen {seen:,} images, more than a budget of {machine.images:,}: "
            "give a larger --budget to go on, or leave it out; nothing was changed"
        )


def _variant_of_base(request: TrainRequest, preset: str) -> int:
    """Return the budget of the preset's variant in the run of `--from`, if of this preset.

    Its weights are of that network.
    """
    if request.init_from is None:
        return 0
    origin = Run.at(request.init_from).config.origin
    return origin.variant_budget if origin.preset == preset else 0


def _existing(out: Path) -> Run | None:
    """The run that lies at `out`; None where nothing lies there; InputError for something else."""
    if out.is_file():
        raise InputError(f"--out {out} is a file: choose a directory for the run")
    if Run.is_at(out):
        return Run.at(out)
    found = list(out.iterdir()) if out.is_dir() else []
    others = [item for item in found if not is_leftover(item.name)]
    if others:
        raise InputError(
            f"--out {out} holds something that is no run ({others[0].name}, …): nothing was "
            "touched; choose an empty or new directory"
        )
    return None


def _init_from(request: TrainRequest, found: Run | None) -> str | None:
    """Return the run whose weights this one starts with, or started with."""
    init_from = str(request.init_from.resolve()) if request.init_from is not None else None
    if found is None:
        return init_from
    began = found.config.origin.init_from
    if init_from not in (None, began):
        raise InputError(
            f"{found.path} started with {began or 'random weights'}, not with {init_from}: leave "
            "out --from to go on with it, or use another --out"
        )
    return began


def _check_fit(base: Path, network: nn.Module) -> None:
    """Say how much of a run's weights a network can take; InputError where it is too little."""
    own = network.state_dict()
    weights, _ = Run.at(base).weights()  # the trainer, which takes them, passes on the notice
    fitting = fitting_weights(network, weights)
    numbers, total = (sum(v.numel() for v in part.values()) for part in (fitting, own))
    if numbers < LEAST_FIT * total:
        raise InputError(
            f"--from {base}: only {numbers:,} of this network's {total:,} weights have a "
            "counterpart of the same name and shape there: train with the preset and the network "
            "settings of that run"
        )
    fresh = [name for name in own if name not in fitting]
    note = f"; random: {', '.join(fresh)}" if fresh else ""
    log.info(f"starting with {numbers:,} of {total:,} weights from {base}{note}")


def _refuse_other(found: Run, config: Config, origin: Origin, facts: DataFacts) -> None:
    """Raise InputError for the first difference between a run and the request."""
    theirs = flatten(to_table(found.config))
    ours = flatten({**to_table(config), "origin": to_table(origin), "data": to_table(facts)})
    differing = [key for key in [*ours, *theirs] if theirs.get(key) != ours.get(key)]
    # The data's fingerprint says more than how its folder was written.
    apart = ("training.budget", "machine.", "origin.")
    wrong = [key for key in differing if not key.startswith(apart)]
    if {"data.fingerprint", "data.styles"} & set(wrong):
        # What was said of the data explains what was measured of it.
        said = ("origin.source", "origin.size", "origin.limit", "origin.styles")
        wrong = [key for key in said if key in differing] + wrong
    if wrong[:1] == ["data.styles"]:
        raise CheckpointError(
            f"{found.path} learned {', '.join(origin.styles)} as another version measured them: "
            "go on with that version, or use another --out"
        )
    if wrong:
        key = wrong[0]
        raise InputError(
            f"{found.path} is a run of another configuration: {key} was "
            f"{theirs.get(key, 'not set')}, is now {ours.get(key, 'not set')}; use the "
            "command it was made with, or another --out"
        )


def _refuse_undrawable(config: Config) -> None:
    """InputError where the run could not be drawn from with its own sampling settings."""
    if config.training.label_dropout == 0 and config.sampling.guidance != 1:
        raise InputError(
            f"sampling.guidance = {config.sampling.guidance:g} compares with what is drawn "
            "without a label, which training.label_dropout = 0 never teaches: set "
            "sampling.guidance to 1, or training.label_dropout to 0.1"
        )


def _refuse_too_many(ranks: Ranks, config: Config) -> None:
    """InputError where so many processes cannot train as one would."""
    if ranks.size > config.training.batch:
        raise InputError(
            f"{ranks.size} processes share batches of {config.training.batch} images: start "
            "fewer, or set training.batch higher"
        )
    if ranks.size > 1 and _normalises_batches(config):
        raise InputError(
            "batch normalisation sees another batch in every process: set network.block.norm to "
            "group, or start one process"
        )


def _normalises_batches(config: Config) -> bool:
    with torch.device("meta"):  # layers without memory
        network = config.network.build(1, ())
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def _new_machine(requested: str) -> Machine:
    """What this machine does best, decided for a new run."""
    compute = choose_compute(requested)
    if compute.device == "cpu" and kernels.library() is None:
        log.info(
            "no C++ kernels, for want of a compiler: training takes half as long again, "
            "sampling twice as long"
        )
    return Machine(
        device=compute.device,
        precision=compute.precision,
        threads=compute.threads,
        images=0,
    )


def _here(machine: Machine, requested: str) -> Machine:
    """The choices of a run as this machine can obey them; says so where it cannot."""
    compute = machine.on_this_machine(requested)
    if machine.torch != torch.__version__:
        log.info(
            f"torch is {torch.__version__}, and was {machine.torch}: no longer equal bit for bit"
        )
        machine = machine.model_copy(update={"torch": torch.__version__})
    if compute == machine.compute():
        best = resolve_device()
        if requested == "auto" and machine.device != best:
            log.info(
                f"this run goes on on {machine.device}, as it was left; --device {best} uses that"
            )
        return machine
    log.info(
        f"this run was made on {_words(machine.compute())} and goes on on {_words(compute)}: "
        "no longer equal bit for bit"
    )
    return machine.model_copy(
        update={
            "device": compute.device,
            "precision": compute.precision,
            "threads": compute.threads,
        }
    )


def _words(compute: Compute) -> str:
    threads = f", threads {compute.threads}" if compute.device == "cpu" else ""
    return f"{compute.device} in {compute.precision}{threads}"


def _with_budget(
    machine: Machine,
    budget: Budget,
    config: Config,
    data: ImageSet,
    *,
    dry: bool,
) -> Machine:
    """The machine's facts with the budget as a number of images; times are measured once."""
    if budget.unit == "images":
        return machine.model_copy(update={"images": max(1, int(budget.amount))})
    if budget.unit == "epochs":
        images = max(1, int(budget.amount * len(data.splits["train"])))
        return machine.model_copy(update={"images": images})
    speed = machine.images_per_second
    if speed == 0 and dry:
        return machine.model_copy(update={"images": 0})  # not known before it is measured
    if speed == 0:
        log.info("measuring how fast this machine trains …")
        speed = round(images_per_second(config, data, machine.compute()), 2)
    images = max(config.training.batch, int(speed * budget.amount * OVERHEAD))
    return machine.model_copy(update={"images_per_second": speed, "images": images})
