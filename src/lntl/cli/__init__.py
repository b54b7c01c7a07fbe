"""The command line `lntl`. Everything heavy is imported by the command that needs it, so that --help is instant."""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from lntl import __version__
from lntl.cli import benchmark, card, compare, configs, data, export, init, methods, models, predict, runs
from lntl.errors import Interrupted, UserError

app = typer.Typer(
    epilog="--debug, anywhere, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(init.init)
app.add_typer(runs.app)
app.command()(predict.predict)
app.command()(export.export)
app.command()(card.card)
app.command()(benchmark.benchmark)
app.command()(compare.compare)
app.command()(methods.methods)
app.command()(models.models)
app.command(hidden=True)(benchmark.benchmark_run)
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
    """Run the command line; an error that the user can mend is one sentence on stderr and exit code 2."""
    words = sys.argv[1:] if arguments is None else arguments
    exit_on_error(lambda: app([word for word in words if word != "--debug"], prog_name="lntl"), "--debug" in words)


def exit_on_error(run: Callable[[], None], debug: bool) -> None:
    """Call `run`; a UserError becomes a sentence and exit code 2, a training that was stopped a hint and code 130."""
    try:
        run()
    except UserError as error:
        if debug:
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if debug:
            raise
        print(f"Error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Interrupted as stop:
        print(
            f"{stop}. To go on, give the same command with --resume auto (make train ARGS='--resume auto').",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        print("Stopped; nothing had begun.", file=sys.stderr)
        raise SystemExit(130) from None
