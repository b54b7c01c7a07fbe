"""`lntl benchmark`: make the runs of a plan; `lntl benchmark-run` (hidden): the process of one run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from lntl.benchmark.plan import PlannedRun
    from lntl.benchmark.results import BenchmarkRun, ResultLine
    from lntl.benchmark.runner import Benchmark, BenchmarkProgress


def benchmark(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", readable=False, help="Configurations, values, seeds.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once, one thread each; default: the cores, of a cluster all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show which runs are done and which are missing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A name (* for anything), KEY=VALUE of a grid, or seed=N; may be repeated."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="i/n", help="Every n-th of the runs from the i-th, with results of their own.")
    ] = None,
    on: Annotated[
        str | None, typer.Option(metavar="ray[=HOST:PORT]", help="Make the runs on a Ray cluster; default: here.")
    ] = None,
) -> None:
    """Make the missing runs of a plan, several at once; the same command continues after a stop."""
    import sys
    from contextlib import nullcontext
    from functools import partial

    from lntl import experiment
    from lntl.benchmark import on_ray
    from lntl.benchmark import plan as plans
    from lntl.benchmark.runner import Benchmark
    from lntl.benchmark.shards import Shard
    from lntl.cli import console
    from lntl.errors import Interrupted, UserError

    part = None if shard is None else Shard.parse(shard)
    if part is not None and on is not None:
        raise UserError("--shard and --on: take one of them; a cluster needs no shards")
    checked = plans.read(plan)
    runs = plans.select(plans.planned_runs(checked, plan), only or [])
    runs = runs if part is None else part.of(runs)
    command = (sys.executable, "-P", "-m", "lntl", "benchmark-run")
    at_once = workers or (_cores() if on is None else 0)
    bench = Benchmark(plan.parent / checked.results, command, at_once, checked.keep_runs, checked.split, part)
    if dry_run:
        _print_states(bench, runs)
        return
    console.log_to_console()
    make = bench.run if on is None else partial(on_ray.run, bench)
    cluster = nullcontext() if on is None else on_ray.connected(on)
    with cluster, experiment.stop_signals() as stop:  # Ray has handlers of its own for signals
        try:
            failed = _run(bench, runs, partial(make, runs, stop))
        except Interrupted as interrupted:
            print(f"{interrupted}. To continue, run the same command.", file=sys.stderr)
            raise SystemExit(130) from None
    console.echo(f"{len(runs) - len(failed)} of {len(runs)} runs are done: {bench.own_results}")
    for run, line in failed:
        print(f"failed: {run.title}: {line.error} ({bench.scratch / run.id}.log)", file=sys.stderr)
    if failed:
        raise SystemExit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print_states(bench: "Benchmark", runs: "list[PlannedRun]") -> None:
    """Print a table of the runs and their states: done, begun, failed or missing."""
    from rich.markup import escape
    from rich.table import Table

    from lntl.benchmark import shards
    from lntl.cli.console import out

    missing = {run.id for run in bench.missing(runs)}
    failed = {line.key for line in shards.read(bench.results) if line.failed}
    table = Table("run", "state", title=f"{len(missing)} of {len(runs)} runs are missing", title_justify="left")
    for run in runs:
        state = "failed" if run.key in failed else "begun" if (bench.scratch / run.id).exists() else "missing"
        table.add_row(escape(run.title), state if run.id in missing else "done")
    out.print(table)


def _run(
    bench: "Benchmark", runs: "list[PlannedRun]", make: "Callable[[], Iterator[BenchmarkProgress]]"
) -> "list[tuple[BenchmarkRun, ResultLine]]":
    """Make the missing runs with a progress bar; return those that failed."""
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from lntl.benchmark import shards
    from lntl.benchmark.runner import TimeLeft
    from lntl.cli import console

    failed: list[tuple[BenchmarkRun, ResultLine]] = []
    waiting = bench.missing(runs)
    estimate = TimeLeft(bench.workers, waiting, shards.read(bench.results))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(
        *columns, TextColumn("{task.fields[status]}"), console=console.err, disable=not console.err.is_terminal
    ) as bar:
        begun: set[str] = set()
        task = bar.add_task("runs", total=len(runs), completed=len(runs) - len(waiting), status="")
        for progress in make():
            left = estimate.update(progress)
            running = escape(", ".join(run.title for run in progress.running))
            bar.update(task, status=f"{left} [dim]{running}[/dim]")
            for run in (run for run in progress.running if run.id not in begun):
                begun.add(run.id)
                console.log.info("%s: begun; its log: %s", run.title, bench.scratch / f"{run.id}.log")
            if progress.ended is not None:
                run, line = progress.ended
                failed += [progress.ended] if line.failed else []
                bar.advance(task)
                console.log.info("%s: %s; %s", run.title, _outcome(line), left)
    return failed


def _outcome(line: "ResultLine") -> str:
    if line.metrics is None:
        return f"failed: {line.error}"
    scores = [f"{name}={value:.4f}" for name, value in line.metrics.items() if value is not None]
    return f"{' '.join(scores)} in {line.seconds or 0:.0f} s"


def benchmark_run(config: Path, split: Annotated[Literal["test", "val"], typer.Argument()]) -> None:
    """Train or resume CONFIG, and evaluate it on SPLIT; save and stop if the parent process ends."""
    import sys
    import threading

    from lntl import config as configuration
    from lntl import experiment, ranks
    from lntl.benchmark.runner import DEAD_END
    from lntl.cli import console
    from lntl.cli.train import keep_freed_memory, show_training
    from lntl.errors import DeadEndError
    from lntl.experiment import processes

    settings = configuration.read(config)
    if not processes.is_rank():  # ranks stop with the process that started them
        threading.Thread(target=stop_with_the_parent, daemon=True).start()
    try:
        if processes.launch(settings):
            return
        processes.join(settings)
        console.log_to_console(ranks.is_first())
        keep_freed_memory()
        experiment.train(settings, "auto", split=split, watch=show_training if ranks.is_first() else experiment.exhaust)
    except DeadEndError as error:
        if processes.is_rank():
            raise
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(DEAD_END) from None


def stop_with_the_parent() -> None:
    """Wait until the parent's end of the pipe on stdin is closed, then stop as after SIGTERM."""
    import signal

    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
