"""The command line `lntl`. Everything heavy is imported by the command that needs it, so that --help is instant."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lntl.errors import Interrupted, UserError

app = typer.Typer(
    help="Train classifiers that do not use what they should not know.",
    epilog="--debug, anywhere, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
configs_app = typer.Typer(help="List the ready configurations, copy one, or print the JSON Schema.")
data_app = typer.Typer(help="Look at the data of a configuration, or write them to a file.", no_args_is_help=True)
app.add_typer(configs_app, name="configs")
app.add_typer(data_app, name="data")

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a ready configuration.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys, e.g. training.batch_size=64.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; instead of training.device.")]


@app.command()
def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="PATH|auto", help="Continue from a checkpoint, a run folder, or the run's last one."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of the same name.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the last phase; caps the phases before it.")] = None,
    device: Device = None,
) -> None:
    """Train, evaluate on the test set, and show the result."""
    from lntl import commands

    commands.train(config, overrides or [], resume=resume, overwrite=overwrite, epochs=epochs, device=device)


@app.command("eval")
def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", readable=False, help="A run folder (its best model) or a .pth file."
        ),
    ],
    device: Device = None,
) -> None:
    """Evaluate a trained model on the test set."""
    from lntl import commands

    commands.evaluate(target, device)


@app.command()
def benchmark(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", readable=False, help="Configurations, values, seeds.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once, one thread each; default: the cores.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is done and what is missing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A name (* for anything), KEY=VALUE of a grid, or seed=N; may be repeated."),
    ] = None,
) -> None:
    """Make the runs of a plan that are missing, several at once; the same command goes on after a stop."""
    from lntl import benchmarking

    benchmarking.benchmark(plan, workers=workers, dry_run=dry_run, only=only or [])


@app.command()
def compare(
    results: Annotated[Path, typer.Argument(metavar="RESULTS.jsonl", readable=False, help="Lines of a benchmark.")],
    plan: Annotated[
        Path | None, typer.Option(readable=False, help="What counts, and the order; default: plan.yaml beside RESULTS.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: that of RESULTS.")] = None,
    metric: Annotated[str, typer.Option(help="Metric of the test set to compare.")] = "accuracy",
    by: Annotated[str | None, typer.Option(metavar="KEY", help="Key of the grid whose values are the columns.")] = None,
) -> None:
    """Show mean and spread of each method beside the published figures; write table.* and figure.*."""
    from lntl import benchmarking

    benchmarking.compare(results, plan=plan, folder=out, metric=metric, by=by)


@app.command()
def probe(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", readable=False, help="A run folder (its best model) or a .pth file in one."
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A module of f or g, or penultimate; may be repeated. Default: f (z) and that."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Halvings of the test images, with fresh probes for each.")] = 3,
    device: Device = None,
) -> None:
    """Measure how much of the bias is left: fresh probes on frozen features, and recoloured test images."""
    from lntl import commands

    commands.probe(target, layer, seeds, device)


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or configurations whose runs are meant.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes: RUN/report for one run, results/report for several.")
    ] = None,
    device: Device = None,
) -> None:
    """Make a page about a run, or one that compares several: did it unlearn, and what did that cost?"""
    from lntl import commands

    commands.report(runs, out, device)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's equation and settings.")] = None,
) -> None:
    """List the training methods, or describe one."""
    from lntl import describe

    describe.methods(name)


@app.command()
def models(
    name: Annotated[
        str | None,
        typer.Argument(help="Show a model's settings; LIBRARY/ARCHITECTURE, e.g. torchvision/resnet18: its layers."),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Sides in pixels of the images that go through the layers.")] = 224,
) -> None:
    """List the models, or describe one: its settings, its architectures, the layers where f may end."""
    from lntl import describe

    describe.models(name, size)


@configs_app.callback(invoke_without_command=True)
def configs(context: typer.Context) -> None:
    """List the ready configurations, copy one, or print the JSON Schema."""
    if context.invoked_subcommand is None:
        from lntl import describe

        describe.configs()


@configs_app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name of a ready configuration.")],
    folder: Annotated[Path, typer.Argument(help="Where to put the copy.")] = Path(),
) -> None:
    """Copy a ready configuration, to change it."""
    from lntl import describe

    describe.copy_config(name, folder)


@configs_app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from lntl import describe

    describe.schema()


@data_app.command()
def info(config: ConfigArgument = "colored_mnist_default", overrides: Overrides = None) -> None:
    """Show source, sizes and bias of the data."""
    from lntl import describe

    describe.data(config, overrides or [])


@data_app.command()
def make(
    out: Annotated[Path, typer.Argument(metavar="OUT.npz", help="File to write.")],
    config: ConfigArgument = "colored_mnist_default",
    overrides: Overrides = None,
) -> None:
    """Write the rendered images, labels and colors of every split to an .npz file."""
    from lntl import describe

    describe.make_data(out, config, overrides or [])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that the user can mend is one sentence on stderr and exit code 2."""
    given = sys.argv[1:] if arguments is None else arguments
    guarded(lambda: app([a for a in given if a != "--debug"], prog_name="lntl"), debug="--debug" in given)


def guarded(run: Callable[[], None], debug: bool) -> None:
    """Run; turn a UserError into a sentence and exit code 2, a training that was stopped into a hint and code 130."""
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
