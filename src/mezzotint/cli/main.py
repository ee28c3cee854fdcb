"""The command line: assemble the verbs, run one, and turn a user's error into one line.

The exit code is then 2, or 1 if another process of the job is the cause. A bug keeps its
traceback.

Results go to standard output (with --json one JSON object), progress and notices to standard
error. A verb is a module with a function and `EXAMPLES`, and a line in `VERBS`.
"""

import contextlib
import errno
import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from mezzotint.cli.show import is_torchrun
from mezzotint.cli.stderr import log_to_stderr, tell
from mezzotint.config.legacy import current_options
from mezzotint.errors import MezzotintError, PeerError, is_out_of_memory
from mezzotint.runtime.log import is_first_rank

__all__ = ["VERBS", "build_app", "main", "run"]

VERBS = {
    "data": "mezzotint.cli.data:data",
    "inspect": "mezzotint.cli.inspect:inspect",
    "train": "mezzotint.cli.train:train",
    "sample": "mezzotint.cli.sample:sample",
    "evaluate": "mezzotint.cli.evaluate:evaluate",
    "sweep": "mezzotint.cli.sweep:sweep",
    "report": "mezzotint.cli.report:report",
    "select": "mezzotint.cli.select:select",
    "edit compose": "mezzotint.cli.compose:compose",
    "tune": "mezzotint.cli.tune:tune",
    "bench": "mezzotint.cli.bench:bench",
    "demo": "mezzotint.cli.demo:demo",
}
"""Words of a command -> its function, in the order of --help."""

GROUPS = {"edit": "Make pictures that are larger than what the model draws."}
"""First word of two -> its help."""

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

HELP = {"help_option_names": ["-h", "--help"]}


def build_app() -> typer.Typer:
    """Return the command line with every verb of `VERBS`."""
    app = typer.Typer(
        name="mezzotint",
        help="The small-image diffusion studio: train a class- and style-conditional diffusion "
        "model on the machine you have, draw from it in a few evaluations, and look at it.",
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings=HELP,
    )
    app.callback(invoke_without_command=True)(_root)
    groups = {"": app}
    for name, help_text in GROUPS.items():
        groups[name] = typer.Typer(help=help_text, rich_markup_mode="rich")
        groups[name].callback(invoke_without_command=True)(_group)
        app.add_typer(groups[name], name=name)
    for words, place in VERBS.items():
        group, _, verb = words.rpartition(" ")
        module_name, function = place.split(":")
        module = import_module(module_name)
        examples = "\n\n".join(("Examples:", *module.EXAMPLES))
        groups[group].command(verb, epilog=examples)(getattr(module, function))
    return app


def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        import mezzotint

        print(mezzotint.__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the process's entry point."""
    code = run(arguments)
    if is_torchrun():
        from mezzotint.runtime.distributed import exit_process

        exit_process(code)
    sys.exit(code)


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        with log_to_stderr(), _joined():
            arguments = sys.argv[1:] if arguments is None else arguments
            code = build_app()(current_options(arguments), standalone_mode=False)
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


def _joined() -> contextlib.AbstractContextManager[object]:
    """Work with the others, where there are some; torch is imported only then."""
    if not is_torchrun():
        return contextlib.nullcontext()
    from mezzotint.runtime.distributed import init_distributed

    return init_distributed()


def _line(error: Exception) -> str | None:
    """What to say of an error that a person can mend; None of one that is ours."""
    if hasattr(error, "format_message"):  # a mistyped verb or option
        context = getattr(error, "ctx", None)
        verb = context.command_path if context is not None else "mezzotint"
        text = error.format_message().replace("Value error, ", "")
        errors = getattr(error.__cause__, "errors", None)  # pydantic knows what was given
        if errors is not None and "is not one of" not in text:
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


if __name__ == "__main__":
    main()
