"""The command line `lntl`. Each command imports slow modules only when it runs, so that --help is fast."""

import os
import re
import sys
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from io import TextIOWrapper
from typing import Annotated

import typer

from lntl import __version__
from lntl.cli import (
    benchmark,
    card,
    compare,
    configs,
    data,
    explain,
    export,
    init,
    methods,
    models,
    predict,
    probe,
    repair,
    report,
    train,
    tune,
)
from lntl.cli import eval as evaluation
from lntl.cli.arguments import Group
from lntl.errors import Interrupted, UserError, for_terminal, report_to_launcher

app = typer.Typer(
    cls=Group,
    epilog="Add --debug anywhere on the command line to see the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: importing rich takes longer than importing all other modules
)
app.command()(init.init)
app.command()(train.train)
app.command("eval")(evaluation.evaluate)
app.command()(probe.probe)
app.command()(report.report)
app.command()(repair.repair)
app.command()(predict.predict)
app.command()(explain.explain)
app.command()(export.export)
app.command()(card.card)
app.command()(benchmark.benchmark)
app.command()(compare.compare)
app.command()(tune.tune)
app.command()(methods.methods)
app.command()(models.models)
app.command(hidden=True)(benchmark.benchmark_run)
app.command(hidden=True)(tune.tune_job)
app.add_typer(configs.app, name="configs")
app.add_typer(data.app, name="data")


def _show_version(show: bool) -> None:
    if show:
        print(f"lntl {__version__}")
        raise typer.Exit


@app.callback()
def _lntl(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train classifiers that do not use a known bias."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; if the user can correct an error, print it as one sentence on stderr, exit with code 2."""
    words = sys.argv[1:] if arguments is None else arguments
    exit_on_error(lambda: app([word for word in words if word != "--debug"], prog_name="lntl"), "--debug" in words)


def exit_on_error(run: Callable[[], None], debug: bool) -> None:
    """Call `run`; if the user can correct an error, print it as one sentence on stderr and exit with code 2.

    These errors are UserError, OSError (a file that cannot be read or written) and too little memory. If training is
    interrupted, print how to continue it and exit with code 130. debug: show the traceback of an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # escape characters that the terminal's encoding lacks
    try:
        try:
            run()
        finally:
            _flush_stdout()
    except (UserError, OSError, MemoryError, RuntimeError) as error:
        message = _message(error)
        if debug or message is None:
            raise
        if not report_to_launcher(error, message):
            print(f"Error: {for_terminal(message)}", file=sys.stderr)
        raise SystemExit(2) from None
    except Interrupted as interrupted:
        if os.environ.get("RANK", "0") == "0":  # only rank 0 prints the message
            print(
                f"{interrupted}. To continue, run the same command with --resume auto (make train ARGS='--resume "
                "auto').",
                file=sys.stderr,
            )
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        print("Stopped before any work had begun.", file=sys.stderr)
        raise SystemExit(130) from None


def _flush_stdout() -> None:
    """Flush stdout; if that fails, redirect it to /dev/null, because the interpreter flushes once more at its exit."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # a reader such as `head` may close the pipe early
            raise


def _message(error: Exception) -> str | None:
    """Return the sentence for an error that the user can correct; None for a bug in the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename or 'standard output or a temporary file'}: {error.strerror or error}"
        return f"{where}; free some space there and {_HOW_TO_CONTINUE}" if error.errno in (ENOSPC, EDQUOT) else where
    reason = str(error).strip().splitlines()[-1:] or ["no memory left"]
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(reason[0]):
        return (
            f"too little memory: {reason[0][:200]}; set a smaller training.batch_size, evaluation.batch_size or image "
            f"size, and {_HOW_TO_CONTINUE}"
        )
    return None


# Messages of the RuntimeError that torch raises if an allocation fails.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|out of memory|not enough memory|Cannot allocate memory")
_HOW_TO_CONTINUE = "run the same command again (training: with --resume auto); all files written so far are complete"
